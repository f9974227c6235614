"""`reasonx_ft.annotate`: what the command of the same name calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonx_ft.annotation import annotate as annotation
from reasonx_ft.annotation.annotate import AskedOrders, Plan, Progress, Summary
from reasonx_ft.annotation.pairs import Sampler
from reasonx_ft.annotation.photos import Photos, open_photos
from reasonx_ft.annotation.questions import Questions, read_questions
from reasonx_ft.annotation.store.writer import SECONDS
from reasonx_ft.judges.load import load_judge, needs_targets
from reasonx_ft.types import Judge


def annotate(
    photos: str | Path | Photos, judge: str | Judge, out: str | Path, *, options: Mapping[str, Any] | None = None,
    pairs: int = 40, modalities: Sequence[str] = ("depth", "normals", "irradiance", "albedo"),
    orders: AskedOrders = "both", sampler: Sampler = "stratified", questions: str | Path | Questions | None = None,
    seed: int = 0, root: str | Path | None = None, dataset_options: Mapping[str, Any] | None = None,
    limit: int | None = None, shard: str | None = None, batch_size: int | None = None, device: str | None = None,
    dtype: str | None = None, trust_remote_code: bool = False, retry_failed: bool = False,
    flush_seconds: float = SECONDS, workers: int = 2, progress: Progress | None = None,
) -> Summary:  # fmt: skip
    """Ask a judge about pairs of points of every photo, and keep the answers in a judgement store.

    The same call goes on where an earlier one stopped: a question that the store has an answer to is not asked again.

    Parameters
    ----------
    photos : folder of photos (png and jpg, in it and below), one image file, ``dataset:NAME[/SPLIT]``, or open photos;
        root, dataset_options, limit, shard : of the first three, as `reasonx_ft.annotation.photos.open_photos` takes
        them
    judge : oracle, tiny, ``mllm:FOLDER``, ``mllm:OWNER/NAME``, ``server:URL``, reasonx, ``FILE.py:Class``, or an
        object; options, batch_size, device, dtype, trust_remote_code : of a judge that is named
    out : folder of the judgement store; it is made where there is none
    pairs : pairs of points a photo
    modalities : what the questions are about: depth, normals, irradiance, albedo
    orders : ask with both colour orders of the markers, with red first, or with one that is drawn at random
    sampler, seed : how the pairs are drawn; ``bands`` as published
    questions : TOML with another wording
    retry_failed : ask again what was answered without a probability
    flush_seconds : the longest that an answer waits for its shard; a kill loses no more
    workers : threads that read photos
    progress : called often, with (answers so far, answers in all, photos that can't be read)

    Returns
    -------
    Counts of photos, questions and answers; `unreadable` names each photo that could not be read, with the reason, and
    `interrupted` says that Ctrl-C ended the call early. `reasonx_ft.annotation.annotate.raise_if_partial` raises where
    photos or answers are missing.

    Raises
    ------
    UsageError
        An unknown judge, modality, dataset or option, a value out of range, no photos, a folder that is no judgement
        store.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = annotate("dataset:scenes-wild/test", "tiny", folder, limit=1, pairs=3)
    >>> summary.photos, summary.asked, summary.flags
    (1, 24, {'ok': 24})
    """
    plan = Plan(pairs, tuple(modalities), orders, sampler, seed, retry_failed, seconds=flush_seconds, workers=workers)
    wording = questions if isinstance(questions, Questions) else read_questions(questions)
    plan.check(wording)
    if not isinstance(photos, Photos):
        want = needs_targets(judge) if isinstance(judge, str) else ()
        photos = open_photos(str(photos), root=None if root is None else Path(root), dataset_options=dataset_options,
                             limit=limit, shard=shard, want=want)  # fmt: skip
    if isinstance(judge, Judge):
        return annotation.annotate(photos, judge, Path(out), wording, plan, progress)
    named = load_judge(judge, options=options or {}, questions=wording, dataset=photos.recent, device=device,
                       dtype=dtype, batch_size=batch_size, trust_remote_code=trust_remote_code)  # fmt: skip
    try:
        return annotation.annotate(photos, named, Path(out), wording, plan, progress)
    finally:
        named.close()
