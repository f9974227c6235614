"""reasonx-eval score: a folder of saved predictions against ground truth."""

from __future__ import annotations

from pathlib import Path

import click

from reasonx_eval.cli.common import evaluation_options, parse_options
from reasonx_eval.errors import UsageError


@click.command("score", context_settings={"show_default": True})
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--kind", help="What the predictions are: depth_metric, disparity_affine, albedo_srgb, ...")
@click.option("-O", "--option", "options", multiple=True, metavar="KEY=VALUE",
              help="How the files are read: suffix, pattern, png_offset, normals_encoding, ...; repeatable.")
@click.option("--name", help="Model name in the result; the folder's name if not given.")
@click.option("--png-scale", type=float, help="Value of one step of a 16-bit PNG, e.g. 0.001 for millimetres.")
@click.option("--normals-frame", type=click.Choice(["opencv", "opengl", "dsine"]), help="Axes of saved normals.")
@click.option("--h5-key", help="Dataset inside .h5 files, or array inside .npz files.")
@evaluation_options
@click.pass_context
def command(context: click.Context, /, predictions: Path, kind: str | None, name: str | None, png_scale: float | None,
            normals_frame: str | None, h5_key: str | None, options: tuple[str, ...], **_: object) -> int:  # fmt: skip
    """Score a folder of saved predictions: one .npy, .npz, .png (16 bit), .exr, .h5, .tif or .pfm file a sample.

    \b
    reasonx-eval score preds/dav2 --kind disparity_affine --dataset nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.cli.evaluate import evaluate_model
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
    return evaluate_model(Saved(predictions, **parsed), context)
