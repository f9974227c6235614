"""reasonx-eval run: evaluate a model on a dataset."""

from __future__ import annotations

from pathlib import Path

import click

from reasonx_eval.cli.common import evaluation_options, parse_options, prints_to_stderr


@click.command("run", context_settings={"show_default": True})
@click.option("--model", required=True, metavar="MODEL",
              help="A name (see list models), FILE.onnx, FILE.py:Class, or a folder of predictions.")  # fmt: skip
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE", help="A model option; repeatable.")
@click.option("--kind", help="What the predictions are, where the model does not say.")
@click.option("--card", type=click.Path(path_type=Path), help="JSON card of an .onnx file.")
@evaluation_options
@click.pass_context
def command(context: click.Context, /, model: str, options: tuple[str, ...], kind: str | None, card: Path | None,
            **_: object) -> int:  # fmt: skip
    """Evaluate a model on a dataset, under the dataset's default protocols or named ones.

    The same command resumes a run that was interrupted, and prints a finished one again.

    \b
    reasonx-eval run --model retinex --dataset scenes-wild
    reasonx-eval run --model net.onnx --protocol depth/nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.cli.evaluate import evaluate_model
    from reasonx_eval.models.load import load_model

    with prints_to_stderr():
        loaded = load_model(model, kind=kind, options=parse_options(options, "--option"), card=card)
    try:
        return evaluate_model(loaded, context)
    finally:
        loaded.close()
