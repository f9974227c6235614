"""A folder of one's own data, described by a small ``dataset.toml`` (formats/card.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.datasets.base import Dataset, DatasetInfo
from reasonx_eval.datasets.examples import (
    MAPS,
    PNG,
    Example,
    Written,
    depth_target,
    everywhere,
    graded_judgements,
    map_target,
    millimetres,
    normal_codes,
    normal_target,
    smooth_truth,
)
from reasonx_eval.datasets.formats.card import (
    CARD_NAME,
    EXAMPLE,
    Card,
    ColourCard,
    DepthCard,
    JudgementsCard,
    MapCard,
    NormalsCard,
    find_card,
    read_card,
)
from reasonx_eval.datasets.formats.maps import (
    as_plane,
    as_rgb,
    decode_colour,
    decode_normals,
    image_size,
    read_map,
    read_mask,
)
from reasonx_eval.datasets.formats.naming import ids_in, sentence
from reasonx_eval.datasets.formats.reading import pinhole, require_id, wanted
from reasonx_eval.datasets.iiw import iiw_json, read_judgements, write_iiw
from reasonx_eval.errors import DataError, SampleError, unknown
from reasonx_eval.io.color import linear_to_srgb
from reasonx_eval.io.digests import sha256_file
from reasonx_eval.io.files import safe_name
from reasonx_eval.io.images import decode_file, read_rgb, write_npy, write_png
from reasonx_eval.io.walk import walk_files
from reasonx_eval.types import DepthTarget, MapTarget, NormalTarget, Sample, Target

ALL = "all"


class Folder(Dataset):
    """Any photos with any of depth, normals, albedo, irradiance and judgements, read as ``dataset.toml`` says.

    The root is the folder with ``dataset.toml`` in it, or the path of such a file.
    """

    info = DatasetInfo(
        name="folder",
        title="Your own folder, described by a dataset.toml",
        targets=("depth", "normals", "judgements", "albedo", "irradiance"),
        splits={ALL: None},
        licence="that of your files",
        homepage="",
        size="your own files",
        options={"card": "sha256 that the dataset.toml must have (recorded with every result)"},
        layout=f"a {CARD_NAME}, for example:\n\n{EXAMPLE}",
        example=EXAMPLE,
    )

    def __init__(self, root: Path | None, split: str = ALL, options: Mapping[str, Any] | None = None) -> None:
        card_path = find_card(Path(root)) if root is not None else None
        super().__init__(card_path.parent if card_path is not None else None, ALL, options)
        assert self.root is not None
        assert card_path is not None
        self.card_path = card_path
        self.card: Card = read_card(card_path)
        if split not in self.splits:
            raise unknown("split", split, self.splits, where=self.name)
        self.split = split
        digest = sha256_file(card_path)
        if self.options.get("card", digest) != digest:
            raise DataError(f"the card's sha256 is {digest}, expected {self.options['card']}: it was edited",
                            where=str(card_path))  # fmt: skip
        # the card decides what the numbers mean, so it belongs to the identity of a run
        self.options = {**self.options, "card": digest}
        self._ids = tuple(self._find_ids())

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the card, and "all"."""
        return tuple(dict.fromkeys([ALL, *self.card.splits]))

    def sibling(self, split: str) -> Folder:
        return type(self)(self.card_path, split, self.options)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that the card describes."""
        return self.card.targets

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def _find_ids(self) -> list[str]:
        rule = self.card.splits.get(self.split, "*")
        if any(c in rule for c in "*?["):
            ids = [i for i in self._found if fnmatchcase(i, rule)]
            if not ids:
                raise DataError(f"no image matches {self.card.images} with ids like '{rule}'", where=str(self.root),
                                fix=f"compare 'images' in {self.card_path} with the files' names")  # fmt: skip
            return ids
        assert self.root is not None
        return read_ids(self.root / rule)

    @cached_property
    def _found(self) -> list[str]:
        """Ids of all files that match the card's `images`, sorted."""
        folder = self.card.images.partition("{id}")[0].rpartition("/")[0]
        assert self.root is not None
        if not (self.root / folder).is_dir():
            near = [p.name for p in self._folders(folder)]
            raise DataError(f"no folder {self.root / folder}, where the card says the images are"
                            + (f"; there is {', '.join(near)}" if near else ""), where=str(self.card_path))  # fmt: skip
        return sorted(ids_in(self.card.images, self._below(self.root / folder)).values())

    def _below(self, folder: Path) -> list[str]:
        assert self.root is not None
        return [p.relative_to(self.root).as_posix() for p in walk_files(folder)]

    def _folders(self, folder: str) -> list[Path]:
        """Folders of that path below the root, in any letter case."""
        assert self.root is not None
        found = [self.root]
        for part in folder.split("/") if folder else ():
            found = [p for f in found for p in sorted(f.iterdir()) if p.name.casefold() == part.casefold()]
        return [p for p in found if p.is_dir()]

    def overlooked(self) -> Sequence[str]:
        rule = self.card.splits.get(self.split, "*")
        if not any(c in rule for c in "*?["):
            return ()  # a file that a list names and that is missing is the error of its sample
        maps = {n: getattr(self.card, n).path for n in self.card.targets}
        listed = {p: [f for d in self._folders(p.partition("{id}")[0].rpartition("/")[0]) for f in self._below(d)]
                  for p in (self.card.images, *maps.values())}  # fmt: skip
        ids, taken = set(self._found), {n for p, names in listed.items() for n in ids_in(p, names)}
        near = [n for n in ids_in(self.card.images, listed[self.card.images], loose=True) if n not in taken]
        said = [sentence("photos not read, as letter case or suffix is not that of "
                         f"images = \"{self.card.images}\"", near)]  # fmt: skip
        said += [sentence(f"{name} files without a photo {self.card.images}", [
            n for n, i in ids_in(pattern, listed[pattern]).items() if i not in ids and fnmatchcase(i, rule)])
            for name, pattern in maps.items()]  # fmt: skip
        chosen = set(self._ids)
        other_case = [i for i in self._found if i not in chosen and fnmatchcase(i.casefold(), rule.casefold())]
        said.append(sentence(f"photos not read, as letter case is not that of the split's '{rule}'", other_case))
        return [s for s in said if s]

    def _path(self, pattern: str, sample_id: str) -> Path:
        assert self.root is not None
        return self.root / pattern.replace("{id}", sample_id)

    def files(self, sample_id: str) -> Sequence[Path]:
        patterns = [self.card.images]
        for name in self.card.targets:
            table = getattr(self.card, name)
            patterns.append(table.path)
            patterns += [p for p in (getattr(table, "mask", None), getattr(table, "intrinsics", None))
                         if isinstance(p, str)]  # fmt: skip
        return tuple(dict.fromkeys(self._path(p, sample_id) for p in patterns))

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        require_id(self, sample_id)
        photo = self._path(self.card.images, sample_id)
        size = image_size(photo)
        names = self.card.targets if want is None else [t for t in self.info.targets if wanted(want, t)]
        targets = {name: self._target(name, sample_id, size) for name in names}
        camera = self._intrinsics(self.card.depth, sample_id) if self.card.depth is not None else None
        return Sample(sample_id, partial(read_rgb, photo), targets, group=self.card.group_of(sample_id),
                      intrinsics=camera)  # fmt: skip

    def _target(self, name: str, sample_id: str, size: tuple[int, int]) -> Target:
        table = getattr(self.card, name)
        if table is None:
            raise SampleError(f"the card has no table [{name}]", where=str(self.card_path))
        path = self._path(table.path, sample_id)
        if isinstance(table, JudgementsCard):
            return read_judgements(path)
        stored = read_map(path, key=table.key)
        masked = self._mask(table, sample_id, size)
        if isinstance(table, DepthCard):
            return self._depth(table, as_plane(stored, size, path), masked, sample_id)
        if isinstance(table, NormalsCard):
            bits = {"png8": np.dtype(np.uint8), "png16": np.dtype(np.uint16)}.get(table.encoding)
            if bits is not None and stored.dtype != bits:
                raise SampleError(f"holds {stored.dtype}, but the card says encoding = \"{table.encoding}\"",
                                  where=str(path))  # fmt: skip
            normal, valid = decode_normals(as_rgb(stored, size, path), table.frame, bits is not None, path)
            return NormalTarget(normal, valid & masked)
        assert isinstance(table, ColourCard)
        value = decode_colour(as_rgb(stored, size, path, grey=name == "irradiance"), table.encoding)
        value = (value * np.float64(table.scale)).astype(np.float32)
        return MapTarget(value, np.isfinite(value).all(axis=2) & masked)

    def _mask(self, table: MapCard, sample_id: str, size: tuple[int, int]) -> NDArray[np.bool_]:
        if table.mask is None:
            return np.ones(size, dtype=np.bool_)
        return read_mask(self._path(table.mask, sample_id), size)

    def _depth(self, table: DepthCard, plane: NDArray[Any], masked: NDArray[np.bool_], sample_id: str) -> DepthTarget:
        value = plane.astype(np.float64)
        valid = np.isfinite(value) & ~np.isin(plane, table.invalid) & (value > 0) & masked
        matrix = self._intrinsics(table, sample_id)
        metres = value * table.scale
        if table.kind == "disparity":
            metres = np.divide(1.0, metres, out=np.zeros_like(metres), where=valid)
        elif table.kind == "distance":
            assert matrix is not None
            metres = metres / _ray_lengths(matrix, value.shape)
        return DepthTarget(metres.astype(np.float32), valid, matrix)

    def _intrinsics(self, table: DepthCard, sample_id: str) -> NDArray[np.float64] | None:
        if table.intrinsics is None:
            return None
        if isinstance(table.intrinsics, str):
            return read_intrinsics(self._path(table.intrinsics, sample_id))
        return pinhole(*table.intrinsics)


def _numbers(raw: bytes) -> NDArray[np.float64]:
    """Numbers in a text, between blanks or commas."""
    return np.array(raw.decode("utf-8-sig").replace(",", " ").split(), np.float64)


def _ray_lengths(matrix: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Length of the ray (x/z, y/z, 1) through the centre of each pixel, float64 [H, W]."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x = (columns - matrix[0, 2]) / matrix[0, 0]
    y = (rows - matrix[1, 2]) / matrix[1, 1]
    return np.asarray(np.sqrt(x * x + y * y + 1.0))


def read_ids(path: Path) -> list[str]:
    """Ids of a list file, one a line, in the file's order; empty lines and lines that start with # are left out.

    Raises
    ------
    DataError
        No such file, no id in it, an id twice, or an id that leaves the folder.
    """
    if not path.is_file():
        raise DataError("the list of ids is missing", where=str(path),
                        fix="a text file with one id a line, or a pattern like 'kitchen/*' in [splits]")  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of ids can't be read: {error}", where=str(path)) from None
    lines = (line.strip() for line in text.splitlines())
    ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        raise DataError("the list of ids is empty", where=str(path))
    seen: set[str] = set()
    for sample_id in ids:
        if sample_id in seen:
            raise DataError(f"id '{sample_id}' is listed twice", where=str(path))
        seen.add(sample_id)
        try:
            safe_name(sample_id)
        except ValueError as error:
            raise DataError(str(error), where=str(path)) from None
    return ids


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """A 3x3 matrix from .npy, or from text with 9 numbers or the four fx fy cx cy.

    Raises
    ------
    SampleError
        Missing, not numbers, or neither 4 nor 9 of them.
    """
    if path.suffix == ".npy":
        numbers = np.asarray(read_map(path), dtype=np.float64).ravel()
    else:
        numbers = decode_file(path, None, _numbers)
    if numbers.size == 4:
        return pinhole(*numbers.tolist())
    if numbers.size != 9:
        raise SampleError(f"holds {numbers.size} numbers, expected fx fy cx cy or a 3x3 matrix", where=str(path))
    return numbers.reshape(3, 3)


_CARD = """
name = "own-data"
images = "rgb/{id}.png"

[depth]
path = "depth/{id}.png"
scale = 0.001

[normals]
path = "normal/{id}.png"
encoding = "png8"
frame = "opengl"

[albedo]
path = "albedo/{id}.png"
encoding = "srgb"
mask = "mask/{id}.png"

[irradiance]
path = "light/{id}.npy"
encoding = "linear"
"""


_JUDGED_CARD = """
name = "own-judgements"
images = "rgb/{id}.png"

[judgements]
path = "judged/{id}.json"
"""


def write_examples(root: Path) -> Mapping[str, Written]:
    """Own data with a card: millimetres, y-up normals, sRGB albedo with a mask, linear irradiance."""
    (root / "dataset.toml").write_text(_CARD, encoding="utf-8")
    found = {}
    for number, sample_id in enumerate(("hall/1", "room/2")):
        truth = smooth_truth(96, 128, number)
        write_png(root / "rgb" / f"{sample_id}.png", truth.photo)
        write_png(root / "depth" / f"{sample_id}.png", millimetres(np.where(truth.seen, truth.depth, 0)))
        write_png(root / "normal" / f"{sample_id}.png", normal_codes(truth.normal * (1, -1, -1), truth.seen))
        write_png(root / "albedo" / f"{sample_id}.png", np.rint(linear_to_srgb(truth.albedo) * 255).astype(np.uint8))
        write_png(root / "mask" / f"{sample_id}.png", truth.seen.astype(np.uint8))
        write_npy(root / "light" / f"{sample_id}.npy", truth.light.astype(np.float32))
        found[sample_id] = Written({
            "depth": depth_target(truth.depth, truth.seen), "normals": normal_target(truth, truth.seen),
            "albedo": map_target(truth.albedo, truth.seen), "irradiance": map_target(truth.light, everywhere(truth)),
        }, truth.photo)  # fmt: skip
    return found


def write_judged(root: Path) -> Mapping[str, Written]:
    """Own judgements, without the albedo that would settle them."""
    (root / "dataset.toml").write_text(_JUDGED_CARD, encoding="utf-8")
    found = {}
    for number, sample_id in enumerate("ab"):
        judged, photo = graded_judgements(number), smooth_truth(96, 128, number).photo
        write_png(root / "rgb" / f"{sample_id}.png", photo)
        write_iiw(root / "judged", sample_id, iiw_json(judged.points, judged.comparisons))
        found[sample_id] = Written({"judgements": judged.counted}, photo)
    return found


DATASET = Folder
#: the first goes through every check of the self-test, the others through the reading and the perfect ones
EXAMPLES = (
    Example("folder", "folder", write_examples,
           {**PNG, "depth": 6e-4, "normals": 0.5, "albedo": 0.006, "irradiance": 1e-6}, offers=MAPS),
    Example("folder, judged", "folder", write_judged, PNG, offers=("judgements",)),
)  # fmt: skip
