"""A photo to a depth network's input and its output back to the photo, as a checkpoint's preprocessor_config.json says.

These are the rules of transformers' image processors (those on Pillow where there is one, whether torchvision is
installed or not), from their published parameters; the tests hold both against each other. They differ in two places
where the library fails: sides that would become 0 become one step, and images of one pixel are allowed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from torch.nn import functional

from reasonx_eval.errors import UsageError
from reasonx_eval.models.loading.checkpoint import read_json

Family: TypeAlias = Literal["dpt", "glpn", "zoedepth", "depth_pro", "chmv2", "tipsv2_dpt"]

#: the family of a processor's class, without Fast, Pil and the like
_FAMILY_OF_CLASS: Final[dict[str, Family]] = {
    "DPT": "dpt", "GLPN": "glpn", "ZoeDepth": "zoedepth", "DepthPro": "depth_pro", "CHMv2": "chmv2",
    "Tipsv2Dpt": "tipsv2_dpt",
}  # fmt: skip
#: the family of a model, for configurations that don't name the class
_FAMILY_OF_MODEL: Final[dict[str, Family]] = {
    "dpt": "dpt", "depth_anything": "dpt", "glpn": "glpn", "zoedepth": "zoedepth", "depth_pro": "depth_pro",
    "chmv2": "chmv2", "tipsv2_dpt": "tipsv2_dpt",
}  # fmt: skip
_NEAREST, _LANCZOS, _BILINEAR, _BICUBIC, _BOX, _HAMMING = range(6)  # Pillow's numbers
_HALF: Final = (0.5, 0.5, 0.5)
#: a class's own values where its configuration is silent
_DEFAULTS: Final[dict[Family, dict[str, Any]]] = {
    "dpt": {"size": (384, 384), "resample": _BICUBIC, "do_normalize": True},
    "glpn": {"resample": _BILINEAR, "size_divisor": 32},
    "zoedepth": {"size": (384, 512), "resample": _BILINEAR, "do_normalize": True, "do_pad": True,
                 "keep_aspect_ratio": True, "ensure_multiple_of": 1 / 32},
    "depth_pro": {"size": (1536, 1536), "resample": _BILINEAR, "do_normalize": True},
    "chmv2": {"size": (384, 384), "resample": _BICUBIC, "do_normalize": True, "do_resize": False, "do_pad": True,
              "keep_aspect_ratio": True, "ensure_multiple_of": 16, "size_divisor": 16,
              "image_mean": (0.420, 0.411, 0.296), "image_std": (0.213, 0.156, 0.143)},
    "tipsv2_dpt": {"size": (448, 448), "resample": _BILINEAR},
}  # fmt: skip


def _side_pair(value: Any) -> Any:
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, dict) and {"height", "width"} <= value.keys():
        return (value["height"], value["width"])
    return value


def _three(value: Any) -> Any:
    return (value,) * 3 if isinstance(value, (int, float)) else value


_Side: TypeAlias = Annotated[int, Field(ge=1)]
_Three: TypeAlias = Annotated[tuple[float, float, float], BeforeValidator(_three)]


class Processing(BaseModel):
    """The settings of one checkpoint's image processor.

    size : height and width that the network prefers; the family decides how they are used
    resample : 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming
    ensure_multiple_of : sides become multiples of this
    size_divisor : GLPN rounds sides down to multiples of it; elsewhere the padding goes up to them
    """

    # the library's files hold much else: the class's name, settings of segmentation
    model_config = ConfigDict(frozen=True, extra="ignore")

    family: Family
    do_resize: bool = True
    size: Annotated[tuple[_Side, _Side], BeforeValidator(_side_pair)] = (1, 1)
    resample: Annotated[int, Field(ge=0, le=5)] = _BILINEAR
    keep_aspect_ratio: bool = False
    ensure_multiple_of: Annotated[float, Field(gt=0)] = 1
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: _Three = _HALF
    image_std: _Three = _HALF
    do_pad: bool = False
    size_divisor: _Side | None = None

    def describe(self) -> dict[str, Any]:
        """Everything that can change a number, JSON-able."""
        return self.model_dump(mode="json")


def read_processing(folder: Path, model_type: str) -> Processing:
    """The image processor's settings of a transformers folder.

    Raises
    ------
    UsageError
        No preprocessor_config.json, a value that makes no sense, or a class of processor that is not known.
    """
    path = folder / "preprocessor_config.json"
    found = read_json(path)
    if found is None:
        # where processors of several parts keep theirs
        found = (read_json(folder / "processor_config.json") or {}).get("image_processor")
    if not isinstance(found, dict):
        raise UsageError("no preprocessor_config.json: how a photo is resized and normalised is not known",
                         where=str(folder), fix="copy it from the checkpoint that the weights come from, or save it "
                         "with AutoImageProcessor.save_pretrained")  # fmt: skip
    family = _family(found, model_type, str(path))
    stated = {k: v for k, v in found.items() if v is not None and k in Processing.model_fields and k != "family"}
    if family == "glpn":
        stated.pop("size", None)  # the class has none; old files hold anything
    try:
        return Processing(family=family, **(_DEFAULTS[family] | stated))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}",
                         where=str(path)) from None  # fmt: skip


def _family(found: dict[str, Any], model_type: str, where: str) -> Family:
    name = found.get("image_processor_type") or found.get("feature_extractor_type")
    if name is None:
        if model_type in _FAMILY_OF_MODEL:
            return _FAMILY_OF_MODEL[model_type]
        raise UsageError(f"names no image processor, and model_type {model_type} has none that is known", where=where)
    stem = str(name)
    for suffix in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        stem = stem.removesuffix(suffix)
    if stem not in _FAMILY_OF_CLASS:
        known = ", ".join(f"{k}ImageProcessor" for k in _FAMILY_OF_CLASS)
        raise UsageError(f"image processor {name} is not one of a depth network ({known})", where=where)
    return _FAMILY_OF_CLASS[stem]


def target_size(height: int, width: int, spec: Processing) -> tuple[int, int]:
    """Height and width that a photo of this size (ZoeDepth: with its padding) is resized to."""
    if spec.family == "glpn":
        step = spec.size_divisor or 1
        return max(1, height // step) * step, max(1, width // step) * step
    if spec.family in ("depth_pro", "tipsv2_dpt"):
        return spec.size
    scale_h, scale_w = spec.size[0] / height, spec.size[1] / width
    if spec.keep_aspect_ratio:
        # as little as possible: the factor that is nearer to 1, for both sides
        scale_h = scale_w = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
    return _stepped(scale_h * height, spec.ensure_multiple_of), _stepped(scale_w * width, spec.ensure_multiple_of)


def _stepped(side: float, step: float) -> int:
    return max(int(round(side / step) * step), math.ceil(step))


def network_input(image: NDArray[np.uint8], spec: Processing) -> torch.Tensor:
    """A photo uint8 [H, W, 3], sRGB, as the network takes it: float32 [3, h, w] on the CPU."""
    if spec.family == "zoedepth":
        return _zoedepth_input(image, spec)
    if spec.family in ("dpt", "glpn"):
        seen = _resized_by_pillow(image, spec) if spec.do_resize else image
        x = _normalised(_rescaled(seen, spec), spec)
    elif spec.family == "depth_pro":
        x = _fused(_channels_first(image), spec)
        x = _resized_by_torch(x, spec, antialias=False) if spec.do_resize else x
    else:
        raw = _channels_first(image)
        x = _fused(_resized_by_torch(raw, spec, antialias=True) if spec.do_resize else raw, spec)
    return _padded(x, spec.size_divisor) if spec.do_pad and spec.size_divisor else x


def _channels_first(image: NDArray[np.uint8]) -> torch.Tensor:
    # a copy, always: decoded photos are read-only, and torch has no such thing
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _resized_by_pillow(image: NDArray[np.uint8], spec: Processing) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = target_size(image.shape[0], image.shape[1], spec)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling(spec.resample)))


def _resized_by_torch(x: torch.Tensor, spec: Processing, *, antialias: bool) -> torch.Tensor:
    size = target_size(int(x.shape[-2]), int(x.shape[-1]), spec)
    mode = _torch_mode(spec)
    if size == tuple(x.shape[-2:]):
        return x
    if mode == "nearest":
        return functional.interpolate(x[None], size, mode=mode)[0]
    return functional.interpolate(x[None], size, mode=mode, align_corners=False, antialias=antialias)[0]


def _torch_mode(spec: Processing) -> str:
    modes = {_NEAREST: "nearest", _BILINEAR: "bilinear", _BICUBIC: "bicubic"}
    if spec.resample not in modes:
        raise UsageError(f"resample is {spec.resample}; {spec.family} needs 0 nearest, 2 bilinear or 3 bicubic",
                         where="preprocessor_config.json")  # fmt: skip
    return modes[spec.resample]


def _rescaled(image: NDArray[np.uint8], spec: Processing) -> NDArray[np.float32]:
    """float32 [H, W, 3]; a product in float64 that is rounded once, looked up as there are only 256."""
    scale = spec.rescale_factor if spec.do_rescale else 1.0
    table = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
    return table[image]


def _normalised(x: NDArray[np.float32], spec: Processing) -> torch.Tensor:
    if spec.do_normalize:
        mean, std = np.array(spec.image_mean, np.float32), np.array(spec.image_std, np.float32)
        x = np.asarray((x - mean) / std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))


def _fused(x: torch.Tensor, spec: Processing) -> torch.Tensor:
    """Rescaled and normalised in one step, as the classes on torch tensors do it."""
    scale = spec.rescale_factor if spec.do_rescale else 1.0
    if not spec.do_normalize:
        return x * scale if spec.do_rescale else x.to(torch.float32)
    mean, std = ((torch.tensor(v) * (1.0 / scale)).view(3, 1, 1) for v in (spec.image_mean, spec.image_std))
    return x.to(torch.float32).sub_(mean).div_(std)


def _padded(x: torch.Tensor, step: int) -> torch.Tensor:
    """Zeros around it, up to multiples of `step`, the odd one at the end."""
    more = [math.ceil(side / step) * step - side for side in (int(x.shape[-1]), int(x.shape[-2]))]
    return functional.pad(x, [n for m in more for n in (m // 2, m - m // 2)])


def _zoedepth_border(height: int, width: int, spec: Processing) -> tuple[int, int]:
    return (int(math.sqrt(height / 2) * 3), int(math.sqrt(width / 2) * 3)) if spec.do_pad else (0, 0)


def _zoedepth_input(image: NDArray[np.uint8], spec: Processing) -> torch.Tensor:
    border_h, border_w = _zoedepth_border(image.shape[0], image.shape[1], spec)
    if border_h or border_w:
        image = np.pad(image, ((border_h, border_h), (border_w, border_w), (0, 0)), mode="reflect")
    x = torch.from_numpy(_rescaled(image, spec).transpose(2, 0, 1))
    if spec.do_resize:
        size = target_size(int(x.shape[-2]), int(x.shape[-1]), spec)
        mode = _torch_mode(spec)
        corners = {} if mode == "nearest" else {"align_corners": True}
        x = functional.interpolate(x[None].contiguous(), size, mode=mode, **corners)[0]
    return _normalised(x.numpy().transpose(1, 2, 0), spec)


def to_photo(
    raw: torch.Tensor, height: int, width: int, spec: Processing, field_of_view: torch.Tensor | None = None
) -> torch.Tensor:
    """A network's output in the photo's size.

    Parameters
    ----------
    raw : float32 [h, w]
    height, width : of the photo
    field_of_view : horizontal, in degrees (Depth Pro)

    Returns
    -------
    float32 [height, width]
    """
    size = (height, width)
    if spec.family == "zoedepth":
        border_h, border_w = _zoedepth_border(height, width, spec)
        whole = _interpolated(raw, (height + 2 * border_h, width + 2 * border_w), "bicubic")
        return whole[border_h : border_h + height, border_w : border_w + width]
    if spec.family == "depth_pro":
        inverse = raw
        if field_of_view is not None:
            # the network's inverse depth is that of a camera whose focal length is one image width
            focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(field_of_view.to(torch.float32)))
            inverse = raw * width / focal
        return 1.0 / torch.clamp(_interpolated(inverse, size, _torch_mode(spec)), min=1e-4, max=1e4)
    if spec.family == "chmv2":
        return _interpolated(raw, size, "bilinear", align_corners=True)
    return _interpolated(raw, size, "bilinear" if spec.family == "tipsv2_dpt" else "bicubic")


def _interpolated(raw: torch.Tensor, size: tuple[int, int], mode: str, *, align_corners: bool = False) -> torch.Tensor:
    corners = {} if mode == "nearest" else {"align_corners": align_corners}
    return functional.interpolate(raw[None, None], size=size, mode=mode, **corners)[0, 0]
