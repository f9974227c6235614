"""python -m benchmarks.study: what tuning gains, against bases, ceilings and a random judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reasonx_eval.cli.main import exit_with


def _names(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


@click.command("study")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the study.")
@click.option("--seeds", callback=_names, metavar="N[,N]", help="[default: 0,1,2]")
@click.option("--bases", callback=_names, metavar="NAME[,NAME]", help="[default: tiny,tiny-flow]")
@click.option("--methods", callback=_names, metavar="NAME[,NAME]",
              help="grpo, ranking, expected, or default: the preset's mixture (of tiny alone).  [default: all]")
@click.option("--judges", callback=_names, metavar="NAME[,NAME]",
              help="oracle (ground truth with the published error rates), tiny, random.  [default: all]")
@click.option("--photos", type=int, help="Photos that are tuned on.")
@click.option("--pairs", type=int, help="Judged pairs of each photo and modality.")
@click.option("--steps", "steps", multiple=True, metavar="BASE[/METHOD]=N",
              help="Optimiser steps of a base, or of a base by one method (labels: the supervised training).")
@click.option("--limit", type=int, help="Only N test scenes of each domain.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Laid on every tuning, as `tune --set` does.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option("--json", "as_json", is_flag=True, help="Print study.json instead of the table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")  # fmt: skip
def command(out: Path, sets: tuple[str, ...], steps: tuple[str, ...], workers: int, as_json: bool, quiet: bool,
            seeds: tuple[str, ...] | None, **flags: Any) -> int:  # fmt: skip
    """Tune every base by every method with every judge and seed, and measure gains on held-out scenes.

    Beside each result stands the ceiling, the same base trained on the labels; and what is forgotten on the domain that
    the base comes from. The same command goes on after an interrupt; with more seeds it does only the new ones.

    \b
    python -m benchmarks.study --out study
    python -m benchmarks.study --out study --bases tiny --methods ranking --judges oracle --seeds 3,4,5
    """
    from pydantic import ValidationError

    from benchmarks.study.run import run_study
    from benchmarks.study.settings import DEFAULT_STEPS, StudySettings
    from reasonx_eval.cli.common import parse_options, prints_to_stderr
    from reasonx_eval.errors import UsageError
    from reasonx_eval.io.validation import explain
    from reasonx_ft.cli.progress import stage_bars

    chosen = {k: v for k, v in {**flags, "seeds": seeds}.items() if v is not None}
    given = parse_options(steps, "--steps")
    if given:
        # a base that is named by itself means all its methods
        chosen["steps"] = {k: n for k, n in DEFAULT_STEPS.items() if k.partition("/")[0] not in given} | given
    try:
        settings = StudySettings.model_validate({**chosen, "sets": parse_options(sets, "--set")})
    except ValidationError as error:
        raise UsageError(explain(error), where="study") from None
    with prints_to_stderr(), stage_bars(quiet) as progress:
        run_study(settings, out, workers=workers, progress=progress)
    name = "study.json" if as_json else "study.md"
    click.echo((out / name).read_text(encoding="utf-8"), nl=False)
    return 0


if __name__ == "__main__":
    exit_with(command, None)
