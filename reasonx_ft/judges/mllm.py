"""Any image-text-to-text checkpoint of transformers as a judge: Qwen-VL, InternVL, SmolVLM, LLaVA and their kin."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from reasonx_eval.errors import UsageError
from reasonx_eval.models.adapters.transformers_weights import check_weights
from reasonx_eval.models.loading.checkpoint import Checkpoint
from reasonx_eval.models.loading.runtime import Runtime, in_batches
from reasonx_ft.annotation.questions import Questions, Template
from reasonx_ft.judges.answer_text import certain, read, read_answer
from reasonx_ft.judges.mllm_files import (
    CheckpointJudge,
    check_architecture,
    find_adapter,
    find_model,
    limit_tiles,
    load_model,
    load_processor,
)
from reasonx_ft.judges.mllm_readout import MAX_NEW_TOKENS, Prompter, Readout, Tensors, chat_text, example_picture
from reasonx_ft.training.prefetch import ahead
from reasonx_ft.types import Answer, JudgeInfo, Question

Reading: TypeAlias = Literal["candidates", "text"]

#: questions about one picture, normally
_MODALITIES = 4


@dataclass(frozen=True)
class _Picture:
    """One marked photo: what the model takes, and which modalities are asked about it."""

    tensors: Tensors
    modalities: tuple[str, ...]


class Mllm(CheckpointJudge):
    """A vision-language model, read without free decoding.

    The answer is P(candidate) / (P(candidate) + P(other)) after the chat template, the marked picture, the question
    and the forced beginning of the answer; log-probabilities of candidates with several tokens are summed. Questions
    about one picture are asked together and share the computation up to where their wording parts.

    On the CPU pictures go one by one, so that an answer is the same to the last bit in whatever company it is asked;
    on an accelerator batches hold rows of one length only, without padding, and differ by rounding alone.

    Parameters
    ----------
    checkpoint : folder or hub id
    adapter : folder or hub id of a LoRA adapter (peft, safetensors)
    runtime : where and how it computes
    questions : the wording; default: the package's
    readout : candidates (one forward pass), or text (greedy decoding, then a parser: 1 or 0)
    max_tiles : at most this many tiles of a picture, for models that cut pictures up; 1 sees it as a whole
    batch_size : questions at a time
    share : compute what the questions about a picture have in common once, where the model allows it
    trained_on : datasets that it was tuned on

    Raises
    ------
    UsageError
        No such checkpoint, no vision-language model, code that came with it without leave, pickled weights, a chat
        template or processor that can't be used.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        runtime: Runtime,
        adapter: str | Path | None = None,
        questions: Questions | None = None,
        readout: Reading = "candidates",
        max_tiles: int = 1,
        batch_size: int = 64,
        share: bool = True,
        name: str | None = None,
        trained_on: tuple[str, ...] = (),
    ) -> None:
        if max_tiles < 1 or batch_size < 1:
            raise UsageError("max_tiles and batch_size are at least 1", where=str(checkpoint))
        files = find_model(str(checkpoint), code=runtime.trust_remote_code)
        self._kind = check_architecture(files, runtime)
        if not check_weights(files.folder, files.source):
            raise UsageError("its weights are pickled; a judge reads safetensors", where=files.source)
        self._adapter = None if adapter is None else find_adapter(str(adapter))
        super().__init__(files, runtime, questions, name or _name(files, self._adapter), trained_on, batch_size)
        self._readout, self._share = readout, share
        self._processor = load_processor(files, runtime)
        self._tiles = dict(limit_tiles(self._processor, max_tiles))
        self._chat = chat_text(self._processor, "Q", self._where)
        self._loaded: tuple[Any, Prompter, Readout] | None = None

    @property
    def info(self) -> JudgeInfo:
        shown: dict[str, Any] = {"readout": self._readout, "tiles": self._tiles, "share": self._share}
        decides = {**shown, "chat": self._chat, "adapter": None if self._adapter is None else self._adapter.digest}
        if words := self._readout == "text":
            decides["words"] = MAX_NEW_TOKENS
        if self._adapter is not None:
            shown["adapter"] = self._adapter.source
        return self._info({"type": self._kind, **shown}, decides, words=words)

    def load(self) -> None:
        """Read the weights, if that has not been done."""
        self._ready()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        _, prompter, _ = self._ready()
        for question in questions:
            self._questions[question.modality]
        about: dict[tuple[Any, ...], list[int]] = {}
        for i, q in enumerate(questions):
            about.setdefault((q.photo.digest, q.first, q.second, q.order), []).append(i)

        def prepare(members: list[list[int]]) -> list[_Picture]:
            return [self._prepare(prompter, [questions[i] for i in group]) for group in members]

        size = max(1, self.batch_size // _MODALITIES)
        groups = list(about.values())
        chunks = [groups[k : k + size] for k in range(0, len(groups), size)]
        answers: list[Answer | None] = [None] * len(questions)
        device = self._runtime.torch_device
        start = time.perf_counter()
        prepared = map(prepare, chunks)
        # on an accelerator the next pictures are prepared meanwhile, in one thread: tokenizers don't stand several
        for members, pictures in zip(chunks, prepared if device.type == "cpu" else ahead(prepared), strict=True):
            said = in_batches(pictures, self._compute, device=device, name=self._name)
            seconds = (time.perf_counter() - start) / sum(map(len, members))
            for group, found in zip(members, said, strict=True):
                for i in group:
                    answers[i] = _timed(found[questions[i].modality], questions[i], self._template(i, questions),
                                        seconds)  # fmt: skip
            start = time.perf_counter()
        return [a for a in answers if a is not None]

    def _template(self, i: int, questions: Sequence[Question]) -> Template:
        return self._questions[questions[i].modality]

    def _ready(self) -> tuple[Any, Prompter, Readout]:
        if self._loaded is None:
            prompter = Prompter(self._processor, self._questions, where=self._where)
            network = load_model(self._checkpoint, self._adapter, self._runtime)
            shared = prompter.shared if self._share and self._readout == "candidates" else 0
            readout = Readout(network, self._runtime.torch_device, self._runtime.torch_dtype, shared, where=self._where)
            readout.settle(list(prompter.prompts.values()), prompter.picture(example_picture()))
            self._loaded = (network, prompter, readout)
        return self._loaded

    def _prepare(self, prompter: Prompter, questions: list[Question]) -> _Picture:
        asked = {q.modality for q in questions}
        order = tuple(m for m in prompter.prompts if m in asked)
        return _Picture(prompter.picture(self._painter.paint(questions[0])), order)

    def _compute(self, pictures: Sequence[_Picture]) -> list[dict[str, float | str | None]]:
        """Per picture and modality: log-odds of the first candidate, or what was said."""
        _, prompter, readout = self._ready()
        found: list[dict[str, float | str | None]] = [{} for _ in pictures]
        for asked in dict.fromkeys(p.modalities for p in pictures):
            members = [i for i, p in enumerate(pictures) if p.modalities == asked]
            tensors = [pictures[i].tensors for i in members]
            prompts = [prompter.prompts[m] for m in asked]
            said: Sequence[Sequence[float | str | None]]
            if self._readout == "text":
                said = [readout.words(p, tensors, self._processor.tokenizer) for p in prompts]
            else:
                said = readout.differences(prompts, tensors)
            for modality, row in zip(asked, said, strict=True):
                for i, value in zip(members, row, strict=True):
                    found[i][modality] = value
        return found


def _timed(said: float | str | None, question: Question, template: Template, seconds: float) -> Answer:
    if said is None:
        return read("unfinished", seconds)
    if isinstance(said, str):
        return read(certain(read_answer(said, template), template, question.order), seconds)
    if not math.isfinite(said):
        return read("failed", seconds)
    first = next(iter(template.answers))
    # the odds are turned round, not the probability: 1 - p would lose the last digits of a small one
    towards = said if first == template.positive(question.order) else -said
    return read(_sigmoid(towards), seconds)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _name(checkpoint: Checkpoint, adapter: Checkpoint | None) -> str:
    return checkpoint.name + (f"+{adapter.name}" if adapter else "")
