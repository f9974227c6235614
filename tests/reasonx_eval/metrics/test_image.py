"""Albedo and irradiance metrics against plain loops, scikit-image and hand-worked values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from reasonx_eval.errors import SampleError, UndefinedScore, UsageError
from reasonx_eval.metrics import image

METRICS = {"si_mse": image.si_mse, "map_rmse": image.map_rmse, "psnr": image.psnr, "ssim": image.ssim,
           "grosse": lambda **k: image.lmse(form="grosse", **k),
           "luo": lambda **k: image.lmse(form="luo", **k)}  # fmt: skip


def _scene(seed=0, shape=(45, 63, 3), share=0.8):
    rng = np.random.default_rng(seed)
    target = rng.random(shape).astype(np.float32)
    pred = np.clip(0.6 * target + 0.2 * rng.random(shape), 0, 1).astype(np.float32)
    return {"pred": pred, "target": target, "mask": rng.random(shape[:2]) < share}


def _loop_scale(p, g, m):
    energy = float((p**2 * m).sum())
    return float((p * g * m).sum()) / max(energy, 1e-6) if energy > 1e-5 else 0.0


def _loop_grosse(pred, target, mask):
    p, g, m = (a.astype(np.float64) for a in (pred, target, mask))
    ssq = total = 0.0
    for i in range(0, g.shape[0] - 19, 10):
        for j in range(0, g.shape[1] - 19, 10):
            w = np.s_[i : i + 20, j : j + 20]
            ssq += (m[w] * (g[w] - _loop_scale(p[w], g[w], m[w]) * p[w]) ** 2).sum()
            total += (m[w] * g[w] ** 2).sum()
    return ssq / total


def _loop_luo(pred, target, mask):
    p, g = pred.astype(np.float64), target.astype(np.float64)
    m = np.repeat(mask[..., None], 3, axis=2).astype(np.float64)
    size = int(0.1 * max(mask.shape) + 0.5)
    shift = int(size / 2 + 0.5)
    errors = []
    for i in range(0, mask.shape[0] - shift + 1, shift):
        for j in range(0, mask.shape[1] - shift + 1, shift):
            w = np.s_[i : min(i + size, mask.shape[0]), j : min(j + size, mask.shape[1])]
            error = (m[w] * (_loop_scale(p[w], g[w], m[w]) * p[w] - g[w]) ** 2).sum()
            errors.append(error / max(m[w].sum(), 1e-6))
    return np.mean(errors)


def test_si_mse_equals_lstsq():
    s = _scene()
    p, g = (s[k][s["mask"]].astype(np.float64).ravel() for k in ("pred", "target"))
    (scale,), (squares,), _, _ = np.linalg.lstsq(p[:, None], g, rcond=None)
    assert image.lsq_scale(**s) == pytest.approx(scale, rel=1e-12)
    assert image.si_mse(**s) == pytest.approx(squares / g.size, rel=1e-9)


def test_lmse_forms_equal_loops():
    s = _scene(1)
    gone = s["mask"].copy()
    gone[:22, :30] = False  # whole windows without a valid pixel
    for mask in (s["mask"], gone):
        m = s | {"mask": mask}
        assert image.lmse(form="luo", **m) == pytest.approx(_loop_luo(**m), rel=1e-9)
        grey = m | {k: s[k].astype(np.float64).mean(axis=2) for k in ("pred", "target")}
        assert image.lmse(form="grosse", **grey) == pytest.approx(_loop_grosse(**grey), rel=1e-9)
        # a colour map is compared as its channel mean
        assert image.lmse(form="grosse", **m) == pytest.approx(_loop_grosse(**grey), rel=1e-9)


def test_psnr_and_ssim_equal_scikit_image():
    s = _scene(4) | {"mask": np.ones((45, 63), bool)}
    p, g = s["pred"].astype(np.float64), s["target"].astype(np.float64)
    assert image.psnr(**s) == pytest.approx(peak_signal_noise_ratio(g, p, data_range=1), rel=1e-12)
    masked = _scene(4)
    p, g = (np.where(masked["mask"][..., None], masked[k], 0).astype(np.float64) for k in ("pred", "target"))
    channels = [structural_similarity(g[..., c], p[..., c], data_range=1, gaussian_weights=True, sigma=1.5,
                                      use_sample_covariance=False, win_size=11) for c in range(3)]  # fmt: skip
    assert image.ssim(**masked) == pytest.approx(np.mean(channels), rel=1e-12)


def test_ssim_equals_the_definition_at_one_pixel():
    rng = np.random.default_rng(5)
    p, g = rng.random((11, 11)), rng.random((11, 11))
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(axis, axis) / axis.sum() ** 2
    mp, mg = (w * p).sum(), (w * g).sum()
    vp, vg, cov = (w * p * p).sum() - mp**2, (w * g * g).sum() - mg**2, (w * p * g).sum() - mp * mg
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mp * mg + c1) * (2 * cov + c2) / ((mp**2 + mg**2 + c1) * (vp + vg + c2))
    assert image.ssim(pred=p, target=g, mask=np.ones((11, 11), bool)) == pytest.approx(expected, rel=1e-9)


def test_ssim_of_the_whole_map_equals_the_definition_at_every_pixel():
    rng = np.random.default_rng(6)
    p, g = rng.random((14, 12)), rng.random((14, 12))
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(axis, axis) / axis.sum() ** 2
    # the pixel at the edge isn't repeated
    wide_p, wide_g = (np.pad(a, 5, mode="reflect") for a in (p, g))
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for y, x in np.ndindex(p.shape):
        a, b = wide_p[y : y + 11, x : x + 11], wide_g[y : y + 11, x : x + 11]
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, cov = (w * a * a).sum() - ma**2, (w * b * b).sum() - mb**2, (w * a * b).sum() - ma * mb
        found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert image.ssim(p, g, border="whole") == pytest.approx(np.mean(found), rel=1e-12)
    # the middle of that map is all that the other form looks at
    middle = np.reshape(found, p.shape)[5:-5, 5:-5]
    assert image.ssim(p, g) == pytest.approx(middle.mean(), rel=1e-12)
    colour = np.stack([p, g, p], axis=-1), np.stack([g, g, g], axis=-1)
    assert image.ssim(*colour, border="whole") == pytest.approx((2 * np.mean(found) + 1) / 3, rel=1e-12)
    with pytest.raises(UsageError, match="crop, whole"):
        image.ssim(p, g, border="valid")


def test_hand_worked_rmse_and_psnr():
    mask = np.array([[True, True, False]])
    s = {"pred": np.array([[0.5, 0.1, 9.0]]), "target": np.array([[0.4, 0.1, 0.0]]), "mask": mask}
    assert image.map_rmse(**s) == pytest.approx(0.1 / math.sqrt(2))
    assert image.psnr(**s) == pytest.approx(-10 * math.log10(0.005))


def test_perfect_prediction_is_perfect():
    s = _scene(6)
    s["pred"] = s["target"]
    assert {n: f(**s) for n, f in METRICS.items()} == {
        "si_mse": 0, "map_rmse": 0, "psnr": math.inf, "ssim": pytest.approx(1), "grosse": 0, "luo": 0}  # fmt: skip


def test_scaled_copy_is_perfect_where_scale_is_free():
    s = _scene(7)
    s["pred"] = s["target"].astype(np.float64) * 0.31
    for name in ("si_mse", "grosse", "luo"):
        assert METRICS[name](**s) < 1e-28
    assert image.map_rmse(**s) > 0.1


def test_pixels_outside_the_mask_never_count():
    s = _scene(8)
    before = {n: f(**s) for n, f in METRICS.items()}
    for k in ("pred", "target"):
        s[k] = s[k].copy()
        s[k][~s["mask"]] = np.nan
    assert {n: f(**s) for n, f in METRICS.items()} == before


def test_black_prediction_pays_for_all_it_misses():
    s = _scene(9)
    g = s["target"][s["mask"]].astype(np.float64)
    s["pred"] = np.zeros_like(s["target"])
    assert image.lsq_scale(**s) == 0
    assert image.si_mse(**s) == pytest.approx((g**2).mean())
    assert image.lmse(form="grosse", **s) == 1


def test_black_ground_truth_is_undefined_where_scale_is_free():
    s = _scene(10)
    s["target"] = np.zeros_like(s["target"])
    for name in ("si_mse", "grosse", "luo"):
        with pytest.raises(UndefinedScore, match="zero"):
            METRICS[name](**s)
    assert image.map_rmse(**s) > 0


@pytest.mark.parametrize("name", METRICS)
def test_bad_input(name):
    metric, s = METRICS[name], _scene(11)
    with pytest.raises(SampleError, match="no valid pixel"):
        metric(**s | {"mask": np.zeros((45, 63), bool)})
    with pytest.raises(SampleError, match="differ in shape"):
        metric(**s | {"pred": s["pred"][:-1]})
    with pytest.raises(SampleError, match="differ in shape"):
        metric(**s | {"mask": s["mask"][1:]})
    for key, label in (("pred", "prediction"), ("target", "ground truth")):
        broken = s[key].copy()
        broken[tuple(np.argwhere(s["mask"])[0])] = np.nan
        with pytest.raises(SampleError, match=f"{label} is NaN or infinite at 1 of"):
            metric(**s | {key: broken})


def test_maps_too_small_for_their_windows():
    s = _scene(12, (10, 10, 3))
    with pytest.raises(SampleError, match="11 x 11"):
        image.ssim(**s)
    with pytest.raises(UndefinedScore, match="20 x 20"):
        image.lmse(form="grosse", **s)
    tiny = _scene(12, (3, 3, 3), share=1.1)
    with pytest.raises(UndefinedScore, match="too small"):
        image.lmse(form="luo", **tiny)
    thin = _scene(12, (1, 100, 3), share=1.1)
    with pytest.raises(UndefinedScore, match="no window"):
        image.lmse(form="luo", **thin)
    with pytest.raises(UsageError, match="grosse, luo"):
        image.lmse(form="bell", **_scene())


def test_grosse_windows_are_scaled_down_to_its_own_threshold() -> None:
    # on its scale of 0-257 a prediction 1000 times too dark is far above the threshold: the fit makes it perfect
    truth = np.random.default_rng(5).uniform(0.1, 1, (40, 40, 3))
    mask = np.ones((40, 40), bool)
    assert image.lmse(pred=truth * 1e-3, target=truth, mask=mask, form="grosse") == pytest.approx(0, abs=1e-12)
