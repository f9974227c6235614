"""The small judge: symmetry, batches, sizes of photos, and that the shipped weights know what their card says."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from reasonx_eval.errors import UsageError
from reasonx_eval.io.selection import Selection
from reasonx_eval.registry import load_dataset
from reasonx_ft.annotation.coordinates import canonical_points
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.judges.evaluation.evaluate import evaluate_judge
from reasonx_ft.judges.evaluation.records import EvalPlan
from reasonx_ft.judges.evaluation.truth import photo_of, truth_of
from reasonx_ft.judges.load import load_judge
from reasonx_ft.judges.tiny import TinyJudge, small
from reasonx_ft.judges.tiny_files import WEIGHTS
from reasonx_ft.judges.tiny_net import JUDGED, JudgeNet, around, neighbours
from reasonx_ft.types import ORDERS, Photo, Question, photo_digest
from tests.helpers.pages import FT, text
from tests.helpers.real_judges import card_table


@pytest.fixture(scope="module")
def judge() -> TinyJudge:
    return TinyJudge()


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    dataset = load_dataset("scenes-broad", split="val")
    found = []
    for sample_id in dataset.ids[:3]:
        sample = dataset.load(sample_id, ("pairs",))
        photo = photo_of(sample)
        points = truth_of(sample, photo, JUDGED, own=True, pairs=1, seed=0).points[::4]
        found += [Question(photo, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), m, o)
                  for a, b in points for m in JUDGED for o in ORDERS]  # fmt: skip
    return found


def probabilities(judge: TinyJudge, questions: list[Question]) -> list[float]:
    return [a.probability for a in judge.ask(questions)]


def test_answers_depend_on_neither_batch_nor_order_nor_what_was_asked_before(judge, questions):
    expected = probabilities(judge, questions)
    assert probabilities(TinyJudge(), questions[::-1]) == expected[::-1]
    order = np.random.default_rng(0).permutation(len(questions))
    assert probabilities(judge, [questions[k] for k in order]) == [expected[k] for k in order]
    alone = [probabilities(judge, [q])[0] for q in questions[::23]]
    assert alone == expected[::23]
    assert judge.ask([]) == []


def test_answers_depend_on_no_threads(questions):
    one = probabilities(TinyJudge(threads=1), questions)
    assert probabilities(TinyJudge(threads=3), questions) == one
    assert TinyJudge(threads=3).info == TinyJudge().info
    with pytest.raises(UsageError, match="threads is 0"):
        TinyJudge(threads=0)


def test_fewer_bits_are_another_revision_with_nearly_the_same_answers(judge, questions):
    fast = TinyJudge(dtype="bfloat16", threads=1)
    found, expected = probabilities(fast, questions), probabilities(judge, questions)
    # nothing but the photo and the pair decides them either
    assert probabilities(TinyJudge(dtype="bfloat16", threads=3), questions[::-1]) == found[::-1]
    assert found != expected
    apart = np.abs(np.array(found) - expected)
    assert apart.mean() < 0.01
    assert apart.max() < 0.1
    assert fast.info.revision == f"{judge.info.revision}-bfloat16"
    assert pickle.loads(pickle.dumps(fast)).info == fast.info
    with pytest.raises(UsageError, match=r"unknown dtype 'bfloat'; did you mean 'bfloat16'\?"):
        TinyJudge(dtype="bfloat")


def test_exchanging_the_points_exchanges_the_answer(judge, questions):
    expected = probabilities(judge, questions)
    turned = [Question(q.photo, q.second, q.first, q.modality, q.order) for q in questions]
    for q, p, other in zip(questions, expected, probabilities(judge, turned), strict=True):
        assert other == pytest.approx(p if q.modality == "albedo" else 1 - p, abs=1e-12)


def test_both_colour_orders_have_one_answer(judge, questions):
    found = probabilities(judge, questions)
    assert found[::2] == found[1::2]


def test_any_photo_is_looked_at_in_one_size(judge):
    rng = np.random.default_rng(0)
    for shape in ((700, 300, 3), (30, 500, 3), (1, 1, 3), (96, 128, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        assert small(image).shape == (96, 128, 3)
        image.setflags(write=False)
        photo = Photo("x", image, photo_digest(image))
        [answer] = judge.ask([Question(photo, (0, 0), (511, 511), "depth", "red-first")])
        assert answer.flag == "ok"
    flat = np.full((600, 800, 3), 77, np.uint8)
    assert (small(flat) == 77).all()


def test_points_are_read_where_they_lie():
    """Features lie on even pixels and are means between them; colours of a pixel are those of its column and row."""
    features = torch.arange(2 * 48.0 * 64).view(2, 1, 48, 64).expand(2, 3, 48, 64)
    colours = torch.arange(96.0 * 128).view(1, 1, 96, 128)
    points = torch.tensor([[[[5, 3], [127, 95]]], [[[4, 6], [7, 6]]]])
    found = around(features, points)
    assert found.shape == (2, 2, 3)
    assert found[0, :, 0].tolist() == [1.5 * 64 + 2.5, 47 * 64 + 63]
    assert found[1, :, 2].tolist() == [48 * 64 + 3 * 64 + 2, 48 * 64 + 3 * 64 + 3.5]
    points = points[:1]
    square = neighbours(colours, points)[0]
    assert square.shape == (2, 25)
    assert square[0, 12] == 3 * 128 + 5
    assert square[0, 0] == 1 * 128 + 3
    assert square[1, 24] == 95 * 128 + 127  # repeated at the border
    # canonical points of pixel centres come back to their pixels
    where = np.stack(np.meshgrid((np.arange(128) + 0.5) / 128, (np.arange(96) + 0.5) / 96), axis=-1)
    from reasonx_ft.annotation.coordinates import View

    at = View(96, 128).locate(canonical_points(where))
    assert (at.cols == np.arange(128)).all()
    assert (at.rows == np.arange(96)[:, None]).all()


def test_the_network_is_symmetric_by_construction():
    torch.manual_seed(0)
    network = JudgeNet()
    photos, points = torch.rand(2, 3, 96, 128), torch.randint(0, 96, (2, 10, 2, 2))
    with torch.inference_mode():
        seen = network.look(photos)
        one, two = network.answers(seen, points), network.answers(seen, points.flip(2))
    assert torch.equal(one[..., :3], -two[..., :3])
    assert torch.equal(one[..., 3], two[..., 3])


def test_info_travels_with_every_answer(judge):
    info = judge.info
    assert info.name == "tiny"
    assert info.revision == judge.card.weights_sha256[:16]
    assert info.licence == "Apache-2.0"
    assert any("scenes-broad/train" in t for t in info.trained_on)
    assert not any("wild" in t for t in info.trained_on)
    again = pickle.loads(pickle.dumps(judge))
    assert again.info == info


def test_it_loads_by_name_and_refuses_what_it_can_not_do(tmp_path: Path):
    assert load_judge("tiny").info.name == "tiny"
    with pytest.raises(UsageError, match="no such file"):
        load_judge("tiny", options={"weights": str(tmp_path / "none.safetensors")})
    with pytest.raises(UsageError, match="unknown"):
        load_judge("tiny", options={"weight": "x"})


def test_the_readme_shows_the_card():
    assert card_table() in text(FT), "run: python -m tests.helpers.real_judges OUT"


def test_the_shipped_weights_are_small_and_know_what_the_card_says(judge):
    """On the first scenes of the split that the card's first scores are of."""
    assert WEIGHTS.stat().st_size <= 2_500_000
    scores = {s.modality: s for s in judge.card.scores if s.dataset == "scenes-broad"}
    data = Recent(load_dataset("scenes-broad", split="val"), ("pairs",))
    found = evaluate_judge(judge, data, EvalPlan(selection=Selection(limit=25), resamples=100))
    for modality, one in found.modalities.items():
        assert one.headline.value == pytest.approx(scores[modality].accuracy, abs=0.05)
        assert one.headline.value > 0.75
        assert one.calibration_error < 0.06
        assert one.consistency.value == 1.0
