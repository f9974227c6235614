"""Measured-albedo metrics: hand-worked regions, invariances, and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from reasonx_eval.errors import SampleError, UndefinedScore
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.metrics.regions import maw_chroma, maw_intensity, region_means


def _scene(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (24, 32)) * 5
    return {"pred": rng.uniform(0.05, 0.9, (24, 32, 3)), "labels": labels, "colors": rng.uniform(0.1, 0.8, (3, 3))}


def test_means_are_ordered_by_label_without_the_background():
    pred = np.arange(18, dtype=np.float64).reshape(2, 3, 3)
    means, weights = region_means(pred=pred, labels=np.array([[9, 2, 2], [4, 4, 4]]))
    np.testing.assert_allclose(means, [pred[1].mean(axis=0), pred[0, 0]])
    assert weights.tolist() == [3, 1]


def test_equal_a_loop():
    s = _scene()
    ids = np.unique(s["labels"])[1:]
    p = np.array([s["pred"][s["labels"] == i].mean(axis=0) for i in ids])
    w = np.array([(s["labels"] == i).sum() for i in ids])
    scale = sum(w * p.mean(1) * s["colors"].mean(1)) / sum(w * p.mean(1) ** 2)
    intensity = sum(w[i] * (s["colors"][i].mean() - scale * p[i].mean()) ** 2 for i in range(3)) / sum(w)
    assert maw_intensity(**s) == pytest.approx(intensity, rel=1e-12)
    chroma = 0.0
    for i in range(3):
        fitted = p[i] * s["colors"][i].mean() / p[i].mean()
        lab = [rgb2lab(np.minimum(linear_to_srgb(v), 1).reshape(1, 1, 3)) for v in (s["colors"][i], fitted)]
        chroma += w[i] * deltaE_ciede2000(*lab).item() / sum(w)
    assert maw_chroma(**s) == pytest.approx(chroma, rel=1e-9)


def test_scaled_copy_is_perfect():
    s = _scene(1)
    lookup = np.zeros((16, 3))
    lookup[[5, 10, 15]] = s["colors"]
    s["pred"] = 0.4 * lookup[s["labels"]]
    assert maw_intensity(**s) < 1e-25
    assert maw_chroma(**s) < 1e-6
    # a scale of its own for each region is free in chroma only
    s["pred"] = s["pred"] * (1 + s["labels"][..., None])
    assert maw_intensity(**s) > 1e-3
    assert maw_chroma(**s) < 1e-6


def test_black_prediction_pays_in_full():
    s = _scene(2)
    _, w = region_means(pred=s["pred"], labels=s["labels"])
    s["pred"] = np.zeros_like(s["pred"])
    assert maw_intensity(**s) == pytest.approx((w * s["colors"].mean(axis=1) ** 2).sum() / w.sum())
    assert maw_chroma(**s) > 20


def test_bad_input():
    s = _scene(3)
    with pytest.raises(UndefinedScore, match="no region"):
        maw_intensity(**s | {"labels": np.zeros((24, 32), int)})
    with pytest.raises(SampleError, match="3 regions"):
        maw_intensity(**s | {"colors": s["colors"][:2]})
    with pytest.raises(SampleError, match="must be finite"):
        maw_chroma(**s | {"colors": s["colors"] * 0})
    with pytest.raises(SampleError, match="integers"):
        maw_chroma(**s | {"labels": s["labels"].astype(float)})
    broken = s["pred"].copy()
    broken[s["labels"] == 10] = np.nan
    with pytest.raises(SampleError, match=r"regions \[10\]"):
        maw_intensity(**s | {"pred": broken})
