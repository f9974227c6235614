"""records.jsonl: one line a sample, appended; what resume, merge, compare and verify read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from reasonx_eval.errors import DataError
from reasonx_eval.io.documents import parse_json
from reasonx_eval.io.files import encode_json, write_bytes
from reasonx_eval.types import Record

_FIELDS = tuple(f.name for f in fields(Record))


def to_line(record: Record) -> str:
    """One JSON line; keys in a fixed order, empty fields left out, NaN refused."""
    row: dict[str, Any] = {}
    for key in _FIELDS:
        value = getattr(record, key)
        if key == "sample_id" or value not in (None, {}, (), []):
            row[key] = dict(value) if isinstance(value, Mapping) else value
    if "n_valid" in row and record.error is not None:
        del row["n_valid"]
    return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"


def from_row(row: Mapping[str, Any], where: str) -> Record:
    """A record from its JSON object; an unknown key or a missing id is an error."""
    unknown = set(row).difference(_FIELDS)
    if unknown or "sample_id" not in row:
        raise DataError(f"not a record of this version (unknown keys: {sorted(unknown)})", where=where)
    values = dict(row)
    if "notes" in values:
        values["notes"] = tuple(values["notes"])
    return Record(**values)


def _parse(line: bytes, where: str) -> Record:
    row = parse_json(line, where, fix="run the same command with --force to start again")
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=where)
    return from_row(row, where)


def read_records(path: Path, *, repair: bool = False) -> list[Record]:
    """All records of a file, in file order.

    Parameters
    ----------
    repair : bool
        Cut off a last line that a killed process left unfinished (it is scored again); any other
        damage is an error either way.

    Raises
    ------
    DataError
        A damaged line, or one sample twice.
    """
    if not path.is_file():
        return []
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole != len(raw):
        if not repair:
            raise DataError("the last line is unfinished: the run was interrupted", where=str(path),
                            fix="run the same command again to finish it")  # fmt: skip
        os.truncate(path, whole)
    lines = raw[:whole].splitlines()
    records = [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
    seen: set[str] = set()
    for record in records:
        if record.sample_id in seen:
            raise DataError(f"sample {record.sample_id} is there twice", where=str(path))
        seen.add(record.sample_id)
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all records at once, atomically."""
    write_bytes(path, encode_json("".join(map(to_line, records))))


def read_photos(run: Path) -> dict[str, str]:
    """Sample id -> digest of the photo that its model looked at; what an older version or a kill left out is absent."""
    found: dict[str, str] = {}
    path = run / "photos.jsonl"
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row = parse_json(line, str(path))
        except DataError:
            continue  # a killed process left it unfinished
        if isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("photo"), str):
            found[row["id"]] = row["photo"]
    return found


class RecordLog:
    """Appends to records.jsonl, photos.jsonl and timing.jsonl of a run; each line reaches the kernel at once, so that
    a killed process loses none."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._files = {name: (run / f"{name}.jsonl").open("ab") for name in ("photos", "timing", "records")}

    def append(self, record: Record, timing: str, photo: str | None = None) -> None:
        """Add a record, the line of its seconds, and the digest of its photo."""
        lines = {"timing": timing, "records": to_line(record)}
        if photo is not None:
            lines = {"photos": json.dumps({"id": record.sample_id, "photo": photo}) + "\n", **lines}
        for name, line in lines.items():
            self._files[name].write(encode_json(line))
            self._files[name].flush()

    def close(self) -> None:
        os.fsync(self._files["records"].fileno())
        for file in self._files.values():
            file.close()

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
