"""``dataset.toml``: how a folder of one's own data is read. Extra keys are errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.documents import read_toml
from reasonx_eval.io.validation import explain

CARD_NAME = "dataset.toml"

EXAMPLE = """\
name = "my-set"
licence = "CC BY 4.0"
images = "rgb/{id}.png"              # {id} may contain folders: kitchen/0001

[splits]                             # optional; "all" (every image, sorted) exists anyway
test = "test.txt"                    # a list of ids, one a line
kitchens = "kitchen/*"               # or a pattern of ids

[depth]
path = "depth/{id}.png"              # .png (8/16 bit) .npy .npz .exr .h5 .tif .pfm
scale = 0.001                        # metres per unit of the file
invalid = [0]                        # values that mean "not measured"
# kind = "disparity"                 # depth = 1 / (scale * value); "distance": along the ray, needs intrinsics
# mask = "mask/{id}.png"             # not zero = measured
# intrinsics = [518.9, 519.5, 325.6, 253.7]   # fx, fy, cx, cy in pixels, or "calib/{id}.txt"

[normals]
path = "normal/{id}.png"
encoding = "png8"                    # png8 or png16: (n + 1) / 2; float: the components
frame = "opencv"                     # opencv, opengl (y up, z to the camera) or dsine

[albedo]
path = "albedo/{id}.png"
encoding = "srgb"                    # srgb, linear or gamma2.2

[judgements]
path = "json/{id}.json"
format = "iiw"
"""

MINIMAL = """\
name = "my-set"
images = "rgb/{id}.png"

[depth]
path = "depth/{id}.png"
scale = 0.001
"""


def _pattern(value: str) -> str:
    if "{id}" not in value:
        raise ValueError(f"'{value}' has no {{id}} in it, so all samples would share one file")
    return _inside(value)


def _inside(value: str) -> str:
    if value.startswith(("/", "~")) or "\\" in value or ".." in value.split("/"):
        raise ValueError(f"'{value}' must be a path inside the dataset's folder, with forward slashes")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Inside = Annotated[str, AfterValidator(_inside)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MapCard(_Table):
    """The keys of every map: its path, the array's name in .npz/.h5, and a mask (not zero = valid)."""

    path: Pattern
    key: str | None = None
    mask: Pattern | None = None


class DepthCard(MapCard):
    """Depth in metres = scale * value; disparity: 1 / (scale * value); distance: along the ray, turned into z."""

    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    invalid: tuple[float, ...] = (0.0,)
    kind: Literal["depth", "disparity", "distance"] = "depth"
    intrinsics: tuple[float, float, float, float] | Pattern | None = None

    @model_validator(mode="after")
    def _rays(self) -> DepthCard:
        if self.kind == "distance" and self.intrinsics is None:
            raise ValueError("kind = \"distance\" needs intrinsics = [fx, fy, cx, cy] to become depth along the axis")
        return self


class NormalsCard(MapCard):
    frame: Literal["opencv", "opengl", "dsine"] = "opencv"
    encoding: Literal["png8", "png16", "float"] = "png8"


class ColourCard(MapCard):
    encoding: Literal["srgb", "linear", "gamma2.2"] = "srgb"
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)


class JudgementsCard(_Table):
    path: Pattern
    format: Literal["iiw"] = "iiw"


class Card(_Table):
    """The whole file. `group`: "prefix" (the id up to its first slash) or a regular expression with one group."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str | None = None
    licence: str = "not stated"
    homepage: str = ""
    images: Pattern
    group: str | None = None
    splits: dict[str, Inside] = {}
    depth: DepthCard | None = None
    normals: NormalsCard | None = None
    albedo: ColourCard | None = None
    irradiance: ColourCard | None = None
    judgements: JudgementsCard | None = None

    @model_validator(mode="after")
    def _group_compiles(self) -> Card:
        if self.group not in (None, "prefix"):
            try:
                groups = re.compile(str(self.group)).groups
            except re.error as error:
                raise ValueError(f"group: not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"group: the expression has {groups} groups in parentheses, expected one")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        names = ("depth", "normals", "judgements", "albedo", "irradiance")
        return tuple(n for n in names if getattr(self, n) is not None)

    def group_of(self, sample_id: str) -> str | None:
        if self.group is None:
            return None
        if self.group == "prefix":
            return sample_id.split("/", 1)[0]
        match = re.search(self.group, sample_id)
        return match[1] if match else None


def find_card(root: Path) -> Path:
    """The card of a dataset folder, or the card itself when its path is given.

    Raises
    ------
    DataError
        No such folder or file, or a folder without a card; the message shows a complete one.
    """
    if root.suffix == ".toml":
        if not root.is_file():
            raise DataError("no such file", where=str(root))
        return root
    if not root.is_dir():
        raise DataError("no such folder", where=str(root))
    card = root / CARD_NAME
    if not card.is_file():
        raise DataError(f"no {CARD_NAME} in this folder, so nothing says how to read it", where=str(root),
                        fix=f"write {card}, for example:\n\n{MINIMAL}\nall that it may hold:\n\n{EXAMPLE}")  # fmt: skip
    return card


def read_card(path: Path) -> Card:
    """Parse and check a card.

    Raises
    ------
    UsageError
        Broken TOML, an unknown or missing key, a value out of range; names each.
    """
    try:
        return Card.model_validate(read_toml(path))
    except ValidationError as error:
        raise UsageError(explain(error), where=str(path),
                         fix=f"compare with a complete example:\n\n{EXAMPLE}") from None  # fmt: skip
