"""From the text that a user writes after --model to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.io.plugins import imported, load_plugin, plugins
from reasonx_eval.models.base import Model, OneKind, check_kind
from reasonx_eval.models.loading.catalogue import GROUP, CatalogueEntry, adapter_of, catalogue
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint, is_hub_id
from reasonx_eval.models.loading.options import option_parameters, parse_options
from reasonx_eval.types import KINDS

if TYPE_CHECKING:
    from reasonx_eval.models.loading.runtime import Runtime

#: specifications of a model besides a name, and their meaning
FORMS: Final[tuple[tuple[str, str], ...]] = (
    ("owner/name", "a depth estimator or Marigold-type pipeline of the hub, or of its local cache"),
    ("DIR", "the same in a local folder, or a tuned checkpoint of reasonx-ft"),
    ("preds:DIR", "a folder of saved predictions (or DIR alone, if it has a meta.json)"),
    ("FILE.onnx", "an ONNX network, with its card FILE.json"),
    ("FILE.py:Class", "a class of your own: kind and predict(images)"),
    ("pkg.mod:Class", "the same, installed in this environment"),
)

#: one of these in a folder makes it a network
NETWORK_FILES: Final = ("reasonx.json", "model_index.json", "config.json")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Request:
    """The model that a user asks for, and how it is to compute.

    spec : e.g. ``oracle``, ``marigold``, ``owner/name`` of the hub, ``preds:DIR``, ``net.onnx``, ``net.py:Net``
    kind : the kind to predict; required where nothing else states it, an error where it contradicts
    options : ``-O key=value``; text is parsed to the types of the factory's signature
    card : the card of an ONNX network, if not beside it
    device, dtype, batch_size, trust_remote_code : see runtime.Runtime; models without a network refuse another device
        or number type
    """

    spec: str
    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    card: Path | str | None = None
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 1
    trust_remote_code: bool = False

    @property
    def runtime(self) -> Runtime:
        """How its network is to compute; checked here, before anything is read."""
        from reasonx_eval.models.loading.runtime import Runtime

        runtime = Runtime(self.device, self.dtype, self.batch_size, self.trust_remote_code)
        _ = runtime.torch_device, runtime.torch_dtype
        return runtime


def load_model(spec: str, *, derive: str | None = None, **how: Any) -> Model:
    """The model that `spec` names: a name of the catalogue or of a plug-in first, then one of `FORMS`.

    Parameters
    ----------
    spec, how : see `Request`
    derive : "normals" gives the normals of the surface that the model's depth describes

    Raises
    ------
    UsageError
        Unknown name (with the nearest match), missing path, unknown or badly typed option, unusable kind, a
        checkpoint that is not here and can't be had.
    """
    request = Request(spec, **how)
    if request.kind is not None:
        check_kind(request.kind, KINDS, where=spec)
    if request.card is not None and not spec.endswith(".onnx"):
        raise UsageError("--card is for .onnx networks", where=spec)
    model = _narrowed(_find(request), request.kind)
    if derive is None:
        return model
    if derive != "normals":
        raise unknown("derivation", derive, ("normals",))
    from reasonx_eval.models.adapters.derived import NormalsFromDepth

    return NormalsFromDepth(model)


def as_model(model: str | Path | Model | object, *, kind: str | None = None) -> Model:
    """A model from a name (see `load_model`), a `Model`, or an object with ``predict(images)``.

    Raises
    ------
    UsageError
        As `load_model`; a Model that is held to a kind it does not give; an object without `predict`.
    """
    if isinstance(model, str | Path):
        return load_model(str(model), kind=kind)
    if isinstance(model, Model):
        return _narrowed(model, kind)
    from reasonx_eval.models.loading.plugin import from_object

    return from_object(model, kind=kind)


def _find(request: Request) -> Model:
    spec = request.spec
    if spec in catalogue():
        return _catalogued(catalogue()[spec], request)
    extra = plugins(GROUP)
    if spec in extra:
        from reasonx_eval.models.loading.plugin_files import importing

        with importing(extra[spec].value.partition(":")[0]):
            plugin = load_plugin("model", extra[spec])
        return _user(plugin, f"{spec} ({extra[spec].value})", request)
    if spec.startswith("preds:"):
        return _saved(Path(spec.removeprefix("preds:")), request)
    source, _, name = spec.rpartition(":")
    if (source.endswith(".py") and name.isidentifier()) or _MODULE.fullmatch(spec):
        from reasonx_eval.models.loading.plugin import load_attribute

        return _user(load_attribute(spec), spec, request)
    return _from_path(request, [*catalogue(), *extra])


def _from_path(request: Request, names: Sequence[str]) -> Model:
    spec, path = request.spec, Path(request.spec).expanduser()
    if spec.endswith(".onnx"):
        from reasonx_eval.models.adapters.onnx import OnnxModel

        return construct(OnnxModel, request, path=path, card=request.card)
    if path.is_dir():
        return _from_folder(path, request)
    if path.is_file():
        raise UsageError(_not_a_model(path), where=spec, fix="; ".join(form for form, _ in FORMS))
    if is_hub_id(spec) and not path.parent.is_dir():
        return from_checkpoint(find_checkpoint(spec, allow_pickle=True), request)
    if "/" in spec or "\\" in spec or path.suffix in (".py", ".json", ".pt", ".pth", ".safetensors"):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UsageError(f"no such file or folder, and no model of that name{hint}", where=spec,
                         fix="reasonx-eval list models")  # fmt: skip
    raise unknown("model", spec, [*names, *(form for form, _ in FORMS)])


def _from_folder(path: Path, request: Request) -> Model:
    """A folder is a network if it has a network's configuration, else saved predictions."""
    if any((path / name).is_file() for name in NETWORK_FILES):
        return from_checkpoint(find_checkpoint(request.spec, allow_pickle=True), request)
    return _saved(path, request)


def _not_a_model(path: Path) -> str:
    if path.suffix != ".py":
        return f"a {path.suffix or 'plain'} file is not a model"
    import ast

    try:
        classes = [n.name for n in ast.parse(path.read_bytes()).body if isinstance(n, ast.ClassDef)]
    except (SyntaxError, ValueError, OSError):
        classes = []
    named = ", ".join(classes) or "no class"
    return f"names a file, but no class in it: {path.name} defines {named}; write {path}:{(classes or ['Class'])[0]}"


def _saved(folder: Path, request: Request) -> Model:
    from reasonx_eval.models.saved.formats import META_NAME
    from reasonx_eval.models.saved.predictions import Saved, prediction_files

    spec = request.spec
    inner = folder / "predictions"
    if not (folder / META_NAME).is_file() and (inner / META_NAME).is_file():
        folder = inner  # a run's own folder
    elif folder.is_dir() and not spec.startswith("preds:") and next(prediction_files(folder), None) is None:
        raise UsageError(f"neither a network ({', '.join(NETWORK_FILES)}) nor predictions (meta.json, .npy, .npz, "
                         ".png, .exr, .h5)", where=spec, fix="; ".join(form for form, _ in FORMS))  # fmt: skip
    return construct(Saved, request, folder=folder)


def _user(factory: Any, spec: str, request: Request) -> Model:
    from reasonx_eval.models.loading.plugin import build

    return build(factory, spec=spec, kind=request.kind, options=request.options, device=request.device)


def _catalogued(entry: CatalogueEntry, request: Request) -> Model:
    """A model known by name.

    Raises
    ------
    UsageError
        This program can't run it (says why), or its checkpoint is not here and can't be had.
    """
    if entry.adapter is None:
        raise UsageError(f"not available: {entry.unavailable}", where=entry.name, fix="reasonx-eval list models")
    request = replace(request, options={**entry.options, **request.options})
    adapter = imported(entry.adapter)
    given: dict[str, Any] = {"name": entry.name}
    if entry.hub is not None and "checkpoint" in option_parameters(adapter):
        given["checkpoint"] = find_checkpoint(entry.hub, allow_pickle=True)
    return construct(adapter, request, **given)


def from_checkpoint(checkpoint: Checkpoint, request: Request) -> Model:
    """The adapter for a folder or hub snapshot.

    ``reasonx.json`` is a tuned checkpoint, ``model_index.json`` a diffusers pipeline, ``config.json`` a transformers
    model. A class that an entry of the catalogue lists is run by that entry's adapter.
    """
    if (checkpoint.folder / "reasonx.json").is_file():
        adapter = "reasonx_eval.models.embedded.tuned:Tuned"
    elif checkpoint.index is not None:
        adapter = adapter_of(checkpoint) or "reasonx_eval.models.adapters.marigold:Marigold"
    elif checkpoint.config is not None:
        adapter = adapter_of(checkpoint) or "reasonx_eval.models.adapters.transformers_depth:TransformersDepth"
    else:
        raise UsageError("neither a diffusers pipeline (model_index.json) nor a transformers model (config.json)",
                         where=checkpoint.source)  # fmt: skip
    return construct(imported(adapter), request, checkpoint=checkpoint, name=None)


def construct(factory: Callable[..., Any], request: Request, **given: Any) -> Model:
    """A model of this package: its class, called with the options and the parts of the request that it takes.

    ``kind`` and ``device`` are passed where the signature has them, ``runtime`` instead of ``device`` for networks of
    torch; of `given` (a checkpoint, a path, a name) those that it names and that are not None.

    Raises
    ------
    UsageError
        An unknown or badly typed option, --kind against -O kind, or a device for a model without a network.
    """
    spec, kind = request.spec, request.kind
    takes = option_parameters(factory)
    arguments = parse_options(factory, request.options, where=spec, hidden=("runtime", *given))
    if kind is not None and "kind" in takes and arguments.setdefault("kind", kind) != kind:
        raise UsageError(f"--kind {kind} and -O kind={arguments['kind']} differ", where=spec)
    if "runtime" in takes:
        arguments["runtime"] = request.runtime
    elif request.dtype != "float32":
        raise UsageError(f"dtype is '{request.dtype}', but this model computes in its own number type", where=spec)
    elif "device" in takes:
        arguments.setdefault("device", request.device)
    elif request.device not in ("auto", "cpu"):
        raise UsageError(f"device is '{request.device}', but this model computes on the CPU only", where=spec)
    model = factory(**arguments, **{k: v for k, v in given.items() if k in takes and v is not None})
    assert isinstance(model, Model)
    return model


def _narrowed(model: Model, kind: str | None) -> Model:
    """The model held to `kind`; an error if it can't give it."""
    have = [k for kinds in model.kinds.values() for k in kinds]
    if kind is None or have == [kind]:
        return model
    for k in have:
        if k == kind:
            return OneKind(model, k)
    raise UsageError(f"--kind is {kind}, but the model gives {', '.join(have) or 'nothing'}", where=model.info.name)
