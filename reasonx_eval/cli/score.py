"""reasonx-eval score: a folder of saved predictions against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reasonx_eval.cli.common import evaluation_options

if TYPE_CHECKING:
    from reasonx_eval.models.saved_formats import NormalsFrame


@click.command("score", context_settings={"show_default": True})
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--kind", help="What the predictions are: depth_metric, disparity_affine, albedo_srgb, ...")
@click.option("--name", help="Model name in the result; the folder's name if not given.")
@click.option("--png-scale", type=float, help="Value of one step of a 16-bit PNG, e.g. 0.001 for millimetres.")
@click.option("--normals-frame", type=click.Choice(["opencv", "opengl", "dsine"]), help="Axes of saved normals.")
@click.option("--h5-key", help="Dataset inside .h5 files, or array inside .npz files.")
@evaluation_options
@click.pass_context
def command(context: click.Context, /, predictions: Path, kind: str | None, name: str | None, png_scale: float | None,
            normals_frame: NormalsFrame | None, h5_key: str | None, **_: object) -> int:  # fmt: skip
    """Score a folder of saved predictions: one .npy, .npz, .png (16 bit), .exr or .h5 file per sample id.

    \b
    reasonx-eval score preds/dav2 --kind disparity_affine --dataset nyuv2 --root /data/nyuv2
    """
    from reasonx_eval.cli.evaluate import evaluate_model
    from reasonx_eval.models.saved import Saved

    model = Saved(predictions, kind=kind, name=name, png_scale=png_scale, normals_frame=normals_frame, h5_key=h5_key,
                  npz_key=h5_key)  # fmt: skip
    return evaluate_model(model, context)
