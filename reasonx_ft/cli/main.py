"""reasonx-ft: the command line of the tuning package. This version has no verbs yet, only --version and --help."""

from __future__ import annotations

from collections.abc import Sequence

import click

from reasonx_eval import __version__
from reasonx_eval.cli.main import exit_with


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reasonx-ft")
def cli() -> None:
    """Tune intrinsic predictors on photos without labels. This version has no commands yet."""


def main(arguments: Sequence[str] | None = None) -> None:
    exit_with(cli, arguments)
