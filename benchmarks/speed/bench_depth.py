"""Depth: an affine fit and every metric of affine-invariant depth, at the sizes of NYUv2 and ETH3D."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.speed import peers
from benchmarks.speed.arrays import Maps, depth_maps
from benchmarks.speed.conftest import Measure, Memory
from reasonx_eval.metrics import align, kernels
from reasonx_eval.metrics.depth_sums import measure_depth
from reasonx_eval.metrics.valid_pixels import ValidPixels

CLIP = (1e-3, 80.0)
SMALL, LARGE = (480, 640), (4032, 6048)
GROUP = "depth: affine fit and all metrics, {}x{}"
KERNEL = "fused kernels, float64 sums"
BLOCKS = "ours where no kernels were built: numpy, in blocks of rows"
FIT = "depth: affine fit alone, {}x{}"


def ours(maps: Maps) -> dict[str, float]:
    pred, target, valid = maps
    pairs = ValidPixels(pred=pred, target=target, mask=valid)
    fitted = align.fit_pixels(pairs, mode="affine", space="depth")
    return measure_depth(pairs, alignment=fitted, names=peers.DEPTH_METRICS, clip_m=CLIP, floor_m=1e-6)


def ours_fit(maps: Maps) -> tuple[float, float]:
    pred, target, valid = maps
    fitted = align.fit(pred=pred, target=target, mask=valid, mode="affine", space="depth")
    return fitted.scale, fitted.shift


def reading(maps: Maps) -> float:
    """The inputs, read once to fit and once to score."""
    pred, target, valid = maps
    return sum(float(pred.sum()) + float(target.sum()) + int(np.count_nonzero(valid)) for _ in range(2))


def without_kernels(form: Callable[[Maps], Any], maps: Maps) -> Any:
    with kernels.switched_off():
        return form(maps)


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
    assert without_kernels(ours, maps) == pytest.approx(ours(maps), rel=1e-9, abs=0)
    assert peers.affine_lstsq(*maps) == pytest.approx(ours_fit(maps), rel=1e-9, abs=0)


class Forms:
    """Ours with kernels and without, and the peer's, at one size; None is as many rounds as fit."""

    own: Callable[[Maps], Any]
    peer: Callable[[Maps], Any]
    peer_form: str
    shape: tuple[int, int]
    rounds: int
    peer_memory: Memory = "traced"
    peer_rounds: int | None = None

    def test_ours(self, measure: Measure) -> None:
        maps = maps_of(self.shape)
        measure("ours", lambda: self.own(maps), form=KERNEL, rounds=self.rounds)

    def test_ours_in_numpy(self, measure: Measure) -> None:
        maps = maps_of(self.shape)
        measure("library", lambda: without_kernels(self.own, maps), form=BLOCKS, rounds=self.rounds)

    def test_peer(self, measure: Measure) -> None:
        maps = maps_of(self.shape)
        measure("peer", lambda: self.peer(maps), form=self.peer_form, memory=self.peer_memory, rounds=self.peer_rounds)


class Whole(Forms):
    """Fit and all metrics."""

    own = staticmethod(ours)
    peer = staticmethod(lambda maps: peers.depth_affine_torch(*maps, CLIP))
    peer_form, peer_memory = "lstsq, a masked map a metric (Marigold)", "resident"

    def test_bound(self, measure: Measure) -> None:
        maps = maps_of(self.shape)
        measure("bound", lambda: reading(maps), form="the inputs, read twice")


@pytest.mark.benchmark(group=GROUP.format(*SMALL))
class TestSmall(Whole):
    shape, rounds = SMALL, 60

    def test_numpy(self, measure: Measure) -> None:
        maps = maps_of(SMALL)
        measure("library", lambda: peers.depth_affine_numpy(*maps, CLIP), form="numpy, masked once, whole vectors")

    def test_package(self, measure: Measure) -> None:
        package(measure, SMALL)


@pytest.mark.benchmark(group=GROUP.format(*LARGE))
class TestLarge(Whole):
    shape, rounds, peer_rounds = LARGE, 5, 1


class Fit(Forms):
    """The fit alone."""

    own = staticmethod(ours_fit)
    peer = staticmethod(lambda maps: peers.affine_lstsq(*maps))
    peer_form = "numpy.linalg.lstsq"


@pytest.mark.benchmark(group=FIT.format(*SMALL))
class TestSmallFit(Fit):
    shape, rounds = SMALL, 60


@pytest.mark.benchmark(group=FIT.format(*LARGE))
class TestLargeFit(Fit):
    shape, rounds, peer_rounds = LARGE, 7, 2


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
