"""From a checkpoint to the adapter that runs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reasonx_eval.errors import UsageError
from reasonx_eval.models.base import Model
from reasonx_eval.models.loading.catalogue import Named
from reasonx_eval.models.loading.hub import Checkpoint, find_checkpoint
from reasonx_eval.models.loading.options import parse_options

if TYPE_CHECKING:
    from reasonx_eval.models.loading.load import Request
    from reasonx_eval.models.loading.torch_support import Runtime

_HIDDEN = ("checkpoint", "runtime", "kind", "name")


def runtime_of(request: Request) -> Runtime:
    """How a request wants its network to compute; checked here, before anything is read."""
    from reasonx_eval.models.loading.torch_support import Runtime

    runtime = Runtime(request.device, request.dtype, request.batch_size, request.trust_remote_code)
    _ = runtime.torch_device, runtime.torch_dtype
    return runtime


def catalogued(named: Named, request: Request) -> Model:
    """A network known by name.

    Raises
    ------
    UsageError
        This program can't run it (says why), or its checkpoint is not here and can't be had.
    """
    if named.adapter is None:
        raise UsageError(f"not available: {named.unavailable}", where=named.name, fix="reasonx-eval list models")
    options = {**named.options, **request.options}
    where = [] if named.hub is None else [find_checkpoint(named.hub, allow_pickle=True)]
    return _build(named.adapter, where, request, options, named.name)


def from_checkpoint(checkpoint: Checkpoint, request: Request) -> Model:
    """The adapter for what a folder or hub snapshot holds.

    ``reasonx.json`` is a tuned checkpoint, ``model_index.json`` a diffusers pipeline, ``config.json`` a transformers
    model.
    """
    if (checkpoint.folder / "reasonx.json").is_file():
        adapter = "reasonx_eval.models.embedded.tuned:Tuned"
    elif checkpoint.index is not None:
        from reasonx_eval.models.adapters.pipelines import adapter_for

        adapter = adapter_for(checkpoint)
    elif checkpoint.config is not None:
        adapter = "reasonx_eval.models.adapters.transformers_depth:TransformersDepth"
    else:
        raise UsageError("neither a diffusers pipeline (model_index.json) nor a transformers model (config.json)",
                         where=checkpoint.source)  # fmt: skip
    return _build(adapter, [checkpoint], request, dict(request.options), None)


def _build(
    adapter: str, where: list[Checkpoint], request: Request, options: dict[str, Any], name: str | None
) -> Model:
    runtime = runtime_of(request)
    module, _, attribute = adapter.partition(":")
    cls = getattr(import_module(module), attribute)
    parsed = parse_options(cls, options, where=request.spec, hidden=_HIDDEN)
    named = {} if name is None else {"name": name}
    model = cls(*where, runtime=runtime, kind=request.kind, **named, **parsed)
    assert isinstance(model, Model)
    return model
