"""The shared body of `run` and `score`: from names to results."""

from __future__ import annotations

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


def evaluate_model(model: Model, context: click.Context) -> int:
    """Run a loaded model under every protocol that the options name; print; return the exit code."""
    from reasonx_eval.io.results import Selection, run_folder
    from reasonx_eval.models.adapters.derived import DepthBesideNormals
    from reasonx_eval.report.tables import printable
    from reasonx_eval.run.loop import RunOptions, run
    from reasonx_eval.run.plan import plan

    options = context.params
    if options["samples"] is not None and not listed(options["samples"]):
        raise UsageError("--samples names none", fix="--samples ID[,ID], or leave it out")
    selection = Selection(limit=options["limit"], shard=options["shard"],
                          samples=listed(options["samples"]) or None)  # fmt: skip
    passed, defaulted = _recorded(context)
    run_options = RunOptions(
        seed=options["seed"], selection=selection, workers=options["workers"], force=options["force"],
        retry_failed=options["retry_failed"], save_predictions=options["save_predictions"],
        keep_pixels=options["keep_pixels"], passed=passed, defaulted=defaulted,
    )  # fmt: skip
    finished: list[tuple[Result, Path]] = []
    with prints_to_stderr():
        work = plan(
            model=model, datasets=listed(options["datasets"]), protocols=listed(options["protocols"]),
            task=options["task"], root=options["root"], split=options["split"],
            dataset_options=parse_options(options["dataset_options"], "--dataset-option"),
        )  # fmt: skip
        for said in dict.fromkeys(s for dataset, _ in work for s in dataset.overlooked()):
            click.echo(f"note: {printable(said)}", err=True)
        for dataset, protocol in work:
            folder = run_folder(options["out"], protocol.ref, _run_name(model, dataset.name, protocol.dataset),
                                options["shard"])  # fmt: skip
            active = DepthBesideNormals(model) if protocol.target == "agreement" else model
            with progress_bar(f"{protocol.ref} {model.info.name}", options["quiet"]) as progress:
                result = run(active, dataset, protocol, folder, run_options, progress)
            finished.append((result, folder))
    if not finished:
        raise UsageError("nothing to run")
    print_results(finished, as_json=options["as_json"])
    code = exit_code([r for r, _ in finished])
    if code:
        n = sum(len(r.failed) for r, _ in finished)
        click.echo(f"partial: {n} samples failed; --retry-failed scores them again once mended", err=True)
    return code


def _run_name(model: Model, dataset: str, protocol_dataset: str) -> str:
    """Generic protocols serve many datasets: the folder says which."""
    return f"{model.info.name}.{dataset}" if protocol_dataset == "any" else model.info.name


def _recorded(context: click.Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the user passed and what was defaulted, for the provenance."""
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
