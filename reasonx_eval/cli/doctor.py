"""reasonx-eval doctor: check a data set, and explain how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.cli.common import parse_options, print_json, prints_to_stderr
from reasonx_eval.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from reasonx_eval.datasets.base import Dataset
    from reasonx_eval.doctor.findings import Finding


@click.command("doctor")
@click.argument("name", metavar="DATASET")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files.")
@click.option("--split", help="Which split; the default is the dataset's first.")
@click.option("--dataset-option", "--option", "options", multiple=True, metavar="KEY=VALUE",
              help="How the files are laid out; see info DATASET.")
@click.option("--full", is_flag=True, help="Look at the values of all samples, and hash official archives.")
@click.option("--prepare", "do_prepare", is_flag=True, help="Explain how to get the files; with --archive, unpack.")
@click.option("--archive", "archives", multiple=True, type=click.Path(path_type=Path, dir_okay=False),
              help="An archive you fetched: verified, then unpacked into --root. May be repeated.")
@click.option("--max-bytes", type=click.IntRange(1), help="Most bytes that an archive may unpack to; the default is "
              "100 times its size, 256 MiB at least.")
@click.option("--freeze", "do_freeze", is_flag=True, help="Write sizes and sha256 of all files to a manifest.")
@click.option("--out", type=click.Path(path_type=Path), help="Where --freeze writes; default: manifest.toml in --root.")
@click.option("--force", is_flag=True, help="Replace an existing manifest, or files that differ from the archive's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(name: str, root: Path | None, split: str | None, options: tuple[str, ...], full: bool, do_prepare: bool,
            archives: tuple[Path, ...], max_bytes: int | None, do_freeze: bool, out: Path | None, force: bool,
            as_json: bool, quiet: bool) -> int:  # fmt: skip
    """Check a dataset's files, and the units and conventions of their values.

    Exit code 4 if anything fails, 0 with warnings. Never downloads anything.
    """
    if do_prepare and do_freeze:
        raise UsageError("--prepare and --freeze exclude each other")
    if archives and not do_prepare:
        raise UsageError("--archive belongs to --prepare", fix="reasonx-eval doctor DATASET --root DIR --prepare ...")
    if out is not None and not do_freeze:
        raise UsageError("--out belongs to --freeze")
    if do_prepare:
        return _prepare(name, root, archives, max_bytes, force, as_json, quiet)
    from reasonx_eval.registry import load_dataset

    with prints_to_stderr():
        dataset = load_dataset(name, root, split, parse_options(options, "--dataset-option"))
    return _freeze(dataset, out, force, as_json, quiet) if do_freeze else _diagnose(dataset, full, as_json, quiet)


def _diagnose(dataset: Dataset, full: bool, as_json: bool, quiet: bool) -> int:
    from reasonx_eval.doctor import diagnose

    with prints_to_stderr(), _bar(quiet) as step:
        report = diagnose(dataset, full=full, progress=step)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report.findings)
        click.echo(f"{report.dataset} {report.split}: {report.status}")
    return report.exit_code


def _freeze(dataset: Dataset, out: Path | None, force: bool, as_json: bool, quiet: bool) -> int:
    from reasonx_eval.doctor.manifest import MANIFEST_NAME, freeze, write_manifest

    path = out if out is not None else (dataset.root or Path()) / MANIFEST_NAME
    if path.exists() and not force:
        # said before hours of hashing, and again by write_manifest
        raise UsageError("exists already", where=str(path), fix="--out FILE, or --force to replace it")
    with _bar(quiet) as step:
        manifest = freeze(dataset, progress=None if step is None else (lambda n, total: step("sha256", n, total)))
    write_manifest(manifest, path, force=force)
    total = sum(f.bytes for f in manifest.files)
    facts = {"manifest": str(path), "split": dataset.split, "n": len(dataset.ids), "files": len(manifest.files),
             "bytes": total, "ids_sha256": dataset.ids_digest}  # fmt: skip
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{len(manifest.files)} files of {len(dataset.ids)} samples frozen in {path}")
        click.echo(f"doctor verifies them from now on: reasonx-eval doctor {dataset.info.name} --root {dataset.root}")
    return 0


def _prepare(name: str, root: Path | None, archives: Sequence[Path], max_bytes: int | None, force: bool,
             as_json: bool, quiet: bool) -> int:  # fmt: skip
    from reasonx_eval.doctor.manifest import official_manifest
    from reasonx_eval.doctor.prepare import explain, prepare
    from reasonx_eval.io.paths import dataset_root
    from reasonx_eval.registry import dataset_class

    cls = dataset_class(name)
    manifest = official_manifest(name)
    if not archives:
        if as_json:
            known: dict[str, Any] = {} if manifest is None else manifest.model_dump(mode="json", by_alias=True)
            print_json({"dataset": name, "licence": cls.info.licence, "homepage": cls.info.homepage,
                        "layout": cls.info.layout, **known})  # fmt: skip
        else:
            click.echo(explain(cls.info, manifest))
        return 0
    where = dataset_root(name, root)
    if where is None:
        raise UsageError("say where to unpack", where=name, fix="--root DIR")
    with _byte_bar(archives, quiet) as step:
        findings = prepare(archives, where, manifest, force=force, max_bytes=max_bytes, progress=step)
    if as_json:
        from dataclasses import asdict

        print_json([asdict(f) for f in findings])
    else:
        _print(findings)
        click.echo(f"now check: reasonx-eval doctor {name} --root {where}")
    return 0


_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def _print(findings: Sequence[Finding]) -> None:
    """A table on a terminal; in a pipe one line a finding, tab-separated."""
    if not sys.stdout.isatty():
        for f in findings:
            click.echo("\t".join([f.check, f.status, f.message, *([f"try: {f.fix}"] if f.fix else [])]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for f in findings:
        message = Text(f.message)
        if f.fix:
            message.append(f"\ntry: {f.fix}", style="dim")
        table.add_row(f.check, Text(f.status, style=_STYLE[f.status]), message)
    Console().print(table)


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr; nothing where stderr is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    with _rich(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@contextmanager
def _byte_bar(archives: Sequence[Path], quiet: bool) -> Iterator[Callable[[Path, int], None] | None]:
    """Bytes unpacked, with speed; how many there will be is known only of some archives."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    name = TextColumn("{task.description}", markup=False)
    with _rich(name, BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        tasks = {path: bar.add_task(path.name, total=None, start=False) for path in archives}

        def step(path: Path, n: int) -> None:
            bar.start_task(tasks[path])
            bar.update(tasks[path], advance=n)

        yield step


def _rich(*columns: Any) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True))
