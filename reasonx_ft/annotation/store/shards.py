"""Shards: Parquet files that are whole or not there, and whose name says what their bytes are.

``answers-<32 hex digits of the file's sha256>.parquet``. A writer makes a file under another name, syncs and renames
it, so a reader sees whole shards only, several processes need no locks, and a changed byte is found when it is read.
The wording of the questions and who the judges are travel inside each shard, so shards can be copied alone.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from reasonx_eval.errors import DataError
from reasonx_eval.io.documents import parse_json
from reasonx_eval.io.files import canonical_json, encode_json, write_bytes
from reasonx_eval.io.limits import check_limit, limit
from reasonx_ft.annotation.store.schema import SCHEMA, Columns, Joiner, from_arrow, to_arrow

PATTERN: Final = re.compile(r"answers-([0-9a-f]{32})\.parquet")
_KEY: Final = "reasonx.judgements"
#: rows that are decoded at a time; a shard of `annotate` has fewer
_BATCH_ROWS: Final = 1 << 16
#: ending of a shard that was set aside because its bytes are not those its name says
DAMAGED: Final = ".damaged"


@dataclass(frozen=True)
class About:
    """What goes with answers.

    templates : digest -> {modality, question, prefix, answers}
    judges : revision -> {name, licence, parameters, trained_on, options, notes}
    """

    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __or__(self, other: About) -> About:
        return About({**other.templates, **self.templates}, {**other.judges, **self.judges})


@dataclass(frozen=True)
class Shard:
    """A shard as read."""

    path: Path
    columns: Columns
    about: About


@dataclass(frozen=True)
class Damaged:
    """A shard that can't be used, and why; its answers do not count."""

    path: Path
    reason: str


def write_shard(folder: Path, columns: Columns, about: About) -> Path:
    """Write answers as a shard and return its path; writing the same bytes again changes nothing.

    A file of that name with other bytes (cut short, or edited) is set aside as ``NAME.damaged`` and written anew.

    Raises
    ------
    OSError
        The folder can't be written to.
    """
    import pyarrow.parquet as pq

    used = {s[2:] for s in columns.streams}
    kept = {"schema": SCHEMA,
            "templates": {d: dict(v) for d, v in about.templates.items() if d in {u[0] for u in used}},
            "judges": {r: dict(v) for r, v in about.judges.items() if r in {u[1] for u in used}}}  # fmt: skip
    table = to_arrow(columns, {_KEY: encode_json(canonical_json(kept))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=True, row_group_size=1 << 20)
    data = buffer.getvalue()
    path = folder / f"answers-{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    if path.exists():
        if path.read_bytes() == data:
            return path
        path.replace(path.with_name(path.name + DAMAGED))
    write_bytes(path, data)
    return path


def read_shard(path: Path) -> Shard | Damaged:
    """One shard, or why it can't be used: other bytes than its name says, no Parquet, or no judgements."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    match = PATTERN.fullmatch(path.name)
    assert match is not None  # only such names are read
    try:
        data = path.read_bytes()
    except OSError as error:
        return Damaged(path, f"can't be read: {error.strerror or error}")
    if hashlib.sha256(data).hexdigest()[:32] != match[1]:
        return Damaged(path, f"its {len(data):,} bytes are not those its name says: cut short, or edited")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        check_limit("PARQUET_ROWS", file.metadata.num_rows, f"{file.metadata.num_rows:,} rows", error=DataError)
        schema = file.schema_arrow
        about = _about(parse_json((schema.metadata or {})[_KEY.encode()], str(path)))
        # one thread: pyarrow's pool of threads may end the process when the interpreter ends
        batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
        joiner = Joiner(file.metadata.num_rows)
        for table in chain([schema.empty_table()], (pa.Table.from_batches([batch]) for batch in batches)):
            joiner.add(from_arrow(table))
    except (pa.ArrowException, DataError, ValueError, KeyError, TypeError, OSError) as error:
        return Damaged(path, f"not a shard of judgements: {' '.join(str(error).split())[:200]}")
    return Shard(path, joiner.columns(), about)


def count_rows(paths: Iterable[Path]) -> int:
    """Rows of shards as their ends state them, a hint: what states none counts none, and the limit is the most."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = 0
    for path in paths:
        # an open file: pyarrow takes no path that is not UTF-8
        with suppress(pa.ArrowException, OSError), path.open("rb") as file:
            found += max(0, pq.read_metadata(file).num_rows)
    return min(found, limit("PARQUET_ROWS"))


def _about(stored: Any) -> About:
    """What a shard says of its wording and judges.

    Raises
    ------
    ValueError
        It has another form, or is of a newer version.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("schema"), int):
        raise ValueError("its metadata is no table with a schema")
    if stored["schema"] > SCHEMA:
        raise ValueError(f"written by a newer version (schema {stored['schema']}, known {SCHEMA})")
    for part in ("templates", "judges"):
        if not isinstance(stored[part], dict) or not all(isinstance(v, dict) for v in stored[part].values()):
            raise ValueError(f"{part} in its metadata are no tables")
    return About(stored["templates"], stored["judges"])


def shard_paths(folder: Path) -> list[Path]:
    """Shards in name order; other files, and files that are being written, are none."""
    return sorted(p for p in folder.iterdir() if PATTERN.fullmatch(p.name))


def foreign_paths(folder: Path) -> list[Path]:
    """Parquet files in the folder that are not shards, in name order."""
    return sorted(p for p in folder.iterdir() if p.suffix == ".parquet" and not PATTERN.fullmatch(p.name))
