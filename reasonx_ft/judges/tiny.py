"""The small judge of this package as a judge: looks at a photo once and answers every pair of its points.

It sees 96 x 128 pixels, whatever the photo's size and shape, and the same mirrored, and takes the mean of what it says
about both. It sees no drawn markers: the points reach it as coordinates.
So both colour orders have the same answer, and exchanging the points gives the opposite one exactly.
"""

from __future__ import annotations

import copy
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import UsageError, unknown
from reasonx_ft.annotation.coordinates import View
from reasonx_ft.judges.tiny_files import WEIGHTS, JudgeCard, load_judge_net, read_card
from reasonx_ft.types import FLAGS, Answer, AnswerBatch, Judge, JudgeInfo, Photo, Question, QuestionBatch

if TYPE_CHECKING:
    from torch import Tensor

    from reasonx_ft.judges.tiny_net import JudgeNet, Seen

T = TypeVar("T")
R = TypeVar("R")

_DTYPES: Final = ("float32", "bfloat16")
_LOADED: Final = ("network", "eyes")
#: pairs answered at a time; always as many, so that no answer depends on how many were asked
_CHUNK: Final = 64
#: photos whose features are kept
_KEPT: Final = 4


class TinyJudge(Judge):
    """The small network, trained on rendered rooms only.

    Parameters
    ----------
    weights : another .safetensors file of this network, with its card beside it
    device : cpu (also what auto means), cuda or mps
    threads : that share out the photos of a batch; None is one a core. They change no answer
    dtype : float32, or bfloat16, in which photos are looked at (pairs are answered in float32): twice as fast on
        processors with units for it; its answers are those of another revision

    Raises
    ------
    UsageError
        No such weights, no thread, or another dtype.
    """

    batch_size = 4096

    def __init__(self, *, weights: Path | None = None, device: str = "auto", threads: int | None = None,
                 dtype: str = "float32") -> None:  # fmt: skip
        if dtype not in _DTYPES:
            raise unknown("dtype", dtype, _DTYPES, where="judge tiny")
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; needs 1 or more", where="judge tiny")
        self._shipped, self._dtype = weights is None, dtype
        self._weights = WEIGHTS if weights is None else Path(weights)
        # made for the CPU, where a photo takes some 10 ms; auto gives the same digits with and without a GPU
        self._device = "cpu" if device == "auto" else device
        # a GPU answers one photo after the other in any case
        self._threads = (threads or os.cpu_count() or 1) if self._device == "cpu" else 1
        self._seen: OrderedDict[str, tuple[Seen, Seen]] = OrderedDict()
        _ = self.card  # a missing file is said at once

    @cached_property
    def card(self) -> JudgeCard:
        return read_card(self._weights)

    @property
    def info(self) -> JudgeInfo:
        card = self.card
        where = "" if self._device == "cpu" else f"-{self._device.partition(':')[0]}"
        where += "" if self._dtype == "float32" else f"-{self._dtype}"
        return JudgeInfo(
            name="tiny" if self._shipped else self._weights.stem,
            revision=card.weights_sha256[:16] + where,
            licence=card.licence,
            parameters=card.parameters,
            trained_on=tuple(f"{d.dataset}/{d.split} ({d.n})" for d in card.data),
            options={"device": self._device.partition(":")[0], "dtype": self._dtype},
            notes=(card.description,),
        )

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question; photos are looked at once each, pairs are answered once whatever is asked of them."""
        from reasonx_ft.judges.tiny_net import JUDGED

        groups: dict[str, list[int]] = {}
        for k, question in enumerate(questions):
            groups.setdefault(question.photo.digest, []).append(k)
        asked, numbers = [], []
        for rows in groups.values():
            pairs: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
            numbers.append([pairs.setdefault((questions[k].first, questions[k].second), len(pairs)) for k in rows])
            asked.append((questions[rows[0]].photo, np.array(list(pairs), dtype=np.int64)))
        answers: list[Answer | None] = [None] * len(questions)
        for rows, number, found in zip(groups.values(), numbers, self._probabilities(asked), strict=True):
            columns = {m: found[:, c].tolist() for c, m in enumerate(JUDGED)}
            for k, pair in zip(rows, number, strict=True):
                p = columns[questions[k].modality][pair]
                answers[k] = Answer(p) if math.isfinite(p) else Answer(math.nan, "failed")
        return [a for a in answers if a is not None]

    def answer(self, batches: Sequence[QuestionBatch]) -> AnswerBatch:
        """As `ask`, without an object a question."""
        from reasonx_ft.judges.tiny_net import JUDGED

        batches = [batch for batch in batches if len(batch)]
        used = [np.unique(batch.pair, return_inverse=True) for batch in batches]
        asked = [(batch.photo, batch.pairs[pairs]) for batch, (pairs, _) in zip(batches, used, strict=True)]
        parts = [np.zeros(0)]
        for batch, (_, row), found in zip(batches, used, self._probabilities(asked), strict=True):
            column = np.array([JUDGED.index(m) for m in batch.modalities])
            parts.append(found[row, column[batch.modality]])
        probability = np.concatenate(parts)
        finite = np.isfinite(probability)
        flag = np.where(finite, FLAGS.index("ok"), FLAGS.index("failed")).astype(np.int8)
        return AnswerBatch(np.where(finite, probability, np.nan), flag, np.zeros(len(probability)))

    def close(self) -> None:
        self._seen.clear()
        for name in _LOADED:
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _LOADED} | {"_seen": OrderedDict()}

    @cached_property
    def network(self) -> JudgeNet:
        from reasonx_eval.models.loading.runtime import pick_device

        return load_judge_net(self._weights, self.card).to(pick_device(self._device))

    @cached_property
    def eyes(self) -> JudgeNet:
        """What looks at photos: the network, or a copy of it in fewer bits."""
        import torch

        return copy.deepcopy(self.network).to(torch.bfloat16) if self._dtype == "bfloat16" else self.network

    def _probabilities(self, asked: Sequence[tuple[Photo, NDArray[np.integer]]]) -> list[NDArray[np.float64]]:
        """Of FIRST or SAME, float64 [J, 4] in the order of JUDGED, for photos with canonical points [J, 2, 2]."""
        from reasonx_ft.judges.tiny_net import of_both_ways

        _ = self.network, self.eyes  # read before threads ask for them
        unseen = {photo.digest: photo for photo, _ in asked if photo.digest not in self._seen}
        with self._in_threads() as each:
            # steps of even length: with few photos, whole ones would leave threads without work
            ways = list(each(self._ways, unseen.values()))
            looks = each(self._look, [way for photo in ways for way in photo])
            seen = self._seen | {digest: of_both_ways([next(looks) for _ in photo])
                                 for digest, photo in zip(unseen, ways, strict=True)}  # fmt: skip
            found = list(each(self._answers, [(seen[photo.digest], points) for photo, points in asked]))
        for photo, _ in asked:
            self._seen[photo.digest] = seen[photo.digest]
            self._seen.move_to_end(photo.digest)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return found

    @contextmanager
    def _in_threads(self) -> Iterator[Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]]:
        """A `map` that shares out its calls, torch being on one thread in each."""
        import torch

        from reasonx_eval.models.loading.runtime import one_thread

        if self._threads == 1:
            with one_thread():
                yield map
        else:
            with one_thread(), ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads,
                                                   initargs=(1,)) as pool:  # fmt: skip
                yield pool.map

    def _ways(self, photo: Photo) -> list[Tensor]:
        """Pictures to look at, [B, 3, 96, 128] each."""
        import torch

        from reasonx_eval.models.loading.runtime import to_tensor
        from reasonx_ft.judges.tiny_net import both_ways

        with torch.inference_mode():
            return both_ways(self.eyes, to_tensor(small(photo.image), self.network.place.device)[None])

    def _look(self, pictures: Tensor) -> Seen:
        import torch

        with torch.inference_mode():
            return self.eyes.look(pictures)

    def _answers(self, about: tuple[tuple[Seen, Seen], NDArray[np.integer]]) -> NDArray[np.float64]:
        """Probabilities [J, 4] from what was seen of a photo, and canonical points [J, 2, 2]."""
        import torch

        from reasonx_ft.judges.tiny_net import SIZE, answers_of_both

        seen, points = about
        at = View(*SIZE).locate(points)
        pixels = np.stack([at.cols, at.rows], axis=-1)
        padded = np.zeros((-(-len(pixels) // _CHUNK) * _CHUNK, 2, 2), dtype=np.int64)
        padded[: len(pixels)] = pixels
        with torch.inference_mode():
            where = torch.from_numpy(padded)[None].to(self.network.place.device)
            logits = answers_of_both(self.network, seen, where, at_a_time=_CHUNK)[0]
            found: NDArray[np.float64] = torch.sigmoid(logits.to("cpu", torch.float64)).numpy()[: len(pixels)]
        return found


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo [H, W, 3] at the size the network sees, [96, 128, 3], by a filter that averages where it shrinks."""
    from PIL import Image

    from reasonx_ft.judges.tiny_net import SIZE

    if image.shape[:2] == SIZE:
        return image
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized)
