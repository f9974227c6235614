"""From what a user writes after --model to a model, and the list of what there is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.models.base import Model, ModelInfo
from reasonx_eval.models.options import check_kind, option_parameters, parse_options
from reasonx_eval.registry import MODELS, describe_failure, plugins, resolve
from reasonx_eval.types import KINDS, TASK_OF_KIND, Kind, Prediction, Sample

GROUP: Final = "reasonx_eval.models"

#: what a model can be besides a name: how it is written, and what it means
FORMS: Final[tuple[tuple[str, str], ...]] = (
    ("preds:DIR", "a folder of saved predictions (or DIR alone, if it has a meta.json)"),
    ("FILE.onnx", "an ONNX network, with its card FILE.json"),
    ("FILE.py:Class", "a class of your own: kind and predict(images)"),
    ("pkg.mod:Class", "the same, installed in this environment"),
)

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load_model(
    spec: str,
    *,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    card: Path | str | None = None,
    device: str = "auto",
) -> Model:
    """The model that `spec` names: a registered or plugged-in name first, then one of `FORMS`.

    Parameters
    ----------
    spec : e.g. ``oracle``, ``preds:DIR``, ``net.onnx``, ``net.py:Net``, ``pkg.mod:Net``
    kind : the kind to predict; required where nothing else states it, an error where it contradicts
    options : ``-O key=value``; text is parsed to the types of the factory's signature
    card : the card of an ONNX network, if not beside it
    device : auto, cpu or cuda; models that only compute on the CPU refuse cuda

    Raises
    ------
    UsageError
        Unknown name (with the nearest match), missing path, unknown or badly typed option, unusable kind.
    """
    options = dict(options or {})
    if kind is not None:
        check_kind(kind, KINDS, where=spec)
    if card is not None and not spec.endswith(".onnx"):
        raise UsageError("--card is for .onnx networks", where=spec)
    if spec in MODELS or (spec in (extra := plugins(GROUP))):
        factory = resolve(GROUP, MODELS, "model", spec)
        if spec in MODELS:
            return _narrowed(_call(factory, spec, kind, options, device), kind)
        return _user(factory, f"{spec} ({extra[spec].value})", kind, options, device)
    if spec.startswith("preds:"):
        return _saved(Path(spec.removeprefix("preds:")), spec, kind, options, device)
    source, _, name = spec.rpartition(":")
    if (source.endswith(".py") and name.isidentifier()) or _MODULE.fullmatch(spec):
        from reasonx_eval.models.plugin import load_attribute

        return _user(load_attribute(spec), spec, kind, options, device)
    return _from_path(spec, kind, options, card, device)


def _from_path(
    spec: str, kind: str | None, options: Mapping[str, Any], card: Path | str | None, device: str
) -> Model:
    path = Path(spec).expanduser()
    if spec.endswith(".onnx"):
        from reasonx_eval.models.onnx import OnnxModel

        parsed = parse_options(OnnxModel, options, where=spec, hidden=("path", "card", "device"))
        return _narrowed(OnnxModel(path, card=card, device=device, **parsed), kind)
    if path.is_dir():
        return _saved(path, spec, kind, options, device)
    if path.is_file():
        raise UsageError(_not_a_model(path), where=spec, fix="; ".join(form for form, _ in FORMS))
    if "/" in spec or "\\" in spec or path.suffix in (".py", ".json", ".pt", ".pth", ".safetensors"):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UsageError(f"no such file or folder, and no model of that name{hint}", where=spec,
                         fix="reasonx-eval list models")  # fmt: skip
    raise unknown("model", spec, [*MODELS, *plugins(GROUP), *(form for form, _ in FORMS)])


def _not_a_model(path: Path) -> str:
    if path.suffix != ".py":
        return f"a {path.suffix or 'plain'} file is not a model"
    import ast

    try:
        classes = [n.name for n in ast.parse(path.read_bytes()).body if isinstance(n, ast.ClassDef)]
    except (SyntaxError, ValueError, OSError):
        classes = []
    return f"which class? {path.name} defines {', '.join(classes) or 'none'}; write {path}:{(classes or ['Class'])[0]}"


def _saved(folder: Path, spec: str, kind: str | None, options: Mapping[str, Any], device: str) -> Model:
    from reasonx_eval.models.saved import Saved, prediction_files
    from reasonx_eval.models.saved_formats import META_NAME

    inner = folder / "predictions"
    if not (folder / META_NAME).is_file() and (inner / META_NAME).is_file():
        folder = inner  # a run's own folder
    elif folder.is_dir() and not spec.startswith("preds:") and next(prediction_files(folder), None) is None:
        raise UsageError("a folder without meta.json and without .npy, .npz, .png, .exr or .h5: not predictions",
                         where=spec, fix="; ".join(form for form, _ in FORMS))  # fmt: skip
    _cpu_only(device, spec)
    if kind is not None and options.get("kind", kind) != kind:
        raise UsageError(f"--kind {kind} and -O kind={options['kind']} differ", where=spec)
    parsed = parse_options(Saved, {**options, **({"kind": kind} if kind else {})}, where=spec, hidden=("folder",))
    return Saved(folder, **parsed)


def _user(factory: Any, spec: str, kind: str | None, options: Mapping[str, Any], device: str) -> Model:
    from reasonx_eval.models.plugin import build

    return _narrowed(build(factory, spec=spec, kind=kind, options=options, device=device), kind)


def _call(factory: Any, spec: str, kind: str | None, options: Mapping[str, Any], device: str) -> Model:
    """A registered factory, with kind and device if its signature has them."""
    takes = option_parameters(factory)
    arguments = parse_options(factory, options, where=spec)
    if kind is not None and "kind" in takes:
        if arguments.get("kind", kind) != kind:
            raise UsageError(f"--kind {kind} and -O kind={arguments['kind']} differ", where=spec)
        arguments["kind"] = kind
    if "device" in takes:
        arguments.setdefault("device", device)
    else:
        _cpu_only(device, spec)
    model = factory(**arguments)
    assert isinstance(model, Model)
    return model


def _cpu_only(device: str, spec: str) -> None:
    if device not in ("auto", "cpu"):
        raise UsageError(f"device is '{device}', but this model computes on the CPU only", where=spec)


class _OneKind(Model):
    """A model that could give several kinds, held to the one that was asked for."""

    def __init__(self, model: Model, kind: Kind) -> None:
        self._model, self._kind = model, kind
        self.batch_size = model.batch_size
        self.needs_image = model.needs_image
        self.needs_targets = model.needs_targets
        self.thread_safe = model.thread_safe

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    @property
    def kinds(self) -> Mapping[str, tuple[Kind, ...]]:
        return {TASK_OF_KIND[self._kind]: (self._kind,)}

    def predict(self, samples: Sequence[Sample], kind: Kind, seed: int) -> list[Prediction]:
        check_kind(kind, (self._kind,), where=self.info.name)
        return self._model.predict(samples, kind, seed)

    def close(self) -> None:
        self._model.close()


def _narrowed(model: Model, kind: str | None) -> Model:
    """The model held to `kind`; an error if it can't give it."""
    have = [k for kinds in model.kinds.values() for k in kinds]
    if kind is None or have == [kind]:
        return model
    for k in have:
        if k == kind:
            return _OneKind(model, k)
    raise UsageError(f"--kind is {kind}, but the model gives {', '.join(have) or 'nothing'}", where=model.info.name)


@dataclass(frozen=True)
class ModelRow:
    """One line of ``reasonx-eval list models``.

    source : "module:attribute"
    why_not : why it is not available, else None
    """

    name: str
    tasks: tuple[str, ...]
    kinds: tuple[str, ...]
    source: str
    licence: str | None
    why_not: str | None = None

    @property
    def available(self) -> bool:
        return self.why_not is None


def list_models() -> list[ModelRow]:
    """Registered models, then plug-ins; a broken one is a row that says why, never an exception.

    Registered factories are called without options (they must not load weights then); of plug-ins only
    the class is looked at, because constructing one may.
    """
    rows = [_registered_row(name, source) for name, source in MODELS.items()]
    return rows + [_plugin_row(name, e.value) for name, e in sorted(plugins(GROUP).items()) if name not in MODELS]


def _registered_row(name: str, source: str) -> ModelRow:
    try:
        model: Model = resolve(GROUP, MODELS, "model", name)()
        kinds = model.kinds
        return ModelRow(name, tuple(kinds), tuple(k for ks in kinds.values() for k in ks), source, model.info.licence)
    except Exception as error:
        return ModelRow(name, (), (), source, None, describe_failure(error))


def _plugin_row(name: str, source: str) -> ModelRow:
    try:
        cls = resolve(GROUP, MODELS, "model", name)
        stated = inspect.getattr_static(cls, "kind", ())
        listed = (stated,) if isinstance(stated, str) else stated if isinstance(stated, (list, tuple)) else ()
        kinds = tuple(k for k in listed if isinstance(k, str) and k in KINDS)
        licence = inspect.getattr_static(cls, "licence", None)
        tasks = tuple(dict.fromkeys(TASK_OF_KIND[k] for k in kinds))
        return ModelRow(name, tasks, kinds, source, licence if isinstance(licence, str) else None)
    except Exception as error:
        return ModelRow(name, (), (), source, None, describe_failure(error))
