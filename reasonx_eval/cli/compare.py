"""reasonx-eval compare: runs held against a base, sample by sample."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["table", "md", "csv", "latex", "json"]), default="table",
              help="Format of the answer.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--by", metavar="METRIC", help="Metric that names the worst samples; default the protocol's first.")
@click.option("--worst", type=click.IntRange(min=0), default=5, help="Number of worst samples that are named.")
@click.option("--unrewarded", "--canaries", "unrewarded", is_flag=True,
              help="Rewarded metrics first, then a summary of the others.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw every sample's difference.")
@click.option("--force", is_flag=True, help="Replace the picture.")
@click.option("--seed", type=int, default=0, help="Seed of the bootstrap and of the random permutations.")
@click.option("--resamples", type=click.IntRange(min=100), default=10_000,
              help="Resamples of the bootstrap, and random permutations.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95,
              help="Confidence of the intervals.")  # fmt: skip
def command(runs: tuple[Path, ...], form: str, as_json: bool, by: str | None, worst: int, unrewarded: bool,
            plot: Path | None, force: bool, seed: int, resamples: int, confidence: float) -> int:  # fmt: skip
    """Compare runs with the first of them, paired by sample.

    A, B, ... are run folders, or folders that hold many runs, which are then paired by protocol. For each metric:
    the difference, its interval, a p-value corrected for the number of tests, and on how many samples a run is
    better and worse. Runs under other rules or on other data are refused (exit 4); samples that one of the runs has
    no score for are named, and the exit code is 6.

    \b
    reasonx-eval compare results/depth/nyuv2@1/base results/depth/nyuv2@1/tuned
    reasonx-eval compare before after --unrewarded
    """
    from reasonx_eval.cli.common import check_outputs, print_json
    from reasonx_eval.errors import EXIT_OK, EXIT_PARTIAL, UsageError
    from reasonx_eval.report.comparison_table import print_comparisons
    from reasonx_eval.statistics.comparison import as_json as document
    from reasonx_eval.statistics.comparison import compare_folders
    from reasonx_eval.statistics.paired import Settings

    settings = Settings(seed=seed, resamples=resamples, permutations=resamples, confidence=confidence)
    if plot is not None:  # how many pictures it will be is known only once the runs are paired
        check_outputs([plot], (".png",), force=True, flag="--plot")
    elif force:
        raise UsageError("--force belongs to --plot", fix="--plot FILE.png")
    found, left_over = compare_folders(runs, settings, by=by, need_reward=unrewarded)
    form = "json" if as_json else form
    if plot is not None:
        from reasonx_eval.report.comparison_plot import draw_differences, picture_paths

        paths = picture_paths(plot, found)
        check_outputs(paths, (".png",), force=force, flag="--plot")
        for path, comparison in zip(paths, found, strict=True):
            draw_differences(path, comparison)
            click.echo(f"-> {path}", err=True)
    if form == "json":
        print_json(document(found, left_over, worst=worst))
    else:
        print_comparisons(found, form, worst=worst, by=by, unrewarded=unrewarded)
    for line in dict.fromkeys(note for c in found for note in c.joined.notes):
        click.echo(f"note: {line}", err=True)
    for line in left_over:
        click.echo(f"not paired: {line}", err=True)
    whole = all(c.joined.whole for c in found)
    if not whole:
        click.echo("partial: samples that one of the runs has no score for are left out of all of them", err=True)
    return EXIT_OK if whole else EXIT_PARTIAL
