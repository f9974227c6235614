"""The three data sets of scenes: exact maps, exact answers, fixed bytes, fixed splits."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from reasonx_eval.datasets.scenes.dataset import ScenesBroad, ScenesSynthetic, ScenesWild, _Scenes, parse_size
from reasonx_eval.datasets.scenes.domains import BROAD, DOMAINS, SYNTHETIC, WILD
from reasonx_eval.datasets.scenes.layout import NEAREST
from reasonx_eval.datasets.scenes.pairs import BANDS, DARKER_ABOVE, EQUAL_BELOW, PAIRS
from reasonx_eval.datasets.scenes.render import Scene, render_scene
from reasonx_eval.datasets.scenes.textures import ALBEDO_MAX, ALBEDO_MIN, PATTERNS
from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.metrics.judgements import whdr
from reasonx_eval.metrics.ordinal import relation
from reasonx_eval.registry import DATASETS
from reasonx_eval.types import (
    DIFFERENT,
    FIRST,
    LEFT_OUT,
    SAME,
    SECOND,
    DepthTarget,
    JudgementTarget,
    MapTarget,
    PairTarget,
)
from tests.reasonx_eval.datasets.regen_scenes import GOLDEN, arrays, current, digests

KINDS: tuple[type[_Scenes], ...] = (ScenesSynthetic, ScenesWild, ScenesBroad)
SOME = [(d, k) for d in DOMAINS for k in range(6)]


@cache
def scene(domain: str, index: int) -> Scene:
    return render_scene(domain, "test", index, (48, 64))


def rays(s: Scene) -> np.ndarray:
    rows, columns = np.indices(s.size)
    return np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(s.intrinsics).T


@pytest.mark.parametrize(("domain", "index"), SOME)
def test_linear_is_albedo_times_irradiance(domain: str, index: int) -> None:
    s = scene(domain, index)
    assert np.array_equal(s.linear, s.albedo * s.irradiance)
    assert s.albedo.min() >= ALBEDO_MIN
    assert s.albedo.max() <= ALBEDO_MAX
    assert s.irradiance.min() > 0


@pytest.mark.parametrize(("domain", "index"), SOME)
def test_normals_are_unit_face_the_camera_and_agree_with_depth(domain: str, index: int) -> None:
    s = scene(domain, index)
    d = rays(s)
    assert np.sqrt((s.normal**2).sum(-1)) == pytest.approx(np.ones(s.size), abs=1e-12)
    assert (s.normal * d).sum(-1).max() < 1e-9
    points = s.depth[..., None] * d
    down, across = points[1:, :-1] - points[:-1, :-1], points[:-1, 1:] - points[:-1, :-1]
    estimate = np.cross(down, across)
    estimate /= np.sqrt((estimate**2).sum(-1, keepdims=True))
    n, which = s.normal, s.surface
    # one plane: the same solid and the same normal at all three pixels
    flat = (which[1:, :-1] == which[:-1, :-1]) & (which[:-1, 1:] == which[:-1, :-1])
    for other in (n[1:, :-1], n[:-1, 1:]):
        flat &= np.abs(other - n[:-1, :-1]).max(-1) < 1e-9
    # the three points may still lie on two parallel sides seen past each other, in a composite or behind an edge
    agree = np.abs((estimate * n[:-1, :-1]).sum(-1)) > 1 - 1e-6
    assert flat.sum() > 500
    assert agree[flat].mean() > 0.995


@pytest.mark.parametrize(("domain", "index"), SOME)
def test_scenes_are_fit_to_look_at(domain: str, index: int) -> None:
    s = scene(domain, index)
    assert s.depth.min() >= 0.3
    assert s.depth.max() <= 15.0
    assert 0.04 < (s.surface > 0).mean() < 0.85
    codes = s.image().astype(float)
    low, high = DOMAINS[domain].mean_code
    assert low - 8 < codes.mean() < high + 8
    assert np.percentile(codes, 90) - np.percentile(codes, 10) > 20


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_scene_is_the_same_at_another_size(domain: str) -> None:
    # tripling an image puts every third pixel centre, from the second on, where the small one has it
    small, large = render_scene(domain, "val", 3, (24, 32)), render_scene(domain, "val", 3, (72, 96))
    assert small.world == large.world
    at = (slice(1, None, 3), slice(1, None, 3))
    assert large.depth[at] == pytest.approx(small.depth, rel=1e-9)
    assert (large.surface[at] == small.surface).mean() > 0.99
    close = np.isclose(large.albedo[at], small.albedo).all(-1)
    assert close.mean() > 0.98


def test_golden_digests() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = current()
    assert list(now) == list(golden)
    for case, expected in golden.items():
        assert now[case] == expected, f"{case}: the scenes changed; see tests/reasonx_eval/datasets/regen_scenes.py"


def test_same_bytes_in_another_process_with_other_threads_and_simd() -> None:
    code = ("from tests.reasonx_eval.datasets.regen_scenes import digests\n"
            "from reasonx_eval.datasets.scenes.dataset import ScenesWild\n"
            "import json; print(json.dumps(digests(ScenesWild().load('wild/test/00002'))))")  # fmt: skip
    # without the vector extensions numpy dispatches to plain loops, as on an older processor
    plain = {"OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "3", "PYTHONHASHSEED": "5",
             "NPY_DISABLE_CPU_FEATURES": " ".join(_dispatched())}  # fmt: skip
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **plain}, cwd=root, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert json.loads(done.stdout) == digests(ScenesWild().load("wild/test/00002"))


def _dispatched() -> list[str]:
    """The CPU features that numpy chose at run time on this machine."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return [name for name in found if isinstance(name, str)]


def test_order_threads_and_pickling_do_not_matter() -> None:
    dataset = pickle.loads(pickle.dumps(ScenesBroad()))
    ids = list(dataset.ids[:6])
    alone = [digests(dataset.load(i)) for i in ids]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: digests(dataset.load(i)), reversed(ids)))
    assert together[::-1] == alone


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wanted_changes_nothing_else(kind: type[_Scenes]) -> None:
    dataset = kind()
    whole = arrays(dataset.load(dataset.ids[1]))
    for want in (["depth"], ["pairs"], ["judgements", "normals"], []):
        sample = dataset.load(dataset.ids[1], want)
        assert set(sample.targets) == set(want)
        for name, array in arrays(sample).items():
            assert np.array_equal(array, whole[name])


@pytest.mark.parametrize("kind", KINDS)
def test_sample_shapes_and_meta(kind: type[_Scenes]) -> None:
    dataset = kind(options={"size": "40x52"})
    sample = dataset.load(dataset.ids[0])
    assert sample.image.shape == (40, 52, 3)
    assert sample.image.dtype == np.uint8
    assert set(sample.targets) == set(dataset.info.targets)
    assert sample.group is None
    depth = sample.targets["depth"]
    assert isinstance(depth, DepthTarget)
    assert depth.depth.dtype == np.float32
    assert depth.valid.all()
    assert depth.intrinsics is not None
    half_view = np.degrees(np.arctan(26.0 / depth.intrinsics[0, 0]))
    assert 2 * half_view == pytest.approx(sample.meta["camera"]["fov"])
    assert json.loads(json.dumps(sample.meta)) == sample.meta
    assert sample.meta["domain"] == dataset.domain


def test_splits() -> None:
    sizes = {k.info.name: dict(k.info.splits) for k in KINDS}
    assert sizes == {"scenes-synthetic": {"test": 100, "val": 100, "train": 4000},
                     "scenes-wild": {"test": 200, "val": 100, "train": 4000},
                     "scenes-broad": {"test": 100, "val": 100, "train": 8000}}  # fmt: skip
    for kind in KINDS:
        assert next(iter(kind.info.splits)) == "test"
        every = [i for split in kind.info.splits for i in kind(None, split).ids]
        assert len(every) == len(set(every)) == sum(n for n in kind.info.splits.values() if n)
    assert ScenesWild().ids[17] == "wild/test/00017"
    assert len(ScenesWild(None, "train")) == 4000


def test_scenes_differ_between_splits_domains_and_indices() -> None:
    worlds = [render_scene(d, s, k, (6, 8)).world for d in DOMAINS for s in ("test", "val", "train") for k in range(4)]
    shapes = {(w.room.low, w.room.high, w.camera.turn) for w in worlds}
    assert len(shapes) == len(worlds)


@pytest.mark.parametrize("kind", KINDS)
def test_registered(kind: type[_Scenes]) -> None:
    assert DATASETS.load(kind.info.name) is kind


@pytest.mark.parametrize("text", ["96", "96x128x3", "0x128", "96x4000", "-96x128", "axb", "128x96", "", "\uff196x128"])
def test_bad_size(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        ScenesWild(options={"size": text})


def test_other_bad_input() -> None:
    assert parse_size("48X64", "x") == (48, 64)
    with pytest.raises(UsageError, match="split"):
        ScenesWild(None, "training")
    with pytest.raises(UsageError, match="option"):
        ScenesWild(options={"sise": "48x64"})
    for bad in ("wild/test/00200", "wild/val/00001", "synthetic/test/00001", "wild/test/1", "wild/test/-0001", "17"):
        with pytest.raises(SampleError, match="no sample"):
            ScenesWild().load(bad)
    with pytest.raises(UsageError, match="target"):
        ScenesWild().load("wild/test/00000", ["dpeth"])


@pytest.mark.parametrize("kind", KINDS)
def test_judgements_follow_from_albedo(kind: type[_Scenes]) -> None:
    dataset = kind()
    for k in range(4):
        s = render_scene(dataset.domain, "test", k)
        target = dataset.load(dataset.ids[k], ["judgements"]).targets["judgements"]
        assert isinstance(target, JudgementTarget)
        height, width = s.size
        lightness = [s.albedo[int(y * height), int(x * width)].mean() for x, y in target.points]
        assert len(target.darker) >= 40
        assert target.weight.min() > 0
        assert target.weight.max() <= 1
        for (a, b), answer in zip(target.pairs, target.darker, strict=True):
            if answer == SAME:
                assert max(lightness[a] / lightness[b], lightness[b] / lightness[a]) < EQUAL_BELOW
            elif answer == FIRST:
                assert lightness[b] / lightness[a] > DARKER_ABOVE
            else:
                assert answer == SECOND
                assert lightness[a] / lightness[b] > DARKER_ABOVE
        assert (target.darker == SAME).mean() <= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_whdr_of_the_exact_albedo_is_zero(kind: type[_Scenes]) -> None:
    dataset = kind()
    for sample_id in dataset.ids[:5]:
        sample = dataset.load(sample_id, ["judgements", "albedo"])
        target, albedo = sample.targets["judgements"], sample.targets["albedo"]
        assert isinstance(target, JudgementTarget)
        assert isinstance(albedo, MapTarget)
        for delta in (0.1, 0.2):
            assert whdr(albedo.value, target, delta=delta) == 0.0
            # a constant albedo is wrong on every unequal pair, and the picture itself on some
            assert whdr(np.ones((4, 4)), target, delta=delta) > 0.25
            assert whdr(sample.image.astype(float) + 1.0, target, delta=delta) > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_follow_from_the_maps(kind: type[_Scenes]) -> None:
    dataset = kind()
    sample = dataset.load(dataset.ids[2])
    target = sample.targets["pairs"]
    assert isinstance(target, PairTarget)
    maps = arrays(sample)
    for modality, found in target.relation.items():
        again = relation(value=maps[modality], points=target.points, pairs=target.pairs, modality=modality)
        assert np.array_equal(again, found)
    # the definitions once more, by a plain loop
    height, width = maps["depth"].shape
    low, high = float(maps["depth"].min()), float(maps["depth"].max())
    luma = np.array([0.299, 0.587, 0.114])
    for j, (a, b) in enumerate(target.pairs):
        p, q = [(int(y * height), int(x * width)) for x, y in target.points[[a, b]]]
        gaps = {"depth": (float(maps["depth"][q]) - float(maps["depth"][p])) / (high - low),
                "normals": float(maps["normals"][q][2]) - float(maps["normals"][p][2]),
                "irradiance": float((maps["irradiance"][p].astype(float) - maps["irradiance"][q]) @ luma)}  # fmt: skip
        for modality, gap in gaps.items():
            expected = LEFT_OUT if abs(gap) < 0.02 else FIRST if gap > 0 else SECOND
            assert target.relation[modality][j] == expected
        distance = np.linalg.norm(maps["albedo"][p].astype(float) - maps["albedo"][q])
        assert target.relation["albedo"][j] == (SAME if distance < 0.05 else DIFFERENT)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_balanced_and_in_their_bands(kind: type[_Scenes]) -> None:
    dataset = kind()
    targets = [dataset.load(i, ["pairs"]).targets["pairs"] for i in dataset.ids[:12]]
    for target in targets:
        assert isinstance(target, PairTarget)
        assert len(target.pairs) == PAIRS
        xy = target.points * (512.0, 384.0)
        length = np.sqrt(((xy[target.pairs[:, 0]] - xy[target.pairs[:, 1]]) ** 2).sum(-1)).reshape(len(BANDS), -1)
        for ((start, _), top), inside in zip(BANDS, length, strict=True):
            assert start - 1e-9 <= inside.min()
            assert inside.max() <= top + 1e-9
        assert xy.min() >= 30 - 4
        assert (xy <= (512 - 26, 384 - 26)).all()
    for modality in ("depth", "normals", "irradiance"):
        found = np.concatenate([t.relation[modality] for t in targets])  # type: ignore[union-attr]
        assert (found == LEFT_OUT).mean() < 0.4
        assert 0.42 < (found == FIRST).sum() / (found != LEFT_OUT).sum() < 0.58
    albedo = np.concatenate([t.relation["albedo"] for t in targets])  # type: ignore[union-attr]
    assert (albedo == SAME).mean() >= 0.35


def test_wild_and_broad_are_drawn_from_different_ranges() -> None:
    for field in fields(WILD):
        assert getattr(WILD, field.name) != getattr(BROAD, field.name) or field.name == "sun_chance", field.name
    patterns = [{*d.wall, *d.floor, *d.object_} for d in (SYNTHETIC, WILD, BROAD)]
    assert patterns[1] - patterns[2] == {"chevron", "speckle"}
    assert patterns[2] - patterns[1] == {"patches", "rings"}
    assert set().union(*patterns) == set(PATTERNS)


def test_the_gap_between_synthetic_and_wild_shows_in_the_pictures() -> None:
    def traits(domain: str) -> tuple[float, float]:
        images = [scene(domain, k).image().astype(float) for k in range(6)]
        chroma = np.mean([np.ptp(i, axis=-1).mean() / i.mean() for i in images])
        rough = np.mean([np.abs(np.diff(i, n=2, axis=1)).mean() / i.mean() for i in images])
        return float(chroma), float(rough)

    synthetic, wild = traits("synthetic"), traits("wild")
    assert wild[0] > 1.5 * synthetic[0]
    assert wild[1] > 1.5 * synthetic[1]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=str)
def test_cameras_keep_their_distance(domain: object) -> None:
    family = domain
    assert family in DOMAINS.values()
    for k in range(6):
        s = scene(family.name, k)  # type: ignore[attr-defined]
        assert s.depth.min() >= NEAREST
        assert all(low < 0 < high for low, high in zip(s.world.room.low, s.world.room.high, strict=True))
