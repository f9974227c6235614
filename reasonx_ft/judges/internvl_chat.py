"""The published judge: an InternVL 2.5 chat checkpoint, whose own Python code holds the conversation.

Interface, as InternVL's model cards state it: ``AutoModel`` with the checkpoint's code; ``model.chat(tokenizer,
pixel_values, question, generation_config)`` gives the reply as text; pixel values are tiles of the picture, float
[T, 3, S, S] with ImageNet's mean and deviation, S = ``force_image_size`` or the vision tower's size, plus the whole
picture as a last tile where there are several.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError, one_line
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.models.adapters.transformers_weights import check_weights, load_network
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.annotation.questions import Questions
from reasonx_ft.judges.answer_text import certain, read, read_answer
from reasonx_ft.judges.mllm_files import CheckpointJudge, find_model
from reasonx_ft.types import CANONICAL, Answer, JudgeInfo, Question

RELEASED: Final = "adirik/InternVL2_5-4B-Intrinsic-Judge"
_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class InternvlChat(CheckpointJudge):
    """An InternVL chat checkpoint with its own code; its words are parsed, an answer is 1 or 0.

    It was tuned on one wording, which stands in its own repository under its own licence: give it as `questions`.
    Questions go one by one.

    Parameters
    ----------
    checkpoint : folder or hub id; default: the published one
    runtime : where and how it computes; it must allow code that comes with a checkpoint
    questions : the wording; default: the package's
    max_tiles : at most this many tiles of a picture (the published judge was tuned with 6; 512 x 512 makes one)
    max_new_tokens : of a reply
    trained_on : datasets that it was tuned on

    Raises
    ------
    UsageError
        Its code may not run, no such checkpoint, or none of this kind.
    """

    def __init__(
        self,
        checkpoint: str | Path = RELEASED,
        *,
        runtime: Runtime,
        questions: Questions | None = None,
        max_tiles: int = 6,
        max_new_tokens: int = 128,
        name: str | None = None,
        trained_on: tuple[str, ...] = ("hypersim", "interiorverse"),
        batch_size: int = 64,
    ) -> None:
        if not runtime.trust_remote_code:
            raise UsageError("this judge is Python code that comes with its checkpoint; it is not run",
                             where=str(checkpoint), fix="--trust-remote-code, after reading that code")  # fmt: skip
        if max_tiles < 1 or max_new_tokens < 1:
            raise UsageError("max_tiles and max_new_tokens are at least 1", where=str(checkpoint))
        files = find_model(str(checkpoint), code=True)
        self._side = _tile_side(files)
        check_weights(files.folder, files.source)
        own = files.source.partition("@")[0].rstrip("/").rpartition("/")[2]
        super().__init__(files, runtime, questions, name or own, trained_on, batch_size)
        self._max_tiles, self._max_new_tokens = max_tiles, max_new_tokens
        self._loaded: tuple[Any, Any] | None = None

    @property
    def info(self) -> JudgeInfo:
        code = {p.relative_to(self._checkpoint.folder).as_posix(): sha256_file(p)
                for p in sorted(self._checkpoint.folder.rglob("*.py"))}  # fmt: skip
        decides = {"tiles": self._max_tiles, "tokens": self._max_new_tokens}
        return self._info({"readout": "text", "tile": self._side, **decides}, {"code": code, **decides}, words=True)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        for question in questions:
            self._questions[question.modality]
        return [self._one(q) for q in questions]

    def _one(self, question: Question) -> Answer:
        template = self._questions[question.modality]
        start = time.perf_counter()
        network, tokenizer = self._ready()
        tiles = torch.from_numpy(cut(self._painter.paint(question), self._side, self._max_tiles))
        tiles = tiles.to(self._runtime.torch_device, self._runtime.torch_dtype)
        how = {"max_new_tokens": self._max_new_tokens, "do_sample": False}
        try:
            with torch.inference_mode():
                reply = network.chat(tokenizer, tiles, f"<image>\n{template.question}", how)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise UsageError(f"its code failed on a question: {one_line(error)}", where=self._where) from error
        if not isinstance(reply, str):
            raise UsageError(f"its chat gives {type(reply).__name__}, not text", where=self._where)
        # chat() gives words alone: a reply of as many tokens as are allowed has been cut off
        whole = len(tokenizer(reply, add_special_tokens=False)["input_ids"]) < self._max_new_tokens
        said = certain(read_answer(reply, template) if whole else "unfinished", template, question.order)
        return read(said, time.perf_counter() - start)

    def _ready(self) -> tuple[Any, Any]:
        if self._loaded is None:
            library: Any = import_module("transformers")  # its functions have no types
            network = load_network(self._checkpoint, library.AutoModel, dtype=self._runtime.torch_dtype,
                                   trust_remote_code=True)  # fmt: skip
            if not callable(getattr(network, "chat", None)):
                raise UsageError(f"{type(network).__name__} has no chat(): no InternVL chat checkpoint",
                                 where=self._where)  # fmt: skip
            try:
                tokenizer = library.AutoTokenizer.from_pretrained(
                    str(self._checkpoint.folder), local_files_only=True, trust_remote_code=True
                )
            except Exception as error:
                raise UsageError(f"transformers can't load its tokenizer: {one_line(error)}",
                                 where=self._where) from None  # fmt: skip
            self._loaded = (network.to(self._runtime.torch_device), tokenizer)
        return self._loaded


def cut(picture: NDArray[np.uint8], side: int, most: int) -> NDArray[np.float32]:
    """A square picture, uint8 [512, 512, 3], as normalised tiles, float32 [T, 3, side, side], by rows.

    InternVL's rule for a square: n x n tiles for the largest n with n * n <= most whose tiles together have less than
    twice the picture's area; with n > 1 the whole picture at one tile's size comes last.
    """
    from PIL import Image

    n = 1
    while (n + 1) ** 2 <= most and 0.5 * side**2 * (n + 1) ** 2 < CANONICAL**2:
        n += 1
    image = Image.fromarray(picture)
    large = np.asarray(image.resize((side * n, side * n), Image.Resampling.BICUBIC))
    tiles = [large[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(n) for c in range(n)]
    if n > 1:
        tiles.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)))
    scaled = (np.stack(tiles).astype(np.float32) / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _tile_side(checkpoint: Checkpoint) -> int:
    """Pixels of a tile's side, from config.json."""
    config = checkpoint.config or {}
    vision = config.get("vision_config")
    side = config.get("force_image_size") or (vision.get("image_size") if isinstance(vision, dict) else None)
    if not (config.get("auto_map") or {}).get("AutoModel") or not isinstance(side, int) or not 14 <= side <= 4096:
        raise UsageError("config.json is none of an InternVL chat checkpoint (auto_map with AutoModel, "
                         "force_image_size or vision_config.image_size)", where=checkpoint.source,
                         fix="--judge mllm:FOLDER for checkpoints in transformers' form")  # fmt: skip
    return side
