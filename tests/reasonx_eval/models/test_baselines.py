"""Baselines: hand-worked values, and Retinex against scenes whose paint and light are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reasonx_eval.errors import UsageError
from reasonx_eval.io.color import linear_to_srgb, srgb_to_linear
from reasonx_eval.models.base import Model
from reasonx_eval.models.embedded.baselines import Constant, ImageAsAlbedo, MeanNormal, PlaneDepth, Retinex
from reasonx_eval.models.embedded.retinex import colour_retinex, integrate
from reasonx_eval.types import TASK_OF_KIND, Kind, Sample

RNG = np.random.default_rng(2)
PHOTO = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
ALL: list[Model] = [Constant(), ImageAsAlbedo(), Retinex(), PlaneDepth(), MeanNormal()]


def predict(model: Model, kind: Kind, image: np.ndarray = PHOTO) -> np.ndarray:
    (prediction,) = model.predict([Sample("a", image)], kind, 0)
    assert prediction.kind == kind
    return prediction.value


@pytest.mark.parametrize(
    ("model", "kind"), [(m, k) for m in ALL for kinds in m.kinds.values() for k in kinds],
    ids=lambda v: v if isinstance(v, str) else v.info.name,
)
@pytest.mark.parametrize("size", [(20, 30), (1, 1), (1, 9), (7, 1)])
def test_every_kind_has_its_shape_and_is_finite(model: Model, kind: Kind, size: tuple[int, int]) -> None:
    for image in (PHOTO[: size[0], : size[1]], np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        value = predict(model, kind, image)
        assert value.shape == (size if TASK_OF_KIND[kind] == "depth" else (*size, 3))
        assert value.dtype == np.float32
        assert np.isfinite(value).all()


def test_constant_values() -> None:
    model = Constant(depth=4.0, albedo=0.18, irradiance=2.0)
    expected = {"depth_metric": 4, "disparity_affine": 0.25, "albedo_linear": 0.18,
                "albedo_srgb": float(linear_to_srgb(0.18)), "irradiance": 2}  # fmt: skip
    for kind, value in expected.items():
        np.testing.assert_allclose(predict(model, kind), value, rtol=1e-6)  # type: ignore[arg-type]  # keys are kinds
    np.testing.assert_array_equal(predict(model, "normal")[3, 4], [0, 0, -1])


def test_image_as_albedo_is_the_image() -> None:
    np.testing.assert_allclose(predict(ImageAsAlbedo(), "albedo_srgb"), PHOTO / 255, rtol=1e-7)
    np.testing.assert_allclose(predict(ImageAsAlbedo(), "albedo_linear"), srgb_to_linear(PHOTO / 255), rtol=1e-6)


def test_plane_depth_is_a_plane() -> None:
    disparity = predict(PlaneDepth(near=2.0, far=8.0), "disparity_affine").astype(np.float64)
    np.testing.assert_allclose(1 / predict(PlaneDepth(near=2.0, far=8.0), "depth_metric"), disparity, rtol=1e-6)
    np.testing.assert_allclose(np.diff(disparity, axis=0), (1 / 2 - 1 / 8) / 20, rtol=1e-4)
    assert not np.diff(disparity, axis=1).any()
    # the edges of the image are half a pixel beyond the outer pixel centres
    step = (1 / 2 - 1 / 8) / 40
    np.testing.assert_allclose(disparity[[0, -1], 0], [1 / 8 + step, 1 / 2 - step], rtol=1e-6)


def test_mean_normal_tilts_up_towards_the_bottom() -> None:
    normal = predict(MeanNormal(top=0.0, bottom=90.0), "normal", np.zeros((3, 2, 3), np.uint8)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, rtol=1e-6)
    tilt = np.degrees(np.arctan2(-normal[:, 0, 1], -normal[:, 0, 2]))
    np.testing.assert_allclose(tilt, [15, 45, 75], rtol=1e-5)


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (Constant, {"kind": "depth"}),
        (Constant, {"depth": 0.0}),
        (Constant, {"albedo": float("nan")}),
        (PlaneDepth, {"near": 3.0, "far": 2.0}),
        (PlaneDepth, {"far": float("inf")}),
        (MeanNormal, {"bottom": 91.0}),
        (Retinex, {"chroma_threshold": -0.1}),
        (Retinex, {"max_side": 1}),
    ],
)
def test_options_that_make_no_sense(factory: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        factory(**options)


def test_refuses_a_kind_it_does_not_give() -> None:
    with pytest.raises(UsageError, match="unknown kind 'normal'"):
        predict(ImageAsAlbedo(), "normal")


# ---- the Poisson solver and Retinex


@pytest.mark.parametrize("shape", [(6, 5), (1, 7), (4, 1)])
def test_integrate_is_the_least_squares_solution(shape: tuple[int, int]) -> None:
    height, width = shape
    down, right = RNG.normal(size=(height - 1, width)), RNG.normal(size=(height, width - 1))
    index = np.arange(height * width).reshape(shape)
    rows, wanted = [], []
    for (a, b), step in zip(
        [*zip(index[:-1].ravel(), index[1:].ravel(), strict=True),
         *zip(index[:, :-1].ravel(), index[:, 1:].ravel(), strict=True)],
        [*down.ravel(), *right.ravel()], strict=True,
    ):  # fmt: skip
        row = np.zeros(height * width)
        row[b], row[a] = 1, -1
        rows.append(row)
        wanted.append(step)
    dense = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0].reshape(shape)
    np.testing.assert_allclose(integrate(down, right), dense - dense.mean(), atol=1e-12)


def test_integrate_returns_a_map_from_its_own_steps() -> None:
    value = RNG.normal(size=(33, 47))
    back = integrate(np.diff(value, axis=0), np.diff(value, axis=1))
    np.testing.assert_allclose(back, value - value.mean(), atol=1e-12)


def scene(height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coloured patches under a smooth light: photo, albedo, light."""
    colours = np.array([[0.7, 0.2, 0.15], [0.2, 0.55, 0.25], [0.2, 0.3, 0.7], [0.6, 0.55, 0.2]])
    patch = (np.arange(height)[:, None] // 30 + 2 * (np.arange(width)[None, :] // 40)) % 4
    albedo = colours[patch]
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    light = (0.25 + 0.75 * np.exp(-2 * ((x - 0.3) ** 2 + (y - 0.4) ** 2)))[..., None]
    photo = np.round(linear_to_srgb(albedo * light) * 255).astype(np.uint8)
    return photo, albedo, light


def test_retinex_separates_paint_from_smooth_light() -> None:
    photo, albedo, light = scene()
    got = predict(Retinex(), "albedo_linear", photo).astype(np.float64)
    scale = (got * albedo).sum() / (got * got).sum()
    # rounding to 8 bits moves dark values by a per cent; image-as-albedo is off by 30 %
    assert np.abs(np.log(scale * got / albedo)).mean() < 0.04
    image = srgb_to_linear(photo / 255)
    image *= (image * albedo).sum() / (image * image).sum()
    assert np.abs(np.log(image / albedo)).mean() > 0.15
    shading = predict(Retinex(), "irradiance", photo).astype(np.float64)
    assert np.corrcoef(shading[..., 0].ravel(), light.ravel())[0, 1] > 0.995


def test_retinex_albedo_times_irradiance_is_the_photo() -> None:
    photo = scene()[0]
    product = predict(Retinex(), "albedo_linear", photo) * predict(Retinex(), "irradiance", photo)
    np.testing.assert_allclose(product, srgb_to_linear(photo / 255), rtol=1e-4)


def test_retinex_irradiance_is_grey_and_albedo_white_is_one() -> None:
    albedo, light = colour_retinex(scene()[0], chroma_threshold=0.1, intensity_threshold=1.0, max_side=1024)
    np.testing.assert_array_equal(light, np.repeat(light[..., :1], 3, axis=-1))
    assert np.quantile(albedo.max(axis=-1), 0.995) == pytest.approx(1, rel=1e-5)


def test_retinex_thresholds_of_zero_and_infinity_like() -> None:
    """All steps paint: the albedo is the photo. No step paint: grey paint has no contrast left."""
    grey = np.repeat(np.tile(np.arange(60, 200, 4, dtype=np.uint8), (10, 1))[..., None], 3, axis=-1)
    ratio = predict(Retinex(intensity_threshold=0.0), "albedo_linear", grey) / srgb_to_linear(grey / 255)
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-4)
    flat = predict(Retinex(chroma_threshold=1e3, intensity_threshold=1e3), "albedo_linear", grey)
    np.testing.assert_allclose(flat, flat[0, 0, 0], rtol=1e-5)


def test_retinex_shrinks_large_photos_in_linear_light() -> None:
    checker = (np.indices((64, 96)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    albedo, light = colour_retinex(checker, chroma_threshold=0.1, intensity_threshold=1.0, max_side=48)
    assert albedo.shape == (32, 48, 3)
    np.testing.assert_allclose(albedo * light, 0.5, rtol=1e-5)
