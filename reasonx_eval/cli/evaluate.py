"""reasonx-eval run and score: a model, or a folder of saved predictions, against ground truth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reasonx_eval.cli.common import (
    evaluation_options,
    exit_code,
    listed,
    parse_options,
    print_results,
    prints_to_stderr,
    progress_bar,
)
from reasonx_eval.errors import UsageError

if TYPE_CHECKING:
    from reasonx_eval.io.results import Result
    from reasonx_eval.models.base import Model

#: options that change no number and differ between two calls that must give the same bytes
_NOT_RECORDED = {"out", "as_json", "quiet", "force", "workers", "retry_failed", "keep_pixels", "save_predictions",
                 "batch_size"}  # fmt: skip
#: options of the command that `evaluate` takes as they are
_PASSED_ON = ("out", "limit", "shard", "seed", "workers", "force", "retry_failed", "save_predictions", "keep_pixels")


@click.command("run", context_settings={"show_default": True})
@click.option("--model", required=True, metavar="MODEL",
              help="A name (reasonx-eval list models), a hub id, a folder, FILE.onnx or FILE.py:Class.")  # fmt: skip
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE", help="A model option; repeatable.")
@click.option("--kind", help="Kind of the predictions, where the model does not state it.")
@click.option("--derive", type=click.Choice(["normals"]), help="Normals of the surface that the depth describes.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32",
              help="Number type of the network; metrics are float64 in any case.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, help="Images at a time on an accelerator.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that came with a checkpoint.")
@click.option("--card", type=click.Path(path_type=Path), help="JSON card of an .onnx file.")
@evaluation_options
@click.pass_context
def run(context: click.Context, /, model: str, options: tuple[str, ...], kind: str | None, card: Path | None,
            derive: str | None, device: str, dtype: str, batch_size: int, trust_remote_code: bool,
            **_: object) -> int:  # fmt: skip
    """Evaluate a model on a dataset, under the dataset's default protocols or named ones.

    The same command resumes a run that was interrupted, and prints a finished one again.

    \b
    reasonx-eval run --model retinex --dataset scenes-wild
    reasonx-eval run --model net.onnx --protocol depth/nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.models.loading.load import load_model

    with prints_to_stderr():
        loaded = load_model(model, kind=kind, options=parse_options(options, "--option"), card=card, derive=derive,
                            device=device, dtype=dtype, batch_size=batch_size,
                            trust_remote_code=trust_remote_code)  # fmt: skip
    try:
        return _evaluate(loaded, context)
    finally:
        loaded.close()


@click.command("score", context_settings={"show_default": True})
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--kind", help="Kind of the predictions: depth_metric, disparity_affine, albedo_srgb, ...")
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE",
              help="How the files are read: suffix, pattern, png_offset, normals_encoding, ...; repeatable.")
@click.option("--name", help="Model name in the result; the folder's name if not given.")
@click.option("--png-scale", type=float, help="Value of one step of a 16-bit PNG, e.g. 0.001 for millimetres.")
@click.option("--normals-frame", type=click.Choice(["opencv", "opengl", "dsine"]), help="Axes of saved normals.")
@click.option("--h5-key", help="Dataset inside .h5 files, or array inside .npz files.")
@evaluation_options
@click.pass_context
def score(context: click.Context, /, predictions: Path, kind: str | None, name: str | None, png_scale: float | None,
            normals_frame: str | None, h5_key: str | None, options: tuple[str, ...], **_: object) -> int:  # fmt: skip
    """Score a folder of saved predictions: one .npy, .npz, .png (16 bit), .exr, .h5, .tif or .pfm file a sample.

    \b
    reasonx-eval score preds/dav2 --kind disparity_affine --dataset nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.models.loading.options import parse_options as parse_typed
    from reasonx_eval.models.saved.predictions import Saved

    named = {"kind": kind, "name": name, "png_scale": png_scale, "normals_frame": normals_frame, "h5_key": h5_key,
             "npz_key": h5_key}  # fmt: skip
    given = {key: value for key, value in named.items() if value is not None}
    more = parse_options(options, "--option")
    twice = sorted(set(given) & set(more))
    if twice:
        raise UsageError(f"{twice[0]} is given twice, as a flag and as an option")
    parsed = parse_typed(Saved, {**given, **more}, where=str(predictions), hidden=("folder",))
    return _evaluate(Saved(predictions, **parsed), context)


def _evaluate(model: Model, context: click.Context) -> int:
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
