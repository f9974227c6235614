"""Reviewed results made of planted values, without running a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonx_eval.io.digests import sha256_lines, sha256_text
from reasonx_eval.io.results import DatasetRef, Hardware, ModelRef, ProtocolRef, Provenance, Result, Timing, Value
from reasonx_eval.io.seeding import rng
from reasonx_eval.io.selection import Selection
from reasonx_eval.leaderboard.submissions import Picture, Samples, Submission, sealed, submission_path, write_submission
from reasonx_eval.metrics.table import metric_info
from reasonx_eval.protocols.protocol import Protocol, get_protocol

PROVENANCE = Provenance(reasonx="0.1.0", commit=None, dirty=None, python="3.11", packages={}, seed=0,
                        hardware=Hardware(machine="x", system="x", cpu="x", cores=1, memory_gib=None))  # fmt: skip

#: one transparent pixel
WEBP = "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="


def make(
    model: str,
    values: Mapping[str, Sequence[float]],
    protocol: str = "depth/scenes-wild",
    *,
    n_total: int | None = None,
    kind: str = "disparity_affine",
    seconds: float | None = 0.01,
    groups: list[str] | None = None,
    sums: Mapping[str, list[float]] | None = None,
    data: str = "truth",
    **ref: Any,
) -> Submission:
    """One model with the given values per image; the intervals are the mean give or take two standard errors."""
    rules = get_protocol(protocol)
    n = len(next(iter(values.values())))
    total = n if n_total is None else n_total
    ids = [f"im/{k:04d}" for k in range(n)]
    aggregate = {m: _value(values[m]) for m in rules.metrics if m in values}
    aggregate = {m: aggregate.get(m, Value(value=None, n=0, reason="left out")) for m in rules.metrics}
    name = rules.dataset if rules.dataset != "any" else "own"
    result = Result(
        schema=1, status="complete" if n == total else "partial" if n else "failed",
        signature=rules.signature(kind=kind, n=n, n_total=total, data=name if rules.dataset == "any" else None),
        model=ModelRef(**{"name": model, "source": model, "kind": kind, **ref}),
        protocol=ProtocolRef(name=rules.name, version=rules.version, digest=rules.digest, rules=rules.rules),
        dataset=DatasetRef(name=name, split=rules.split, n=total,
                           ids_sha256=sha256_lines(f"im/{k:04d}" for k in range(total))),
        selection=Selection() if n == total else Selection(limit=n), aggregate=aggregate, confidence=0.95,
        resamples=10_000, n_total=total, n_scored=n, n_undefined=0, failed={}, data_sha256=sha256_text(data),
        predictions_sha256="0", records_sha256="0", provenance=PROVENANCE,
    )  # fmt: skip
    timing = None if seconds is None else Timing(
        started="2026-01-01T00:00:00+00:00", finished="2026-01-02T00:00:00+00:00", wall_seconds=1.0, samples=n,
        predict_seconds_per_image=seconds, predict_seconds_p95=seconds)  # fmt: skip
    columns = {m: list(map(float, values.get(m, []))) or [None] * n for m in rules.metrics}
    samples = Samples(ids=ids, groups=groups, values=columns, sums=dict(sums or {}))
    submission = sealed(Submission(schema=1, digest="", result=result, timing=timing, samples=samples))
    assert isinstance(submission, Submission)
    return submission


def _value(values: Sequence[float]) -> Value:
    mean = math.fsum(values) / len(values)
    half = 2 * float(np.std(values)) / math.sqrt(len(values))
    return Value(value=mean, ci_low=mean - half, ci_high=mean + half, n=len(values))


def draw(protocol: Protocol, n: int, level: float, *keys: str) -> dict[str, list[float]]:
    """Plausible values of every metric of a protocol: better the smaller `level` in (0, 1)."""
    scene = rng(0, "scene", protocol.ref).uniform(0.8, 1.2, n)
    out = {}
    for name in protocol.metrics:
        noise = rng(0, "noise", protocol.ref, name, *keys).normal(1, 0.15, n)
        error = np.clip(level * scene * noise, 1e-3, 0.999)
        out[name] = list((1 - error) if metric_info(name).higher_is_better else error)
    return out


def write(folder: Path, submission: Iterable[Submission]) -> Path:
    """Submission files where they belong; the folder."""
    for one in submission:
        write_submission(folder / submission_path(one), one)
    return folder


def with_pictures(submission: Submission, n: int = 1) -> Submission:
    pictures = [Picture(sample_id=f"im/{k:04d}", why="best", metric="abs_rel", value=0.1, panels=["photo"], webp=WEBP,
                        width=4, height=4) for k in range(n)]  # fmt: skip
    found = sealed(submission.model_copy(update={"pictures": pictures}))
    assert isinstance(found, Submission)
    return found


PROTOCOLS = ("depth/nyuv2", "depth/eth3d", "depth/diode", "depth/scenes-wild", "depth/scenes-synthetic",
             "normals/scenes-wild", "normals/scenes-synthetic", "albedo/iiw", "albedo/scenes-wild",
             "albedo/scenes-synthetic", "irradiance/scenes-wild", "irradiance/scenes-synthetic")  # fmt: skip
KINDS = {"depth": "disparity_affine", "normals": "normal", "albedo": "albedo_linear", "irradiance": "irradiance"}


def crowd(models: int, protocols: int, n: int = 60) -> Iterator[Submission]:
    """Many models under many protocols, a third of them tuned from the one before; one at a time."""
    for name in PROTOCOLS[:protocols]:
        rules = get_protocol(name)
        for k in range(models):
            base = {"base": f"model-{k - 1:03d}", "reward": "agreement"} if k % 3 == 1 else {}
            level = 0.1 + 0.3 * rng(0, "level", name, str(k)).random()
            values = draw(rules, n, level, str(k))
            yield make(f"model-{k:03d}", values, name, kind=KINDS[rules.task], seconds=0.001 * (k + 1), **base)
