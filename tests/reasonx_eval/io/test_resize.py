"""Resizing against scipy's half-pixel zoom, and against hand-worked values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage import transform

from reasonx_eval.errors import SampleError, UsageError
from reasonx_eval.io.resize import resize


@pytest.mark.parametrize("shape", [(14, 21), (7, 5), (40, 9), (1, 1), (13, 11)])
@pytest.mark.parametrize("order", [0, 1])
def test_equals_scipy(shape, order):
    value = np.random.default_rng(0).random((13, 11))
    zoom = (shape[0] / 13, shape[1] / 11)
    expected = ndimage.zoom(value, zoom, order=order, grid_mode=True, mode="nearest")
    assert expected.shape == shape
    found = resize(value, shape, ("nearest", "bilinear")[order])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(14, 21), (7, 5), (40, 9), (13, 11), (200, 1)])
@pytest.mark.parametrize(("how", "mode"), [("bilinear-mirror", "mirror"), ("bilinear-zeros", "grid-constant")])
def test_what_lies_beside_the_border_equals_scipy(shape, how, mode):
    value = np.random.default_rng(0).random((13, 11))
    expected = ndimage.zoom(value, (shape[0] / 13, shape[1] / 11), order=1, grid_mode=True, mode=mode)
    np.testing.assert_allclose(resize(value, shape, how), expected, rtol=1e-12)
    padding = {"bilinear-mirror": "reflect", "bilinear-zeros": "constant"}[how]
    published = transform.resize(value, shape, order=1, preserve_range=True, mode=padding, anti_aliasing=False)
    np.testing.assert_allclose(resize(value, shape, how), published, rtol=1e-12)


def test_beside_the_border_by_hand():
    value = np.array([[4.0, 8.0]])
    # a quarter of a pixel beside the outermost centres
    np.testing.assert_array_equal(resize(value, (1, 4), "bilinear-mirror"), [[5, 5, 7, 7]])
    np.testing.assert_array_equal(resize(value, (1, 4), "bilinear-zeros"), [[3, 5, 7, 6]])
    np.testing.assert_array_equal(resize(np.array([[4.0]]), (1, 3), "bilinear-mirror"), [[4, 4, 4]])


def test_channels_are_resized_alike():
    value = np.random.default_rng(1).random((6, 8, 3))
    for how in ("bilinear", "bilinear-mirror", "bilinear-zeros", "nearest"):
        found = resize(value, (17, 5), how)
        for c in range(3):
            np.testing.assert_array_equal(found[..., c], resize(value[..., c], (17, 5), how))


def test_hand_worked_double():
    np.testing.assert_array_equal(resize(np.array([[0.0, 4.0]]), (1, 4), "bilinear"), [[0, 1, 3, 4]])
    np.testing.assert_array_equal(resize(np.array([[0, 4]], np.uint8), (2, 4), "nearest"), [[0, 0, 4, 4]] * 2)


def test_same_size_is_the_input_itself():
    value = np.zeros((3, 4), np.float32)
    assert resize(value, (3, 4), "bilinear") is value
    assert resize(value, (3, 4), "nearest") is value


def test_constants_and_linear_ramps_survive():
    assert np.all(resize(np.full((5, 7), 0.3, np.float32), (23, 19), "bilinear") == np.float32(0.3))
    ramp = np.arange(10.0)[None].repeat(2, 0)
    inner = resize(ramp, (2, 40), "bilinear")[0, 4:-4]
    np.testing.assert_allclose(inner, (np.arange(40) + 0.5)[4:-4] / 4 - 0.5)


def test_dtypes():
    assert resize(np.zeros((2, 2), np.float32), (3, 3), "bilinear").dtype == np.float32
    assert resize(np.zeros((2, 2), np.uint8), (3, 3), "bilinear").dtype == np.float32
    assert resize(np.zeros((2, 2)), (3, 3), "bilinear").dtype == np.float64
    assert resize(np.zeros((2, 2), np.uint16), (3, 3), "nearest").dtype == np.uint16


def test_nan_reaches_only_what_it_weighs_in():
    value = np.zeros((1, 5))
    value[0, 2] = np.nan
    # at a third of the size, each output pixel falls on the centre of one input pixel
    found = resize(np.repeat(value, 3, axis=1), (1, 5), "bilinear")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(value))
    np.testing.assert_array_equal(np.isnan(resize(value, (1, 10), "bilinear"))[0, 3:7], True)
    assert np.isnan(resize(value, (1, 10), "bilinear")).sum() == 4
    infinite = np.array([[1.0, np.inf, 1.0]])
    assert resize(np.repeat(infinite, 3, axis=1), (1, 3), "bilinear")[0, 1] == np.inf


def test_needs_little_more_than_its_result():
    value = np.random.default_rng(0).random((300, 400), np.float32)
    tracemalloc.start()
    try:
        found = resize(value, (1500, 2000), "bilinear")
        assert tracemalloc.get_traced_memory()[1] < found.nbytes + 6e6
    finally:
        tracemalloc.stop()


def test_bad_input():
    with pytest.raises(UsageError, match="bilinear"):
        resize(np.zeros((2, 2)), (3, 3), "bilinaer")
    for value, shape in ((np.zeros(4), (2, 2)), (np.zeros((0, 4)), (2, 2)), (np.zeros((2, 2)), (0, 2))):
        with pytest.raises(SampleError, match="can't resize"):
            resize(value, shape, "bilinear")
