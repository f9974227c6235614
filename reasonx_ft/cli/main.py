"""reasonx-ft: the command line of the tuning package; verbs load on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from reasonx_eval import __version__
from reasonx_eval.cli.main import LazyGroup, exit_with

#: verb -> (module with `command`, what it does)
VERBS: Mapping[str, tuple[str, str]] = {
    "annotate": ("reasonx_ft.cli.annotate", "Ask a judge about pairs of points of photos, and keep the answers."),
    "judge-data": ("reasonx_ft.cli.judge_data", "Write point-pair training data for judges."),
    "judge-eval": ("reasonx_ft.cli.judge_eval", "How often a judge is right, against ground truth."),
    "judge-train": ("reasonx_ft.cli.judge_train", "Train the small judge, or a LoRA adapter of a vision-language one."),
    "judgements": ("reasonx_ft.cli.judgements", "Look into a store of answers, check it, join stores."),
    "tune": ("reasonx_ft.cli.tune", "Tune a predictor by a judge's answers: GRPO, ranking, expected agreement."),
    "demo": ("reasonx_ft.cli.demo", "Annotate, tune, evaluate and compare with nothing downloaded, in minutes."),
    "export": ("reasonx_ft.cli.export", "Write a tuning's weights, of any checkpoint, as a model."),
    "pretrain": ("reasonx_ft.cli.pretrain", "Train an embedded network on rendered scenes, from nothing."),
}


@click.group(cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reasonx-ft")
def cli() -> None:
    """Judges, their answers, base networks, and their tuning by these answers.

    Answers go to stdout, progress to stderr. Exit codes: 0 ok, 1 crash, 2 usage, 3 stopped by a
    guardrail, 4 damaged data, 6 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    exit_with(cli, arguments)


if __name__ == "__main__":
    main()
