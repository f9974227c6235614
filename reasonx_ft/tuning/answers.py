"""The stored answers that a run uses, and a count of those that it doesn't."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reasonx_eval.errors import UsageError, unknown
from reasonx_ft.annotation.judgements import Store
from reasonx_ft.annotation.store.table import Table
from reasonx_ft.tuning.config import Data


@dataclass(frozen=True)
class Excluded:
    """Pairs (or answers) of one modality that are not used.

    unanswered : answers without a probability (refused, garbage, failed)
    contested : answers whose key has another probability in another shard
    contradictory : pairs whose two colour orders differ by more than `max_gap`
    unsure, near : pairs below `min_confidence`, or nearer than `min_distance`
    """

    unanswered: int = 0
    contested: int = 0
    contradictory: int = 0
    unsure: int = 0
    near: int = 0

    def __str__(self) -> str:
        said = [f"{n:,} {name}" for name, n in vars(self).items() if n]
        return ", ".join(said) or "none"


@dataclass(frozen=True)
class Answers:
    """Tables by modality, in the order of the policy's modalities.

    judge : name; revision : of it
    excluded : by modality
    unpredicted : modalities that were judged and that the policy can't predict
    digest : of everything in the tables
    """

    tables: dict[str, Table] = field(repr=False)
    judge: str
    revision: str
    excluded: dict[str, Excluded]
    unpredicted: tuple[str, ...]
    digest: str


def read_answers(store: Store, data: Data, predicted: Sequence[str], base: str) -> Answers:
    """The answers about what a policy predicts.

    Parameters
    ----------
    predicted : modalities of the policy; base : its name, for errors

    Raises
    ------
    UsageError
        A modality that the model does not predict, or that nobody judged; several judges or wordings to choose from;
        no answer left after the rules of `data`.
    """
    revision = store.find_judge(data.judge)
    judged = sorted({s[0] for s in store.columns.streams if s[3] == revision})
    wanted = data.modalities if data.modalities is not None else [m for m in predicted if m in judged]
    for modality in wanted:
        if modality not in predicted:
            raise UsageError(f"{base} does not predict {modality}; it predicts {', '.join(predicted)}",
                             where="data.modalities")  # fmt: skip
        if modality not in judged:
            raise unknown("judged modality", modality, judged, where=str(store.folder))
    if not wanted:
        raise UsageError(f"the store judges {', '.join(judged)}; {base} predicts {', '.join(predicted)}: "
                         "nothing to tune", where=str(store.folder))  # fmt: skip
    tables, excluded = {}, {}
    for modality in [m for m in predicted if m in wanted]:
        tables[modality], excluded[modality] = _table(store, modality, revision, data)
    unpredicted = tuple(m for m in judged if m not in predicted)
    return Answers(tables, store.judges()[revision], revision, excluded, unpredicted, _digest(tables))


def _table(store: Store, modality: str, revision: str, data: Data) -> tuple[Table, Excluded]:
    sound = store.table(modality=modality, judge=revision, template=data.template, contested=False)
    consistent = sound.kept(max_gap=data.max_gap)
    sure = consistent.kept(min_confidence=data.min_confidence)
    kept = sure.kept(min_distance=data.min_distance)
    rows = store.columns.of_streams(judge=revision, modality=modality, template=data.template)
    excluded = Excluded(unanswered=int(np.isnan(store.columns.probability[rows]).sum()),
                        contested=int(np.count_nonzero(store.contested[rows])),
                        contradictory=len(sound) - len(consistent), unsure=len(consistent) - len(sure),
                        near=len(sure) - len(kept))  # fmt: skip
    if not len(kept):
        whole = store.table(modality=modality, judge=revision, template=data.template)
        raise UsageError(f"none of {len(whole):,} pairs about {modality} can be used: {excluded}",
                         where=str(store.folder))  # fmt: skip
    return kept, excluded


def _digest(tables: dict[str, Table]) -> str:
    found = hashlib.sha256()
    for modality, table in sorted(tables.items()):
        found.update("\n".join([modality, table.judge, *table.digests, ""]).encode())
        for array in (table.offsets, table.points, table.probability):
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
