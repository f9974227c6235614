"""reasonx-eval merge: shards to one result."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the merged run.")
@click.option("--force", is_flag=True, help="Replace the run in --out.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table.")
def command(runs: tuple[Path, ...], out: Path, force: bool, as_json: bool) -> int:
    """Join all shards of a run; refuses shards that differ in anything else, miss a sample or share one.

    \b
    reasonx-eval merge results/depth/nyuv2@1/net.shard-*-of-4 --out results/depth/nyuv2@1/net
    """
    from reasonx_eval.cli.common import exit_code, print_results
    from reasonx_eval.run.shards import merge

    result = merge(runs, out, force=force)
    print_results([(result, out)], as_json=as_json)
    return exit_code([result])
