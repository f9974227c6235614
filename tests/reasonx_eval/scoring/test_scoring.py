"""Rules of protocols that metrics alone don't know: spaces, rescaling, masks, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import reasonx_eval.metrics as rx
from reasonx_eval.errors import SampleError, UndefinedScore, UsageError
from reasonx_eval.io import color
from reasonx_eval.io.digests import array_digest
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.scoring import Scored, score_sample, to_record
from reasonx_eval.scoring.depth import crop_window, evaluation_mask
from reasonx_eval.types import DepthTarget, JudgementTarget, MapTarget, NormalTarget, PairTarget, Prediction, Sample

RNG = np.random.default_rng(0)
PHOTO = np.zeros((480, 640, 3), np.uint8)


def sample(**targets: Any) -> Sample:
    return Sample("one", PHOTO, targets)


def judgements(darker: int = 1) -> JudgementTarget:
    return JudgementTarget(np.array([[0.1, 0.5], [0.9, 0.5]]), np.array([[0, 1]]), np.array([darker], np.int8),
                           np.array([1.0]))  # fmt: skip


def two(left: float, right: float, kind: Any = "albedo_linear") -> Prediction:
    value = np.full((4, 10, 3), left)
    value[:, 5:] = right
    return Prediction(kind, value)


def whdr(prediction: Prediction, name: str, target: JudgementTarget | None = None) -> float:
    scored = score_sample(sample=sample(judgements=target or judgements()), prediction=prediction,
                          protocol=get_protocol(name))  # fmt: skip
    return scored.metrics["whdr10"]


def test_a_ratio_of_1_2_is_a_difference_in_linear_but_not_in_gamma() -> None:
    # 1.2 ** (1 / 2.2) = 1.086 < 1.1: the disagreement between published tables in one pair
    assert whdr(two(0.5, 0.6), "albedo/iiw") == 0
    assert whdr(two(0.5, 0.6), "albedo/iiw-luo-srgb") == 1
    assert whdr(two(0.5, 0.6), "albedo/iiw-stored") == 0


def test_srgb_albedo_is_decoded_by_the_transfer_that_the_protocol_names() -> None:
    low, high = 0.02, 0.0222  # near black, the piecewise curve and the power differ
    encoded = two(float(color.linear_to_srgb(low)), float(color.linear_to_srgb(high)), "albedo_srgb")
    assert whdr(encoded, "albedo/iiw") == 0
    assert whdr(encoded, "albedo/iiw-luo-linear") == 0
    assert whdr(encoded, "albedo/iiw-stored") == 1


def test_rescaling_compresses_ratios() -> None:
    prediction = Prediction("albedo_linear", np.linspace(0.1, 1, 10)[None, :, None] * np.ones((4, 1, 3)))
    close = JudgementTarget(np.array([[0.45, 0.5], [0.55, 0.5]]), np.array([[0, 1]]), np.array([1], np.int8),
                            np.array([1.0]))  # fmt: skip
    assert whdr(prediction, "albedo/iiw", close) == 0
    assert whdr(prediction, "albedo/iiw-irn", close) == 1


def test_rescaling_comes_after_resizing_to_exchanged_sides() -> None:
    """InverseRenderNet's own steps, written out: a peak that resizing flattens no longer sets the range."""
    value = np.full((6, 6, 3), 0.2)
    value[2, 2], value[4:, 4:] = 3.0, 0.5
    height, width = sample(judgements=judgements()).image.shape[:2]
    assert height != width
    wide = ndimage.zoom(value, (width / 6, height / 6, 1), order=1, grid_mode=True, mode="nearest")
    stretched = (wide - wide.min()) / (wide.max() - wide.min()) / 2 + 0.5
    rng = np.random.default_rng(3)
    many = JudgementTarget(rng.random((60, 2)), rng.integers(0, 60, (400, 2)),
                           rng.integers(0, 3, 400).astype(np.int8), np.ones(400))  # fmt: skip
    expected = rx.whdr(stretched, many)
    prediction = Prediction("albedo_linear", value)
    assert whdr(prediction, "albedo/iiw-irn", many) == pytest.approx(expected, abs=1e-12)
    assert whdr(prediction, "albedo/iiw-irn@1", many) != pytest.approx(expected, abs=0.01)


def test_a_part_without_judgements_counts_0_where_the_source_counts_it_so() -> None:
    for name, expected in (("albedo/iiw-cgi", 0.0), ("albedo/iiw-cgi-zeros", 0.0), ("albedo/iiw-cgi@1", None)):
        scored = score_sample(sample=sample(judgements=judgements()), prediction=two(0.2, 0.9),
                              protocol=get_protocol(name))  # fmt: skip
        record = to_record(sample(), scored, "", "")
        assert sorted(v is None for k, v in record.metrics.items() if k != "whdr10") == [False, expected is None]
        assert scored.metrics["whdr10_eq"] == expected or np.isnan(scored.metrics["whdr10_eq"])


def test_what_lies_beside_the_border_is_the_protocols() -> None:
    corner = JudgementTarget(np.array([[0.001, 0.001], [0.5, 0.5]]), np.array([[0, 1]]), np.array([0], np.int8),
                             np.ones(1))  # fmt: skip
    # zeros beside the border darken the corner pixel: it is no longer as bright as the middle
    flat = Prediction("albedo_linear", np.full((2, 2, 3), 0.5))
    assert whdr(flat, "albedo/iiw-cgi", corner) == 0
    assert whdr(flat, "albedo/iiw-cgi-zeros", corner) == 1


def test_ssim_by_name() -> None:
    rng = np.random.default_rng(4)
    truth, pred = rng.random((2, 20, 30, 3)).astype(np.float32)
    target = MapTarget(truth, np.ones((20, 30), bool))
    found = {name: score_sample(sample=sample(albedo=target), prediction=Prediction("albedo_linear", pred),
                                protocol=get_protocol(f"albedo/{name}")).metrics
             for name in ("generic-marigold", "generic-marigold@1", "generic-marigold-cropped")}  # fmt: skip
    encoded = [color.encode(a.astype(np.float64), "gamma2.2") for a in (pred, truth)]
    assert found["generic-marigold"]["ssim"] == rx.ssim(*encoded, border="whole")
    assert found["generic-marigold@1"] == found["generic-marigold-cropped"]
    assert found["generic-marigold-cropped"]["ssim"] == rx.ssim(*encoded)
    assert found["generic-marigold"]["psnr"] == found["generic-marigold@1"]["psnr"]


def test_rescaling_nothing_or_nan_is_an_error_with_its_reason() -> None:
    with pytest.raises(SampleError, match="constant prediction"):
        whdr(two(0.5, 0.5), "albedo/iiw-irn")
    with pytest.raises(SampleError, match="NaN"):
        whdr(two(np.nan, 0.5), "albedo/iiw-irn")


def test_no_judgement_is_undefined_not_failed() -> None:
    none = JudgementTarget(np.zeros((0, 2)), np.zeros((0, 2), np.int64), np.zeros(0, np.int8), np.zeros(0))
    with pytest.raises(UndefinedScore):
        whdr(two(0.1, 0.5), "albedo/iiw", none)


def depth_target() -> DepthTarget:
    depth = RNG.uniform(1, 9, (480, 640)).astype(np.float32)
    return DepthTarget(depth, np.ones(depth.shape, bool))


def score_depth(target: DepthTarget, prediction: Prediction, name: str = "depth/nyuv2") -> Scored:
    return score_sample(sample=sample(depth=target), prediction=prediction, protocol=get_protocol(name))


def test_the_eigen_crop_hides_the_border_and_only_the_border() -> None:
    target = depth_target()
    value = target.depth.copy()
    value[:45], value[471:], value[:, :41], value[:, 601:] = 77, 77, 77, 77
    scored = score_depth(target, Prediction("depth_metric", value))
    assert scored.n_valid == (471 - 45) * (601 - 41)
    assert scored.metrics["abs_rel"] == pytest.approx(0, abs=1e-7)
    assert score_depth(target, Prediction("depth_metric", value), "depth/nyuv2-nocrop").metrics["abs_rel"] > 0.1


def test_the_range_is_strict() -> None:
    target = depth_target()
    target.depth[100, 100:103] = 0.001, 10.0, 9.9999
    scored = score_depth(target, Prediction("depth_metric", target.depth))
    assert scored.n_valid == (471 - 45) * (601 - 41) - 2


def test_empty_mask_guesses_millimetres() -> None:
    target = depth_target()
    with pytest.raises(SampleError, match=r"median depth is .*: millimetres\?"):
        score_depth(DepthTarget(target.depth * 1000, target.valid), Prediction("depth_metric", target.depth))
    with pytest.raises(SampleError, match="no valid pixel"):
        score_depth(DepthTarget(target.depth, ~target.valid), Prediction("depth_metric", target.depth))


def test_a_crop_of_another_size_is_refused() -> None:
    small = DepthTarget(np.ones((240, 320), np.float32), np.ones((240, 320), bool))
    with pytest.raises(SampleError, match="480x640"):
        score_depth(small, Prediction("depth_metric", small.depth))


def test_disparity_is_fitted_in_disparity() -> None:
    target = depth_target()
    perfect = Prediction("disparity_affine", 3 / target.depth.astype(np.float64) + 0.2)
    assert score_depth(target, perfect).metrics["abs_rel"] == pytest.approx(0, abs=1e-6)
    as_depth = Prediction("depth_affine", perfect.value)
    scored = score_depth(target, as_depth)
    assert scored.metrics["abs_rel"] > 0.1
    assert scored.notes


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((480, 640, 1), "depth_metric", r"must be \[H, W\]"),
        ((3, 480, 640), "normal", "channels first"),
        ((480, 640), "normal", r"must be \[H, W, 3\]"),
        ((0, 640), "depth_metric", "must be"),
    ],
)
def test_shapes(shape: tuple[int, ...], kind: Any, words: str) -> None:
    protocol = get_protocol("normals/generic" if kind == "normal" else "depth/generic")
    target = NormalTarget(np.zeros((480, 640, 3), np.float32), np.ones((480, 640), bool))
    with pytest.raises(SampleError, match=words):
        score_sample(sample=sample(normals=target, depth=depth_target()), protocol=protocol,
                     prediction=Prediction(kind, np.ones(shape)))  # fmt: skip


def test_integers_unknown_kinds_and_missing_targets_are_refused() -> None:
    with pytest.raises(SampleError, match="floating point"):
        score_depth(depth_target(), Prediction("depth_metric", np.ones((480, 640), np.int32)))
    with pytest.raises(UsageError, match="not normal"):
        score_depth(depth_target(), Prediction("normal", np.ones((480, 640, 3))))
    with pytest.raises(SampleError, match="no target 'depth'"):
        score_sample(sample=sample(), prediction=Prediction("depth_metric", np.ones((2, 2))),
                     protocol=get_protocol("depth/nyuv2"))  # fmt: skip


def test_scale_exposure_and_ceiling_of_maps() -> None:
    value = RNG.uniform(0.2, 4, (24, 32, 3)).astype(np.float32)
    target = MapTarget(value, np.ones((24, 32), bool))
    for kind, name in (("albedo_linear", "albedo/generic"), ("irradiance", "irradiance/scenes-wild")):
        task = name.partition("/")[0]
        scored = score_sample(sample=sample(**{task: target}), prediction=Prediction(kind, value * 0.37),
                              protocol=get_protocol(name))  # fmt: skip
        assert scored.metrics["psnr"] == 100
        assert scored.metrics["si_mse"] == pytest.approx(0, abs=1e-12)
        assert scored.metrics["ssim"] == pytest.approx(1)


def test_pairs_of_a_disparity_and_of_srgb_albedo() -> None:
    depth = np.tile(np.linspace(1, 9, 20), (10, 1))
    points = np.array([[0.1, 0.5], [0.9, 0.5]])
    relation = {"depth": np.array([1], np.int8), "albedo": np.array([0], np.int8)}
    pairs = PairTarget(points, np.array([[0, 1]]), relation)
    for kind, value in (("depth_affine", depth), ("disparity_affine", 1 / depth)):
        scored = score_sample(sample=sample(pairs=pairs), prediction=Prediction(kind, value),
                              protocol=get_protocol("ordinal/scenes-wild-depth"))  # fmt: skip
        assert scored.metrics["agreement"] == 1
    # 0.10 and 0.20 in sRGB are 0.010 and 0.033 in linear: nearer than 0.05
    scored = score_sample(sample=sample(pairs=pairs), prediction=two(0.10, 0.20, "albedo_srgb"),
                          protocol=get_protocol("ordinal/scenes-wild-albedo"))  # fmt: skip
    assert scored.metrics["agreement"] == 1


def test_digests_see_every_value_type_and_shape() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    changed = value.copy()
    changed[1, 2] = np.nextafter(changed[1, 2], 9)
    digests = {array_digest(Prediction("depth_metric", v))
               for v in (value, changed, value.reshape(3, 2), value.astype(np.float64))}  # fmt: skip
    assert len(digests) == 4
    assert array_digest(Prediction("depth_metric", value.T.copy().T)) == array_digest(Prediction("depth_metric", value))


@pytest.mark.parametrize("shape", [(700, 90), (700, 90, 3), (1, 4), (2, 100_000), (0, 5)])
def test_digest_of_a_view_is_that_of_its_values(shape: tuple[int, ...]) -> None:
    """Of maps that lie over several blocks too: repeated rows, other strides, mirrored."""
    value = np.random.default_rng(1).random(shape, dtype=np.float32)
    row = value[:1] if len(value) else value
    views = [np.broadcast_to(row, shape), value[::-1], value[:, ::2], value.swapaxes(0, 1)]
    for view in views:
        assert array_digest(Prediction("normal", view)) == array_digest(Prediction("normal", view.copy()))


@pytest.mark.parametrize("crop", ["none", "garg", "eigen"])
@pytest.mark.parametrize("limits", [None, (1.0, 4.0)])
def test_evaluation_mask_is_valid_and_range_and_crop(crop: Any, limits: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0, 5, (480, 640)).astype(np.float32)
    odd = rng.random(depth.shape) < 0.1
    depth[odd] = rng.choice([np.nan, np.inf, 1.0, 4.0, 0.0], np.count_nonzero(odd))
    valid = rng.random(depth.shape) < 0.8
    kept = valid.copy()
    spec = get_protocol("depth/generic").depth
    assert spec is not None
    spec = spec.model_copy(update={"crop": crop, "range_m": limits})
    expected = valid & (depth > limits[0]) & (depth < limits[1]) if limits else valid.copy()
    outside = np.ones_like(valid)
    outside[crop_window(crop, 480, 640)] = False
    expected[outside] = False
    assert np.array_equal(evaluation_mask(DepthTarget(depth, valid), spec), expected)
    assert np.array_equal(valid, kept)


def test_nan_becomes_null_in_the_record() -> None:
    record = to_record(sample(), Scored({"a": float("nan"), "b": 1.5}, 3), "d", "p")
    assert record.metrics == {"a": None, "b": 1.5}


def test_rules_survive_json() -> None:
    for name in ("depth/eth3d", "albedo/iiw", "normals/nyuv2", "irradiance/scenes-wild", "normals/generic-agreement"):
        protocol = get_protocol(name)
        assert Protocol.from_rules(protocol.rules).digest == protocol.digest
