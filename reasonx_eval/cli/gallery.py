"""reasonx-eval gallery: worst, best and most changed samples as a page or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reasonx_eval.cli.common import check_outputs, listed, print_json, prints_to_stderr, progress_bar

if TYPE_CHECKING:
    from reasonx_eval.report.gallery import Gallery


@click.command("gallery", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--by", "metric", metavar="METRIC",
              help="Metric that orders the samples; default the protocol's first.")  # fmt: skip
@click.option("--worst", type=click.IntRange(min=0), default=8, help="Number of worst samples, by the last run.")
@click.option("--best", type=click.IntRange(min=0), default=4, help="Number of best samples.")
@click.option("--changed", is_flag=True, help="Order by the change from RUN_A to RUN_B.")
@click.option("--samples", metavar="ID[,ID]", help="Exactly these samples instead.")
@click.option("--out", "outs", multiple=True, type=click.Path(path_type=Path), default=("gallery.html",),
              help="FILE.html (a self-contained page) or FILE.png; repeatable.")
@click.option("--dataset", metavar="NAME", help="Dataset of the run, if the run does not name it: a name or a folder.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files, if it moved.")
@click.option("--force", is_flag=True, help="Replace the files.")
@click.option("--json", "as_json", is_flag=True, help="Print the shown samples and numbers as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(runs: tuple[Path, ...], metric: str | None, worst: int, best: int, changed: bool, samples: str | None,
            outs: tuple[Path, ...], dataset: str | None, root: Path | None, force: bool, as_json: bool,
            quiet: bool) -> int:  # fmt: skip
    """Photo, ground truth, prediction and error of the worst and best samples of RUN, or of RUN_A and RUN_B.

    Reads saved predictions (run --save-predictions) and aligns them as the protocol did. All errors are on one colour
    scale. For WHDR and ordinal pairs the judged pairs are drawn, right and wrong.

    \b
    reasonx-eval gallery RUN
    reasonx-eval gallery RUN_A RUN_B --by abs_rel --changed --out changed.html --out changed.png
    """
    from reasonx_eval.report.gallery import Choice, build, write_png
    from reasonx_eval.report.gallery_page import write_page
    from reasonx_eval.run.saved_runs import open_dataset, open_run

    check_outputs(outs, (".html", ".png"), force=force)
    choice = Choice(metric=metric, worst=worst, best=best, changed=changed, samples=tuple(listed(samples)))
    with prints_to_stderr():
        opened = [open_run(path) for path in runs]
        data = open_dataset(opened[0].result, dataset=dataset, root=root)
        with progress_bar("gallery", quiet) as progress:
            gallery = build(opened, data, choice, progress)
        for out in outs:
            (write_page if out.suffix.lower() == ".html" else write_png)(out, gallery)
    _print(gallery, outs, as_json)
    return 0


def _print(gallery: Gallery, outs: tuple[Path, ...], as_json: bool) -> None:
    from reasonx_eval.metrics.table import metric_info
    from reasonx_eval.report.gallery import show_number
    from reasonx_eval.report.tables import arrow, print_table, printable

    signatures = list(dict.fromkeys(run.result.signature for run in gallery.runs))
    if as_json:
        print_json({"files": [str(out) for out in outs], "metric": gallery.metric, "signatures": signatures,
                    "samples": [{"id": e.sample_id, "why": e.why, "values": list(e.numbers[gallery.metric])}
                                for e in gallery.entries], "notes": list(gallery.notes)})  # fmt: skip
        return
    unit = metric_info(gallery.metric).unit
    heads = [f"{gallery.metric} {arrow(gallery.metric)} {run.name}" for run in gallery.runs]
    rows = [[e.sample_id, e.why, *(show_number(v, unit) for v in e.numbers[gallery.metric])] for e in gallery.entries]
    print_table(["sample", "", *heads], rows, right=tuple(range(2, 2 + len(heads))))
    for note in gallery.notes:
        click.echo(printable(f"note: {note}"))
    for signature in signatures:
        click.echo(printable(signature))
    for out in outs:
        click.echo(printable(f"-> {out} ({_size(out)})"))


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
