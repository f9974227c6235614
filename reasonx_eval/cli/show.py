"""reasonx-eval show: read a result, and verify it."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("show")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Recompute the aggregate from the records and check every digest.")
@click.option("--plot", is_flag=False, flag_value="-", metavar="[FILE.png]",
              help="How the images' values are distributed: as text, or all runs in one picture.")
@click.option("--metric", metavar="NAME", help="What --plot shows: the first metric as text, all of them in a picture.")
@click.option("--force", is_flag=True, help="Replace the picture.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of result.json.")
def command(runs: tuple[Path, ...], verify: bool, plot: str | None, metric: str | None, force: bool, as_json: bool,
            schema: bool) -> int:  # fmt: skip
    """Read results (run folders or result.json files): numbers, their distribution over images, provenance, failures.

    --verify exits with 4 when records, digests and numbers do not agree.
    """
    from reasonx_eval.cli.common import print_results
    from reasonx_eval.errors import UsageError
    from reasonx_eval.io.results import Result, load_result

    if schema:
        click.echo(json.dumps(Result.model_json_schema(), indent=1))
        return 0
    runs, picture = _picture(runs, plot, metric, force)
    if not runs:
        raise UsageError("name a run folder or a result.json", fix="reasonx-eval show RUN")
    loaded = [(load_result(path), path if path.is_dir() else path.parent) for path in runs]
    if as_json:
        print_results(loaded, as_json=True)
    for result, folder in loaded:
        if not as_json:
            from reasonx_eval.report.plots import print_distributions, print_histogram
            from reasonx_eval.report.provenance import print_provenance
            from reasonx_eval.report.tables import print_result

            print_result(result, folder)
            print_distributions(result, folder)
            if plot is not None and picture is None:
                print_histogram(result, folder, metric)
            print_provenance(result, folder)
        if verify:
            from reasonx_eval.run.verify import verify_run

            for line in verify_run(result, folder):
                click.echo(line, err=as_json)
    if picture is not None:
        from reasonx_eval.report.plots import draw_distributions

        draw_distributions(picture, [folder for _, folder in loaded], metric)
        click.echo(f"-> {picture}", err=as_json)
    return 0


def _picture(
    runs: tuple[Path, ...], plot: str | None, metric: str | None, force: bool
) -> tuple[tuple[Path, ...], Path | None]:
    """The runs, and the file that --plot names; ``show --plot RUN`` names a run there."""
    from reasonx_eval.cli.common import check_outputs
    from reasonx_eval.errors import UsageError

    if plot is None and (metric is not None or force):
        raise UsageError("--metric and --force belong to --plot", fix="reasonx-eval show RUN --plot")
    if plot is None or plot == "-":
        return runs, None
    path = Path(plot)
    if path.suffix.lower() != ".png" and path.exists():
        return (*runs, path), None
    check_outputs([path], (".png",), force=force, flag="--plot")
    return runs, path
