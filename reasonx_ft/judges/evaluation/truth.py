"""Point pairs of a photo with what is true about them: a dataset's own pairs, relations of its ground-truth maps, or
people's judgements of reflectance (equally dark is the same base colour, anything else is not; each counts once)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.types import DIFFERENT, LEFT_OUT, SAME, JudgementTarget, PairTarget, Sample
from reasonx_ft.annotation.coordinates import canonical_points, fractions
from reasonx_ft.annotation.markers import canonical
from reasonx_ft.annotation.pairs import Sampler, bands_of, sample_pairs
from reasonx_ft.annotation.questions import MODALITIES
from reasonx_ft.annotation.true_map import true_map
from reasonx_ft.types import Photo, photo_digest

PAIRS: Final = "pairs"
JUDGEMENTS: Final = "judgements"


@dataclass(frozen=True)
class Truth:
    """points : int64 [J, 2, 2] (pair, first or second, (x, y)), canonical

    relation : modality -> int8 [J], codes of reasonx_eval.types; LEFT_OUT where a pair does not count
    band : int8 [J], which of pairs.BAND_NAMES
    own : whether the pairs are the dataset's own
    """

    points: NDArray[np.int64]
    relation: Mapping[str, NDArray[np.int8]]
    band: NDArray[np.int8]
    own: bool


def judged_modalities(dataset: Dataset, modalities: Sequence[str] | None = None) -> tuple[tuple[str, ...], bool]:
    """What can be asked about a dataset with known answers, and whether it has pairs of its own (see `own_target`).

    Raises
    ------
    UsageError
        Nothing can, or not what was asked for.
    """
    maps = tuple(m for m in MODALITIES if m in dataset.targets)
    own = PAIRS in dataset.targets or (not maps and JUDGEMENTS in dataset.targets)
    have = maps if not own else MODALITIES if PAIRS in dataset.targets else ("albedo",)
    if not have:
        raise UsageError("no ground truth that answers a question about two points: it has "
                         f"{', '.join(dataset.targets)}", where=dataset.name)  # fmt: skip
    for modality in modalities or ():
        if modality not in have:
            raise UsageError(f"no ground truth of {modality}", where=dataset.name,
                             fix=f"--modalities {','.join(have)}")  # fmt: skip
    return tuple(m for m in have if modalities is None or m in modalities), own


def own_target(dataset: Dataset) -> str:
    """The target that a dataset's own pairs come from: exact pairs, or people's judgements."""
    return PAIRS if PAIRS in dataset.targets else JUDGEMENTS


def photo_of(sample: Sample) -> Photo:
    return Photo(sample.id, sample.image, photo_digest(sample.image), sample.id)


def truth_of(
    sample: Sample, photo: Photo, modalities: Sequence[str], *, own: bool, pairs: int, seed: int,
    sampler: Sampler = "stratified",
) -> Truth:  # fmt: skip
    """The pairs of a sample and their relations, with the margins of ground truth.

    Parameters
    ----------
    own : take the dataset's own pairs; otherwise `pairs` are drawn, keyed by seed and photo

    Raises
    ------
    SampleError
        A photo too small for the pairs, ground truth that is missing or can't be read.
    """
    if own:
        target = sample.targets.get(PAIRS, sample.targets.get(JUDGEMENTS))
        if isinstance(target, JudgementTarget):
            return _judged(target, sample.id)
        if not isinstance(target, PairTarget):
            raise SampleError("no point pairs", where=sample.id)
        points = canonical_points(target.points)[target.pairs].astype(np.int64)
        missing = np.full(len(points), LEFT_OUT, dtype=np.int8)
        found = {m: target.relation.get(m, missing) for m in modalities}
        return Truth(points, found, bands_of(points), own)
    image = canonical(photo.image)
    points = sample_pairs(image, photo.digest, pairs, seed=seed, sampler=sampler,
                          size=photo.image.shape[:2]).astype(np.int64)  # fmt: skip
    return Truth(points, {m: map_relation(sample, m, points) for m in modalities}, bands_of(points), own)


def _judged(target: JudgementTarget, where: str) -> Truth:
    """People's judgements as same or different."""
    if not len(target.pairs):
        raise SampleError("no judgement that counts", where=where)
    # a point on the right or lower edge belongs to the last pixel
    inside = np.minimum(target.points, np.nextafter(1.0, 0.0))
    points = canonical_points(inside)[target.pairs].astype(np.int64)
    relation = np.where(target.darker == SAME, SAME, DIFFERENT).astype(np.int8)
    return Truth(points, {"albedo": relation}, bands_of(points), own=True)


def map_relation(sample: Sample, modality: str, points: NDArray[np.int64]) -> NDArray[np.int8]:
    """The relations that a sample's own map has at canonical points [J, 2, 2], int8 [J].

    Raises
    ------
    SampleError
        The sample has no such map, or it can't be compared.
    """
    value, valid = true_map(sample, modality)
    flat = fractions(points.reshape(-1, 2))
    index = np.arange(len(flat), dtype=np.int64).reshape(-1, 2)
    return relation(value=value, points=flat, pairs=index, modality=modality, valid=valid)
