"""reasonx-ft judge-train: make a judge's weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reasonx_ft.judges.tiny_files import JudgeScore

_TINY = ("steps", "images", "scenes", "seed", "threads", "learning_rate", "adam_rate")


@click.command("judge-train")
@click.option("--judge", required=True, metavar="JUDGE",
              help="The judge to train: tiny, from random weights; or mllm:FOLDER, mllm:OWNER/NAME, which gets a LoRA "
                   "adapter.")
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="Folder that weights, card and log are written to.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML with any field of the configuration.")
@click.option("--data", type=click.Path(path_type=Path), help="mllm: folder that judge-data wrote.")
@click.option("--steps", type=int, help="Number of optimiser steps.  [default of mllm: whole epochs]")
@click.option("--seed", type=int, help="Seed of weights, order and augmentation.  [default: 0]")
@click.option("--learning-rate", type=float, help="Peak of the learning rate.")
@click.option("--images", type=int, help="tiny: number of photos in each step.")
@click.option("--adam-rate", type=float,
              help="tiny: peak learning rate of the weights that Adam updates: all but matrices.")
@click.option("--scenes", type=int, help="tiny: train on the first N scenes of scenes-broad alone.")
@click.option("--threads", type=int, help="tiny: number of threads that share the photos of a step.  [default: 2]")
@click.option("--bfloat16/--float32", "bfloat16", default=None,
              help="tiny: number type of the convolutions; bfloat16 is fast only on CPUs that have it.")
@click.option("--device", help="mllm: device to train on: auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", help="mllm: number type of the weights: float32, bfloat16, float16.")
@click.option("--trust-remote-code", is_flag=True,
              help="mllm: allow Python code that comes with the checkpoint to run.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
              help="tiny: number of processes that render; the result does not depend on it.")
@click.option("--force", is_flag=True, help="Replace the weights in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")  # fmt: skip
def command(judge: str, out: Path, file: Path | None, workers: int, force: bool, as_json: bool, quiet: bool,
            **flags: Any) -> int:  # fmt: skip
    """Train a judge of point pairs.

    tiny learns from rendered rooms, in under 20 minutes on two cores with bfloat16 and 5 GB of memory. A
    vision-language model gets a LoRA adapter from pairs that judge-data wrote, with the published settings. The same
    command goes on after an interrupt.

    \b
    reasonx-ft judge-train --judge tiny --out my-judge
    reasonx-ft judge-train --judge mllm:OpenGVLab/InternVL3-2B-hf --data pairs --out my-adapter
    """
    from reasonx_eval.errors import UsageError

    if judge == "tiny":
        _refuse(flags, ("data", "device", "dtype", "trust_remote_code"), judge)
        return _tiny(out, file, {k: flags[k] for k in (*_TINY, "bfloat16")}, workers, force, as_json, quiet)
    if judge.startswith("mllm:"):
        _refuse(flags, ("images", "adam_rate", "scenes", "threads", "bfloat16"), judge)
        return _mllm(judge, out, file, flags, force, as_json, quiet)
    raise UsageError(f"'{judge}' can't be trained", where="--judge", fix="--judge tiny, or --judge mllm:FOLDER")


def _refuse(flags: dict[str, Any], names: tuple[str, ...], judge: str) -> None:
    from reasonx_eval.errors import UsageError

    for name in names:
        if flags[name] not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} is not for this judge", where=f"--judge {judge}")


def _tiny(out: Path, file: Path | None, flags: dict[str, Any], workers: int, force: bool, as_json: bool,
          quiet: bool) -> int:  # fmt: skip
    from reasonx_eval.cli.common import print_json
    from reasonx_ft.cli.progress import stage_bars
    from reasonx_ft.judges.tiny_files import WEIGHTS, read_card
    from reasonx_ft.judges.training.config import read_config
    from reasonx_ft.judges.training.tiny import train_tiny
    from reasonx_ft.training.files import claim

    config = read_config(file, flags)
    claim(out, WEIGHTS.stem, force=force)
    with stage_bars(quiet) as progress:
        weights = train_tiny(config, out, workers=workers, progress=progress)
    card = read_card(weights)
    if as_json:
        print_json(card.model_dump(mode="json", by_alias=True))
        return 0
    for score in card.scores:
        click.echo(_line(score))
    click.echo(f"weights  {weights}  ({card.parameters:,} parameters, {weights.stat().st_size:,} bytes)")
    return 0


def _line(score: JudgeScore) -> str:
    right = "" if score.right_on_disagreements is None else (
        f"  right on {score.right_on_disagreements:.3f} of {score.n_disagreements} disagreements with {score.base}")
    return (f"{score.dataset}/{score.split}  {score.modality:<10}  accuracy {score.accuracy:.3f}  "
            f"calibration error {score.calibration_error:.3f}{right}")  # fmt: skip


def _mllm(judge: str, out: Path, file: Path | None, flags: dict[str, Any], force: bool, as_json: bool,
          quiet: bool) -> int:  # fmt: skip
    from reasonx_eval.cli.common import print_json, prints_to_stderr
    from reasonx_eval.errors import UsageError
    from reasonx_ft.cli.progress import stage_bars
    from reasonx_ft.judges.training.lora import read_lora_config, train_lora

    if flags["data"] is None:
        raise UsageError("a vision-language judge is trained on a folder of pairs", where=f"--judge {judge}",
                         fix="reasonx-ft judge-data --dataset NAME --out PAIRS, then --data PAIRS")  # fmt: skip
    given = {k: flags[k] for k in ("steps", "seed", "learning_rate", "device", "dtype")}
    config = read_lora_config(file, given | {"base": judge.removeprefix("mllm:")})
    with prints_to_stderr(), stage_bars(quiet) as progress:
        card = train_lora(config, flags["data"], out, force=force, trust_remote_code=flags["trust_remote_code"],
                          progress=progress)  # fmt: skip
    if as_json:
        print_json(card.model_dump(mode="json", by_alias=True))
        return 0
    click.echo(f"adapter  {out}  ({card.parameters:,} parameters, {card.steps} steps, loss {card.final_loss:.4f})")
    click.echo(f"try      reasonx-ft judge-eval --judge {judge} -O adapter={out} --dataset scenes-wild")
    return 0
