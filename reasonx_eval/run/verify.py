"""Check a result against its own records: digests, counts, and every aggregate recomputed."""

from __future__ import annotations

import math
from pathlib import Path

from reasonx_eval.errors import DataError, UsageError
from reasonx_eval.io.digests import sha256_file, sha256_lines
from reasonx_eval.io.records import read_records
from reasonx_eval.io.results import Result, Value
from reasonx_eval.protocols.protocol import Protocol, get_protocol
from reasonx_eval.statistics.aggregate import aggregate, pooled_from_stats
from reasonx_eval.statistics.bootstrap import METHOD
from reasonx_eval.types import Record

_NOT_LOOKED_AT = ("note  not looked at: the data set's files and the model; the run's own command compares both "
                  "before it prints the result again")  # fmt: skip


def verify_run(result: Result, folder: Path) -> list[str]:
    """One line a check that holds.

    Raises
    ------
    DataError
        Something does not hold; names the number or digest, as it is and as it should be.
    """
    path = folder / "records.jsonl"
    if not path.is_file():
        raise DataError("records.jsonl is not beside the result: nothing to verify against", where=str(folder))
    records = read_records(path)
    lines = [_same("records sha256", result.records_sha256, sha256_file(path), path)]
    data = sha256_lines(f"{r.sample_id} {r.data}" for r in records)
    lines.append(_same("ground truth sha256", result.data_sha256, data, path))
    predictions = sha256_lines(f"{r.sample_id} {r.prediction}" for r in records)
    lines.append(_same("predictions sha256", result.predictions_sha256, predictions, path))
    scored = [r for r in records if r.error is None and r.undefined is None]
    lines.append(_same("scored samples", result.n_scored, len(scored), path))
    lines.append(_same("failed samples", sorted(result.failed), sorted(r.sample_id for r in records if r.error), path))
    protocol = Protocol.from_rules(result.protocol.rules)
    lines.append(_same("protocol rules sha256", result.protocol.digest, protocol.digest, folder / "result.json"))
    return [*lines, _installed(result), *_numbers(result, protocol, records, folder), _NOT_LOOKED_AT]


def _installed(result: Result) -> str:
    """Whether this installation still has the same rules under the same name."""
    ref = f"{result.protocol.name}@{result.protocol.version}"
    try:
        here = get_protocol(ref).digest
    except UsageError:
        return f"note  {ref} is not in this installation; its rules were read from the result"
    if here == result.protocol.digest:
        return f"ok    {ref} has the same rules here"
    return f"note  {ref} has other rules in this installation; numbers made here are not comparable"


def _same(what: str, stored: object, found: object, path: Path) -> str:
    if stored != found:
        raise DataError(f"{what}: the result says {stored}, the files say {found}", where=str(path),
                        fix="run again with --force")  # fmt: skip
    return f"ok    {what}"


def _numbers(result: Result, protocol: Protocol, records: list[Record], folder: Path) -> list[str]:
    pixels = folder / "pixels"
    if protocol.pool == "pixel" and not pixels.is_dir():
        return _pooled(result, records, folder)
    again = aggregate(records, protocol, pixels if protocol.pool == "pixel" else None)
    older = result.interval_method != METHOD
    for name, value in result.aggregate.items():
        found = again.get(name)
        if found is not None and older:
            found = found.model_copy(update={"ci_low": value.ci_low, "ci_high": value.ci_high})
        if found is None or not _close(value, found):
            _same(name, value, found, folder / "result.json")
    if not older:
        return [f"ok    {len(again)} aggregates and their intervals recomputed from {len(records)} records"]
    return [f"ok    {len(again)} aggregates recomputed from {len(records)} records",
            f"note  its intervals were taken by an older method ({result.interval_method}, now {METHOD}): "
            "the same command with --force takes them again"]  # fmt: skip


def _close(stored: Value, found: Value) -> bool:
    """Equal but for the last digits, which another CPU or library version may round otherwise."""
    if (stored.n, stored.reason) != (found.n, found.reason):
        return False
    pairs = ((stored.value, found.value, 1e-12), (stored.ci_low, found.ci_low, 1e-9),
             (stored.ci_high, found.ci_high, 1e-9))  # fmt: skip
    return all(a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=tolerance))
               for a, b, tolerance in pairs)  # fmt: skip


def _pooled(result: Result, records: list[Record], folder: Path) -> list[str]:
    """Pooled metrics without the per-pixel errors: sums prove all but the median."""
    scored = [r for r in records if r.error is None and r.undefined is None]
    lines = []
    for name, value in result.aggregate.items():
        again = pooled_from_stats(scored, name) if scored else None
        if again is None:
            lines.append(f"note  {name} can be recomputed only from per-pixel errors (--keep-pixels)")
        elif value.value is None or not math.isclose(value.value, again, rel_tol=1e-12):
            raise DataError(f"{name}: the result says {value.value}, the records say {again}", where=str(folder))
        else:
            lines.append(f"ok    {name}")
    return lines
