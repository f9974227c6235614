"""reasonx-eval: verbs load on first use, so that --help imports nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from reasonx_eval import __version__
from reasonx_eval.errors import EXIT_CRASH, EXIT_OK, EXIT_PARTIAL, EXIT_USAGE, ReasonXError, unknown
from reasonx_eval.io.files import NO_SPACE

#: verb -> (module, its line of help); see LazyGroup
VERBS: Mapping[str, tuple[str, str]] = {
    "compare": ("reasonx_eval.cli.compare", "Compare runs with a base, paired by sample."),
    "demo": ("reasonx_eval.cli.demo", "Evaluate built-in models on procedural scenes: no download."),
    "doctor": ("reasonx_eval.cli.doctor", "Check a dataset's files; explain how to get and unpack them."),
    "export": ("reasonx_eval.cli.export", "Tables for papers, the hub's result files, CSV and JSON."),
    "gallery": ("reasonx_eval.cli.gallery", "Pictures of the worst, best and most changed samples."),
    "gate": ("reasonx_eval.cli.gate", "Judge runs against a stored baseline, for CI."),
    "info": ("reasonx_eval.cli.info", "Everything about one model, dataset, protocol or metric."),
    "leaderboard": ("reasonx_eval.cli.leaderboard", "One static page from reviewed results; add results to it."),
    "list": ("reasonx_eval.cli.listing", "List models, datasets, protocols or metrics."),
    "merge": ("reasonx_eval.cli.merge", "Join the shards of a run into one result."),
    "reproduce": ("reasonx_eval.cli.reproduce", "A result beside the published numbers of its model."),
    "run": ("reasonx_eval.cli.evaluate:run", "Evaluate a model on a dataset."),
    "score": ("reasonx_eval.cli.evaluate:score", "Score a folder of saved predictions."),
    "selftest": ("reasonx_eval.cli.selftest", "Check this installation with oracles."),
    "sensitivity": ("reasonx_eval.cli.sensitivity", "Saved predictions under every plausible protocol."),
    "show": ("reasonx_eval.cli.show", "Read and verify a result."),
}


class LazyGroup(click.Group):
    """A group of verbs, each in a module of its own.

    Parameters
    ----------
    verbs : verb -> (module, its line of help); "module:name" where it is not called `command`
    """

    def __init__(self, *arguments: Any, verbs: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        module, _, name = self.verbs[cmd_name][0].partition(":")
        command = getattr(import_module(module), name or "command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, self.verbs[verb][1]) for verb in sorted(self.verbs)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.verbs:
            raise unknown("command", name, self.verbs)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reasonx-eval")
def cli() -> None:
    """Comparable numbers for models that split a photo into albedo, irradiance, depth and normals.

    Answers go to stdout, progress to stderr. Exit codes: 0 ok, 1 crash, 2 usage, 3 regression,
    4 not comparable or damaged data, 5 cannot tell, 6 partial: a sample was not scored.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: known errors become one message and their exit code, unknown ones a traceback."""
    exit_with(cli, arguments)


def exit_with(command: click.Command, arguments: Sequence[str] | None) -> None:
    """Run a command line and end the process with its exit code."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an arrow in a terminal that only has ASCII
    # a batch system's "stop" is an interrupt: finished work is kept
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_cli(command, arguments))


def _open_standard_streams() -> None:
    """Give a closed stdin, stdout or stderr the null device, so that no file of a run gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def run_cli(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run a click command and return its exit code."""
    try:
        code = command.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except ReasonXError as error:
        from reasonx_eval.report.tables import printable

        # names and texts in it may be anybody's: no line of it steers the terminal
        click.echo("\n".join(map(printable, f"error: {error}".split("\n"))), err=True)
        return error.exit_code
    except SystemExit as done:
        # click's answer when whoever read stdout has seen enough
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            return EXIT_OK
        return done.code if isinstance(done.code, int) else EXIT_CRASH
    except OSError as error:
        if error.errno is None:
            raise
        click.echo(f"error: {error.filename or 'system'}: {error.strerror}", err=True)
        if error.errno in NO_SPACE:
            click.echo("  finished work is kept; make room, and the same command goes on from there", err=True)
            return EXIT_PARTIAL
        return EXIT_USAGE
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: finished work is kept; the same command goes on from there", err=True)
        return EXIT_PARTIAL


if __name__ == "__main__":
    main()
