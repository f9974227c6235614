"""reasonx-eval leaderboard: one static page from reviewed results, and reviewed results from runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

#: where a project keeps them
RESULTS = Path("leaderboards/results")


class _DefaultsToBuild(click.Group):
    """``leaderboard FOLDER`` is ``leaderboard build FOLDER``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["build", *args]
        return super().parse_args(ctx, args)


@click.group("leaderboard", cls=_DefaultsToBuild)
def command() -> None:
    """One self-contained page, Markdown, CSV and JSON from submissions; `build` may be left out.

    \b
    reasonx-eval leaderboard add results/depth/scenes-wild@1/tiny
    reasonx-eval leaderboard leaderboards/results
    reasonx-eval leaderboard leaderboards/results --check
    """


@command.command("build", context_settings={"show_default": True})
@click.argument("results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder for index.html, README.md, leaderboard.csv and .json; default: above RESULTS.")  # fmt: skip
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit 4 if the files there are stale.")
@click.option("--force", is_flag=True, help="Also replace files that are not a leaderboard's.")
@click.option("--json", "as_json", is_flag=True, help="Print leaderboard.json.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of leaderboard.json.")
def build(results: Path, out: Path | None, only_check: bool, force: bool, as_json: bool, schema: bool) -> int:
    """Make the page of a folder of submissions."""
    from reasonx_eval.leaderboard.document import BoardOut
    from reasonx_eval.leaderboard.generate import PAGE, check, generate, write

    if schema:
        click.echo(json.dumps(BoardOut.model_json_schema(), indent=1))
        return 0
    folder = _folder(results, out, PAGE)
    generated = generate(results, folder)
    if only_check:
        check(generated)
    else:
        write(generated, force=force)
    if as_json:
        click.echo(generated.files[folder / "leaderboard.json"], nl=False)
        return 0
    _report(generated, only_check)
    return 0


def _folder(results: Path, out: Path | None, page: str) -> Path:
    from reasonx_eval.errors import UsageError

    if out is None:
        return results.absolute().parent if results.name in ("", "..") else results.parent
    if out.suffix != ".html":
        return out
    if out.name != page:
        raise UsageError(f"the page is called {page}, so that a web server finds it", where=str(out),
                         fix=f"--out {out.parent}")  # fmt: skip
    return out.parent


def _report(generated: Any, only_check: bool) -> None:
    from reasonx_eval.report.tables import print_table

    board = generated.board
    rows = [[t.protocol, str(len(t.rows)), str(t.n), t.signature] for t in board.tables]
    rows += [["judges", str(len(t.rows)), "", t.signature] for t in board.judges]
    print_table(["protocol", "rows", "n", "signature"], rows, right=(1, 2))
    click.echo(f"{board.models} models, {sum(len(t.rows) for t in board.published)} published rows")
    for path, data in generated.files.items():
        click.echo(f"{'ok' if only_check else '->'} {path} ({len(data) / 1000:.0f} kB)")


@command.command("add", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), default=RESULTS,
              help="Folder of submissions, one file a model and protocol.")  # fmt: skip
@click.option("--pictures/--no-pictures", default=True,
              help="Small pictures of the best, worst and most changed images, where predictions were saved and the "
                   "dataset is rendered by this package.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a submission.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def add_runs(runs: tuple[Path, ...], to: Path, pictures: bool, force: bool, as_json: bool) -> int:
    """Verify finished RUNs (of run, score, merge or judge-eval) and write a submission for each.

    A run whose records are not those of its result is refused (exit 4). A partial run is taken and marked. Name base
    and tuned runs together, so that pictures show both.
    """
    from reasonx_eval.cli.common import print_json
    from reasonx_eval.leaderboard.submit import submit

    added = submit(runs, to, force=force, pictures=pictures)
    if as_json:
        print_json([{"path": str(a.path), "pictures": a.pictures, "no_pictures": a.why_none} for a in added])
        return 0
    for one in added:
        click.echo(f"-> {one.path}" + (f", {one.pictures} pictures" if one.pictures else ""))
        if one.why_none is not None and pictures:
            click.echo(f"   no pictures: {one.why_none}", err=True)
    return 0
