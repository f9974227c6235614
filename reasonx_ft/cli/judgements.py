"""reasonx-ft judgements: look into a judgement store, check it, and join stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.errors import EXIT_NOT_COMPARABLE, EXIT_OK
from reasonx_eval.report.tables import printable

if TYPE_CHECKING:
    from reasonx_ft.annotation.judgements import Damaged, Store

_STORE = click.argument("store", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("judgements")
def command() -> None:
    """Look into a judgement store, check it, or join stores.

    \b
    reasonx-ft judgements stats judgements
    reasonx-ft judgements verify judgements
    reasonx-ft judgements merge all judgements-a judgements-b
    """


@command.command("stats")
@_STORE
@_JSON
def stats(store: Path, as_json: bool) -> int:
    """Show counts, answers without a probability, agreement between the colour orders, and a histogram."""
    from reasonx_eval.cli.common import print_json

    opened = _open(store)
    found = opened.stats()
    if as_json:
        print_json([asdict(s) for s in found])
        return _code(opened.damaged)
    click.echo(f"{len(opened):,} answers in {len(opened.shards)} shards")
    header = ("judge", "modality", "photos", "pairs", "answers", "no answer", "both orders", "agree", "gap", "0..1")
    rows = [
        (f"{s.judge_name} ({s.judge[:8]})", s.modality, f"{s.photos:,}", f"{s.pairs:,}", f"{s.answers:,}",
         ", ".join(f"{f} {n:,}" for f, n in s.flags.items() if n and f != "ok") or "-",
         f"{s.both_orders:,}", _number(s.order_agreement), _number(s.order_gap), _spark(s.histogram))
        for s in found
    ]  # fmt: skip
    _columns([header, *rows])
    return _code(opened.damaged)


@command.command("verify")
@_STORE
@_JSON
def verify(store: Path, as_json: bool) -> int:
    """Check every shard's bytes against its name, and find keys with different answers; exit code 4 if there are."""
    from reasonx_eval.cli.common import print_json

    opened = _open(store)
    found = opened.verify()
    if as_json:
        print_json({**asdict(found), "damaged": {d.path.name: d.reason for d in found.damaged}, "sound": found.sound})
        return EXIT_OK if found.sound else EXIT_NOT_COMPARABLE
    click.echo(f"{found.rows:,} rows in {found.shards} whole shards, {len(found.damaged)} damaged; "
               f"{found.duplicates:,} rows repeat a key, {found.conflicts:,} with another answer")  # fmt: skip
    for c in found.examples:
        click.echo(f"conflict: {c.photo} {c.points} {c.modality} {c.order}: {c.probabilities[0]:.4f} in {c.shards[0]} "
                   f"counts, {c.probabilities[1]:.4f} in {c.shards[1]} does not")  # fmt: skip
    for d in found.damaged:
        click.echo(printable(f"damaged: {d.path.name}: {d.reason}"))
    if found.damaged:
        click.echo(f"try: the command that made it, reasonx-ft annotate ... --out {store}: it asks the lost questions "
                   "again and sets the damaged files aside")  # fmt: skip
    for name in (*found.foreign, *found.unfinished):
        click.echo(f"not read: {name} ({'left by a killed process' if name.endswith('.part') else 'not a shard'})")
    return EXIT_OK if found.sound else EXIT_NOT_COMPARABLE


@command.command("merge")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Without sources: keep the small shards beside the joined ones.")
@_JSON
def merge(out: Path, sources: tuple[Path, ...], keep: bool, as_json: bool) -> int:
    """Join the stores SOURCES into OUT; without SOURCES, replace OUT's own small shards by few large ones.

    Sources stay as they are. Where two answers contradict each other the first in the order of shard names counts.
    """
    from reasonx_eval.cli.common import print_json
    from reasonx_ft.annotation.judgements import merge as join

    opened = [_open(s) for s in sources or (out,)]
    damaged = [d for s in opened for d in s.damaged]
    n_sources = sum(len(s.shards) for s in opened)
    written = join(opened, out, remove=not sources and not keep)
    del opened  # or the answers would be in memory twice
    n = len(_open(out))
    if as_json:
        print_json({"store": str(out), "answers": n, "written": [p.name for p in written],
                    "damaged": [str(d.path) for d in damaged]})  # fmt: skip
    else:
        click.echo(f"{out}: {n:,} answers, {len(written)} shards written from {n_sources}")
    return _code(damaged)


@command.command("show")
@_STORE
@click.option("--photo", help="Show only photos with this name, or whose digest begins so.")
@click.option("--modality", help="Show only this modality.")
@click.option("--judge", help="Show only this judge, given by its name or the beginning of its revision.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", default=20, show_default=True,
              help="Show at most N answers.")
@_JSON
def show(store: Path, photo: str | None, modality: str | None, judge: str | None, limit: int, as_json: bool) -> int:
    """Show single answers."""
    from reasonx_eval.cli.common import print_json

    opened = _open(store)
    rows = _rows(opened, photo, modality, None if judge is None else opened.find_judge(judge), limit)
    if as_json:
        print_json(rows)
        return _code(opened.damaged)
    header = ("photo", "name", "first", "second", "modality", "order", "judge", "probability", "flag")
    _columns([header, *((r["photo"][:8], r["name"], *r["points"], r["modality"], r["order"], r["judge"][:8],
                         _number(r["probability"]), r["flag"]) for r in rows)])  # fmt: skip
    return _code(opened.damaged)


def _rows(store: Store, photo: str | None, modality: str | None, judge: str | None, limit: int) -> list[dict[str, Any]]:
    import numpy as np

    from reasonx_eval.errors import UsageError, unknown
    from reasonx_ft.annotation.store.schema import MODALITIES
    from reasonx_ft.types import FLAGS

    if modality is not None and modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    columns = store.columns
    keep = columns.of_streams(judge=judge, modality=modality)
    if photo is not None:
        fits = np.array([d.hex().startswith(photo) or name == photo
                         for d, name in zip(columns.photos, columns.names, strict=True)], dtype=np.bool_)  # fmt: skip
        if not fits.any():
            raise UsageError(f"no answers about a photo '{photo}'", where=str(store.folder))
        keep &= fits[columns.photo]
    found = []
    for row in np.flatnonzero(keep)[:limit]:
        m, order, template, revision = columns.streams[columns.stream[row]]
        x1, y1, x2, y2 = columns.points[row].tolist()
        p = float(columns.probability[row])
        found.append({"photo": columns.photos[columns.photo[row]].hex(), "name": columns.names[columns.photo[row]],
                      "points": [(x1, y1), (x2, y2)], "modality": m, "order": order, "template": template,
                      "judge": revision, "probability": None if p != p else p, "flag": FLAGS[columns.flag[row]],
                      "seconds": float(columns.seconds[row])})  # fmt: skip
    return found


def _open(folder: Path) -> Store:
    """The store; damaged shards are named on stderr and left out."""
    from reasonx_ft.annotation.judgements import Store

    store = Store.open(folder)
    for damaged in store.damaged:
        click.echo(printable(f"warning: left out {damaged.path}: {damaged.reason}"), err=True)
    return store


def _code(damaged: Iterable[Damaged]) -> int:
    return EXIT_NOT_COMPARABLE if any(True for _ in damaged) else EXIT_OK


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spark(counts: Iterable[int]) -> str:
    """A histogram as one character a bin; an empty bin is a blank."""
    counts = list(counts)
    top = max([*counts, 1])
    return "".join(" " if n == 0 else "▁▂▃▄▅▆▇█"[min(7, n * 8 // top)] for n in counts)


def _columns(rows: list[tuple[Any, ...]]) -> None:
    """Left-aligned columns."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in texts) for k in range(len(texts[0]))]
    for row in texts:
        click.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
