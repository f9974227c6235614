"""What is measured now and then, on the weights that would be exported: none of it is trained on.

held-out agreement : with the judge's answers about photos that are never trained on, of the deterministic answer
shape of the maps : of these photos, beside the base's: what flattens or stretches maps, drives them beyond their range
    or turns normals away from the camera shows here
unrewarded_metrics : metrics against ground truth, by `reasonx_eval`, that the reward does not see
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reasonx_eval import __version__
from reasonx_eval.errors import UsageError
from reasonx_eval.io.selection import Selection, select
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import Sample
from reasonx_ft.annotation.photos import open_dataset
from reasonx_ft.grpo.batch import Judged
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.base import Policy
from reasonx_ft.tuning.batches import BatchSampler
from reasonx_ft.tuning.config import Guard, Objective, TuneConfig, UnrewardedMetric
from reasonx_ft.tuning.export import Check, write_model
from reasonx_ft.tuning.facts import Facts

#: photos in one pass of a check
_BATCH: Final = 8


class Checker:
    """Measures a policy as it is.

    Parameters
    ----------
    facts : of the run, for signatures and for the card of what is measured
    gathered : inside, the policy can be saved, see `TrainState`
    """

    def __init__(
        self, policy: Policy, batches: BatchSampler, config: TuneConfig, facts: Facts,
        gathered: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        self._policy, self._batches, self._config, self._facts = policy, batches, config, facts
        self._gathered = gathered
        tuned = batches.modalities
        watched = [w for w in config.guard.unrewarded_metrics if get_protocol(w.protocol).task in tuned]
        self._unrewarded = [_Ground(w) for w in watched]

    def check(self, step: int) -> Check:
        """Measure the present weights."""
        sums: dict[str, list[Tensor]] = {m: [] for m in self._batches.modalities}
        shapes = _Shapes(self._policy)
        with torch.no_grad():
            for _, batch in self._batches.checks(self._config.watch.check_photos, _BATCH):
                codes = self._policy.answer(batch.images, list(sums))
                for m, code in codes.items():
                    values = self._policy.values(code, batch.judged[m])
                    sums[m].append(_agreed(values, batch.judged[m], self._config.objective))
                    shapes.add(m, code)
        agreed = {m: torch.cat(v).cpu().numpy().astype(np.float64) if v else np.zeros(0) for m, v in sums.items()}
        counted = {m: int(np.count_nonzero(~np.isnan(v))) for m, v in agreed.items()}
        values_, signatures = self._measured(step) if self._unrewarded else ({}, {})
        return Check(
            step, {m: float(np.nanmean(v)) if counted[m] else float("nan") for m, v in agreed.items()}, counted,
            shapes.mean("spread", agreed), shapes.mean("edges", agreed), values_,
            {**{m: self._signature(m, counted[m]) for m in agreed}, **signatures},
            {} if self._policy.code_range is None else shapes.mean("saturated", agreed),
            shapes.mean("normals_away", ["normals"])["normals"],
        )  # fmt: skip

    def _signature(self, modality: str, n: int) -> str:
        rules, data = self._config.objective, self._config.data
        balanced = "balanced" if rules.balanced and modality == "albedo" else "unbalanced"
        return (f"held-out-agreement/{modality}|judge:{self._facts.judge}|n:{n}|share:{data.held_out:g}|"
                f"gap:{data.max_gap:g}|likelier|{balanced}|same:{rules.threshold}|reasonx:{__version__}")

    def _measured(self, step: int) -> tuple[dict[str, float], dict[str, str]]:
        """Unrewarded metrics of the weights as they would be exported."""
        with tempfile.TemporaryDirectory() as folder:
            with self._gathered():
                write_model(self._policy, Path(folder), self._facts, step=step)
            model = load_model(folder, device=self._config.machine.device)
            values, signatures = {}, {}
            for ground in self._unrewarded:
                watched, protocol = ground.watched, ground.protocol
                kind = model.kind_for(protocol.task, protocol.accepts)
                found = []
                for sample in ground.samples:
                    [prediction] = model.predict([sample], kind, self._config.seed)
                    scored = score_sample(sample=sample, prediction=prediction, protocol=protocol)
                    found.append(scored.metrics.get(watched.metric, float("nan")))
                values[watched.label] = float(np.nanmean(found))
                signatures[watched.label] = protocol.signature(kind=kind, n=len(found), n_total=ground.total,
                                                              data=watched.dataset)  # fmt: skip
            model.close()
        return values, signatures


class _Shapes:
    """Shape of codes [B, C, H, W], photo by photo: see `Check`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._parts: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, modality: str, code: Tensor) -> None:
        found = {"spread": code.flatten(2).std(-1).mean(1), "edges": _edges(code)}
        if self._policy.code_range is not None:
            low, high = self._policy.code_range
            found["saturated"] = ((code < low) | (code > high)).flatten(1).double().mean(1)
        if modality == "normals":
            found["normals_away"] = (self._policy.decode(code, modality)[:, 2] > 0).flatten(1).double().mean(1)
        for kind, values in found.items():
            self._parts.setdefault((kind, modality), []).append(values)

    def mean(self, kind: str, modalities: Iterable[str]) -> dict[str, float]:
        """Over the photos; NaN without any."""
        parts = {m: self._parts.get((kind, m)) for m in modalities}
        return {m: float(torch.cat(v).double().mean()) if v else float("nan") for m, v in parts.items()}


class _Ground:
    """Samples with ground truth, read once."""

    def __init__(self, watched: UnrewardedMetric) -> None:
        self.watched = watched
        self.protocol: Protocol = get_protocol(watched.protocol)
        if watched.metric not in self.protocol.metrics:
            raise UsageError(f"{self.protocol.ref} has no metric '{watched.metric}': "
                             f"{', '.join(self.protocol.metrics)}", where="guard.unrewarded_metrics")  # fmt: skip
        dataset = open_dataset(watched.dataset, Path(watched.root) if watched.root else None,
                               self.protocol.dataset_options)  # fmt: skip
        self.total = len(dataset)
        ids = select(dataset.ids, Selection(limit=watched.samples))
        self.samples: list[Sample] = [dataset.load(i, want=(self.protocol.reads,)) for i in ids]


def _agreed(values: Tensor, judged: Judged, rules: Objective) -> Tensor:
    """Share of pairs [B] on which answers [B, N, 2, C] say what the judge finds likelier; NaN without a pair."""
    found = agreement(values[:, None], judged, hard=True, balanced=rules.balanced,
                      threshold=rules.threshold)  # fmt: skip
    return found.reward[:, 0]


def _edges(code: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, [B] of codes [B, C, H, W]."""
    across = (code[..., 1:] - code[..., :-1]).abs().flatten(1).mean(1)
    down = (code[..., 1:, :] - code[..., :-1, :]).abs().flatten(1).mean(1)
    return (across + down) / 2


class Guardrails:
    """Watches one check after the other; its state goes into checkpoints.

    Attributes
    ----------
    base : the check before the first step
    best : (step, held-out agreement) of the best check that nothing was wrong with; (0, -inf) before any
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.base: Check | None = None
        self.best: tuple[int, float] = (0, -math.inf)
        self._low = 0
        self._least_away = math.inf

    def look(self, check: Check) -> tuple[str | None, bool]:
        """Take a check in: (why the run has to stop, or None; whether it is the best so far)."""
        if self.base is None:
            self.base = check
            self.best = (check.step, _known(check.mean_agreement))
            return None, True
        wrong = self._contrast(check) or self._away(check) or self._unrewarded(check)
        if wrong is not None:
            return wrong, False
        now = _known(check.mean_agreement)
        top = max(self.best[1], _known(self.base.mean_agreement))
        self._low = self._low + 1 if now < top - self._guard.agreement_drop else 0
        if self._low >= self._guard.patience:
            return (f"held-out agreement fell to {now:.4f}, more than {self._guard.agreement_drop:g} below {top:.4f} "
                    f"at {self._low} checks in a row (guard.agreement_drop, guard.patience)"), False  # fmt: skip
        if now > self.best[1]:
            self.best = (check.step, now)
            return None, True
        return None, False

    def _contrast(self, check: Check) -> str | None:
        assert self.base is not None
        low, high = self._guard.flatness
        for kind, now, before in (("spread", check.spread, self.base.spread), ("edges", check.edges, self.base.edges)):
            for modality, value in now.items():
                quotient = value / before[modality] if before[modality] > 0 else math.nan
                if quotient < low or quotient > high:
                    how = "flat" if quotient < low else "overdrawn"
                    return (f"maps of {modality} became {how}: {kind} of the codes is {quotient:.2f} times the base's, "
                            f"allowed {low:g} to {high:g} (guard.flatness)")  # fmt: skip
        return None

    def _away(self, check: Check) -> str | None:
        assert self.base is not None
        # a base that is bad at it may have many, and a better network that turns normals over again has fewer still
        least = min(self.base.normals_away, self._least_away)
        most = least + self._guard.normals_away
        if check.normals_away > most:
            return (f"{check.normals_away:.1%} of the normals point away from the camera, {least:.1%} at an earlier "
                    f"check, allowed {most:.1%} (guard.normals_away)")  # fmt: skip
        self._least_away = min(least, check.normals_away)
        return None

    def _unrewarded(self, check: Check) -> str | None:
        assert self.base is not None
        for watched in self._guard.unrewarded_metrics:
            value = check.unrewarded_metrics.get(watched.label)
            before = self.base.unrewarded_metrics.get(watched.label, math.nan)
            if value is None or math.isnan(before):
                continue
            worse = before / value if metric_info(watched.metric).higher_is_better else value / before
            if math.isnan(worse) or worse > watched.most:
                return (f"{watched.label}, which is not rewarded, went from {before:.4f} to {value:.4f} "
                        f"(guard.unrewarded_metrics, most {watched.most:g})\n"
                        f"  {check.signatures[watched.label]}")  # fmt: skip
        return None

    def state_dict(self) -> dict[str, Any]:
        base = None if self.base is None else vars(self.base)
        return {"base": base, "best": list(self.best), "low": self._low, "least_away": self._least_away}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.base = None if state["base"] is None else Check.of(state["base"])
        self.best = (int(state["best"][0]), float(state["best"][1]))
        self._low = int(state["low"])
        self._least_away = float(state.get("least_away", math.inf))


def _known(value: float) -> float:
    """Without anything held out, nothing is better than anything."""
    return -math.inf if math.isnan(value) else value
