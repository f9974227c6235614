"""What several verbs share: options, progress, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reasonx_eval.errors import EXIT_OK, EXIT_PARTIAL, UsageError

if TYPE_CHECKING:
    from reasonx_eval.io.results import Result

F = TypeVar("F", bound=Callable[..., Any])


def parse_options(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """``("a=1", "b=x")`` to a dict.

    Raises
    ------
    UsageError
        An item without "=", or a key twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} takes KEY=VALUE, not '{pair}'")
        if key in found:
            raise UsageError(f"{flag} {key} is given twice")
        found[key] = value
    return found


def evaluation_options(command: F) -> F:
    """The options that `run` and `score` share."""
    for option in reversed(_EVALUATION):
        command = option(command)
    return command


_EVALUATION = [
    click.option("--dataset", "datasets", metavar="NAME[,NAME]", help="Dataset, for its default protocols."),
    click.option("--protocol", "protocols", metavar="NAME[,NAME]", help="Named protocols, e.g. depth/nyuv2@1."),
    click.option("--task", type=click.Choice(["depth", "normals", "albedo", "irradiance"]),
                 help="Only this task's default protocol."),
    click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files."),
    click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE",
                 help="How the files are laid out; see info DATASET."),
    click.option("--split", help="Another split than the protocol's: only with a generic protocol."),
    click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
                 help="Runs go to OUT/PROTOCOL/MODEL."),
    click.option("--limit", type=int, help="Only N samples, spread evenly; the result is partial."),
    click.option("--samples", metavar="ID[,ID]", help="Only these samples; the result is partial."),
    click.option("--shard", metavar="I/N", help="Every N-th sample from the I-th; join with merge."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the model's noise."),
    click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
                 help="Threads that load and score."),
    click.option("--save-predictions", is_flag=True, help="Keep the predictions, to score or look at later."),
    click.option("--keep-pixels", is_flag=True, help="Keep per-pixel errors of protocols that pool pixels."),
    click.option("--retry-failed", is_flag=True, help="Score failed samples again."),
    click.option("--force", is_flag=True, help="Replace a run that is already there."),
    click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
]  # fmt: skip


def listed(text: str | None) -> list[str]:
    """``"a, b"`` to its parts; nothing for None."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def check_outputs(paths: Sequence[Path], suffixes: Sequence[str], *, force: bool, flag: str = "--out") -> None:
    """Refuse files to write before any work is done for them; `flag` named them.

    Raises
    ------
    UsageError
        A suffix that is not one of `suffixes`, a folder, the same file twice, or a file that is there already.
    """
    for k, path in enumerate(paths):
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"writes {' or '.join(suffixes)}, not '{path.suffix or path.name}'", where=str(path))
        if path in paths[:k]:
            raise UsageError("is named twice", where=str(path))
        if path.is_dir() or (path.exists() and not force):
            raise UsageError("a folder is there" if path.is_dir() else "the file is already there", where=str(path),
                             fix=f"another {flag}" if path.is_dir() else f"--force, or another {flag}")  # fmt: skip


@contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Send to stderr what models, plug-ins and decoders print: stdout is for the answer, which may be JSON.

    File descriptor 1 goes there too, for libraries in C.
    """
    saved = None
    try:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):
        pass  # stdout or stderr is closed: nothing can reach it
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def print_json(value: Any) -> None:
    """JSON on stdout, in ASCII: valid in any locale, whatever is in a name."""
    click.echo(json.dumps(value, indent=1))


@contextmanager
def progress_bar(label: str, quiet: bool, unit: str = "img") -> Iterator[Callable[[int, int, int], None] | None]:
    """A bar on stderr with rate and remaining time; nothing where stderr is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from reasonx_eval.report.tables import printable

    # no markup: a model may be called "[/red]"
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[failed]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(label), total=None, rate="", failed="")

        def update(done: int, total: int, failed: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            rate = "" if not speed else f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"
            bar.update(task, completed=done, total=total, rate=rate,
                       failed=f"[red]failed {failed}[/red]" if failed else "failed 0")  # fmt: skip

        yield update


def print_results(results: Sequence[tuple[Result, Path]], *, as_json: bool) -> None:
    """The answer on stdout: a table a result, or JSON (one object, or a list of several)."""
    if as_json:
        documents = [r.model_dump(mode="json", by_alias=True) for r, _ in results]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    from reasonx_eval.report.tables import print_result

    for result, path in results:
        print_result(result, path)


def exit_code(results: Sequence[Result]) -> int:
    """0 when every sample that was asked for has its number, else 6."""
    return EXIT_PARTIAL if any(r.failed or r.status == "failed" for r in results) else EXIT_OK
