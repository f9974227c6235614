"""reasonx-eval selftest: oracles through every dataset and protocol."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reasonx_eval.errors import EXIT_NOT_COMPARABLE, EXIT_OK, UsageError


@click.command("selftest")
@click.option("--quick", is_flag=True, help="One layout of each dataset and one kind of prediction.")
@click.option("--protocol", "names", metavar="NAME[,NAME]", help="Only these protocols.")
@click.option("--dataset", metavar="NAME", help="Your own files of this dataset instead of made-up ones.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files; with --dataset.")
@click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE",
              help="How the files are laid out; with --dataset.")
@click.option("--limit", type=click.IntRange(min=1), default=3, show_default=True,
              help="Samples of your own files that are looked at.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all rows, and every failure.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    quick: bool, names: str | None, dataset: str | None, root: Path | None, dataset_options: tuple[str, ...],
    limit: int, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Check this installation: ground truth as the prediction, whole or spoilt, through every protocol.

    Every dataset is written in its official format with made-up content, read back, and scored: what must be perfect
    has to be, what must not pass has to be refused. Nothing is downloaded. With --dataset the perfect and the refused
    checks run on the first samples of files you have.

    \b
    reasonx-eval selftest
    reasonx-eval selftest --dataset nyuv2 --root DIR

    Exit code 0 if every check holds, 4 if one does not; a check that can't run does not hold.
    """
    from reasonx_eval.cli.common import parse_options, progress_bar
    from reasonx_eval.protocols.protocol import all_protocols, get_protocol
    from reasonx_eval.selftest import engine, report

    if dataset is None and (root is not None or dataset_options):
        raise UsageError("--root and --dataset-option belong to --dataset", fix="--dataset NAME --root DIR")
    options = parse_options(dataset_options, "--dataset-option")
    chosen = [get_protocol(name.strip()) for name in names.split(",")] if names else None
    if dataset is None:
        with progress_bar("selftest", quiet, unit="step") as progress:
            outcomes = engine.check_made_up(chosen or list(all_protocols().values()), quick=quick, progress=progress)
    else:
        protocols = chosen or engine.protocols_for(dataset, root=root, options=options)
        with progress_bar(f"selftest {dataset}", quiet, unit="step") as progress:
            outcomes = engine.check_own_data(dataset, protocols, root=root, options=options, limit=limit,
                                             progress=progress)  # fmt: skip
    failed = report.failures(outcomes)
    if as_json:
        click.echo(json.dumps(report.as_json(outcomes), indent=1))
    else:
        from reasonx_eval.report.tables import print_table

        print_table(report.COLUMNS, [row.cells for row in report.summarise(outcomes)], right=(4,))
        for line in failed[:20]:
            click.echo(f"FAIL {line}")
        if len(failed) > 20:
            click.echo(f"FAIL ... and {len(failed) - 20} more: --json lists all")
        click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} checks hold, "
                   f"{len({o.protocol.ref for o in outcomes})} protocols")  # fmt: skip
    return EXIT_NOT_COMPARABLE if failed else EXIT_OK
