"""Real networks on real photos: their known accuracy, and the page's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonx_eval.io.images import read_rgb
from reasonx_ft.types import ORDERS, Photo, Question, photo_digest
from tests.helpers import real_judges
from tests.helpers.pages import EVAL, FT, text
from tests.helpers.real_pairs import build, evaluate, table
from tests.helpers.rref_judge import RelativeReflectance
from tests.helpers.shared import SHARED

pytestmark = pytest.mark.skipif(
    not (SHARED / "nyuv2" / "pairs").is_dir(), reason=f"no real samples at {SHARED}: set REASONX_SHARED"
)


def test_two_real_networks_on_seven_real_pairs(tmp_path: Path) -> None:
    metric, relative = evaluate(build(tmp_path / "pairs"), tmp_path)
    assert metric.n_scored == relative.n_scored == 7
    # published accuracy on these frames: .09-.17 in metres with no alignment; about .14 fitted in disparity
    assert metric.aggregate["abs_rel"].value == pytest.approx(0.11, abs=0.02)
    assert relative.aggregate["abs_rel"].value == pytest.approx(0.14, abs=0.02)
    assert "|acc:depth_metric|align:none|" in metric.signature
    assert "|acc:disparity_affine|align:affine.disparity|" in relative.signature
    assert table([metric, relative]) in text(EVAL), "run: python -m tests.helpers.real_pairs OUT"


def test_judges_on_real_photos_and_renders(tmp_path: Path) -> None:
    results = real_judges.evaluate(tmp_path)
    right = {(r.judge.name, r.dataset.name, m): one.headline for r in results for m, one in r.modalities.items()}
    assert all(value.value is not None for value in right.values())
    assert right["tiny", "nyuv2-pairs", "depth"].value > 0.7
    for question in ("depth", "normals", "irradiance"):
        assert right["tiny", "hypersim-three", question].value > 0.65
    # a published network that knows people's answers, wrapped by one file: it too beats a coin
    assert right["zhou2015-rref", "hypersim-three", "albedo"].value > 0.55
    assert all(r.status == "complete" for r in results)
    assert real_judges.table(results) in text(FT), "run: python -m tests.helpers.real_judges OUT"


def test_the_reflectance_network_answers_one_question_in_any_batch() -> None:
    judge = RelativeReflectance(weights=SHARED / "weights" / "zhou2015_rref.onnx")
    image = read_rgb(SHARED / "hypersim" / "scene_001_rgb.png")
    photo = Photo("a", image, photo_digest(image))
    asked = [Question(photo, (x, 40), (500 - x, 400), m, o) for x in (1, 90, 300) for m in ("albedo", "depth")
             for o in ORDERS]  # fmt: skip
    found = judge.ask(asked)
    assert [a.flag for a in found] == ["ok" if q.modality == "albedo" else "refused" for q in asked]
    assert [judge.ask([q])[0].probability for q in asked[::4]] == [a.probability for a in found[::4]]
    # one point asked about twice is equal to itself, and exchanging points and colours changes nothing
    here = Question(photo, (200, 200), (200, 200), "albedo", "red-first")
    assert judge.ask([here])[0].probability > 0.5
    turned = [Question(photo, q.second, q.first, q.modality, ORDERS[ORDERS.index(q.order) - 1]) for q in asked[::4]]
    assert [a.probability for a in judge.ask(turned)] == [a.probability for a in found[::4]]
