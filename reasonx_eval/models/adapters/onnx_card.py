"""The card of an ONNX network: its input, its output and its origin. A network file states none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from reasonx_eval.errors import UsageError
from reasonx_eval.io.documents import read_json
from reasonx_eval.io.validation import explain
from reasonx_eval.models.saved.formats import NormalsFrame
from reasonx_eval.types import TASK_OF_KIND, Kind

Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


#: pixels; a slip in a card must not fill the memory
_LARGEST_SIDE = 16384


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SideSpec(_Card):
    """Keep the aspect ratio, so that the short (or the long) side has this many pixels."""

    short_side: int | None = Field(None, ge=1, le=_LARGEST_SIDE)
    long_side: int | None = Field(None, ge=1, le=_LARGEST_SIDE)

    @model_validator(mode="after")
    def _one(self) -> SideSpec:
        if (self.short_side is None) == (self.long_side is None):
            raise ValueError("needs short_side or long_side, and not both")
        return self


class InputSpec(_Card):
    """From the photo (uint8 [H, W, 3], sRGB) to the network's input, in this order.

    size : "native" (the photo's own), [H, W], or {"short_side": n} / {"long_side": n} with the aspect ratio kept
    multiple_of : both sides are rounded to the nearest multiple (at least one)
    resize : bilinear, bicubic, area or nearest: Pillow's on 8-bit sRGB values (bilinear and bicubic are
        antialiased when they shrink); nothing happens if the size is already right
    colour : linear decodes sRGB (piecewise IEC) after resizing; needs range "0-1"
    range : "0-1" or "0-255"
    channels : RGB or BGR; mean and std are in this order
    mean, std : (value - mean) / std, in the units of `range`
    layout : NCHW or NHWC
    name : the input's name, to be sure that the card belongs to this network
    """

    name: str | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    size: Literal["native"] | tuple[int, int] | SideSpec = "native"
    multiple_of: int = Field(1, ge=1, le=_LARGEST_SIDE)
    resize: Literal["bilinear", "bicubic", "area", "nearest"] = "bilinear"
    colour: Literal["srgb", "linear"] = "srgb"
    range: Literal["0-1", "0-255"]
    channels: Literal["RGB", "BGR"]
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if min(self.std) <= 0:
            raise ValueError("std needs values above 0")
        if isinstance(self.size, tuple) and min(self.size) < 1:
            raise ValueError("size needs [H, W] of 1 or more")
        if isinstance(self.size, tuple) and max(self.size) > _LARGEST_SIDE:
            raise ValueError(f"size {list(self.size)} is larger than any photo (at most {_LARGEST_SIDE} a side)")
        if isinstance(self.size, tuple) and any(s % self.multiple_of for s in self.size):
            raise ValueError(f"size {list(self.size)} is no multiple of {self.multiple_of}")
        if self.colour == "linear" and self.range != "0-1":
            raise ValueError('colour "linear" needs range "0-1"')
        return self


class OutputSpec(_Card):
    """From the network's output to a map: ``scale * transform(max(raw, floor)) + offset``.

    kind : meaning of the map (one of the suite's kinds)
    name, index : which output
    layout : axes of the output; default: the input's layout
    transform : none, exp, reciprocal, or intensity_to_albedo (a grey reflectance r gives the colour albedo
        ``rgb_linear * r / mean(rgb_linear)``, with the photo as the network saw it)
    floor : raw values below it are raised to it first
    normals_frame : axes of normals (opencv: x right, y down, z forward; opengl; dsine)
    """

    kind: Kind
    name: str | None = None
    index: int = Field(0, ge=0)
    layout: Literal["NCHW", "NHWC", "NHW", "CHW", "HWC", "HW"] | None = None
    transform: Literal["none", "exp", "reciprocal", "intensity_to_albedo"] = "none"
    scale: float = Field(1.0, allow_inf_nan=False)
    offset: float = Field(0.0, allow_inf_nan=False)
    floor: float | None = Field(None, allow_inf_nan=False)
    normals_frame: NormalsFrame = "opencv"

    @model_validator(mode="after")
    def _consistent(self) -> OutputSpec:
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.transform == "intensity_to_albedo" and self.kind != "albedo_linear":
            raise ValueError(f'intensity_to_albedo gives kind "albedo_linear", not "{self.kind}"')
        if self.normals_frame != "opencv" and self.kind != "normal":
            raise ValueError(f'normals_frame is stated, but the kind is "{self.kind}"')
        if self.layout in ("NHW", "HW") and self.channels == 3:
            raise ValueError(f'layout "{self.layout}" has no channels, but "{self.kind}" needs three')
        return self

    @property
    def channels(self) -> int:
        """Channels that the raw output has: 1 or 3."""
        return 1 if TASK_OF_KIND[self.kind] == "depth" or self.transform == "intensity_to_albedo" else 3


class OnnxCard(_Card):
    """FILE.json beside FILE.onnx; unknown keys are refused."""

    name: str = Field(min_length=1)
    input: InputSpec
    output: OutputSpec
    licence: str | None = None
    parameters: int | None = Field(None, ge=0)
    base: str | None = None
    trained_on: tuple[str, ...] = ()
    reward: str | None = None
    notes: str | None = None


@dataclass(frozen=True)
class Port:
    """An input or output of a network: dimensions are numbers, or names (or None) where they are free."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str

    def __str__(self) -> str:
        return f"{self.name} {self.type.removeprefix('tensor')}[{', '.join(str(d) for d in self.shape)}]"


def read_card(path: Path, network: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> OnnxCard:
    """Read a card.

    Raises
    ------
    UsageError
        No such file (prints a complete example for this network), not JSON, unknown or wrong keys.
    """
    try:
        return OnnxCard.model_validate(read_json(path, error=UsageError))
    except FileNotFoundError:
        example = example_card(network.stem, inputs, outputs)
        raise UsageError(
            f"a network file does not state the meaning of its numbers, and there is no card {path}.\n"
            f"  inputs:  {'; '.join(map(str, inputs))}\n  outputs: {'; '.join(map(str, outputs))}\n"
            f"A complete card, to be corrected (kind, size, range, channels, mean and std are guesses):\n{example}",
            where=str(network), fix=f"write it to {path}, or --card FILE",
        ) from None  # fmt: skip
    except ValidationError as error:
        raise UsageError(explain(error), where=str(path),
                         fix=f"an example:\n{example_card(network.stem, inputs, outputs)}") from None  # fmt: skip


def example_card(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """A complete card as JSON text, with names, layouts and sizes taken from the network."""
    source, result = inputs[0], outputs[0]
    layout = "NHWC" if len(source.shape) == 4 and source.shape[-1] == 3 else "NCHW"
    size = spatial(source.shape, layout)
    fixed = [s for s in size if isinstance(s, int)] if size else []
    out_channels = _channels(result.shape)
    card: dict[str, Any] = {
        "name": name,
        "licence": None,
        "trained_on": [],
        "base": None,
        "input": {
            "name": source.name,
            "layout": layout,
            "size": fixed if len(fixed) == 2 else "native",
            "multiple_of": 1,
            "resize": "bilinear",
            "colour": "srgb",
            "range": "0-1",
            "channels": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        },
        "output": {
            "name": result.name,
            "layout": _layout(result.shape, layout),
            "kind": "normal" if out_channels == 3 else "disparity_affine",
            "transform": "none",
            "scale": 1.0,
            "offset": 0.0,
        },
    }
    # lists of numbers on one line
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", json.dumps(card, indent=1))


def spatial(shape: Sequence[int | str | None], layout: str) -> tuple[int | str | None, int | str | None] | None:
    """Height and width of a shape in a layout, or None if the number of axes doesn't fit it."""
    if len(shape) != len(layout):
        return None
    return shape[layout.index("H")], shape[layout.index("W")]


def _channels(shape: Sequence[int | str | None]) -> int:
    return 3 if len(shape) >= 3 and 3 in (shape[-1], shape[-3]) else 1


def _layout(shape: Sequence[int | str | None], layout: str) -> str:
    if len(shape) == 4:
        return "NHWC" if shape[-1] in (1, 3) and shape[1] not in (1, 3) else layout
    if len(shape) == 3 and _channels(shape) == 3:
        return "HWC" if shape[-1] == 3 else "CHW"
    return {3: "NHW", 2: "HW"}.get(len(shape), layout)
