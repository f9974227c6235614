"""The checks of values: each kind of damage is found, and clean data are called clean."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.flat import Flat
from reasonx_eval.datasets.folder import Folder
from reasonx_eval.datasets.mit_intrinsic import MITIntrinsic
from reasonx_eval.doctor import Report, diagnose
from reasonx_eval.doctor.gather import evenly, view_rays
from reasonx_eval.errors import SampleError
from reasonx_eval.io.images import write_png
from reasonx_eval.types import DepthTarget, JudgementTarget, MapTarget, NormalTarget, Sample, Target
from tests.helpers.shared import SHARED

H, W = 24, 32
IDS = tuple(f"s{i}" for i in range(5))
PHOTO = (np.arange(H * W * 3, dtype=np.uint32).reshape(H, W, 3) % 256).astype(np.uint8)


class Memory(Dataset):
    """A dataset whose samples a test hands over."""

    info: ClassVar[DatasetInfo] = DatasetInfo("memory", "In memory", (), {"test": None, "train": None, "val": None},
                                              "", "", "", needs_root=False)  # fmt: skip

    train: ClassVar[tuple[str, ...]] = ("t",)

    def __init__(self, root: Path | None = None, split: str = "test", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root, split, options)
        self.samples: Mapping[str, Mapping[str, Target] | Exception] = {}
        self.photo = PHOTO

    @property
    def ids(self) -> Sequence[str]:
        return {"test": IDS, "train": self.train, "val": ("v",)}[self.split]

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        found = self.samples.get(sample_id, {})
        if isinstance(found, Exception):
            raise found
        return Sample(sample_id, self.photo, found)


def run(targets: Mapping[str, Target], photo: np.ndarray = PHOTO) -> Report:
    data = Memory(split="test")
    data.samples = dict.fromkeys(IDS, targets)
    data.photo = photo
    return diagnose(data)


def of(report: Report, check: str) -> list[tuple[str, str]]:
    return [(f.status, f.message) for f in report.findings if f.check == check]


def depth(value: float, share: float = 1.0) -> DepthTarget:
    valid = np.zeros(H * W, bool)
    valid[: round(share * H * W)] = True
    return DepthTarget(np.full((H, W), value, np.float32), valid.reshape(H, W))


def facing_normals() -> np.ndarray:
    """Unit vectors straight towards a 60 degree camera, float64 [H, W, 3]."""
    rays = view_rays((H, W), None)
    return -rays / np.linalg.norm(rays, axis=2, keepdims=True)


def normals(value: np.ndarray) -> NormalTarget:
    return NormalTarget(value.astype(np.float32), np.ones((H, W), bool))


def test_what_is_not_read_is_a_warning(tmp_path: Path) -> None:
    for name in ("a_rgb.png", "b_rgb.png"):
        write_png(tmp_path / name, PHOTO)
    write_png(tmp_path / "a_depth.png", np.full((H, W), 2500, np.uint16))
    report = diagnose(Flat(tmp_path))
    assert report.status == "warn"
    assert [m for s, m in of(report, "files") if s == "warn"] == [
        "depth files not read, as nothing says how many metres a unit is (dataset option depth_scale, 0.001 for "
        "millimetres): 1 (a_depth.png)"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [(2431.0, "fail", "median depth is 2431: millimetres?"), (150.0, "fail", "centimetres"), (0.003, "fail", "twice"),
     (0.5, "warn", "normalised"), (2.5, "ok", "median depth 2.50 m"), (60.0, "ok", "60.00 m")],
)  # fmt: skip
def test_units(value: float, status: str, text: str) -> None:
    ((found, message),) = of(run({"depth": depth(value)}), "units")
    assert found == status
    assert text in message


@pytest.mark.parametrize(("factor", "status", "words"), [
    (1.0, "ok", "median depth 2.70 m"), (5.0, "fail", "nyuv2 ends at 10 m: divided by 5 it would fit (a PNG of 5000"),
    (0.2, "warn", "divided by 0.2 it would fit (millimetres read as 5000"), (7.0, "fail", "another unit?"),
])  # fmt: skip
def test_units_of_a_set_whose_range_is_known(
    monkeypatch: pytest.MonkeyPatch, factor: float, status: str, words: str
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(Memory, "info", replace(Memory.info, name="nyuv2", farthest_m=10.0, usual_m=2.7))
    value = (factor * np.linspace(0.1, 5.3, H * W)).astype(np.float32).reshape(H, W)
    target = DepthTarget(value, np.ones((H, W), bool))
    ((found, message),) = of(run({"depth": target}), "units")
    assert found == status
    assert words in message


def test_depth_called_valid_must_be_positive_and_finite() -> None:
    broken = depth(2.0)
    broken.depth[0, 0] = -1.0
    broken.depth[0, 1] = np.nan
    report = run({"depth": broken})
    assert any(s == "fail" and "zero, negative or not finite" in m for s, m in of(report, "units"))


def test_few_valid_pixels_are_named() -> None:
    data = Memory(split="test")
    data.samples = {i: {"depth": depth(2.0, 0.03 if i in ("s1", "s4") else 0.8)} for i in IDS}
    ((status, message),) = of(diagnose(data), "valid")
    assert status == "warn"
    assert "2 samples" in message
    assert message.endswith("s1, s4")
    ((status, message),) = of(run({"depth": depth(2.0, 0.5)}), "valid")
    assert (status, message) == ("ok", "depth: 50.0 % of pixels valid, least 50.0 %")


def test_a_sample_without_any_valid_pixel_is_named_not_averaged() -> None:
    data = Memory(split="test")
    data.samples = {i: {"depth": depth(2.0, 0.0 if i == "s2" else 1.0)} for i in IDS}
    report = diagnose(data)
    ((status, message),) = of(report, "valid")
    assert status == "fail"
    assert message == f"depth: no valid pixel in 1 of {len(IDS)} samples, so that no prediction can be scored there: s2"
    assert report.exit_code == 4
    assert of(report, "units")[0][0] == "ok"


def test_good_normals() -> None:
    report = run({"normals": normals(facing_normals())})
    assert [s for s, _ in of(report, "normals")] == ["ok", "ok"]
    assert "100.0 % face the camera (view rays of a guessed 60 degree camera)" in of(report, "normals")[1][1]


def test_8_bit_normals_have_a_wider_tolerance() -> None:
    stored = np.rint((facing_normals() + 1) / 2 * 255) / 255 * 2 - 1
    assert np.abs(np.linalg.norm(stored, axis=2) - 1).max() > 2e-3
    assert [s for s, _ in of(run({"normals": normals(stored)}), "normals")] == ["ok", "ok"]
    almost = facing_normals() * 1.004
    assert [s for s, _ in of(run({"normals": normals(almost)}), "normals")] == ["warn", "ok"]
    assert of(run({"normals": normals(facing_normals() * 2)}), "normals")[0][0] == "fail"


def test_intrinsics_replace_the_guess() -> None:
    matrix = np.array([[5.0, 0, W / 2], [0, 5.0, H / 2], [0, 0, 1]])
    rays = view_rays((H, W), matrix)
    towards = -rays / np.linalg.norm(rays, axis=2, keepdims=True)
    target = DepthTarget(np.full((H, W), 2.0, np.float32), np.ones((H, W), bool), matrix)
    report = run({"normals": normals(towards), "depth": target})
    assert ("ok", "100.0 % face the camera") in of(report, "normals")


@pytest.mark.parametrize(("signs", "frame"), [((1, -1, -1), "opengl"), ((-1, -1, -1), "dsine")])
def test_normals_of_another_frame_are_recognised(signs: tuple[int, int, int], frame: str) -> None:
    report = run({"normals": normals(facing_normals() * signs)})
    (failed,) = [f for f in report.findings if f.status == "fail"]
    assert frame in failed.message
    assert failed.fix is not None
    assert report.exit_code == 4


def test_floors_that_point_down() -> None:
    value = np.tile([0.0, 0.0, -1.0], (H, W, 1))
    value[H // 2 :] = [0.0, 0.98, -0.2]
    value /= np.linalg.norm(value, axis=2, keepdims=True)
    assert any("y flipped" in m for _, m in of(run({"normals": normals(value)}), "normals"))
    value[..., 1] *= -1
    assert not any("y flipped" in m for _, m in of(run({"normals": normals(value)}), "normals"))


@pytest.mark.parametrize(
    ("value", "statuses"),
    [(0.5, ["ok"]), (1.2, ["warn"]), (257.0, ["fail"]), (-0.1, ["fail", "fail"]), (0.0, ["ok", "fail"])],
)
def test_albedo_range(value: float, statuses: list[str]) -> None:
    target = MapTarget(np.full((H, W, 3), value, np.float32), np.ones((H, W), bool))
    assert [s for s, _ in of(run({"albedo": target}), "range")] == statuses


def test_irradiance_may_exceed_one() -> None:
    target = MapTarget(np.full((H, W, 3), 30.0, np.float32), np.ones((H, W), bool))
    assert [s for s, _ in of(run({"irradiance": target}), "range")] == ["ok"]


@pytest.mark.parametrize(
    ("photo", "status", "text"),
    [(PHOTO, "ok", "8 bit"), (np.full_like(PHOTO, 7), "fail", "one single colour"),
     (PHOTO % 2, "fail", "0 to 1"), (PHOTO // 10, "warn", "very dark")],
)  # fmt: skip
def test_photos(photo: np.ndarray, status: str, text: str) -> None:
    ((found, message),) = of(run({}, photo), "photo")
    assert found == status
    assert text in message


def test_maps_and_photos_of_different_size() -> None:
    report = run({"depth": depth(2.0)}, np.concatenate([PHOTO, PHOTO]))
    assert of(report, "size") == [("fail", "depth and photo differ in size: s0, s1, s2, s3, s4")]


def judgements(**changes: np.ndarray) -> JudgementTarget:
    fields: dict[str, np.ndarray] = {"points": np.array([[0.0, 0.5], [0.999, 0.2]]), "pairs": np.array([[0, 1]]),
                                     "darker": np.array([1], np.int8), "weight": np.array([0.7])}  # fmt: skip
    return JudgementTarget(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"points": np.array([[0.0, 0.5], [1.0, 0.2]])}, "points outside"),
        ({"pairs": np.array([[0, 2]])}, "don't exist"),
        ({"darker": np.array([3], np.int8)}, "labels other"),
        ({"weight": np.array([0.0])}, "weights"),
    ],
)
def test_bad_judgements(changes: dict[str, np.ndarray], text: str) -> None:
    found = of(run({"judgements": judgements(**changes)}), "judgements")
    assert [s for s, _ in found] == ["fail"]
    assert text in found[0][1]


def test_good_and_absent_judgements() -> None:
    assert of(run({"judgements": judgements()}), "judgements")[0][1].startswith("5 judgements")
    none = judgements(pairs=np.zeros((0, 2), int), darker=np.zeros(0, np.int8), weight=np.zeros(0))
    assert [s for s, _ in of(run({"judgements": none}), "judgements")] == ["warn", "ok"]


def test_a_damaged_sample_is_named_and_the_rest_goes_on() -> None:
    data = Memory(split="test")
    data.samples = {i: {"depth": depth(2.0)} for i in IDS}
    data.samples["s2"] = SampleError("file is empty", where="/data/s2.png", fix="copy it again")  # type: ignore[index]
    report = diagnose(data)
    (failed,) = [f for f in report.findings if f.check == "samples"]
    assert failed.message == "s2: /data/s2.png: file is empty"
    assert failed.fix == "copy it again"
    assert of(report, "units") == [("ok", "median depth 2.00 m, largest 2.0 m")]


def test_splits_that_overlap() -> None:
    class Overlapping(Memory):
        info = Memory.info
        train = ("other", "s3")

    found = of(diagnose(Overlapping(split="test")), "split")
    assert ("fail", "'test' and 'train' share 1 samples: s3") in found
    assert ("ok", "'test' (5) and 'val' (1) are disjoint") in found


def test_ids_listed_twice() -> None:
    class Twice(Memory):
        info = Memory.info

        @property
        def ids(self) -> Sequence[str]:
            return ("a", "b", "a")

    assert ("fail", "ids that are listed twice: a") in of(diagnose(Twice(split="val")), "split")


def test_a_subset_is_spread_evenly_and_said() -> None:
    assert evenly(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert evenly(list("abc"), 1) == ["a"]
    assert evenly(list("abc"), 9) == ["a", "b", "c"]
    assert len(set(evenly([str(i) for i in range(1046)], 24))) == 24
    report = diagnose(Memory(split="test"), limit=2)
    assert list(report.checked) == ["s0", "s4"]
    assert "looked at 2 of 5" in of(report, "values")[0][1]
    assert of(diagnose(Memory(split="test"), limit=2, full=True), "values") == []


def test_progress_and_json() -> None:
    seen: list[tuple[str, int, int]] = []
    report = diagnose(Memory(split="test"), progress=lambda *a: seen.append(a))
    assert seen[-1] == ("samples", 5, 5)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert document["status"] == "ok"
    assert document["findings"][0].keys() == {"check", "status", "message", "fix"}


def test_a_truncated_file_on_disk(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}_rgb.png", PHOTO)
        write_png(tmp_path / f"{name}_albedo.png", PHOTO)
    assert diagnose(Flat(tmp_path)).status == "ok"
    path = tmp_path / "b_rgb.png"
    path.write_bytes(path.read_bytes()[:-50])
    report = diagnose(Flat(tmp_path))
    assert report.exit_code == 4
    assert of(report, "samples")[0][1].startswith(f"b: {path}")


def test_millimetres_without_a_scale(tmp_path: Path) -> None:
    write_png(tmp_path / "rgb" / "1.png", PHOTO)
    write_png(tmp_path / "depth" / "1.png", np.full((H, W), 2431, np.uint16))
    card = 'name = "mine"\nimages = "rgb/{id}.png"\n[depth]\npath = "depth/{id}.png"\n'
    (tmp_path / "dataset.toml").write_text(card)
    (failed,) = [f for f in diagnose(Folder(tmp_path)).findings if f.status == "fail"]
    assert "millimetres" in failed.message
    (tmp_path / "dataset.toml").write_text(card + "scale = 0.001\n")
    assert diagnose(Folder(tmp_path)).status == "ok"


@pytest.mark.skipif(not (SHARED / "hypersim").is_dir(), reason="REASONX_SHARED with data/hypersim is not here")
def test_real_renders_in_both_frames() -> None:
    right = diagnose(Flat(SHARED / "hypersim", "all", {"normals_frame": "opengl"}))
    assert right.exit_code == 0
    wrong = diagnose(Flat(SHARED / "hypersim"))
    assert any("opengl" in f.message for f in wrong.findings if f.status == "fail")


@pytest.mark.skipif(not (SHARED / "mit_intrinsic").is_dir(), reason="REASONX_SHARED/data/mit_intrinsic is not here")
def test_a_real_object_and_the_nineteen_missing_ones() -> None:
    assert diagnose(MITIntrinsic(SHARED / "mit_intrinsic", "present")).status == "ok"
    report = diagnose(MITIntrinsic(SHARED / "mit_intrinsic", "all"))
    assert report.exit_code == 4
    assert sum(f.check == "samples" for f in report.findings) == 19
