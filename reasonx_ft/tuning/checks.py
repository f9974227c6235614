"""What is measured now and then, on the weights that would be exported: none of it is trained on.

held-out agreement : with the judge's answers about photos that are never trained on, of the deterministic answer
shape of the maps : of these photos, beside the base's: what flattens or stretches maps, drives them beyond their range
    or turns normals away from the camera shows here
canaries : metrics against ground truth, by `reasonx_eval`, that the reward does not see
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from reasonx_eval import __version__
from reasonx_eval.errors import UsageError
from reasonx_eval.io.results import Selection
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.run.loop import select
from reasonx_eval.scoring import score_sample
from reasonx_eval.types import Sample
from reasonx_ft.annotation.photos import open_dataset
from reasonx_ft.grpo.rewards import agreement
from reasonx_ft.policies.base import Judged, Policy
from reasonx_ft.tuning.check import Check
from reasonx_ft.tuning.config import Canary, Objective, TuneConfig
from reasonx_ft.tuning.export import Facts, write_model
from reasonx_ft.tuning.visits import Visits

#: photos in one pass of a check
_BATCH: Final = 8


class Checker:
    """Measures a policy as it is.

    Parameters
    ----------
    facts : of the run, for signatures and for the card of what is measured
    whole : inside, the policy can be saved, see `Prepared`
    """

    def __init__(
        self, policy: Policy, visits: Visits, config: TuneConfig, facts: Facts,
        whole: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        self._policy, self._visits, self._config, self._facts = policy, visits, config, facts
        self._whole = whole
        tuned = visits.modalities
        self._canaries = [_Ground(c) for c in config.guard.canaries if get_protocol(c.protocol).task in tuned]

    def check(self, step: int) -> Check:
        """Measure the present weights."""
        sums: dict[str, list[Tensor]] = {m: [] for m in self._visits.modalities}
        shapes = _Shapes(self._policy)
        with torch.no_grad():
            for _, visit in self._visits.checks(self._config.watch.check_photos, _BATCH):
                codes = self._policy.answer(visit.images, list(sums))
                for m, code in codes.items():
                    values = self._policy.values(code, visit.judged[m])
                    sums[m].append(_agreed(values, visit.judged[m], self._config.objective))
                    shapes.add(m, code)
        agreed = {m: torch.cat(v).cpu().numpy().astype(np.float64) if v else np.zeros(0) for m, v in sums.items()}
        counted = {m: int(np.count_nonzero(~np.isnan(v))) for m, v in agreed.items()}
        values_, signatures = self._measured(step) if self._canaries else ({}, {})
        return Check(
            step, {m: float(np.nanmean(v)) if counted[m] else float("nan") for m, v in agreed.items()}, counted,
            shapes.mean("spread", agreed), shapes.mean("edges", agreed), values_,
            {**{m: self._signature(m, counted[m]) for m in agreed}, **signatures},
            {} if self._policy.code_range is None else shapes.mean("saturated", agreed),
            shapes.mean("away", ["normals"])["normals"],
        )  # fmt: skip

    def _signature(self, modality: str, n: int) -> str:
        rules, data = self._config.objective, self._config.data
        balanced = "balanced" if rules.balanced and modality == "albedo" else "unbalanced"
        return (f"held-out-agreement/{modality}|judge:{self._facts.judge}|n:{n}|share:{data.held_out:g}|"
                f"gap:{data.max_gap:g}|likelier|{balanced}|same:{rules.same}|reasonx:{__version__}")

    def _measured(self, step: int) -> tuple[dict[str, float], dict[str, str]]:
        """Canaries of the weights as they would be exported."""
        with tempfile.TemporaryDirectory() as folder:
            with self._whole():
                write_model(self._policy, Path(folder), self._facts, step=step)
            model = load_model(folder, device=self._config.machine.device)
            values, signatures = {}, {}
            for ground in self._canaries:
                canary, protocol = ground.canary, ground.protocol
                kind = model.kind_for(protocol.task, protocol.accepts)
                found = []
                for sample in ground.samples:
                    [prediction] = model.predict([sample], kind, self._config.seed)
                    scored = score_sample(sample=sample, prediction=prediction, protocol=protocol)
                    found.append(scored.metrics.get(canary.metric, float("nan")))
                values[canary.label] = float(np.nanmean(found))
                signatures[canary.label] = protocol.signature(kind=kind, n=len(found), n_total=ground.total,
                                                              data=canary.dataset)  # fmt: skip
            model.close()
        return values, signatures


class _Shapes:
    """What codes [B, C, H, W] look like, photo by photo: see `Check`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._parts: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, modality: str, code: Tensor) -> None:
        found = {"spread": code.flatten(2).std(-1).mean(1), "edges": _edges(code)}
        if self._policy.code_range is not None:
            low, high = self._policy.code_range
            found["saturated"] = ((code < low) | (code > high)).flatten(1).double().mean(1)
        if modality == "normals":
            found["away"] = (self._policy.decode(code, modality)[:, 2] > 0).flatten(1).double().mean(1)
        for what, values in found.items():
            self._parts.setdefault((what, modality), []).append(values)

    def mean(self, what: str, modalities: Iterable[str]) -> dict[str, float]:
        """Over the photos; NaN without any."""
        parts = {m: self._parts.get((what, m)) for m in modalities}
        return {m: float(torch.cat(v).double().mean()) if v else float("nan") for m, v in parts.items()}


class _Ground:
    """Samples with ground truth, read once."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.protocol: Protocol = get_protocol(canary.protocol)
        if canary.metric not in self.protocol.metrics:
            raise UsageError(f"{self.protocol.ref} has no metric '{canary.metric}': {', '.join(self.protocol.metrics)}",
                             where="guard.canaries")  # fmt: skip
        dataset = open_dataset(canary.dataset, Path(canary.root) if canary.root else None,
                               self.protocol.dataset_options)  # fmt: skip
        self.total = len(dataset)
        ids = select(dataset.ids, Selection(limit=canary.samples))
        self.samples: list[Sample] = [dataset.load(i, want=(self.protocol.reads,)) for i in ids]


def _agreed(values: Tensor, judged: Judged, rules: Objective) -> Tensor:
    """Share of pairs [B] on which answers [B, N, 2, C] say what the judge finds likelier; NaN without a pair."""
    found = agreement(values[:, None], judged, hard=True, tie=0.0, balanced=rules.balanced,
                      same=rules.same)  # fmt: skip
    return found.reward[:, 0]


def _edges(code: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, [B] of codes [B, C, H, W]."""
    across = (code[..., 1:] - code[..., :-1]).abs().flatten(1).mean(1)
    down = (code[..., 1:, :] - code[..., :-1, :]).abs().flatten(1).mean(1)
    return (across + down) / 2


