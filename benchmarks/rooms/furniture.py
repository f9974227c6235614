"""Furniture of Sweet Home 3D's catalogues: which models a room may hold, and which split each belongs to.

The catalogues are the ``.sh3f`` files of Debian's package ``sweethome3d-furniture``: zip archives with meshes and a
properties file. Splits are made by the digest of a model's path, so that no model stands in rooms of two splits.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CATEGORIES: Final = ("Living room", "Bedroom", "Office", "Kitchen", "Miscellaneous")
#: models that stand in no room
LEFT_OUT: Final = frozenset({"Mower", "Wheelchair", "Shovel", "Grinder", "Range hood", "Propane stove", "Suit",
                             "Video projector", "Punching ball"})  # fmt: skip
#: a mesh above this many bytes takes longer to load than a room to render
_LARGEST_MESH: Final = 6_000_000
#: of ten parts of the models, which are whose
_SPLIT_OF_PART: Final = {0: "test", 1: "test", 2: "test", 3: "val"}
_PROPERTIES: Final = "PluginFurnitureCatalog.properties"


@dataclass(frozen=True)
class Model:
    """One piece of furniture: sizes in metres; rotation, a 3x3 matrix of the mesh's own axes (y up), row by row."""

    name: str
    category: str
    mesh: Path
    width: float
    depth: float
    height: float
    rotation: tuple[float, ...] | None
    creator: str
    catalogue: str


def unpack(archives: Path, folder: Path) -> None:
    """Unpack every ``.sh3f`` of a folder into a folder of its own; what is there already stays."""
    found = sorted(archives.glob("*.sh3f"))
    if not found:
        raise SystemExit(f"{archives}: no .sh3f file. try: apt-get install sweethome3d-furniture")
    for archive in found:
        target = folder / archive.stem
        if not (target / _PROPERTIES).exists():
            with zipfile.ZipFile(archive) as file:
                file.extractall(target)


def split_of(model: Path) -> str:
    """train, val or test, by the digest of the path below the catalogues."""
    part = int(hashlib.sha256(model.as_posix().encode()).hexdigest(), 16) % 10
    return _SPLIT_OF_PART.get(part, "train")


def models(catalogues: Path, split: str) -> list[Model]:
    """The models of a split that can stand on a floor, in the order of the catalogues."""
    return [m for folder in sorted(p for p in catalogues.iterdir() if p.is_dir()) for m in _read(catalogues, folder)
            if split_of(m.mesh.relative_to(catalogues)) == split]  # fmt: skip


def _read(root: Path, folder: Path) -> Iterator[Model]:
    entries: dict[str, dict[str, str]] = {}
    for line in (folder / _PROPERTIES).read_text(encoding="latin-1").splitlines():
        if match := re.match(r"(\w+)#(\d+)=(.*)", line.strip()):
            entries.setdefault(match[2], {})[match[1]] = match[3]
    for entry in entries.values():
        if "model" not in entry:
            continue
        mesh = root / f"{folder.name}{entry['model']}"
        width, depth, height = (float(entry[key]) / 100 for key in ("width", "depth", "height"))
        stands = entry.get("doorOrWindow") != "true" and float(entry.get("elevation", 0)) == 0
        fits = max(width, depth, height) > 0.4 and max(width, depth) < 2.6 and height < 2.3
        if (stands and fits and entry.get("movable") == "true" and width * depth * height > 0.02
                and entry.get("category") in CATEGORIES and entry.get("name") not in LEFT_OUT
                and mesh.exists() and mesh.stat().st_size < _LARGEST_MESH):  # fmt: skip
            rotation = tuple(float(v) for v in entry["modelRotation"].split()) if "modelRotation" in entry else None
            yield Model(entry["name"], entry["category"], mesh, width, depth, height, rotation,
                        entry.get("creator", "unknown"), folder.name)  # fmt: skip
