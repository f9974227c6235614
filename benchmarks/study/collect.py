"""Photos without labels as files, and every judge's answers about them, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.study.design import JUDGES, TRAIN
from benchmarks.study.evaluation import Remembered
from reasonx_eval.io.files import write_bytes
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.registry import load_dataset
from reasonx_ft.annotation.annotate import Plan, annotate, raise_if_partial
from reasonx_ft.annotation.photos import Photos, Recent
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.judges.load import load_judge, needs_targets

#: (what is being done, done, total)
Progress = Callable[[str, int, int], None]


def judge_key(judge: str, seed: int) -> str:
    """Name of a judge's store: the small network answers alike whatever the seed."""
    return judge if JUDGES[judge] is None else f"{judge}-s{seed}"


class Collector:
    """Renders the training photos once, whoever judges them.

    Parameters
    ----------
    photos : how many; pairs : of each photo and modality
    out : gets ``photos`` and ``judgements/KEY``
    """

    def __init__(self, photos: int, pairs: int, out: Path, progress: Progress) -> None:
        name, split = TRAIN
        dataset = load_dataset(name, split=split)
        self._ids = select(dataset.ids, Selection(limit=photos))
        self._dataset, self._pairs, self._out, self._progress = Remembered(dataset), pairs, out, progress

    def photos(self) -> Path:
        """A folder with the photos as PNG files; those that are there stay."""
        folder = self._out / "photos"
        for k, sample_id in enumerate(self._ids):
            path = folder / f"{sample_id.replace('/', '-')}.png"
            if not path.is_file():
                write_bytes(path, _png(self._dataset.load(sample_id).image))
            self._progress("photos", k + 1, len(self._ids))
        return folder

    def answers(self, judge: str, seed: int) -> Path:
        """The store of a judge; asks only what is not in it."""
        store = self._out / "judgements" / judge_key(judge, seed)
        # complete stores are not even opened: rendering the photos again would take longer than a tuning
        done = store / ".complete"
        if done.is_file():
            return store
        given = JUDGES[judge]
        spec = judge if given is None else "oracle"
        options: dict[str, Any] = {} if given is None else {**given, "seed": seed}
        recent = Recent(self._dataset, needs_targets(spec))
        asked = load_judge(spec, options=options, questions=read_questions(None), dataset=recent)
        plan = Plan(pairs=self._pairs, orders="random", seed=0 if given is None else seed)
        try:
            summary = annotate(Photos(self._ids, recent=recent), asked, store, read_questions(None), plan,
                               lambda n, total, _failed: self._progress(f"{judge} judge", n, total))  # fmt: skip
        finally:
            asked.close()
        raise_if_partial(summary, store)
        write_bytes(done, b"")
        return store


def _png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
