"""reasonx-ft pretrain: make an embedded network's weights."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("pretrain")
@click.option("--model", required=True, metavar="NAME", help="tiny, tiny-flow or dino-small.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for weights, card and log.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML with any of the fields below.")
@click.option("--start", metavar="FILE", help="Go on from weights: a .safetensors file, or `shipped`.")
@click.option("--backbone", metavar="FOLDER", help="dino-small: a Dinov2-type network's folder or hub id.")
@click.option("--dataset", metavar="NAME", help="What it is trained on.  [default: scenes-synthetic]")
@click.option("--steps", type=int, help="Optimiser steps.")
@click.option("--seed", type=int, help="Seed of weights, order, mirroring and noise.  [default: 0]")
@click.option("--images", type=int, help="Images a step.")
@click.option("--learning-rate", type=float, help="Its peak.")
@click.option("--scenes", type=int, help="Only the first N scenes.")
@click.option("--threads", type=int, help="Threads of the arithmetic; they decide last bits.  [default: 2]")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
              help="Processes that render; they change nothing in the result.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace what is in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(model: str, out: Path, file: Path | None, workers: int, force: bool, as_json: bool, quiet: bool,
            **flags: int | float | str | None) -> int:  # fmt: skip
    """Train an embedded network on the synthetic scenes: some 15 minutes on two free cores, 2 GB of memory.

    The same command goes on after an interrupt, to the same bytes as without one.

    \b
    reasonx-ft pretrain --model tiny --out tiny-weights
    reasonx-eval run --model tiny -O weights=tiny-weights/tiny.safetensors --dataset scenes-wild
    """
    from reasonx_ft.cli.progress import stage_bars
    from reasonx_ft.pretraining.pretrain import pretrain
    from reasonx_ft.training.config import read_config
    from reasonx_ft.training.files import claim

    config = read_config(model, file, flags)
    claim(out, config.model, force=force)
    with stage_bars(quiet) as progress:
        weights = pretrain(config, out, workers=workers, progress=progress)
    _print(weights, as_json)
    return 0


def _print(weights: Path, as_json: bool) -> None:
    from reasonx_eval.cli.common import print_json
    from reasonx_eval.models.embedded.card import read_card

    card = read_card(weights)
    if as_json:
        print_json(card.model_dump(mode="json", by_alias=True))
        return
    for score in card.scores:
        values = "  ".join(f"{name} {value:.4f}" for name, value in score.metrics.items() if value is not None)
        click.echo(f"{score.signature}\n  {values}")
    click.echo(f"weights  {weights}  ({card.parameters:,} parameters, {weights.stat().st_size:,} bytes)")
