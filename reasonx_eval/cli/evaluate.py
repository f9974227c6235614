"""The shared body of `run` and `score`: the API for each protocol that the options name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.cli.common import exit_code, listed, parse_options, print_results, prints_to_stderr, progress_bar
from reasonx_eval.errors import UsageError

if TYPE_CHECKING:
    from reasonx_eval.io.results import Result
    from reasonx_eval.models.base import Model

#: options that change no number and differ between two calls that must give the same bytes
_NOT_RECORDED = {"out", "as_json", "quiet", "force", "workers", "retry_failed", "keep_pixels", "save_predictions",
                 "batch_size"}  # fmt: skip
#: options of the command that `evaluate` takes as they are
_PASSED_ON = ("out", "limit", "shard", "seed", "workers", "force", "retry_failed", "save_predictions", "keep_pixels")


def evaluate_model(model: Model, context: click.Context) -> int:
    """Evaluate a loaded model under every protocol that the options name; print; return the exit code."""
    from reasonx_eval.report.tables import printable
    from reasonx_eval.run.evaluate import evaluate, find_work

    options = context.params
    samples = listed(options["samples"]) or None
    if options["samples"] is not None and samples is None:
        raise UsageError("--samples names none", fix="--samples ID[,ID], or leave it out")
    passed, defaulted = _recorded(context)
    finished: list[Result] = []
    with prints_to_stderr():
        work = find_work(
            model, listed(options["datasets"]), listed(options["protocols"]), task=options["task"],
            root=options["root"], split=options["split"],
            dataset_options=parse_options(options["dataset_options"], "--dataset-option"),
        )  # fmt: skip
        for said in dict.fromkeys(s for dataset, _ in work for s in dataset.overlooked()):
            click.echo(f"note: {printable(said)}", err=True)
        for dataset, protocol in work:
            with progress_bar(f"{protocol.ref} {model.info.name}", options["quiet"]) as progress:
                finished.append(evaluate(
                    model=model, dataset=dataset, protocol=protocol, samples=samples, progress=progress,
                    say=partial(_say, protocol.ref),
                    passed=passed, defaulted=defaulted, **{k: options[k] for k in _PASSED_ON},
                ))  # fmt: skip
    print_results([(r, r.folder or options["out"]) for r in finished], as_json=options["as_json"])
    code = exit_code(finished)
    if code:
        n = sum(len(r.failed) for r in finished)
        click.echo(f"partial: {n} samples failed; --retry-failed scores them again once mended", err=True)
    return code


def _say(protocol: str, text: str) -> None:
    click.echo(f"{protocol}: {text}", err=True)


def _recorded(context: click.Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that the user passed, and the defaulted ones, for the provenance."""
    passed: dict[str, Any] = {}
    defaulted: dict[str, Any] = {}
    for name, value in sorted(context.params.items()):
        if name in _NOT_RECORDED or value is None or value == ():
            continue
        source = context.get_parameter_source(name)
        given = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
        (passed if given else defaulted)[name] = _jsonable(value)
    return passed, defaulted


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
