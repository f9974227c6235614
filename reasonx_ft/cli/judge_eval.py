"""reasonx-ft judge-eval: how often a judge is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("judge-eval")
@click.option("--judge", "spec", required=True, metavar="JUDGE",
              help="oracle, tiny, mllm:FOLDER or mllm:OWNER/NAME, server:URL, reasonx, or FILE.py:Class.")
@click.option("--dataset", "name", required=True, metavar="NAME", help="With point pairs, or maps to draw pairs on.")
@click.option("--split", help="[default: the first that the dataset has]")
@click.option("--base", metavar="MODEL", help="A model of reasonx-eval: how often is the judge right against it?")
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the judge.")
@click.option("--base-option", "base_options", multiple=True, metavar="KEY=VALUE", help="Option of the base model.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("judges"), show_default=True,
              help="Result, records and plots go to OUT/DATASET/JUDGE.")
@click.option("--modalities", metavar="NAME[,NAME]", help="[default: all that the dataset answers]")
@click.option("--orders", type=click.Choice(["both", "red-first"]), default="both", show_default=True,
              help="Ask with both colour orders of the markers, or one.")
@click.option("--pairs", type=click.IntRange(min=1), default=80, show_default=True,
              help="Pairs a photo, where the dataset has none of its own.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset's files.")
@click.option("--dataset-option", "dataset_options", multiple=True, metavar="KEY=VALUE")
@click.option("--limit", type=int, help="Only N photos, spread evenly.")
@click.option("--samples", metavar="ID[,ID]", help="Only these photos.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of drawn pairs and of intervals.")
@click.option("--resamples", type=click.IntRange(min=100), default=2000, show_default=True, help="Of the intervals.")
@click.option("--questions", "wording", type=click.Path(path_type=Path), help="TOML with another wording.")
@click.option("--batch-size", type=int, help="Questions at a time.  [default: the judge's]")
@click.option("--device", help="For judges with networks: auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", help="Their number type: float32, bfloat16, float16.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with a checkpoint.")
@click.option("--force", is_flag=True, help="Replace a result that is already there.")
@click.option("--json", "as_json", is_flag=True, help="Print judge.json instead of a table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")  # fmt: skip
@click.pass_context
def command(context: click.Context, /, spec: str, name: str, base: str | None, out: Path, force: bool, as_json: bool,
            quiet: bool, **how: Any) -> int:  # fmt: skip
    """Compare a judge's answers with a dataset's ground truth, by question and by distance.

    With --base, also how often the judge is right on the pairs where it disagrees with that model: only where this is
    well above one half can the judge improve it.

    \b
    reasonx-ft judge-eval --judge tiny --dataset scenes-wild --base tiny
    reasonx-ft judge-eval --judge mllm:OpenGVLab/InternVL3-2B-hf --dataset scenes-wild --limit 20
    """
    from reasonx_eval.cli.common import print_json, prints_to_stderr
    from reasonx_eval.errors import EXIT_OK, EXIT_PARTIAL
    from reasonx_ft.judges.evaluation.report import print_judge

    with prints_to_stderr():
        result, folder = _evaluate(context, spec, name, base, out, force, quiet, how)
    if as_json:
        print_json(result.model_dump(mode="json", by_alias=True))
    else:
        print_judge(result)
        click.echo(f"result  {folder}")
    return EXIT_PARTIAL if result.lacking or result.status == "failed" else EXIT_OK


def _evaluate(context: click.Context, spec: str, name: str, base: str | None, out: Path, force: bool, quiet: bool,
              how: dict[str, Any]) -> tuple[Any, Path]:  # fmt: skip
    from reasonx_eval.cli.common import parse_options, progress_bar
    from reasonx_eval.leaderboard.judge_results import save_judge_result
    from reasonx_eval.models.loading.load import load_model
    from reasonx_eval.registry import load_dataset
    from reasonx_ft.annotation.photos import Recent
    from reasonx_ft.annotation.questions import read_questions
    from reasonx_ft.judges.evaluation.evaluate import evaluate_judge, wanted_targets
    from reasonx_ft.judges.evaluation.report import write_plots
    from reasonx_ft.judges.load import load_judge, needs_targets

    dataset = load_dataset(name, how["root"], how["split"], parse_options(how["dataset_options"], "--dataset-option"))
    plan = _plan(context, how)
    questions = read_questions(how["wording"])
    data = Recent(dataset, wanted_targets(dataset, plan.modalities, needs_targets(spec)))
    judge = load_judge(spec, options=parse_options(how["options"], "--option"), questions=questions, dataset=data,
                       device=how["device"], dtype=how["dtype"], batch_size=how["batch_size"],
                       trust_remote_code=how["trust_remote_code"])  # fmt: skip
    folder = _folder(out, dataset.name, dataset.split, judge.info.name, force)
    model = None if base is None else load_model(base, options=parse_options(how["base_options"], "--base-option"))
    try:
        with progress_bar(judge.info.name, quiet) as progress:
            result = evaluate_judge(judge, data, plan, base=model, questions=questions, out=folder, progress=progress)
    finally:
        judge.close()
        if model is not None:
            model.close()
    for reason, n in judge.problems().items():
        click.echo(f"{n:,} questions without an answer: {reason}", err=True)
    save_judge_result(folder, result)
    write_plots(result, folder)
    return result, folder


def _folder(out: Path, dataset: str, split: str, judge: str, force: bool) -> Path:
    import re

    from reasonx_eval.errors import UsageError
    from reasonx_eval.leaderboard.judge_results import FILE

    safe = re.sub(r"[^\w.+-]+", "-", judge).strip("-.")[:100] or "judge"
    folder = out / f"{dataset}-{split}" / safe
    if (folder / FILE).exists() and not force:
        raise UsageError("a result is there already", where=str(folder), fix="--force, or another --out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _plan(context: click.Context, how: dict[str, Any]) -> Any:
    from click.core import ParameterSource

    from reasonx_eval.errors import unknown
    from reasonx_eval.io.selection import Selection
    from reasonx_ft.annotation.questions import MODALITIES
    from reasonx_ft.judges.evaluation.records import EvalPlan
    from reasonx_ft.types import ORDERS

    modalities = None
    if how["modalities"] is not None:
        modalities = tuple(m.strip() for m in how["modalities"].split(",") if m.strip())
        for modality in modalities:
            if modality not in MODALITIES:
                raise unknown("modality", modality, MODALITIES, where="--modalities")
    given = {k for k in context.params if context.get_parameter_source(k) is ParameterSource.COMMANDLINE}
    passed = {k: _text(v) for k, v in sorted(context.params.items())
              if k in given and k not in ("out", "force", "as_json", "quiet")}  # fmt: skip
    samples = None if how["samples"] is None else [s for s in how["samples"].split(",") if s]
    return EvalPlan(modalities=modalities, orders=ORDERS if how["orders"] == "both" else ORDERS[:1],
                    pairs=how["pairs"], seed=how["seed"], selection=Selection(limit=how["limit"], samples=samples),
                    resamples=how["resamples"], passed=passed)  # fmt: skip


def _text(value: Any) -> Any:
    if isinstance(value, tuple):
        return [str(v) for v in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
