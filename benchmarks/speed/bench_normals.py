"""Surface normals: all statistics of one image, and of every pixel of a data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.speed import peers
from benchmarks.speed.arrays import Floats, Maps, normal_maps
from benchmarks.speed.bench_depth import BLOCKS, without_kernels
from benchmarks.speed.conftest import Measure, Role
from reasonx_eval.metrics.angles import angular_errors
from reasonx_eval.metrics.normals import measure_normals, pooled_normal_metrics

HEIGHT, WIDTH = 480, 640
#: sizes that fit no cache; the peer, quadratic, takes too long for the last
IMAGES = (60, 120, 240)

one_image = pytest.mark.benchmark(group=f"normals: all statistics of one image, {HEIGHT}x{WIDTH}")
pooled = pytest.mark.benchmark(group="normals: pooled over images")


def ours(maps: Maps) -> dict[str, float]:
    pred, target, valid = maps
    return measure_normals(pred=pred, target=target, mask=valid)


def theirs(maps: Maps) -> dict[str, float]:
    return peers.normal_statistics(peers.angular_errors_torch(*maps))


@cache
def maps_of(seed: int) -> Maps:
    assert_forms_agree()
    return normal_maps(HEIGHT, WIDTH, seed=seed)


@cache
def error_vectors(count: int) -> list[NDArray[np.float64]]:
    """Errors of so many images in degrees, float64 [n_i]: those of four, again and again."""
    four = [angular_errors(pred=p, target=g, mask=v) for p, g, v in map(maps_of, range(4))]
    return [four[k % 4].copy() for k in range(count)]


@cache
def single_precision(count: int) -> list[torch.Tensor]:
    """The same as the peer's own formulation gives them, float32."""
    return [torch.from_numpy(e.astype(np.float32)) for e in error_vectors(count)]


@cache
def assert_forms_agree() -> None:
    """In float64, on maps of several blocks with a last one that isn't full."""
    maps = [normal_maps(211, 407, seed=k, dtype=np.float64) for k in range(3)]
    assert theirs(maps[0]) == pytest.approx(ours(maps[0]), rel=1e-9, abs=0)
    errors = [angular_errors(pred=p, target=g, mask=v) for p, g, v in maps]
    found = pooled_normal_metrics(errors=errors)
    for form in (peers.pooled_normals_growing, peers.pooled_normals_once):
        assert form([torch.from_numpy(e) for e in errors]) == pytest.approx(found, rel=1e-9, abs=0)


@one_image
def test_image_ours(measure: Measure) -> None:
    maps = maps_of(0)
    measure("ours", lambda: ours(maps), form="a fused kernel, float64, and a partition", rounds=60)


@one_image
def test_image_ours_in_numpy(measure: Measure) -> None:
    maps = maps_of(0)
    assert without_kernels(ours, maps) == pytest.approx(ours(maps), rel=1e-9, abs=0)
    measure("library", lambda: without_kernels(ours, maps), form=BLOCKS, rounds=60)


@one_image
def test_image_peer(measure: Measure) -> None:
    maps = maps_of(0)
    measure("peer", lambda: theirs(maps), form="cosine similarity of whole maps (DSINE, Marigold)", memory="resident")


@one_image
def test_image_torchmetrics(measure: Measure) -> None:
    try:
        from torchmetrics.functional import cosine_similarity
    except ImportError:
        measure.absent("library", "torchmetrics.functional.cosine_similarity", "torchmetrics is not installed")
    pred, target, valid = maps_of(0)

    def library(pred: Floats, target: Floats) -> dict[str, float]:
        cosine = cosine_similarity(torch.from_numpy(pred[valid]), torch.from_numpy(target[valid]), reduction="none")
        return peers.normal_statistics(torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0))))

    # it rounds its inputs to float32, whatever they are
    assert library(pred, target) == pytest.approx(ours(maps_of(0)), rel=1e-4)
    measure("library", lambda: library(pred, target), form="torchmetrics.functional.cosine_similarity",
            memory="resident")  # fmt: skip


@one_image
def test_image_bound(measure: Measure) -> None:
    pred, target, valid = maps_of(0)
    measure("bound", lambda: (pred.sum(), target.sum(), np.count_nonzero(valid)), form="the inputs, read once")


@pooled
@pytest.mark.parametrize("count", IMAGES)
def test_pooled_ours(measure: Measure, count: int) -> None:
    errors = error_vectors(count)
    measure("ours", lambda: pooled_normal_metrics(errors), form="running sums and a histogram, then one bin of it",
            size=count, unit="images")  # fmt: skip


@pooled
@pytest.mark.parametrize("count", IMAGES[:2])
@pytest.mark.parametrize(("role", "form", "function"), [
    ("peer", "growing concatenation (DSINE)", peers.pooled_normals_growing),
    ("library", "one torch.cat, then numpy", peers.pooled_normals_once),
])  # fmt: skip
def test_pooled_concatenated(measure: Measure, count: int, role: Role, form: str,
                             function: Callable[[list[torch.Tensor]], dict[str, float]]) -> None:  # fmt: skip
    errors = single_precision(count)
    measure(role, lambda: function(errors), form=form, size=count, unit="images", memory="resident")


@pooled
@pytest.mark.parametrize("count", IMAGES)
def test_pooled_bound(measure: Measure, count: int) -> None:
    errors = error_vectors(count)
    measure("bound", lambda: sum(float(e.sum()) for e in errors), form="the errors, read once", size=count,
            unit="images")  # fmt: skip
