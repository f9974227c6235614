"""python -m benchmarks.full_size: what a step of a large diffusion model costs on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from reasonx_eval.cli.main import exit_with


@click.command("full-size")
@click.option("--plan", is_flag=True, help="Print what the published run would take, without measuring anything.")
@click.option("--size", type=click.Choice(["sd2", "small"]), default="sd2", show_default=True,
              help="Of the networks; small runs on a CPU.")
@click.option("--group", default=8, show_default=True, help="Samples of a photo.")
@click.option("--steps", default=15, show_default=True, help="Of a rollout.")
@click.option("--window", type=int, help="Scored steps.  [default: all but the last]")
@click.option("--images", default=1, show_default=True, help="Photos of the step.")
@click.option("--lora", default=32, show_default=True, help="Rank of adapters; 0 trains the whole network.")
@click.option("--kl/--no-kl", default=True, show_default=True, help="Ask the frozen base too.")
@click.option("--checkpointing/--no-checkpointing", default=True, show_default=True,
              help="Compute activations twice rather than keep them.")
@click.option("--micro", type=int, help="Samples in one pass.  [default: all]")
@click.option("--pixels", type=int, help="Side of the photo.  [default: 512; small: 64]")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--cold", is_flag=True, help="Measure the first step, without one before it to warm up.")
@click.option("--json", "as_json", is_flag=True, help="Print the phases as JSON.")  # fmt: skip
def command(plan: bool, as_json: bool, cold: bool, lora: int, checkpointing: bool, **options: Any) -> int:
    """Measure one GRPO step of a Marigold-type pipeline with random weights, phase by phase.

    Weights don't change what a step costs, so nothing is downloaded. On a CPU the seconds are those of
    the process, summed over its threads.

    \b
    python -m benchmarks.full_size                      (a GPU with 24 GB or more)
    python -m benchmarks.full_size --lora 0             (the whole network: 40 GB or more)
    python -m benchmarks.full_size --size small --group 4 --steps 4 --dtype float32
    python -m benchmarks.full_size --plan
    """
    from reasonx_eval.cli.common import print_json
    from reasonx_eval.report.tables import print_table

    if plan:
        from benchmarks.full_size.plan import plan as written

        click.echo(written(), nl=False)
        return 0
    from benchmarks.full_size.full_size import Setting, measure

    setting = replace(Setting(**options), lora=lora or None, gradient_checkpointing=checkpointing)
    found = measure(setting, warm=not cold)
    if as_json:
        print_json(found.to_dict())
        return 0
    rows = [[p.name, f"{p.seconds:.3f}", f"{p.seconds / found.seconds:.1%}",
             "" if p.peak_gib is None else f"{p.peak_gib:.1f}"] for p in found.phases]  # fmt: skip
    rows.append(["all", f"{found.seconds:.3f}", "", f"{found.peak_gib:.1f}"])
    print_table(["phase", "CPU s" if found.device == "cpu" else "s", "share", "peak GiB"], rows, right=(1, 2, 3))
    click.echo(f"{found.device}: {found.outside:.1%} of the time is outside the network's passes; "
               f"{found.trained / 1e6:.2f} of {found.parameters / 1e6:.1f} M parameters are trained")  # fmt: skip
    return 0


if __name__ == "__main__":
    exit_with(command, None)
