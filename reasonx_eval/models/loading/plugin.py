"""Models from the user's own code: ``file.py:Class``, ``pkg.mod:Class``, or an installed entry point.

A class is a `Model`, or the simple form: an attribute `kind` and ``predict(images) -> maps``. Running it runs that
code, in this process, with the user's rights: it is named explicitly, never found by searching.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.errors import ReasonXError, SampleError, UsageError, unknown
from reasonx_eval.io.digests import sha256_text
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.base import Model, ModelInfo, check_kind
from reasonx_eval.models.loading.options import option_parameters, parse_options
from reasonx_eval.models.loading.plugin_files import USER_MODULE, PluginFiles, importing
from reasonx_eval.models.saved.formats import as_map
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Prediction, Sample


def load_attribute(spec: str) -> Any:
    """The class or function behind ``path/to/file.py:Name`` or ``pkg.mod:Name``.

    Raises
    ------
    UsageError
        No such file, module or name; or code that fails when it is imported (with the line it fails in).
    """
    source, _, name = spec.rpartition(":")
    if source.endswith(".py"):
        path = Path(source)
        if not path.is_file():
            raise UsageError("no such file", where=str(path))
        module, origin = _import_file(path), path
    else:
        origin = Path(source)
        with importing(source):
            module = _guarded(lambda: import_module(source), source, "import", None)
    try:
        return getattr(module, name)
    except AttributeError:
        own = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__]
        raise unknown("class", name, own, where=str(origin)) from None


def build(factory: Any, *, spec: str, kind: str | None, options: Mapping[str, Any], device: str) -> Model:
    """Call a user's class or factory, and wrap the result as a `Model`.

    Raises
    ------
    UsageError
        An unknown option, an exception in its code, or something that is not a model.
    """
    if not callable(factory):
        raise UsageError(f"not a class or a function that gives a model, but a value of type {type(factory).__name__}",
                         where=spec)  # fmt: skip
    arguments = parse_options(factory, options, where=spec)
    takes = option_parameters(factory)
    for key, value in {"kind": kind, "device": device}.items():
        if key in takes and value is not None and key not in arguments:
            arguments[key] = value
    files = PluginFiles(factory)
    with files.recording():
        made = _guarded(lambda: factory(**arguments), spec, "construct", files.source)
    if not isinstance(made, Model):
        return SimpleModel(made, spec=spec, kind=kind, files=files, options=arguments)
    if type(made).files is Model.files:
        setattr(made, "files", partial(_digests, files, made, arguments))  # noqa: B010  # a method of the class for types
    return made


def _digests(files: PluginFiles, user: Any, options: Mapping[str, Any]) -> Mapping[str, str]:
    return files.digests(_named(user, options))


def _named(user: Any, options: Mapping[str, Any]) -> list[Any]:
    """Values that may name files: the attribute `weights` first."""
    return [getattr(user, "weights", None), *options.values(), *getattr(user, "__dict__", {}).values()]


def from_object(made: Any, *, kind: str | None = None) -> Model:
    """A model from a user's object, or from a class that is constructed without arguments.

    Raises
    ------
    UsageError
        It has no method predict(images), or states no kind.
    """
    cls = made if inspect.isclass(made) else type(made)
    spec = f"{cls.__module__}:{cls.__qualname__}"
    if inspect.isclass(made):
        return build(made, spec=spec, kind=kind, options={}, device="auto")
    return SimpleModel(made, spec=spec, kind=kind, files=PluginFiles(cls), options={})


class SimpleModel(Model):
    """A user's object with `kind` and `predict`, checked on every call.

    `predict` gets a list of uint8 [H, W, 3] photos and gives one map (or `Prediction`) for each. It may also take
    ``kind=`` (which of several is wanted) and ``seeds=`` (one integer per photo, from the run's seed and the
    sample's id). Optional attributes: name, licence, base, trained_on, reward, parameters, weights (the path or
    paths of weight files), batch_size (default 1), thread_safe (default False).
    """

    def __init__(
        self, user: Any, *, spec: str, kind: str | None, files: PluginFiles, options: Mapping[str, Any]
    ) -> None:
        self._user, self._spec, self._files, self._source = user, spec, files, files.source
        self._class = type(user).__name__
        predict = getattr(user, "predict", None)
        if not callable(predict):
            raise UsageError("has no method predict(images)", where=spec,
                             fix="def predict(self, images): return [...]")  # fmt: skip
        self._predict: Callable[..., Any] = predict
        self._takes = set(option_parameters(predict))
        self._stated = _stated_kinds(getattr(user, "kind", None), kind, spec)
        self._options = {k: v if isinstance(v, (bool, int, float, str, type(None))) else str(v)
                         for k, v in options.items()}  # fmt: skip
        self.batch_size = _attribute(user, "batch_size", int, 1, spec)
        self.thread_safe = _attribute(user, "thread_safe", bool, False, spec)
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; needs 1 or more", where=spec)
        self._info: ModelInfo = _guarded(self._read_info, spec, "construct", files.source)

    @property
    def fully_described(self) -> bool:
        return False

    @property
    def info(self) -> ModelInfo:
        return self._info

    def _read_info(self) -> ModelInfo:
        """The user's attributes, once: the digest of the weights takes seconds."""
        user, spec = self._user, self._spec
        trained_on = getattr(user, "trained_on", ())
        if not isinstance(trained_on, (str, list, tuple)) or not all(isinstance(t, str) for t in trained_on):
            raise UsageError(f"attribute trained_on is {trained_on!r}; needs names of data sets", where=spec)
        return ModelInfo(
            name=_attribute(user, "name", str, self._class, spec),
            source=spec,
            weights_sha256=self._files.sha256(_named(user, self._options)),
            licence=_attribute(user, "licence", str, None, spec),
            parameters=_attribute(user, "parameters", int, None, spec),
            base=_attribute(user, "base", str, None, spec),
            trained_on=(trained_on,) if isinstance(trained_on, str) else tuple(trained_on),
            reward=_attribute(user, "reward", str, None, spec),
            options=self._options,
            notes=("weights_sha256 is the digest of the code and of the files that it opened or names; files that "
                   "compiled code opens by itself are not seen",),
        )  # fmt: skip

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        by_task: dict[str, tuple[Kind, ...]] = {}
        for kind in self._stated:
            by_task[TASK_OF_KIND[kind]] = (*by_task.get(TASK_OF_KIND[kind], ()), kind)
        return by_task

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, self._stated, where=self._spec)
        extra: dict[str, Any] = {}
        if "kind" in self._takes:
            extra["kind"] = kind
        if "seeds" in self._takes:
            extra["seeds"] = [stream_seed(seed, s.id) % 2**63 for s in samples]
        where = f"{self._spec}: sample {', '.join(s.id for s in samples)}"
        photos = [s.image.copy() for s in samples]  # a model may write into them
        try:
            with self._files.recording():
                given = self._predict(photos, **extra)
        except ReasonXError:
            raise
        except (Exception, SystemExit) as error:
            raise SampleError(f"predict raised {describe(error, self._source)}", where=where) from error
        if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__len__"):
            raise SampleError(f"predict gave a {type(given).__name__}, not a list of one map per photo", where=where)
        if len(given) != len(samples):
            raise SampleError(f"predict gave {len(given)} maps for {len(samples)} photos", where=where)
        return [self._checked(g, kind, f"{self._spec}: sample {s.id}") for g, s in zip(given, samples, strict=True)]

    def _checked(self, given: Any, kind: Kind, where: str) -> Prediction:
        seconds = None
        if isinstance(given, Prediction):
            if given.kind != kind:
                raise SampleError(f"asked for {kind}, predict gave {given.kind}", where=where)
            given, seconds = given.value, given.seconds
        elif len(self._stated) > 1 and "kind" not in self._takes:
            raise SampleError(f"states several kinds ({', '.join(self._stated)}), so a bare array is ambiguous",
                              where=where,
                              fix="def predict(self, images, kind), or return Prediction(kind, value)")  # fmt: skip
        try:
            array: NDArray[Any] = np.asarray(given)
        except Exception as error:
            raise SampleError(f"predict gave a {type(given).__name__} that is no array: {error}", where=where) from None
        # a copy: a model may fill the same buffer again while this prediction is still being scored
        value = as_map(array, kind, where).copy()
        if not np.isfinite(value).all():
            bad = int(np.count_nonzero(~np.isfinite(value)))
            raise SampleError(f"{bad} of {value.size} values are NaN or infinite", where=where)
        return Prediction(kind, value, seconds)

    def files(self) -> Mapping[str, str]:
        return _digests(self._files, self._user, self._options)


def describe(error: BaseException, source: Path | None) -> str:
    """``Type: message (file.py, line n)``: the line of the user's file, or else the innermost one."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if f.filename != __file__ and "importlib" not in f.filename]  # fmt: skip
    own = [f for f in frames if source is not None and Path(f.filename) == source.resolve()]
    last = (own or frames)[-1:]
    return f"{text} ({Path(last[0].filename).name}, line {last[0].lineno})" if last else text


def _guarded(action: Callable[[], Any], where: str, doing: str, source: Path | None) -> Any:
    """Run the user's code; an exception becomes one UsageError (clear errors of its own pass)."""
    try:
        return action()
    except ReasonXError:
        raise
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ImportError) else None
        fix = None
        if absent and f"{where}.".startswith(f"{absent}."):
            fix = f"install it in this environment, or name the file: path/to/{where.split('.')[-1]}.py:Class"
        elif absent:
            fix = f"install the package of the module '{absent}' in this environment"
        verb = "can't be imported" if doing == "import" else "can't be constructed"
        raise UsageError(f"{verb}: {describe(error, source)}", where=where, fix=fix) from error


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{USER_MODULE}{path.stem}_{sha256_text(str(path))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    # as `python file.py` does, so that it can import its neighbours; last, so that they hide no package
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    loader = spec.loader
    try:
        with importing(name):
            _guarded(lambda: loader.exec_module(module), str(path), "import", path)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _stated_kinds(stated: Any, wanted: str | None, spec: str) -> tuple[Kind, ...]:
    """The kinds of the user's class, narrowed to --kind."""
    kinds = (stated,) if isinstance(stated, str) else tuple(stated) if isinstance(stated, (list, tuple)) else ()
    if wanted is not None:
        check_kind(wanted, KINDS, where=spec)
    if stated is None or not kinds:
        if wanted is None:
            raise UsageError(f"kind is not stated: no --kind, and no attribute `kind`. One of: {', '.join(KINDS)}",
                             where=spec, fix='kind = "depth_metric" in the class, or --kind depth_metric')  # fmt: skip
        kinds = (wanted,)
    for kind in kinds:
        check_kind(str(kind), KINDS, where=spec)
    if wanted is not None and wanted not in kinds:
        raise UsageError(f"--kind is {wanted}, but the class says {', '.join(kinds)}", where=spec)
    return tuple(k for k in kinds if wanted in (None, k))


def _attribute(user: Any, name: str, kind: type, default: Any, spec: str) -> Any:
    value = getattr(user, name, default)
    if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise UsageError(f"attribute {name} is {value!r}; needs {kind.__name__}", where=spec)
    return value
