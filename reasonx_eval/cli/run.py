"""reasonx-eval run: evaluate a model on a dataset."""

from __future__ import annotations

from pathlib import Path

import click

from reasonx_eval.cli.common import evaluation_options, parse_options, prints_to_stderr


@click.command("run", context_settings={"show_default": True})
@click.option("--model", required=True, metavar="MODEL",
              help="A name (see list models), a hub id, a folder, FILE.onnx or FILE.py:Class.")  # fmt: skip
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE", help="A model option; repeatable.")
@click.option("--kind", help="What the predictions are, where the model does not say.")
@click.option("--derive", type=click.Choice(["normals"]), help="Normals of the surface that the depth describes.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32",
              help="Number type of the network; metrics are float64 in any case.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, help="Images at a time on an accelerator.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that came with a checkpoint.")
@click.option("--card", type=click.Path(path_type=Path), help="JSON card of an .onnx file.")
@evaluation_options
@click.pass_context
def command(context: click.Context, /, model: str, options: tuple[str, ...], kind: str | None, card: Path | None,
            derive: str | None, device: str, dtype: str, batch_size: int, trust_remote_code: bool,
            **_: object) -> int:  # fmt: skip
    """Evaluate a model on a dataset, under the dataset's default protocols or named ones.

    The same command resumes a run that was interrupted, and prints a finished one again.

    \b
    reasonx-eval run --model retinex --dataset scenes-wild
    reasonx-eval run --model net.onnx --protocol depth/nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.cli.evaluate import evaluate_model
    from reasonx_eval.models.loading.load import load_model

    with prints_to_stderr():
        loaded = load_model(model, kind=kind, options=parse_options(options, "--option"), card=card, derive=derive,
                            device=device, dtype=dtype, batch_size=batch_size,
                            trust_remote_code=trust_remote_code)  # fmt: skip
    try:
        return evaluate_model(loaded, context)
    finally:
        loaded.close()
