"""The compiled kernels against the forms in numpy, which the other tests hold to the formulas."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reasonx_eval.errors import SampleError
from reasonx_eval.metrics import align, angles, kernels, normals, streaming_median
from reasonx_eval.metrics.depth_sums import NAMES, measure_depth
from reasonx_eval.metrics.kernels import Bins
from reasonx_eval.metrics.valid_pixels import ValidPixels
from reasonx_eval.types import Alignment

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the compiled kernels were not built for this machine")

#: widths around the four lanes and the pieces of 1,024 pixels that the kernels work in
SHAPES = ((1, 1), (1, 2), (3, 3), (2, 4), (7, 5), (5, 1023), (3, 1024), (2, 1025), (2, 2051), (31, 64))
DTYPES = ((np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32), (np.float64, np.float64))
SAME = Alignment("none", "depth", 1.0, 0.0, 1)
EXACT: dict[str, Any] = {"rel": 1e-11, "abs": 1e-13}


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What a call gives with the kernels and without."""
    with kernels.switched_off():
        plain = call()
    return call(), plain


def depth_values(pred: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_], **options: Any) -> dict[str, float]:
    return measure_depth(ValidPixels(pred=pred, target=target, mask=mask), **options)


def depth_maps(shape: tuple[int, int], seed: int, types: tuple[Any, Any] = DTYPES[0],
               share: float = 0.8) -> dict[str, NDArray[Any]]:  # fmt: skip
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.4, 9, shape)
    pred = target * 0.31 + 0.2 + rng.normal(0, 0.2, shape)
    mask = rng.random(shape) < share
    mask.flat[rng.integers(mask.size)] = True
    return {"pred": pred.astype(types[0]), "target": target.astype(types[1]), "mask": mask}


def normal_maps(shape: tuple[int, int], seed: int, types: tuple[Any, Any] = DTYPES[0]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(*shape, 3))
    pred = target * rng.uniform(0.1, 3) + rng.normal(0, 0.5, target.shape)
    mask = rng.random(shape) < 0.7
    mask.flat[rng.integers(mask.size)] = True
    return {"pred": pred.astype(types[0]), "target": target.astype(types[1]), "mask": mask}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("types", DTYPES)
@pytest.mark.parametrize(("mode", "space"), [("affine", "depth"), ("affine", "disparity"), ("scale", "depth"),
                                             ("scale", "disparity")])  # fmt: skip
def test_fits_agree(shape: tuple[int, int], types: tuple[Any, Any], mode: Any, space: Any) -> None:
    maps = depth_maps(shape, 3, types)
    if space == "disparity":
        # some are not positive: the fit leaves them out
        maps["pred"] = (1 / maps["target"] - 0.3).astype(types[0])
    found, plain = both(lambda: align.fit(**maps, mode=mode, space=space))
    assert (found.n_valid, found.reason) == (plain.n_valid, plain.reason)
    assert (found.scale, found.shift) == pytest.approx((plain.scale, plain.shift), rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("types", DTYPES)
@pytest.mark.parametrize(("space", "clip"), [("depth", None), ("depth", (1e-3, 4.0)), ("disparity", (0.5, math.inf))])
def test_depth_metrics_agree(shape: tuple[int, int], types: tuple[Any, Any], space: Any,
                             clip: tuple[float, float] | None) -> None:  # fmt: skip
    maps = depth_maps(shape, 4, types)
    fit = Alignment("affine", space, 3.1, -0.4, 1, None)
    found, plain = both(lambda: depth_values(**maps, alignment=fit, names=NAMES, clip_m=clip))
    assert list(found) == list(plain) == list(NAMES)
    assert found == pytest.approx(plain, **EXACT)


def test_every_pixel_invalid_but_one_anywhere_in_a_row() -> None:
    maps = depth_maps((1, 1030), 5)
    for column in (0, 1, 3, 511, 1023, 1024, 1027, 1028, 1029):
        maps["mask"][:] = False
        maps["mask"][0, column] = True
        p, g = float(maps["pred"][0, column]), float(maps["target"][0, column])
        found = depth_values(**maps, alignment=SAME,
                                    names=("mae", "log10", "silog", "irmse"))  # fmt: skip
        assert found == pytest.approx({"mae": abs(p - g), "log10": abs(math.log10(p / g)), "silog": 0.0,
                                       "irmse": abs(1 / p - 1 / g)}, **EXACT)  # fmt: skip


def test_what_is_not_valid_is_never_looked_at() -> None:
    maps = depth_maps((9, 70), 6)
    clean = depth_values(**maps, alignment=align.fit(**maps, mode="affine", space="depth"), names=NAMES)
    for name, value in (("pred", math.nan), ("pred", -math.inf), ("target", 0.0), ("target", math.nan)):
        spoilt = {k: v.copy() for k, v in maps.items()}
        spoilt[name][~maps["mask"]] = value
        fit = align.fit(**spoilt, mode="affine", space="depth")
        assert depth_values(**spoilt, alignment=fit, names=NAMES) == clean


@pytest.mark.parametrize(("name", "value"), [("pred", math.nan), ("pred", math.inf), ("target", 0.0),
                                             ("target", -1.0), ("target", math.inf), ("target", math.nan)])  # fmt: skip
@pytest.mark.parametrize("place", [0, 5, -1])
def test_bad_values_end_in_the_plain_form_and_its_message(name: str, value: float, place: int) -> None:
    maps = depth_maps((3, 70), 7, share=1.0)
    maps[name].flat[place] = value
    assert kernels.depth_moments(**maps, disparity=False) is None
    with pytest.raises(SampleError, match="NaN or infinite" if name == "pred" else "zero, negative or not finite"):
        align.fit(**maps, mode="affine", space="depth")
    # a clipped infinity must not pass for a depth
    with pytest.raises(SampleError):
        depth_values(**maps, alignment=SAME, names=("mae",),
                            clip_m=(1e-3, 10.0))  # fmt: skip


def test_values_without_a_logarithm_are_left_to_the_plain_form() -> None:
    maps = depth_maps((4, 9), 8, share=1.0)
    maps["pred"][2, 3] = -1.0
    found, plain = both(lambda: depth_values(**maps, alignment=SAME, names=NAMES, floor_m=None))
    assert math.isnan(found["log10"])
    assert found == pytest.approx(plain, **EXACT, nan_ok=True)


@pytest.mark.parametrize("factor", [1e-300, 1e-20, 1.0, 1e20, 1e300])
def test_extreme_magnitudes_agree_or_are_left_alone(factor: float) -> None:
    maps = depth_maps((6, 40), 9, DTYPES[3])
    maps["pred"], maps["target"] = np.abs(maps["pred"]) * factor, maps["target"] * factor
    with np.errstate(over="ignore", under="ignore"):
        found, plain = both(lambda: depth_values(
            **maps, alignment=Alignment("none", "depth", 3.0, 0.0, 1, None), names=("abs_rel", "silog", "delta1"),
            floor_m=None))  # fmt: skip
    assert found == pytest.approx(plain, **EXACT)


def test_a_large_offset_costs_no_digits() -> None:
    rng = np.random.default_rng(10)
    target = rng.uniform(1, 5, (40, 1500))
    pred = 1e8 + (target - 2) / 7
    found = align.fit(pred=pred, target=target, mask=np.ones(target.shape, bool), mode="affine", space="depth")
    # the prediction itself carries 1.5e-8 of rounding
    assert found.scale == pytest.approx(7, rel=1e-7)


def test_constants_and_proportions_have_exactly_no_spread() -> None:
    target = np.random.default_rng(11).uniform(1, 5, (7, 2050))
    mask = np.ones(target.shape, bool)
    fit = align.fit(pred=np.full_like(target, 0.1), target=target, mask=mask, mode="affine", space="depth")
    assert fit.reason is not None
    assert "constant (0.1)" in fit.reason
    perfect = depth_values(pred=target, target=target, mask=mask, names=NAMES,
                                  alignment=SAME)  # fmt: skip
    assert perfect == {name: 1.0 if name.startswith("delta") else 0.0 for name in NAMES}
    tripled = depth_values(pred=3 * target, target=target, mask=mask, names=("silog", "rmse_log"),
                                  alignment=SAME)  # fmt: skip
    assert tripled == pytest.approx({"silog": 0.0, "rmse_log": math.log(3)}, rel=1e-14, abs=1e-12)


def test_deltas_are_strict_at_the_same_floats_as_the_plain_form() -> None:
    # ratios on and beside 1.25, 1.25^2, 1.25^3 and their inverses, for depths that don't divide evenly
    target = np.repeat(np.array([0.1, 0.3, 1.0, 2.7, 7.0]), 24)[None]
    steps = np.array([1.25**k for k in (-3, -2, -1, 1, 2, 3)])
    ratio = np.concatenate([steps, np.nextafter(steps, 0), np.nextafter(steps, 9), steps * (1 + 1e-15)])
    maps = {"pred": target * np.tile(ratio, 5), "target": target, "mask": np.ones(target.shape, bool)}
    fit = SAME
    found, plain = both(lambda: depth_values(**maps, alignment=fit, names=("delta1", "delta2", "delta3")))
    assert found == plain


def test_logarithms_are_right_over_every_magnitude() -> None:
    exponents = np.linspace(-140, 140, 4001)
    pred = 10.0 ** exponents[None]
    for row in (pred, np.nextafter(np.sqrt(0.5) * 2.0 ** np.arange(-400, 400), 0)[None],
                (1 + np.linspace(-1e-3, 1e-3, 999))[None]):  # fmt: skip
        for value in row[0][:: max(1, row.size // 200)]:
            sums = kernels.depth_sums(pred=np.array([[value]]), target=np.ones((1, 1)), mask=np.ones((1, 1), bool),
                                    scale=1.0, shift=0.0, disparity=False, disparity_floor=1e-3, low=-math.inf,
                                    high=math.inf)  # fmt: skip
            assert sums is not None
            assert sums.log_mean == pytest.approx(math.log(value), rel=5e-16, abs=1.2e-16)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("types", DTYPES)
def test_angles_agree(shape: tuple[int, int], types: tuple[Any, Any]) -> None:
    maps = normal_maps(shape, 12, types)
    maps["pred"][0, 0] = 0  # no direction: 90 degrees
    found, plain = both(lambda: angles.angular_errors(**maps))
    np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-12)
    found, plain = both(lambda: normals.measure_normals(**maps))
    assert found == pytest.approx(plain, **EXACT)


def test_angles_are_those_of_the_arc_cosine() -> None:
    near = np.concatenate([10.0 ** np.arange(-16.0, 0), np.linspace(0.1, 0.9, 50)])
    cosine = np.concatenate([np.linspace(-1, 1, 4001), 1 - near, near - 1, [0.5, -0.5]])
    # of length 1 within rounding, so that the dot product with x is the cosine
    vectors = np.stack([cosine, np.sqrt((1 - cosine) * (1 + cosine)), np.zeros_like(cosine)], axis=-1)[None]
    x = np.zeros_like(vectors)
    x[..., 0] = 1.0
    found = angles.angular_errors(pred=vectors, target=x, mask=np.ones(vectors.shape[:2], bool))
    np.testing.assert_allclose(found, np.degrees(np.arccos(vectors[0, :, 0])), rtol=1e-13, atol=2e-6)
    inner = np.abs(cosine) < 0.999
    np.testing.assert_allclose(found[inner], np.degrees(np.arccos(cosine[inner])), rtol=1e-13)
    for vector, degrees in (((1, 0, 0), 0.0), ((-1, 0, 0), 180.0), ((0, 1, 0), 90.0)):
        one = np.array(vector, dtype=np.float64).reshape(1, 1, 3)
        assert angles.angular_errors(pred=one, target=x[:, :1], mask=np.ones((1, 1), bool)).tolist() == [degrees]


@pytest.mark.parametrize("change", [
    lambda p, g: p.__setitem__((2, 3, 1), np.nan), lambda p, g: p.__setitem__((2, 3, 1), np.inf),
    lambda p, g: g.__setitem__((2, 3), 0.0), lambda p, g: g.__setitem__((2, 3, 0), np.nan),
])  # fmt: skip
def test_bad_normals_end_in_the_plain_form_and_its_message(change: Callable[..., None]) -> None:
    maps = normal_maps((5, 9), 13)
    maps["mask"][2, 3] = True
    change(maps["pred"], maps["target"])
    assert kernels.angles_between(**maps) is None
    with pytest.raises(SampleError, match=r"NaN or infinite|length 0 or aren't finite"):
        angles.angular_errors(**maps)


def test_layouts_are_taken_or_left_but_never_read_wrongly() -> None:
    maps = depth_maps((12, 40), 14)
    whole = {k: v[2:9, 4:31] for k, v in maps.items()}  # rows with a gap between them
    assert kernels.depth_moments(**whole, disparity=False) == kernels.depth_moments(
        **{k: v.copy() for k, v in whole.items()}, disparity=False)  # fmt: skip
    flipped = {k: v[::-1] for k, v in maps.items()}
    assert kernels.depth_moments(**flipped, disparity=False) == kernels.depth_moments(
        **{k: np.ascontiguousarray(v) for k, v in flipped.items()}, disparity=False)  # fmt: skip
    for other in (lambda a: np.asfortranarray(a), lambda a: a[:, ::-1], lambda a: a.astype(a.dtype.newbyteorder()),
                  lambda a: a.astype(np.float16)):  # fmt: skip
        strange = maps | {"pred": other(maps["pred"])}
        assert kernels.depth_moments(**strange, disparity=False) is None
        found, plain = both(lambda strange=strange: align.fit(**strange, mode="affine", space="depth"))
        assert found == plain
    vectors = normal_maps((6, 8), 15)
    channels_first = np.moveaxis(np.moveaxis(vectors["pred"], 2, 0).copy(), 0, 2)
    assert kernels.angles_between(**vectors | {"pred": channels_first}) is None
    for wrong in ({"mask": maps["mask"][1:]}, {"target": maps["target"][:, 1:]},
                  {"mask": maps["mask"].view(np.uint8)}):  # fmt: skip
        assert kernels.depth_moments(**maps | wrong, disparity=False) is None
    with pytest.raises((TypeError, BufferError)):
        kernels.depth_moments(**maps | {"pred": None}, disparity=False)


def test_the_same_bits_from_every_thread() -> None:
    maps = depth_maps((300, 700), 16)
    fit = align.fit(**maps, mode="affine", space="depth")
    pairs = ValidPixels(**maps)

    def score(_: int) -> tuple[Alignment, dict[str, float]]:
        return align.fit_pixels(pairs, mode="affine", space="depth"), measure_depth(pairs, alignment=fit,
                                                                                       names=NAMES)  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(score, range(16))
    assert all(other == first for other in others)


@pytest.mark.parametrize("n", [0, 1, 3, 5, 4097])
def test_bins_count_and_take_what_numpy_does(n: int) -> None:
    values = np.random.default_rng(n).normal(50, 60, n)
    values[: n // 3] = 180.0
    bins = Bins(0.0, 180.0, 64)

    def use() -> tuple[list[int], list[float]]:
        counts = bins.empty()
        streaming_median.count(values, bins, counts)
        out = np.empty(n)
        return counts.tolist(), out[: streaming_median._take_bins(values, bins, 20, 64, out)].tolist()

    found, plain = both(use)
    assert found == plain
    assert sum(found[0]) == n
    assert found[0][-1] == np.count_nonzero((values < 0) | (values > 180))


def test_no_more_is_taken_than_there_is_room_for() -> None:
    with pytest.raises(ValueError, match="room"):
        kernels.take_bins(values=np.ones(9), bins=Bins(0.0, 2.0, 4), first=0, last=4, out=np.empty(8))
    with pytest.raises(ValueError, match="vector"):
        kernels.count_bins(values=np.ones(9), bins=Bins(0.0, 2.0, 4), counts=np.zeros(5, np.int64))
    with pytest.raises((ValueError, BufferError)):
        kernels.count_bins(values=np.ones(9)[::2], bins=Bins(0.0, 2.0, 4), counts=np.zeros(6, np.int64))


def test_bins_without_a_finite_number_in_a_unit_are_refused() -> None:
    # numbers of bins would lie anywhere in memory
    narrow = Bins(0.0, 5e-324, 8192)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="finite"):
        kernels.count_bins(values=np.zeros(9), bins=narrow, counts=narrow.empty())


def test_pooled_normal_metrics_agree() -> None:
    pieces = [angles.angular_errors(**normal_maps((60, 90 + k), k)) for k in range(5)]
    found, plain = both(lambda: normals.pooled_normal_metrics(errors=pieces))
    assert found == pytest.approx(plain, **EXACT)
    assert found["median_deg"] == plain["median_deg"] == np.median(np.concatenate(pieces))


def test_a_variable_of_the_environment_turns_them_off() -> None:
    code = "from reasonx_eval.metrics import kernels; print(kernels.available())"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "REASONX_COMPILED": "0"}, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout == "False\n"
