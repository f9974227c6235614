"""Join the shards of one run: the union must be exact, and every shard the same run otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from reasonx_eval.errors import DataError, NotComparable, UsageError
from reasonx_eval.io import results
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.files import write_bytes
from reasonx_eval.io.records import read_records, write_records
from reasonx_eval.io.results import Result, RunSpec, load_result, load_spec, spec_difference
from reasonx_eval.io.selection import Selection, parse_shard
from reasonx_eval.protocols.protocol import Protocol
from reasonx_eval.run.folder import finish
from reasonx_eval.types import Record


def merge(runs: Sequence[Path], out: Path, *, force: bool = False) -> Result:
    """Merge finished shards into one run.

    Parameters
    ----------
    runs : run folders of all shards 1/n ... n/n, in any order
    out : folder of the merged run

    Raises
    ------
    UsageError
        Not shards, a shard missing or given twice, or `out` exists.
    NotComparable
        Shards of different runs; names each difference.
    DataError
        A shard that is not finished, or a sample in two shards.
    """
    if not runs:
        raise UsageError("name the shards to merge")
    specs = [load_spec(run) for run in runs]
    _check_same(runs, specs)
    ordered = _ordered(runs, specs)
    if any(out.resolve() == run.resolve() for run in runs):
        raise UsageError("this is one of the shards", where=str(out), fix="another --out")
    if out.exists() and any(out.iterdir()) and not force:
        raise UsageError("the folder is not empty", where=str(out), fix="--force, or another --out")
    shards = [_finished_records(run) for run in ordered]
    records = _interleave(shards)
    _check_union(specs[0], records, ordered)
    out.mkdir(parents=True, exist_ok=True)
    for run in ordered:
        for folder in ("pixels", "predictions"):
            if (run / folder).is_dir():
                shutil.copytree(run / folder, out / folder, dirs_exist_ok=True)
    spec = specs[0].model_copy(update={"selection": specs[0].selection.model_copy(update={"shard": None})})
    results.save(out / "run.json", spec)
    write_records(out / "records.jsonl", records)
    write_bytes(out / "photos.jsonl", b"".join((run / "photos.jsonl").read_bytes() for run in ordered
                                               if (run / "photos.jsonl").is_file()))  # fmt: skip
    first = load_result(ordered[0]).provenance
    passed = {k: v for k, v in first.passed.items() if k != "shard"}
    return finish(out, spec, [r.sample_id for r in records], records, Protocol.from_rules(spec.protocol.rules),
                  first.model_copy(update={"passed": passed}))  # fmt: skip


def _check_same(runs: Sequence[Path], specs: Sequence[RunSpec]) -> None:
    def plain(spec: RunSpec) -> RunSpec:
        return spec.model_copy(update={"selection": Selection()})

    def others(spec: RunSpec) -> tuple[object, object]:
        return spec.selection.limit, spec.selection.samples

    for run, spec in zip(runs[1:], specs[1:], strict=True):
        different = spec_difference(plain(specs[0]), plain(spec))
        if others(spec) != others(specs[0]):
            different.append("another selection of samples")
        if different:
            raise NotComparable("not a shard of the same run: " + "; ".join(different[:5]), where=str(run))


def _ordered(runs: Sequence[Path], specs: Sequence[RunSpec]) -> list[Path]:
    """The folders of shards 1..n in order."""
    found: dict[int, Path] = {}
    total = None
    for run, spec in zip(runs, specs, strict=True):
        if spec.selection.shard is None:
            raise UsageError("not a shard: it was run without --shard", where=str(run))
        index, count = parse_shard(spec.selection.shard)
        if total not in (None, count):
            raise UsageError(f"a shard of {count}, the others are of {total}", where=str(run))
        if index in found:
            raise UsageError(f"shard {index}/{count} is given twice: {found[index]} and {run}")
        found[index], total = run, count
        if not (run / "result.json").is_file():
            raise DataError("this shard is not finished", where=str(run), fix="run its command again")
    assert total is not None
    missing = [f"{k}/{total}" for k in range(1, total + 1) if k not in found]
    if missing:
        raise UsageError(f"shards are missing: {', '.join(missing)}")
    return [found[k] for k in range(1, total + 1)]


def _finished_records(run: Path) -> list[Record]:
    """The records of a shard, if they are those its result was computed from."""
    path = run / "records.jsonl"
    records = read_records(path)
    if not path.is_file() or sha256_file(path) != load_result(run).records_sha256:
        raise DataError("the records are not those of the shard's result: it was interrupted, or they were edited",
                        where=str(path), fix="run its command again, with --force if that does not help")  # fmt: skip
    return records


def _interleave(shards: Sequence[Sequence[Record]]) -> list[Record]:
    """Shard i holds every n-th sample: dealing them out in turn restores the order of the split."""
    out = []
    for k in range(max(map(len, shards))):
        out += [shard[k] for shard in shards if k < len(shard)]
    return out


def _check_union(spec: RunSpec, records: Sequence[Record], runs: Sequence[Path]) -> None:
    ids = [r.sample_id for r in records]
    if len(set(ids)) != len(ids):
        raise DataError("a sample is in two shards", where=", ".join(map(str, runs)))
    if Selection(shard=spec.selection.shard) == spec.selection and sha256_lines(ids) != spec.dataset.ids_sha256:
        raise DataError(f"the shards hold {len(ids)} samples which are not the {spec.dataset.n} of the split",
                        where=", ".join(map(str, runs)), fix="run each shard's command again")  # fmt: skip
