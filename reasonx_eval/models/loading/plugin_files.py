"""The files that decide a plug-in's predictions: its code, the files that it opens, and the files that it names.

A file that compiled code opens by itself (safetensors, HDF5, ONNX) shows in no record of Python. It is found if an
option, an attribute of the object or a text in the code names it.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from reasonx_eval.io.digests import file_digest, sha256_file, sha256_lines

#: a folder with one of these is a checkpoint
_WEIGHTS: Final = frozenset({".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".onnx", ".pt", ".pth", ".safetensors"})
#: other files of a checkpoint
_SETTINGS: Final = frozenset({".json", ".model", ".npy", ".pkl", ".toml", ".txt", ".yaml", ".yml"})
_SYSTEM: Final = tuple({os.path.realpath(p) + os.sep for p in (sys.prefix, sys.base_prefix, "/dev", "/proc", "/sys")})
#: start of the name of a module that is imported from a file
USER_MODULE: Final = "reasonx_user_"
#: longer texts name no file
_LONGEST: Final = 255

_OURS: Final = ("reasonx_eval", "reasonx_ft")

_here = threading.local()
_hook_is_set = threading.Lock()
#: module -> files that its import opened; a module is imported once, and may define several plug-ins
_at_import: dict[str, set[Path]] = {}


class PluginFiles:
    """The files of one plug-in.

    Parameters
    ----------
    factory : its class or function
    """

    def __init__(self, factory: Any) -> None:
        module = str(getattr(factory, "__module__", ""))
        self.source = source_file(factory)
        self._opened = set(_at_import.get(module, ()))
        #: imports of an installed module are followed within its package, those of a file within its folder
        self._package = None if module.startswith(USER_MODULE) else module.partition(".")[0]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Files that Python opens for reading in this thread belong to the plug-in."""
        with _recording(self._opened):
            yield

    def paths(self, named: Iterable[Any]) -> list[Path]:
        """Its files: the source, the files that values in `named` name, then all others by path."""
        code = {} if self.source is None else _code(self.source, self._package)
        first = [path for path in code if path == self.source]
        first += [file for value in named for file in _files_of(value)]
        texts = (text for path, tree in code.items() for text in _named_in(tree, path.parent))
        others = {path for path in (*code, *texts, *self._opened) if path.is_file()}
        return [*dict.fromkeys(first), *sorted(others - set(first))]

    def digests(self, named: Iterable[Any]) -> Mapping[str, str]:
        """Path -> digest of each file, taken now."""
        return {str(path): file_digest(path) for path in self.paths(named)}

    def sha256(self, named: Iterable[Any]) -> str | None:
        """One digest of all files: of the file itself where there is one, else of the digests."""
        found = [sha256_file(path) for path in self.paths(named)]
        return None if not found else found[0] if len(found) == 1 else sha256_lines(found)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Files opened by the import of a module belong to all its plug-ins."""
    with _recording(_at_import.setdefault(module, set())):
        yield


def source_file(factory: Any) -> Path | None:
    """The file that defines a class or function; None where there is none."""
    try:
        found = inspect.getsourcefile(factory)
    except (TypeError, OSError):
        return None  # written in a console
    return Path(found).resolve() if found else None


@contextmanager
def _recording(opened: set[Path]) -> Iterator[None]:
    if _hook_is_set.acquire(blocking=False):  # never released: an audit hook can't be removed
        sys.addaudithook(_note)
    before = getattr(_here, "opened", None)
    _here.opened = opened
    try:
        yield
    finally:
        _here.opened = before


def _note(event: str, args: tuple[Any, ...]) -> None:
    opened = getattr(_here, "opened", None)
    if event != "open" or opened is None or not isinstance(args[0], (str, bytes)):
        return
    name, mode, flags = os.fsdecode(args[0]), args[1], args[2]
    reads = "r" in mode and "+" not in mode if isinstance(mode, str) else flags & os.O_ACCMODE == os.O_RDONLY
    if reads and not name.endswith((".py", ".pyc")):
        path = os.path.realpath(name)
        if not path.startswith(_SYSTEM) and os.path.isfile(path):
            opened.add(Path(path))


def _files_of(value: Any) -> list[Path]:
    """The file, or the files of weights and settings in the folder, that a value names."""
    if isinstance(value, (list, tuple)):
        return [file for item in value for file in _files_of(item)]
    if not isinstance(value, (str, os.PathLike)) or not 0 < len(str(value)) <= _LONGEST:
        return []
    path = Path(os.path.expanduser(value))
    if os.path.isfile(path):
        return [path]
    # no deeper than a pipeline's parts: an attribute may name a home or the root
    inside = _entries(path) if os.path.isdir(path) else []
    if not any(p.suffix in _WEIGHTS or p.name == "model_index.json" for p in inside if p.is_file()):
        return []
    parts = [p for part in inside if part.is_dir() for p in _entries(part)]
    return sorted(p for p in (*inside, *parts) if p.suffix in _WEIGHTS | _SETTINGS and p.is_file())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _code(source: Path, package: str | None) -> Mapping[Path, ast.Module]:
    """The source and the modules beside it that it imports, directly or not, with their syntax trees."""
    root = source.parent
    if package is not None:
        root = next((p.parent for p in (source, *source.parents) if p.stem == package), root)
    found: dict[Path, ast.Module] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        try:
            found[path] = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(found[path]):
            for start, name in _imports(node, path, root):
                if start != root or (name.partition(".")[0] not in _OURS and package in (None, name.partition(".")[0])):
                    waiting += _modules(start, name)
    return found


def _imports(node: ast.AST, path: Path, root: Path) -> list[tuple[Path, str]]:
    """The folders and dotted names that an import statement looks in and for."""
    if isinstance(node, ast.Import):
        return [(root, a.name) for a in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    start, module = root if node.level == 0 else path.parents[node.level - 1], node.module or ""
    return [(start, module), *((start, f"{module}.{a.name}".lstrip(".")) for a in node.names)]


def _modules(start: Path, name: str) -> list[Path]:
    """The files that importing a dotted name from a folder would run, as far as they lie in it."""
    found, folder = [], start
    for part in name.split(".") if name else ():
        found += [folder / f"{part}.py", folder / part / "__init__.py"]
        folder = folder / part
    return [path.resolve() for path in found if path.is_file()]


def _named_in(tree: ast.Module, folder: Path) -> Iterator[Path]:
    """Files that a text in code names, from the folder of the code or the present one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= _LONGEST:
            for start in (folder, Path.cwd()):
                path = start / node.value
                if os.path.isfile(path):
                    yield path.resolve()
