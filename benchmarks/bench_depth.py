"""Depth: an affine fit and every metric of affine-invariant depth, at the sizes of NYUv2 and ETH3D."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.arrays import Maps, depth_maps
from benchmarks.conftest import Measure
from reasonx_eval import align
from reasonx_eval.blocks import DepthPairs
from reasonx_eval.metrics.depth import score_pairs

CLIP = (1e-3, 80.0)
SMALL, LARGE = (480, 640), (4032, 6048)
GROUP = "depth: affine fit and all metrics, {}x{}"
FIT = "depth: affine fit alone, {}x{}"

small = pytest.mark.benchmark(group=GROUP.format(*SMALL))
large = pytest.mark.benchmark(group=GROUP.format(*LARGE))
small_fit = pytest.mark.benchmark(group=FIT.format(*SMALL))
large_fit = pytest.mark.benchmark(group=FIT.format(*LARGE))


def ours(maps: Maps) -> dict[str, float]:
    pred, target, valid = maps
    pairs = DepthPairs(pred=pred, target=target, valid=valid)
    fitted = align.fit_pairs(pairs, mode="affine", space="depth")
    return score_pairs(pairs, alignment=fitted, names=peers.DEPTH_METRICS, clip_m=CLIP, floor_m=1e-6)


def ours_fit(maps: Maps) -> tuple[float, float]:
    pred, target, valid = maps
    fitted = align.fit(pred=pred, target=target, valid=valid, mode="affine", space="depth")
    return fitted.scale, fitted.shift


def reading(maps: Maps) -> float:
    """The inputs, read once to fit and once to score."""
    pred, target, valid = maps
    return sum(float(pred.sum()) + float(target.sum()) + int(np.count_nonzero(valid)) for _ in range(2))


@cache
def maps_of(shape: tuple[int, int]) -> Maps:
    assert_forms_agree()
    return depth_maps(*shape)


@cache
def assert_forms_agree() -> None:
    """In float64, on a map of several blocks with a last one that isn't full."""
    maps = depth_maps(211, 407, dtype=np.float64)
    for form in (peers.depth_affine_torch, peers.depth_affine_numpy):
        assert form(*maps, CLIP) == pytest.approx(ours(maps), rel=1e-9, abs=0)
    assert peers.affine_lstsq(*maps) == pytest.approx(ours_fit(maps), rel=1e-9, abs=0)


@small
def test_small_ours(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("ours", lambda: ours(maps), form="blocks of rows, float64 sums", rounds=60)


@small
def test_small_peer(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("peer", lambda: peers.depth_affine_torch(*maps, CLIP), form="lstsq, a masked map a metric (Marigold)",
            memory="resident")  # fmt: skip


@small
def test_small_numpy(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("library", lambda: peers.depth_affine_numpy(*maps, CLIP), form="numpy, masked once, whole vectors")


@small
def test_small_package(measure: Measure) -> None:
    package(measure, SMALL)


@small
def test_small_bound(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("bound", lambda: reading(maps), form="the inputs, read twice")


@large
def test_large_ours(measure: Measure) -> None:
    maps = maps_of(LARGE)
    measure("ours", lambda: ours(maps), form="blocks of rows, float64 sums", rounds=5)


@large
def test_large_peer(measure: Measure) -> None:
    maps = maps_of(LARGE)
    measure("peer", lambda: peers.depth_affine_torch(*maps, CLIP), form="lstsq, a masked map a metric (Marigold)",
            memory="resident", rounds=1)  # fmt: skip


@large
def test_large_bound(measure: Measure) -> None:
    maps = maps_of(LARGE)
    measure("bound", lambda: reading(maps), form="the inputs, read twice")


@small_fit
def test_small_fit_ours(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("ours", lambda: ours_fit(maps), form="moments, merged over blocks", rounds=60)


@small_fit
def test_small_fit_peer(measure: Measure) -> None:
    maps = maps_of(SMALL)
    measure("peer", lambda: peers.affine_lstsq(*maps), form="numpy.linalg.lstsq")


@large_fit
def test_large_fit_ours(measure: Measure) -> None:
    maps = maps_of(LARGE)
    measure("ours", lambda: ours_fit(maps), form="moments, merged over blocks", rounds=7)


@large_fit
def test_large_fit_peer(measure: Measure) -> None:
    maps = maps_of(LARGE)
    measure("peer", lambda: peers.affine_lstsq(*maps), form="numpy.linalg.lstsq", rounds=2)


def package(measure: Measure, shape: tuple[int, int]) -> None:
    """Fit and the seven metrics of the depth-estimation package, in its float32, where it is installed."""
    try:
        from depth_estimation.evaluation.metrics import DepthMetrics, align_least_squares
    except ImportError:
        measure.absent("library", "the depth-estimation package, 7 metrics",
                       "not installed: it brings torchvision, OpenCV and timm")  # fmt: skip
    pred, target, valid = maps_of(shape)
    truth, mask = torch.from_numpy(target), torch.from_numpy(valid)

    def theirs() -> dict[str, float]:
        scale, shift = align_least_squares(pred, target, valid)
        return dict(DepthMetrics()(torch.from_numpy(np.clip(pred * scale + shift, *CLIP)), truth, mask))

    found, expected = theirs(), ours((pred, target, valid))
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-3)
    measure("library", theirs, form="the depth-estimation package, 7 metrics", memory="resident")
