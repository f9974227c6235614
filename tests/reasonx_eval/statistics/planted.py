"""Run folders with planted values per image: a known effect, a known correlation, and what may go wrong with files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonx_eval.io import results
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.records import read_records, write_records
from reasonx_eval.io.results import DatasetRef, ModelRef, ProtocolRef, RunSpec
from reasonx_eval.io.selection import Selection
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.run import provenance
from reasonx_eval.run.folder import finish
from reasonx_eval.types import Record

DEPTH = get_protocol("depth/generic")
POOLED = get_protocol("normals/generic").model_copy(update={"pool": "pixel"})
_ALL = Selection()
Values = Mapping[str, NDArray[np.float64]]


def ids(n: int) -> list[str]:
    return [f"room/{k:04d}" for k in range(n)]


def depth_records(values: Values, groups: Sequence[str] | None = None, protocol: Protocol = DEPTH) -> list[Record]:
    """Records whose metrics are `values`; metrics that are not given get a fixed value."""
    n = len(next(iter(values.values())))
    return [
        Record(
            sample_id=name, n_valid=100, data=f"{k:016x}", prediction=f"{k:016x}",
            metrics={m: float(values[m][k]) if m in values else 0.5 for m in protocol.metrics},
            group=None if groups is None else groups[k],
        )
        for k, name in enumerate(ids(n))
    ]  # fmt: skip


def pooled_records(errors: Sequence[NDArray[np.float64]], groups: Sequence[str] | None = None) -> list[Record]:
    """Records of angular errors per pixel, one array an image."""
    from reasonx_eval.metrics.normals import summarise
    from reasonx_eval.scoring.normals import pixel_stats

    return [
        Record(sample_id=name, n_valid=len(e), data=f"{k:016x}", prediction=f"{k:016x}", stats=pixel_stats(e),
               metrics=dict(summarise(errors=e.copy(), names=POOLED.metrics)),
               group=None if groups is None else groups[k])
        for k, (name, e) in enumerate(zip(ids(len(errors)), errors, strict=True))
    ]  # fmt: skip


def write_run(
    folder: Path, records: Sequence[Record], *, name: str = "net", protocol: Protocol = DEPTH,
    n_total: int | None = None, dataset: str = "fake", options: Mapping[str, Any] | None = None,
    pixels: Sequence[NDArray[np.float64]] = (), selection: Selection = _ALL,
) -> Path:  # fmt: skip
    """A finished run folder with these records."""
    folder.mkdir(parents=True)
    if pixels:
        for record, errors in zip(records, pixels, strict=True):
            path = folder / "pixels" / f"{record.sample_id}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, errors)
    names = [r.sample_id for r in records]
    total = len(records) if n_total is None else n_total
    spec = RunSpec(
        schema=results.SCHEMA, reasonx="0", selection=selection, seed=0,
        model=ModelRef(name=name, source="test", kind=protocol.accepts[0], options=dict(options or {})),
        protocol=ProtocolRef(name=protocol.name, version=protocol.version, digest=protocol.digest,
                             rules=protocol.rules),
        dataset=DatasetRef(name=dataset, split="all", n=total, ids_sha256=sha256_lines(ids(total))),
    )  # fmt: skip
    results.save(folder / "run.json", spec)
    write_records(folder / "records.jsonl", records)
    finish(folder, spec, names, list(records), protocol, provenance.collect(seed=0, passed={}, defaulted={}))
    return folder


def edit_result(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "result.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_lines(folder: Path, change: Callable[[list[str]], list[str]], *, reseal: bool = False) -> None:
    """Change the lines of records.jsonl; `reseal` makes the result's digests fit again, as a forger would."""
    path = folder / "records.jsonl"
    path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    if reseal:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

        def sealed(document: dict[str, Any]) -> None:
            document["records_sha256"] = sha256_file(path)
            document["data_sha256"] = sha256_lines(f"{r['sample_id']} {r.get('data')}" for r in lines)

        edit_result(folder, sealed)


def planted(
    n: int, effect: float, correlation: float, seed: int, spread: float = 0.03
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two runs' values per image: normal, with a known mean difference, standard deviation and correlation."""
    draw = np.random.default_rng(seed)
    common, first, second = draw.normal(size=(3, n))
    a = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * first
    b = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * second
    return 0.2 + spread * a, 0.2 + effect + spread * b


def reread(folder: Path) -> list[Record]:
    return read_records(folder / "records.jsonl")
