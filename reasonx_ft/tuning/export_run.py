"""A model from the folder of a run: the weights of its best check, or of any checkpoint that is kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reasonx_eval.errors import DataError, UsageError, unknown
from reasonx_eval.models.embedded.tuned import CARD_NAME, TunedCard
from reasonx_ft.policies.load import make_policy
from reasonx_ft.training.files import load_state
from reasonx_ft.tuning import checkpoint
from reasonx_ft.tuning.check import Check
from reasonx_ft.tuning.export import Facts, write_model
from reasonx_ft.tuning.run_files import read_run
from reasonx_ft.tuning.weights import between, copied, put


def export_run(
    run: Path, out: Path, *, weights: str = "best", name: str | None = None, interpolate: float | None = None,
    force: bool = False,
) -> TunedCard:
    """Write a model.

    Parameters
    ----------
    run : folder of a tuning
    out : folder of the model
    weights : best, last, or the number of a step
    name : of the model; default that of the run
    interpolate : how much of the way from the base, in (0, 1]; default what the run was set to

    Raises
    ------
    UsageError
        No such run, step or check; a model there already, without `force`; `interpolate` out of range.
    DataError
        The base is not what it was, or the checkpoint can't be read.
    """
    if interpolate is not None and not 0 < interpolate <= 1:
        raise UsageError(f"interpolate {interpolate:g}: needs a number above 0, up to 1", where="export")
    about = read_run(run)
    state = _state(run, weights)
    replaced = (out / CARD_NAME).exists()
    if replaced and not force:
        raise UsageError("a model is there already", where=str(out), fix="--force, or another --out")
    if replaced and out.resolve() == Path(about.base).resolve():
        raise UsageError("the base of this run, which it would replace", where=str(out), fix="another --out")
    configured = about.config.optimiser.interpolate
    share = configured if interpolate is None else interpolate
    policy = make_policy(about.base, device="cpu", **about.config.policy)
    try:
        put(policy.network, _exported(state, policy.network, share, configured))
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the checkpoint is not of {about.base} as it is now: {' '.join(str(error).split())[:200]}",
                        where=str(run)) from None  # fmt: skip
    facts = Facts(**{**about.facts, "name": name or about.facts["name"], "data": tuple(about.facts["data"]),
                     "config": about.config.model_dump(mode="json")})  # fmt: skip
    check = None if state.get("check") is None else Check(**state["check"])
    if check is not None and (check.step != state["step"] or share != configured):
        check = None  # measured before: not of these weights
    base = (state.get("guardrails") or {}).get("base")
    if replaced:
        shutil.rmtree(out)  # only now that there is something to put in its place
    return write_model(policy, out, facts, step=int(state["step"]), check=check,
                       base=None if base is None else Check(**base))  # fmt: skip


def _exported(state: Mapping[str, Any], base: nn.Module, share: float, configured: float) -> Mapping[str, Tensor]:
    """The weights a share of the way from the base; those of a best check are on the way already, as configured."""
    average = state.get("average")
    if average is None:
        tuned, share = state["weights"], share / configured
    else:
        tuned = average["mean"] or state["weights"]
    return tuned if share == 1 else between(copied(base), tuned, share)


def _state(run: Path, weights: str) -> Mapping[str, Any]:
    kept = checkpoint.steps_kept(run)
    if weights == "best":
        best = checkpoint.load_best(run)
        if best is None:
            raise UsageError("no check has been made yet", where=str(run), fix="--weights last")
        return best
    if not kept:
        raise UsageError("no checkpoint yet", where=str(run), fix="watch.save_every, or let the tuning finish")
    if weights == "last":
        return load_state(checkpoint.path_of(run, kept[0]))
    if not weights.isdecimal() or int(weights) not in kept:
        raise unknown("weights", weights, ["best", "last", *map(str, kept)], where=str(run))
    return load_state(checkpoint.path_of(run, int(weights)))
