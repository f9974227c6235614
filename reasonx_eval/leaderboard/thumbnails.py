"""Small pictures for a leaderboard: photo, ground truth and predictions of one image side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import color
from reasonx_eval.io.resize import resize
from reasonx_eval.metrics import align
from reasonx_eval.metrics.image import lsq_scale
from reasonx_eval.types import TASK_OF_KIND, Alignment, DepthTarget, MapTarget, NormalTarget, Sample

WIDTH: Final = 96  # pixels of one panel
GAP: Final = 2
QUALITY: Final = 45  # of WebP: about 3 kB for a strip of three

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """One prediction to draw; alignment as its record holds it, None where the protocol fits nothing."""

    title: str
    value: NDArray[Any]
    kind: str
    alignment: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Strip:
    """Panels side by side as a WebP file in base64."""

    panels: tuple[str, ...]
    webp: str
    width: int
    height: int


def draw_strip(sample: Sample, shown: Sequence[Shown]) -> Strip:
    """Photo, ground truth and predictions of one sample on one shared colour scale.

    Parameters
    ----------
    sample : with the dense target of the predictions' task
    shown : at least one prediction
    """
    task = TASK_OF_KIND[shown[0].kind]
    target = sample.targets[task]
    height, width = sample.image.shape[:2]
    panels: list[tuple[str, NDArray[np.uint8]]] = [("photo", sample.image)]
    if isinstance(target, DepthTarget):
        panels += _depths(target, shown)
    elif isinstance(target, NormalTarget):
        panels.append(("ground truth", _normals(target.normal, target.valid)))
        panels += [(s.title, _normals(_sized(s.value, target.valid), None)) for s in shown]
    else:
        assert isinstance(target, MapTarget)
        panels.append(("ground truth", _encoded(target.value.astype(np.float64))))
        panels += [(s.title, _encoded(_scaled(s, target))) for s in shown]
    small = (max(1, round(height * WIDTH / width)), WIDTH)
    return _joined([(title, _shrunk(image, small)) for title, image in panels])


def _sized(value: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    return resize(value, (valid.shape[0], valid.shape[1]), "bilinear")


def _depths(target: DepthTarget, shown: Sequence[Shown]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Depth in one colour scale, that of the ground truth; near is red, unmeasured is grey."""
    from matplotlib import colormaps

    low, high = np.percentile(target.depth[target.valid], [1, 99])

    def painted(depth: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        share = np.clip((depth - low) / max(high - low, 1e-9), 0.0, 1.0)
        rgb = colormaps["Spectral"](np.nan_to_num(share), bytes=True)[..., :3]
        return np.where(valid[..., None], rgb, np.uint8(128)).astype(np.uint8)

    panels = [("ground truth", painted(target.depth, target.valid))]
    for one in shown:
        depth = _aligned(one, target)
        panels.append((one.title, painted(depth, np.isfinite(depth))))
    return panels


def _aligned(shown: Shown, target: DepthTarget) -> Floats:
    """The prediction in metres, by the fit its record holds."""
    fit = shown.alignment
    assert fit is not None
    alignment = Alignment(fit["mode"], fit["space"], fit["scale"], fit["shift"], fit["n_valid"])
    value = align.to_space(pred=_sized(shown.value, target.valid), kind=shown.kind, space=alignment.space)
    return np.asarray(align.apply(pred=value, alignment=alignment), dtype=np.float64)


def _normals(normal: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The usual colours: right is red, up is green, towards the camera is blue."""
    rgb = np.clip(np.nan_to_num(normal * np.array([1.0, -1.0, -1.0])) / 2 + 0.5, 0, 1)
    image = np.round(255 * rgb).astype(np.uint8)
    return image if valid is None else np.where(valid[..., None], image, np.uint8(128)).astype(np.uint8)


def _scaled(shown: Shown, target: MapTarget) -> Floats:
    """A map in linear values, at the scale that fits the ground truth best: its own scale is arbitrary."""
    pred = _sized(shown.value, target.valid).astype(np.float64)
    if shown.kind == "albedo_srgb":
        pred = color.srgb_to_linear(pred)
    truth = target.value.astype(np.float64)
    return np.asarray(pred * lsq_scale(pred=pred, target=truth, mask=target.valid))


def _encoded(linear: Floats) -> NDArray[np.uint8]:
    return np.round(255 * color.linear_to_srgb(np.clip(np.nan_to_num(linear), 0, 1))).astype(np.uint8)


def _shrunk(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BOX))


def _joined(panels: Sequence[tuple[str, NDArray[np.uint8]]]) -> Strip:
    from PIL import Image

    height = panels[0][1].shape[0]
    # mid-grey between panels: neither a light nor a dark page hides it
    gap = np.full((height, GAP, 3), 128, dtype=np.uint8)
    parts = [part for _, image in panels for part in (image, gap)][:-1]
    strip = np.concatenate(parts, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, format="WEBP", quality=QUALITY, method=6)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Strip(tuple(title for title, _ in panels), encoded, strip.shape[1], strip.shape[0])
