"""From the name of a model to a policy that tunes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import UsageError, unknown
from reasonx_eval.models.embedded.card import WEIGHTS, read_card
from reasonx_eval.models.embedded.tuned import CARD_NAME, read_tuned_card
from reasonx_eval.models.loading.checkpoint import Checkpoint, find_checkpoint, is_hub_id
from reasonx_eval.models.loading.options import parse_options
from reasonx_eval.models.loading.runtime import Runtime
from reasonx_ft.policies.base import Policy, Source

#: the embedded networks
EMBEDDED: Final = ("tiny", "tiny-flow")
#: what runs the weights -> module and function that build the policy; a module is imported when it is asked for
_BUILDERS: Final[Mapping[str, tuple[str, str]]] = {
    "tiny": ("embedded", "load_tiny"),
    "tiny-flow": ("flow", "load_tiny_flow"),
    "pipeline": ("diffusion", "load_pipeline"),
    "transformers": ("depth_network", "load_depth_network"),
}


def make_policy(
    model: str | Path, *, device: str = "auto", dtype: str = "float32", microbatch: int | None = None, **options: Any
) -> Policy:
    """The policy of a model, on its device, with the base's weights.

    Parameters
    ----------
    model : tiny, tiny-flow, a weights file of one of them, a tuned checkpoint, or a folder or hub id of a transformers
        depth network or a Marigold-type pipeline
    device : auto, cpu, cuda, cuda:N or mps; for the embedded networks, auto is cpu
    dtype : float32 or bfloat16, in which the network computes; codes, means and densities are float32
    microbatch : network inputs in one pass
    options : of the policy, typed or text; which ones there are depends on the model

    Raises
    ------
    UsageError
        No such model, one that can't be tuned, an unknown option (with the nearest match) or one of a wrong type.
    """
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"))
    if microbatch is not None and microbatch < 1:
        raise UsageError(f"microbatch is {microbatch}; needs 1 or more")
    kind, source = _find(str(model), Runtime(device, dtype), microbatch)
    module, name = _BUILDERS[kind]
    build: Callable[..., Policy] = getattr(import_module(f"reasonx_ft.policies.{module}"), name)
    parsed = parse_options(build, options, where=str(model), hidden=("source",))
    return build(source, **parsed)


def _find(model: str, runtime: Runtime, microbatch: int | None) -> tuple[str, Source]:
    if model in EMBEDDED:
        return model, Source(model, runtime, microbatch, path=WEIGHTS / f"{model}.safetensors")
    path = Path(model).expanduser()
    if path.suffix == ".safetensors":
        return read_card(path).model, Source(path.stem, runtime, microbatch, path=path)
    if (path / CARD_NAME).is_file():
        card = read_tuned_card(path)
        inside = path / card.path
        if card.architecture in EMBEDDED:
            return card.architecture, Source(card.name, runtime, microbatch, path=inside)
        return _of_checkpoint(Checkpoint(inside, model), Source(card.name, runtime, microbatch))
    if not path.is_dir() and not is_hub_id(model):
        raise unknown("model", model, (*EMBEDDED, "a folder", "owner/name of the hub"))
    found = find_checkpoint(model, allow_pickle=True)
    return _of_checkpoint(found, Source(found.hub_id or model, runtime, microbatch))


def _of_checkpoint(checkpoint: Checkpoint, source: Source) -> tuple[str, Source]:
    kind = "pipeline" if checkpoint.index is not None else "transformers" if checkpoint.config is not None else None
    if kind is None:
        raise UsageError("neither a diffusers pipeline (model_index.json) nor a transformers model (config.json)",
                         where=checkpoint.source, fix="reasonx-eval list models")  # fmt: skip
    return kind, replace(source, checkpoint=checkpoint)
