"""Arithmetic, draws and patterns of the scenes against the library functions they stand in for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.fft import dctn

from reasonx_eval.datasets.scenes import exact
from reasonx_eval.datasets.scenes.camera import Response, develop
from reasonx_eval.datasets.scenes.compression import _cosines, compress
from reasonx_eval.datasets.scenes.draw import Draw
from reasonx_eval.datasets.scenes.palette import hsv
from reasonx_eval.datasets.scenes.textures import ALBEDO_MAX, ALBEDO_MIN, PATTERNS, Texture, cell_hash, value_noise
from reasonx_eval.io.color import linear_to_srgb


@pytest.mark.parametrize("degrees", [0.0, 17.3, 44.9, 45.1, 90.0, 133.0, 180.0, 270.0, -60.0, -359.0, 725.5])
def test_cos_sin(degrees: float) -> None:
    cosine, sine = exact.cos_sin(degrees)
    assert cosine == pytest.approx(math.cos(math.radians(degrees)), abs=3e-15)
    assert sine == pytest.approx(math.sin(math.radians(degrees)), abs=3e-15)


def test_rotation_turns_right_down_and_is_orthonormal() -> None:
    assert np.array(exact.rotation(90.0))[:, 2] == pytest.approx([1, 0, 0])
    assert np.array(exact.rotation(0.0, 90.0))[:, 2] == pytest.approx([0, 1, 0])
    # rolled by +90 degrees, the camera's x axis points down in the world
    assert np.array(exact.rotation(0.0, 0.0, 90.0))[:, 0] == pytest.approx([0, 1, 0])
    m = np.array(exact.rotation(31.0, -12.0, 77.0))
    assert m @ m.T == pytest.approx(np.eye(3), abs=1e-15)
    assert np.linalg.det(m) == pytest.approx(1.0)


def test_apply_is_the_matrix_product() -> None:
    m = exact.rotation(31.0, -12.0, 7.0)
    v = np.random.default_rng(0).normal(size=(3, 50))
    assert np.stack(exact.apply(m, (v[0], v[1], v[2]))) == pytest.approx(np.array(m) @ v)
    assert exact.transpose(m) == tuple(map(tuple, np.array(m).T))


def test_srgb_table_is_the_standard_curve() -> None:
    x = np.arange(exact.SRGB_STEPS + 1) / exact.SRGB_STEPS
    assert np.abs(exact.srgb_table() - linear_to_srgb(x)).max() < 1e-14
    assert exact.encode_srgb(np.array([-1.0, 0.0, 1.0, 7.0])) == pytest.approx([0, 0, 1, 1])


def test_mean_is_exact_and_close() -> None:
    values = np.random.default_rng(1).random(1001) * 255
    assert exact.mean(values) == pytest.approx(values.mean(), abs=1e-6)
    assert exact.mean(values) == exact.mean(values[::-1])


def test_draws_are_uniform_and_keyed() -> None:
    draw = Draw(0, "a")
    values = draw.units(20_000)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(values, Draw(0, "a").units(20_000))
    assert not np.array_equal(values, Draw(0, "b").units(20_000))
    one, many = Draw(0, "c"), Draw(0, "c")
    assert [one.unit() for _ in range(5)] == many.units(5).tolist()


def test_bell_has_the_moments_of_a_normal() -> None:
    values = Draw(0, "bell").bell(100_000)
    assert values.mean() == pytest.approx(0.0, abs=0.02)
    assert values.std() == pytest.approx(1.0, abs=0.01)
    assert np.abs(values).max() < 3.5


def test_integer_weighted_and_order() -> None:
    draw = Draw(0, "misc")
    assert {draw.integer(2, 5) for _ in range(200)} == {2, 3, 4, 5}
    picks = [draw.weighted({"a": 3, "b": 1, "never": 0}) for _ in range(2000)]
    assert picks.count("a") / 2000 == pytest.approx(0.75, abs=0.04)
    assert "never" not in picks
    assert sorted(draw.order(50)) == list(range(50))
    spans = [draw.inverse_span((0.1, 1.0)) for _ in range(2000)]
    assert min(spans) >= 0.1
    assert max(spans) <= 1.0
    assert np.median(spans) == pytest.approx(1 / 5.5, abs=0.02)  # the middle of 1 / 0.1 and 1 / 1


def test_hsv_against_the_standard_library() -> None:
    import colorsys

    for h, s, v in ((0.0, 1.0, 1.0), (0.33, 0.5, 0.8), (0.9, 0.2, 0.4), (0.61, 0.0, 0.7)):
        assert hsv(h, s, v) == pytest.approx(colorsys.hsv_to_rgb(h, s, v))
    assert hsv(-0.25, 0.5, 0.5) == pytest.approx(hsv(0.75, 0.5, 0.5))


def test_cell_hash_by_plain_integers() -> None:
    def plain(i: int, j: int, key: int) -> float:
        mask = 0xFFFFFFFF
        h = (i * 0x9E3779B1 & mask) ^ (j * 0x85EBCA77 & mask) ^ key
        h ^= h >> 15
        h = h * 0x2C1B3C6D & mask
        h ^= h >> 12
        h = h * 0x297A2D39 & mask
        h ^= h >> 15
        return h / 2**32

    i, j = np.array([0.0, -3.0, 12.0, 1e5]), np.array([0.0, 7.0, -12.0, -1e5])
    assert cell_hash(i, j, 99).tolist() == [plain(int(a), int(b), 99) for a, b in zip(i, j, strict=True)]


def test_value_noise_meets_the_lattice_and_is_continuous() -> None:
    i, j = np.arange(-4.0, 4.0), np.arange(8.0)
    assert value_noise(i, j, 5).tolist() == cell_hash(i, j, 5).tolist()
    a = np.linspace(-2, 2, 4001)
    assert np.abs(np.diff(value_noise(a, 0.3 * a, 5))).max() < 0.005


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_stay_in_range_and_only_plain_is_flat(pattern: str) -> None:
    u, v = np.random.default_rng(2).uniform(-3, 3, (2, 4000))
    place = PATTERNS[pattern](u, v, 17, 0.5)
    assert place.min() >= 0
    assert place.max() <= 1
    assert (np.ptp(place) == 0) == (pattern == "plain")


def test_checker_by_hand_and_albedo_bounds() -> None:
    dark, light = (0.0, 0.1, 0.2), (2.0, 0.6, 0.5)
    texture = Texture("checker", (dark, (0.3, 0.3, 0.3), light), scale=0.5)
    u, v = np.array([0.1, 0.6, 0.6, -0.1]), np.array([0.1, 0.1, 0.6, 0.1])
    red, green, blue = texture.albedo(u, v, np.zeros(4, dtype=np.int8))
    assert red == pytest.approx([ALBEDO_MIN, ALBEDO_MAX, ALBEDO_MIN, ALBEDO_MAX])
    assert green == pytest.approx([0.1, 0.6, 0.1, 0.6])
    assert blue == pytest.approx([0.2, 0.5, 0.2, 0.5])


def test_a_neutral_response_only_encodes() -> None:
    linear = np.random.default_rng(3).random((8, 9, 3)) * 1.2
    expected = np.floor(linear_to_srgb(np.clip(linear, 0, 1)) * 255 + 0.5)
    assert np.abs(develop(linear, Response(), None) - expected).max() <= 1
    assert (develop(linear, Response(), None) == expected).mean() > 0.99


def test_blur_has_the_stated_deviation_and_keeps_light() -> None:
    from reasonx_eval.datasets.scenes.camera import _blur

    spot = np.zeros((61, 61, 3))
    spot[30, 30] = 1.0
    blurred = _blur(spot, 2.5)
    assert blurred.sum(axis=(0, 1)) == pytest.approx([1, 1, 1])
    profile = blurred[..., 0].sum(axis=1)
    assert math.sqrt((profile * (np.arange(61) - 30) ** 2).sum()) == pytest.approx(2.5, abs=0.03)
    assert _blur(np.full((5, 7, 3), 0.4), 3.0) == pytest.approx(np.full((5, 7, 3), 0.4))


def test_noise_grows_with_light_and_is_absent_without_a_stream() -> None:
    grey = np.tile(np.where(np.arange(200) < 100, 0.05, 0.5)[None, :, None], (100, 1, 3))
    response = Response(read_noise=0.001, shot_noise=0.05)
    noisy = develop(grey, response, Draw(0, "n")) / 255.0
    from reasonx_eval.io.color import srgb_to_linear

    back = srgb_to_linear(noisy)
    for part, level in ((back[:, :100], 0.05), (back[:, 100:], 0.5)):
        assert part.std() == pytest.approx(math.sqrt(1e-6 + 0.0025 * level), rel=0.05)
    assert np.ptp(develop(grey, response, None)[:, :100]) == 0


def test_tone_curve_by_hand() -> None:
    from reasonx_eval.datasets.scenes.camera import _tone

    x = np.array([0.0, 0.25, 0.5, 1.0])
    assert _tone(x, 0.5, 0.0) == pytest.approx(x)
    # Schlick's bias maps 1/2 to the bias itself; the smooth step maps 1/4 to 5/32
    assert _tone(x, 0.3, 0.0)[[0, 2, 3]] == pytest.approx([0, 0.3, 1])
    assert _tone(x, 0.5, 1.0) == pytest.approx([0, 5 / 32, 0.5, 1])


def test_compression_quantises_as_an_independent_transform() -> None:
    assert _cosines() @ _cosines().T == pytest.approx(np.eye(8), abs=1e-14)
    # grey, so only the luma plane matters; 16 is the first step of the table at quality 50
    grey = np.floor(np.random.default_rng(4).random((8, 8)) * 256)
    steps = np.array([[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
                      [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
                      [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
                      [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])  # fmt: skip
    kept = np.floor(dctn(grey - 128, norm="ortho") / steps + 0.5) * steps
    expected = np.clip(np.floor(dctn(kept, type=3, norm="ortho") + 128.5), 0, 255)
    assert compress(np.repeat(grey[..., None], 3, axis=2), 50)[..., 0] == pytest.approx(expected, abs=1)


def test_compression_loses_more_at_lower_quality_and_takes_any_size() -> None:
    picture = np.floor(np.random.default_rng(5).random((13, 22, 3)) * 256)
    loss = [np.abs(compress(picture, q) - picture).mean() for q in (95, 60, 20)]
    assert 0 < loss[0] < loss[1] < loss[2]
    flat = np.full((13, 22, 3), 90.0)
    assert np.abs(compress(flat, 90) - flat).max() <= 1
