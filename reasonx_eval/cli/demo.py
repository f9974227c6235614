"""reasonx-eval demo: the main job with nothing downloaded."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="Folder for results and the picture.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(out: Path, as_json: bool, quiet: bool) -> int:
    """Evaluate built-in baselines and a small network on procedural scenes, and draw its predictions."""
    from reasonx_eval.cli.common import exit_code, print_results, progress_bar
    from reasonx_eval.demo import run_demo
    from reasonx_eval.report.tables import print_overview

    finished = run_demo(out, lambda label: progress_bar(label, quiet))
    if as_json:
        print_results(finished, as_json=True)
    else:
        print_overview([result for result, _ in finished])
        click.echo(f"picture  {out / 'demo.png'}")
        click.echo(f"results  {out / 'results'}  (read one: reasonx-eval show RUN)")
    return exit_code([result for result, _ in finished])
