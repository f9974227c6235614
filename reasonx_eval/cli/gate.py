"""reasonx-eval gate: runs against a stored baseline, for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reasonx_eval.gate.gate import Inconclusive
    from reasonx_eval.gate.verdict import Verdict

_FILE = click.Path(path_type=Path)


@click.command("gate", context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=_FILE)
@click.option("--baseline", type=_FILE, default=Path("leaderboards/baselines/ci.json"), help="Stored baseline.")
@click.option("--policy", type=_FILE, default=Path("leaderboards/policy.toml"), help="Margins of the metrics.")
@click.option("--inconclusive", type=click.Choice(["report", "fail", "pass"]), default="report",
              help="Exit code of 'cannot tell': report 5, fail 3, pass 0.")  # fmt: skip
@click.option("--verdict", type=_FILE, metavar="FILE", help="Write the verdict as JSON.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write the verdict as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON instead of a table.")
@click.option("--seed", type=int, default=0, help="Seed of the bootstrap.")
@click.option("--update-baseline", is_flag=True, help="Make these runs the baseline; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why the baseline changes; it is recorded.")
@click.option("--prune", is_flag=True, help="With --update-baseline: drop entries that no run replaces.")
def command(runs: tuple[Path, ...], baseline: Path, policy: Path, inconclusive: Inconclusive, verdict: Path | None,
            junit: Path | None, as_json: bool, seed: int, update_baseline: bool, reason: str | None,
            prune: bool) -> int:  # fmt: skip
    """Judge runs (run folders, or folders that hold many) against a baseline, with the margins of a policy.

    Exit codes: 0 every metric passes, 3 one regressed, 4 something can't be compared (a metric, sample, run or
    baseline is missing, or was made under other rules), 5 cannot tell.

    \b
    reasonx-eval gate results/ci
    reasonx-eval gate results/ci --update-baseline --reason "decoder retrained"
    """
    from reasonx_eval.errors import EXIT_OK, ReasonXError, UsageError

    if update_baseline != (reason is not None) or (prune and not update_baseline):
        raise UsageError("--update-baseline and --reason go together, and --prune with them",
                         fix='reasonx-eval gate RUN... --update-baseline --reason "..."')  # fmt: skip
    if reason is not None:
        _update(runs, baseline, reason, prune=prune, as_json=as_json)
        return EXIT_OK
    from reasonx_eval.gate.gate import gate
    from reasonx_eval.gate.verdict import error_verdict, make_verdict

    for file in (verdict, junit):
        if file is not None:  # what an earlier gate said must not be read as this one's word, whatever happens
            file.unlink(missing_ok=True)
    try:
        found = make_verdict(gate(runs, baseline=baseline, policy=policy, inconclusive=inconclusive, seed=seed))
    except ReasonXError as error:
        _write(error_verdict(error), verdict, junit)
        raise
    _write(found, verdict, junit)
    if as_json:
        from reasonx_eval.cli.common import print_json

        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        from reasonx_eval.gate.render import print_verdict

        print_verdict(found)
    return found.exit_code


def _write(found: Verdict, verdict: Path | None, junit: Path | None) -> None:
    from reasonx_eval.gate.render import describe
    from reasonx_eval.gate.verdict import write_junit, write_verdict

    if verdict is not None:
        write_verdict(verdict, found)
    if junit is not None:
        write_junit(junit, found, describe)


def _update(runs: tuple[Path, ...], baseline: Path, reason: str, *, prune: bool, as_json: bool) -> None:
    from reasonx_eval.gate.baseline import update_baseline
    from reasonx_eval.statistics.runs import find_runs

    changes = update_baseline(baseline, [run for path in runs for run in find_runs(path)], reason, prune=prune)
    if as_json:
        from reasonx_eval.cli.common import print_json

        print_json([change.model_dump(mode="json") for change in changes])
        return
    from reasonx_eval.gate.render import print_changes

    print_changes(changes)
