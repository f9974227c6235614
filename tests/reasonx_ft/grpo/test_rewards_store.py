"""From a judge's answers to rewards: through the store or past it, and to the right pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasonx_eval.io.seeding import rng
from reasonx_ft.annotation.coordinates import View
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.questions import read_questions
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.types import CANONICAL, ORDERS, Answer, Judge, JudgeInfo, Photo, Question, photo_digest
from tests.reasonx_ft.policies.policy_fakes import CHANNELS, generator

SIZE = (24, 32)


class Hasher(Judge):
    """Answers by a random number keyed by the question, with a taste for red; refuses some."""

    @property
    def info(self) -> JudgeInfo:
        return JudgeInfo("hasher", "rev0")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        found = []
        for q in questions:
            draw = rng(0, q.photo.digest, q.modality, q.order, *map(str, (*q.first, *q.second)))
            found.append(Answer(float("nan"), "refused") if draw.random() < 0.1 else Answer(float(draw.random())))
        return found


def _photos(count: int) -> list[Photo]:
    images = [rng(k, "photo").integers(0, 256, (*SIZE, 3), dtype=np.uint8) for k in range(count)]
    return [Photo(f"p{k}", image, photo_digest(image)) for k, image in enumerate(images)]


def _points(photo: Photo, pairs: int) -> NDArray[np.int64]:
    return rng(1, photo.digest).integers(0, CANONICAL, (pairs, 2, 2))


def _judged(modality: str, points: NDArray[np.integer], probability: NDArray[np.floating]) -> Judged:
    at = View(*SIZE).locate(points)
    assert at.inside.all()
    p = torch.from_numpy(np.asarray(probability, dtype=np.float32))
    return Judged(modality, torch.from_numpy(at.rows)[None], torch.from_numpy(at.cols)[None], p[None],
                  (~p.isnan()).float()[None])  # fmt: skip


@pytest.mark.parametrize("modality", CHANNELS)
def test_oracle_33_the_store_rewards_as_the_live_judge_does(modality: str, tmp_path: Path) -> None:
    judge, photos = Hasher(), _photos(3)
    live: dict[str, Judged] = {}
    with Store.open(tmp_path / "s", create=True).writer(judge.info, read_questions()) as writer:
        for photo in photos:
            points = _points(photo, 40)
            by_order = []
            for order in ORDERS:
                questions = [Question(photo, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), modality, order)
                             for a, b in points]  # fmt: skip
                answers = judge.ask(questions)
                writer.append(questions, answers)
                by_order.append([a.probability for a in answers])
            asked = np.array(by_order, dtype=np.float32).astype(np.float64)
            count = (~np.isnan(asked)).sum(axis=0)
            mean = np.where(count > 0, np.nansum(asked, axis=0) / np.maximum(count, 1), np.nan)
            live[photo.digest] = _judged(modality, points, mean)
    table = Store.open(tmp_path / "s").table(modality=modality)
    for photo in photos:
        stored = _judged(modality, *table.of(photo.digest))
        maps = torch.rand(1, 6, CHANNELS[modality], *SIZE, generator=generator(0)) + 0.1
        maps = 0.5 + 0.06 * maps if modality == "albedo" else maps
        for hard in (False, True):
            both = live[photo.digest], stored
            rewards: list[Tensor] = [agreement(j.at_points(maps), j, hard=hard).reward for j in both]
            assert rewards[0].std() > 0.001
            # the rows come in another order, so sums round differently
            torch.testing.assert_close(rewards[1], rewards[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [None, (40, 10, 200, 130)])
def test_oracle_32_a_marked_pixel_is_read_where_it_lies(crop: tuple[int, int, int, int] | None, flip: bool) -> None:
    """A map that tells each pixel's place in the photo; the point of a pair must read its own."""
    height, width = 130, 220
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    left, top, right, bottom = crop or (0, 0, width, height)
    place = np.stack([x, y])[:, top:bottom, left:right]
    small = torch.nn.functional.interpolate(torch.from_numpy(place)[None], size=(64, 88), mode="area")
    small = small.flip(-1) if flip else small
    view = View(64, 88, crop=crop, of=(height, width), flip=flip)
    points = rng(0, "points").integers(0, CANONICAL, (400, 2, 2))
    at = view.locate(points)
    kept = at.inside.all(axis=1)
    assert kept.sum() > 40
    judged = Judged("albedo", torch.from_numpy(at.rows[kept])[None], torch.from_numpy(at.cols[kept])[None],
                    torch.ones(1, int(kept.sum())), torch.ones(1, int(kept.sum())))  # fmt: skip
    found = judged.at_points(small)[0].numpy()
    expected = (points[kept] + 0.5) / CANONICAL * (width, height)
    pixel = np.array([(right - left) / 88, (bottom - top) / 64])
    # within the pixel of the small map that holds it
    assert (np.abs(found - expected) <= 0.5 * pixel + 0.5).all()
