"""reasonx-eval export: results for papers, cards and programs."""

from __future__ import annotations

from pathlib import Path

import click

from reasonx_eval.cli.common import listed
from reasonx_eval.errors import UsageError

FORMATS = ("md", "csv", "latex", "json", "hf-eval-results", "model-index")


@click.command("export", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="md")
@click.option("--metrics", metavar="NAME[,NAME]", help="Metrics of the columns, in this order; default all.")
@click.option("--ci", "interval", is_flag=True, help="With 95% intervals in md and latex; the others have them.")
@click.option("--percent", is_flag=True, help="Shares as percentages, in md and latex.")
@click.option("--hub-dataset", metavar="OWNER/NAME", help="The dataset's id on the hub, for the hub's formats.")
@click.option("--source-url", metavar="URL", help="Where the evaluation can be read, for hf-eval-results.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option("--force", is_flag=True, help="Replace the file.")
def command(runs: tuple[Path, ...], form: str, metrics: str | None, interval: bool, percent: bool,
            hub_dataset: str | None, source_url: str | None, out: Path | None, force: bool) -> int:  # fmt: skip
    """Tables of RUN... (run folders, or folders of them): one for each protocol and dataset, never mixed.

    Values are rounded by their interval: its half-width keeps two significant digits. What paired tests can't tell from
    the best is bold; runs that were trained on the dataset, or scored other images than the rest, are marked and not
    tested. csv and json have all digits.

    \b
    reasonx-eval export results/depth/nyuv2@1 --format latex --metrics abs_rel,delta1 --ci
    reasonx-eval export RUN --format hf-eval-results --hub-dataset OWNER/NAME --out .eval_results/reasonx.yaml
    """
    from reasonx_eval.report.export import NumberStyle, render, tabulate
    from reasonx_eval.statistics.runs import find_runs

    names = tuple(listed(metrics))
    hub = form in ("hf-eval-results", "model-index")
    if (hub_dataset and not hub) or (source_url and form != "hf-eval-results"):
        raise UsageError(f"--{'hub-dataset' if hub_dataset and not hub else 'source-url'} is not for --format {form}")
    if out is not None and out.exists() and (out.is_dir() or not force):
        raise UsageError("is there already", where=str(out), fix="--force, or another --out")
    found = [run for path in runs for run in find_runs(path)]
    tables = tabulate(found, names)
    if form == "hf-eval-results":
        from reasonx_eval.report.export_hub import to_eval_results

        text = to_eval_results(found, names, dataset=hub_dataset, source_url=source_url)
    elif form == "model-index":
        from reasonx_eval.report.export_hub import to_model_index

        text = to_model_index(found, names, dataset=hub_dataset)
    else:
        text = render(tables, form, NumberStyle(interval=interval, percent=percent))
    if out is None:
        click.echo(text, nl=False)
    else:
        from reasonx_eval.io.files import write_text

        write_text(out, text)
        click.echo(f"-> {out}")
    return 0
