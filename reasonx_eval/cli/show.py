"""reasonx-eval show: read a result, and verify it."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("show")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Recompute the aggregate from the records and check every digest.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of result.json.")
def command(runs: tuple[Path, ...], verify: bool, as_json: bool, schema: bool) -> int:
    """Read results (run folders or result.json files): numbers, provenance, failures.

    --verify exits with 4 when records, digests and numbers do not agree.
    """
    from reasonx_eval.cli.common import print_results
    from reasonx_eval.errors import UsageError
    from reasonx_eval.results import Result, load_result

    if schema:
        click.echo(json.dumps(Result.model_json_schema(), indent=1))
        return 0
    if not runs:
        raise UsageError("name a run folder or a result.json", fix="reasonx-eval show RUN")
    loaded = [(load_result(path), path if path.is_dir() else path.parent) for path in runs]
    if as_json:
        print_results(loaded, as_json=True)
    for result, folder in loaded:
        if not as_json:
            from reasonx_eval.report.provenance import print_provenance
            from reasonx_eval.report.tables import print_result

            print_result(result, folder)
            print_provenance(result, folder)
        if verify:
            from reasonx_eval.verify import verify_run

            for line in verify_run(result, folder):
                click.echo(line, err=as_json)
    return 0
