"""Evaluation of bases, ceilings and tuned checkpoints on both domains, by the suite's own runner."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from reasonx_eval.datasets.base import Dataset
from reasonx_eval.io.results import run_folder
from reasonx_eval.io.selection import Selection
from reasonx_eval.models.loading.load import load_model
from reasonx_eval.protocols.protocol import get_protocol
from reasonx_eval.registry import load_dataset
from reasonx_eval.run.loop import RunOptions, run
from reasonx_eval.types import Sample

#: the domain tuned for, and the one that the embedded bases come from
DOMAINS: Final = ("scenes-wild", "scenes-synthetic")


@dataclass(frozen=True)
class Measure:
    """One column of a table: a metric under a protocol of each domain."""

    label: str
    protocol: str
    metric: str


MEASURES: Final = (
    Measure("WHDR", "albedo/{}-whdr", "whdr10"),
    Measure("AbsRel", "depth/{}", "abs_rel"),
    Measure("delta1", "depth/{}", "delta1"),
    Measure("normals", "normals/{}", "mean_deg"),
    Measure("irradiance", "irradiance/{}", "si_mse"),
    # a judge rewards "same base colour": maps that grow flat win WHDR on equal pairs and lose it on the others
    Measure("WHDR 20 %", "albedo/{}-whdr", "whdr20"),
    Measure("WHDR unequal", "albedo/{}-whdr", "whdr10_ineq"),
)

_TARGETS = ("depth", "normals", "albedo", "irradiance", "judgements")


class Remembered(Dataset):
    """A dataset whose samples stay in memory: a study evaluates dozens of checkpoints on the same rendered scenes."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.root, self.split, self.options = dataset.root, dataset.split, dataset.options
        self.info = dataset.info  # type: ignore[misc]  # of the class elsewhere; here of what is wrapped
        self._samples: dict[str, Sample] = {}

    @property
    def ids(self) -> Sequence[str]:
        return self._dataset.ids

    def load(self, sample_id: str, want: Collection[str] | None = None) -> Sample:
        found = self._samples.get(sample_id)
        if found is None:
            # two threads may both read it: the same sample twice
            found = self._samples[sample_id] = self._dataset.load(sample_id, _TARGETS)
        return found


@lru_cache(maxsize=4)
def _remembered(name: str) -> Remembered:
    return Remembered(load_dataset(name))


def evaluate(
    model: str, options: Mapping[str, Any], out: Path, *, limit: int | None = None
) -> dict[str, Path]:  # fmt: skip
    """Run a model under every protocol of the study; finished runs are kept.

    Parameters
    ----------
    model, options : anything that ``reasonx-eval run --model`` and ``-O`` take
    out : gets PROTOCOL@V/MODEL folders
    limit : only N scenes of each domain, spread evenly

    Returns
    -------
    protocol name -> run folder
    """
    adapter = load_model(model, options=dict(options))
    found: dict[str, Path] = {}
    try:
        for domain in DOMAINS:
            for name in dict.fromkeys(m.protocol.format(domain) for m in MEASURES):
                protocol = get_protocol(name)
                folder = run_folder(out, protocol.ref, adapter.info.name, None)
                # what carries no noise of its own is fast in one thread; two would share the same core's caches
                run(adapter, _remembered(domain), protocol, folder,
                    RunOptions(selection=Selection(limit=limit), workers=1))  # fmt: skip
                found[name] = folder
    finally:
        adapter.close()
    return found
