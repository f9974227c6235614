"""python -m benchmarks.statistics: simulates intervals and gates, and writes the tables of README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks.statistics.simulate import METHODS, SHAPES, coverage, gate_errors
from reasonx_eval.io.files import write_text

PAGE = Path(__file__).with_name("README.md")
SIZES = (7, 10, 20, 100)
#: the gate's are larger: it is an order of magnitude rarer that it errs
GATE_SIZES = (7, 10, 20, 50, 100)
GATED = ("normal", "exponential", "log-normal (1)", "difference of log-normals (1)")
RULES = ("ours", "studentised sign flip", "Student's t", "BCa, widened")
#: an interval that covers less is marked; so is a rate of error of more than 1.3 times what was promised
LEAST, MOST = 0.93, 1.3


@click.command("statistics", context_settings={"show_default": True})
@click.option("--trials", type=click.IntRange(min=10), default=2000, help="Samples of each seed.")
@click.option("--resamples", type=click.IntRange(min=10), default=2000, help="Of each bootstrap, and sign flips.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="How many; tables show the mean over them.")
@click.option("--print", "only_print", is_flag=True, help="Print the tables instead of writing them into README.md.")
def command(trials: int, resamples: int, seeds: int, only_print: bool) -> None:
    """Simulate how often intervals cover the truth, and how often the gate errs."""
    tables = {"coverage": coverage_table(trials, resamples, range(seeds)),
              "gate": gate_table(trials, resamples, range(seeds))}  # fmt: skip
    if only_print:
        click.echo("\n\n".join(tables.values()))
        return
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        text = re.sub(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", f"{table}\n", text, flags=re.S)
    write_text(PAGE, text)


def mean_of(found: Sequence[Mapping[str, Mapping[str, float]]], name: str, key: str) -> float:
    return sum(one[name][key] for one in found) / len(found)


def coverage_table(trials: int, resamples: int, seeds: Sequence[int]) -> str:
    lines = ["| values | n | " + " | ".join(METHODS) + " | width of ours |",
             "|---|---:|" + "---:|" * (len(METHODS) + 1)]  # fmt: skip
    for shape in SHAPES:
        for n in SIZES:
            found = [coverage(shape, n, trials=trials, resamples=resamples, seed=s) for s in seeds]
            shares = [mean_of(found, m, "coverage") for m in METHODS]
            cells = [_marked(f"{s:.3f}".lstrip("0"), s < LEAST) for s in shares]
            lines.append(f"| {shape} | {n} | " + " | ".join(cells) + f" | {mean_of(found, 'ours', 'width'):.2f} |")
    return "\n".join(lines)


def gate_table(trials: int, resamples: int, seeds: Sequence[int]) -> str:
    lines = ["| differences | n | " + " | ".join(RULES) + " |", "|---|---:|" + "---:|" * len(RULES)]
    for shape in GATED:
        for side in (1, -1) if shape in ("exponential", "log-normal (1)") else (1,):
            for n in GATE_SIZES:
                found = [gate_errors(shape, n, side=side, trials=trials, resamples=resamples, seed=s) for s in seeds]
                cells = [" / ".join(_marked(f"{mean_of(found, rule, key):.3f}".lstrip("0"),
                                            mean_of(found, rule, key) > MOST * promised)
                                    for key, promised in (("pass", 0.025), ("regressed", 0.05)))
                         for rule in RULES]  # fmt: skip
                name = {1: shape, -1: f"minus {shape}"}[side]
                lines.append(f"| {name} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marked(text: str, bad: bool) -> str:
    return f"*{text}*" if bad else text


if __name__ == "__main__":
    command()
