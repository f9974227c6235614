"""The oracle against planted maps and set error rates; and names of judges."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.seeding import rng
from reasonx_eval.registry import load_dataset
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample
from reasonx_ft.annotation.pairs import sample_pairs
from reasonx_ft.annotation.photos import Recent
from reasonx_ft.judges.load import load_judge, needs_targets
from reasonx_ft.judges.oracle import PRESETS, Oracle
from reasonx_ft.types import ORDERS, Answer, Photo, Question, photo_digest

MODALITIES = ("depth", "normals", "irradiance", "albedo")


class Planted(Dataset):
    """Depth rises to the right, light rises downwards, the right half faces away a little and has another colour."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="planted", title="", targets=MODALITIES, splits={"all": 3}, licence="", homepage="", size="",
        needs_root=False,
    )  # fmt: skip

    def __init__(self, targets: Sequence[str] = MODALITIES) -> None:
        super().__init__(None, "all")
        self._targets = targets

    @property
    def targets(self) -> Sequence[str]:
        return self._targets

    @property
    def ids(self) -> Sequence[str]:
        return ["0", "1", "broken"]

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        if sample_id == "broken":
            raise SampleError("file is missing", where="broken.png")
        rows, cols = np.indices((64, 64))
        valid = np.ones((64, 64), bool)
        valid[:8] = False
        right = cols >= 32
        normal = np.where(right[..., None], [0.0, 0.6, -0.8], [0.0, 0.0, -1.0])
        return Sample(sample_id, np.full((64, 64, 3), int(sample_id), np.uint8), {
            "depth": DepthTarget((1 + cols / 8).astype(np.float32), valid),
            "normals": NormalTarget(normal.astype(np.float32), valid),
            "irradiance": MapTarget(np.repeat(rows[..., None] / 64, 3, axis=-1).astype(np.float32), valid),
            "albedo": MapTarget(np.where(right[..., None], [0.2, 0.2, 0.2], [0.8, 0.2, 0.2]).astype(np.float32), valid),
        })  # fmt: skip


def _photo(name: str = "0") -> Photo:
    image = np.full((64, 64, 3), 7 if name == "broken" else int(name), np.uint8)
    return Photo(name, image, photo_digest(image), name)


def _oracle(**options: object) -> Oracle:
    return Oracle(dataset=Recent(Planted(), MODALITIES), **{"preset": "perfect", **options})  # type: ignore[arg-type]


def _ask(judge: Oracle, first: tuple[int, int], second: tuple[int, int], name: str = "0") -> dict[str, float]:
    asked = [Question(_photo(name), first, second, m, "red-first") for m in MODALITIES]
    return {q.modality: a.probability for q, a in zip(asked, judge.ask(asked), strict=True)}


def test_without_errors_it_says_what_is_true() -> None:
    # left above, right below: closer, faces more, less light, another colour
    assert _ask(_oracle(), (100, 200), (400, 420)) == {"depth": 1, "normals": 1, "irradiance": 0, "albedo": 0}
    assert _ask(_oracle(), (400, 420), (100, 200)) == {"depth": 0, "normals": 0, "irradiance": 1, "albedo": 0}
    near = _ask(_oracle(), (100, 200), (100, 203))
    assert near["albedo"] == 1
    for modality in ("depth", "normals", "irradiance"):
        assert 0.45 <= near[modality] <= 0.55, "too close to call"


def test_near_ties_are_coin_flips_that_know_no_direction() -> None:
    p = {k: _ask(_oracle(), (100, 200 + k), (100, 202 + k))["depth"] for k in range(100)}
    assert 0.3 < np.mean([v > 0.5 for v in p.values()]) < 0.7
    for k in range(5):
        assert _ask(_oracle(), (100, 202 + k), (100, 200 + k))["depth"] == pytest.approx(1 - p[k])
    hard = {_ask(_oracle(hard=True), (100, 200 + k), (100, 202 + k))["depth"] for k in range(40)}
    assert hard == {0.0, 1.0}


def test_no_answer_where_nothing_is_measured() -> None:
    asked = [Question(_photo(), (100, 10), (400, 400), m, "red-first") for m in MODALITIES]
    assert [(a.flag, math.isnan(a.probability)) for a in _oracle().ask(asked)] == [("refused", True)] * 4
    asked = [Question(_photo("broken"), (100, 100), (400, 400), "depth", "red-first")]
    assert _oracle().ask(asked)[0].flag == "failed"


def _many(n: int = 4000) -> list[Question]:
    pairs = sample_pairs(np.zeros((512, 512, 3), np.uint8), "x", n, sampler="bands").tolist()
    return [Question(_photo(), tuple(a), tuple(b), "depth", "red-first") for a, b in pairs
            if abs(a[0] - b[0]) > 30 and min(a[1], b[1]) >= 64]  # fmt: skip


@pytest.mark.parametrize("modality", MODALITIES)
def test_error_rates_of_the_paper_are_met_and_calibrated(modality: str) -> None:
    rate = PRESETS["paper"][modality]
    asked = [Question(q.photo, q.first, q.second, modality, q.order) for q in _many()]
    truth = np.array([a.probability for a in _oracle().ask(asked)])
    said = np.array([a.probability for a in Oracle(dataset=Recent(Planted(), MODALITIES)).ask(asked)])
    clear = (truth == 0) | (truth == 1)
    n = int(clear.sum())
    assert n > 1000
    wrong = float(((said > 0.5) != (truth > 0.5))[clear].mean())
    assert abs(wrong - rate) < 4 * math.sqrt(rate * (1 - rate) / n)
    # calibrated: the stated confidence is the rate of being right
    np.testing.assert_allclose(np.maximum(said, 1 - said)[clear], 1 - rate, rtol=1e-12)


def test_published_rates() -> None:
    assert {m: round(1 - e, 3) for m, e in PRESETS["paper"].items()} == {
        "depth": 0.962, "normals": 0.935, "albedo": 0.894, "irradiance": 0.876}  # fmt: skip


def test_orders_err_together_unless_asked_not_to() -> None:
    asked = _many(800)
    other = [Question(q.photo, q.first, q.second, q.modality, ORDERS[1]) for q in asked]
    together, apart = _oracle(depth=0.3), _oracle(depth=0.3, independent_orders=True)
    assert together.ask(asked) == together.ask(other)
    a, b = ([x.probability > 0.5 for x in apart.ask(qs)] for qs in (asked, other))
    # both right or both wrong: .7^2 + .3^2
    assert 0.5 < np.mean(np.equal(a, b)) < 0.66


def test_answers_depend_on_neither_batches_nor_order() -> None:
    judge = _oracle(depth=0.3, hard=True)
    photos = [_photo("0"), _photo("1")]
    asked = [Question(p, q.first, q.second, m, q.order) for q in _many(60) for p in photos for m in MODALITIES]
    whole = judge.ask(asked)
    shuffled = rng(0, "order").permutation(len(asked))
    again: dict[int, Answer] = {}
    for start in range(0, len(asked), 7):
        rows = shuffled[start : start + 7]
        again |= dict(zip(rows.tolist(), judge.ask([asked[k] for k in rows]), strict=True))
    assert [again[k] for k in range(len(asked))] == whole
    assert judge.ask([]) == []


def test_errors_follow_seed_and_photo() -> None:
    asked = _many(400)
    base = _oracle(depth=0.3).ask(asked)
    assert base != _oracle(depth=0.3, seed=1).ask(asked)
    assert base != _oracle(depth=0.3).ask([Question(_photo("1"), q.first, q.second, "depth", q.order) for q in asked])


def test_revision_names_everything_that_changes_answers() -> None:
    variants = [_oracle(), _oracle(depth=0.1), _oracle(hard=True), _oracle(independent_orders=True), _oracle(seed=1)]
    assert len({v.info.revision for v in variants}) == len(variants)
    assert _oracle().info.revision == _oracle().info.revision


def test_no_ground_truth() -> None:
    photo = Photo("file.png", np.zeros((4, 4, 3), np.uint8), "00" * 16)
    question = Question(photo, (50, 50), (90, 90), "depth", "red-first")
    with pytest.raises(UsageError, match="dataset:NAME instead of a folder"):
        _oracle().ask([question])
    only_depth = Oracle(dataset=Recent(Planted(("depth",)), ("depth",)))
    with pytest.raises(UsageError, match=r"has no albedo(.|\n)*--modalities depth"):
        only_depth.ask([Question(_photo(), (50, 100), (90, 90), "albedo", "red-first")])
    with pytest.raises(UsageError, match="an error rate is 0 to 1"):
        Oracle(depth=1.5)


def test_on_a_scene() -> None:
    dataset = Recent(load_dataset("scenes-wild"), MODALITIES)
    image = dataset.load("wild/test/00003").image
    photo = Photo("wild/test/00003", image, photo_digest(image), "wild/test/00003")
    depth = dataset.load("wild/test/00003").targets["depth"]
    assert isinstance(depth, DepthTarget)
    span = float(depth.depth.max() - depth.depth.min())
    pairs = sample_pairs(np.zeros((512, 512, 3), np.uint8), photo.digest, 200, sampler="bands")
    asked = [Question(photo, tuple(a), tuple(b), "depth", "red-first") for a, b in pairs.tolist()]
    for q, answer in zip(asked, Oracle(dataset=dataset, preset="perfect").ask(asked), strict=True):
        near, far = (depth.depth[y * 96 // 512, x * 128 // 512] for x, y in (q.first, q.second))
        if abs(float(far - near)) / span > 0.0201:
            assert answer.probability == float(near < far)


# names of judges


def test_judges_by_name() -> None:
    judge = load_judge("oracle", options={"preset": "perfect", "depth": "0.25", "hard": "true"}, batch_size=7)
    assert isinstance(judge, Oracle)
    assert judge.errors == {"depth": 0.25, "normals": 0, "irradiance": 0, "albedo": 0}
    assert judge.batch_size == 7
    assert needs_targets("oracle") == MODALITIES


@pytest.mark.parametrize(("spec", "message"), [
    ("orakle", "did you mean 'oracle'"),
    ("mllm", "nothing follows the name"),
    ("server:", "nothing follows the name"),
    ("nofile.py:Judge", "no such file"),
    ("json.decoder:JSONDecoder", "not derived from"),
])  # fmt: skip
def test_wrong_names(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_judge(spec)


@pytest.mark.parametrize(("options", "message"), [
    ({"dept": "0.1"}, "did you mean 'depth'"), ({"depth": "much"}, "finite number"), ({"preset": "papr"}, "paper"),
    ({"dataset": "x"}, "unknown option"),
])  # fmt: skip
def test_wrong_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_judge("oracle", options=options)
    with pytest.raises(UsageError, match="has no --device"):
        load_judge("oracle", device="cuda")
    with pytest.raises(UsageError, match="needs 1 or more"):
        load_judge("oracle", batch_size=0)


def test_a_judge_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from reasonx_ft.types import Answer, Judge, JudgeInfo\n"
        "class Half(Judge):\n"
        "    def __init__(self, p: float = 0.5, questions=None):\n"
        "        self.p, self.questions = p, questions\n"
        "    @property\n"
        "    def info(self): return JudgeInfo('half', str(self.p))\n"
        "    def ask(self, questions): return [Answer(self.p) for _ in questions]\n"
        "class Bad:\n"
        "    def __init__(self): raise RuntimeError('no')\n"
    )
    judge = load_judge(f"{file}:Half", options={"p": "0.25"}, questions="wording")
    assert judge.info.revision == "0.25"
    assert judge.questions == "wording"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="RuntimeError: no"):
        load_judge(f"{file}:Bad")
    with pytest.raises(UsageError, match="--judge mllm:"):
        load_judge(str(tmp_path))
