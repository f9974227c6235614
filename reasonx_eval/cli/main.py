"""reasonx-eval: verbs load on first use, so that --help imports nothing heavy."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper

import click

from reasonx_eval import __version__
from reasonx_eval.errors import EXIT_OK, EXIT_PARTIAL, EXIT_USAGE, ReasonXError

#: verb -> (module with `command`, what it does)
VERBS: Mapping[str, tuple[str, str]] = {
    "demo": ("reasonx_eval.cli.demo", "Evaluate built-in models on procedural scenes: no download."),
    "doctor": ("reasonx_eval.cli.doctor", "Check a dataset's files; explain how to get and unpack them."),
    "info": ("reasonx_eval.cli.info", "Everything about one model, dataset, protocol or metric."),
    "list": ("reasonx_eval.cli.listing", "List models, datasets, protocols or metrics."),
    "merge": ("reasonx_eval.cli.merge", "Join the shards of a run into one result."),
    "run": ("reasonx_eval.cli.run", "Evaluate a model on a dataset."),
    "score": ("reasonx_eval.cli.score", "Score a folder of saved predictions."),
    "selftest": ("reasonx_eval.cli.selftest", "Check this installation with oracles."),
    "show": ("reasonx_eval.cli.show", "Read and verify a result."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; help texts are known without them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb][1]) for verb in sorted(VERBS)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in VERBS:
            from reasonx_eval.errors import unknown

            raise unknown("command", name, VERBS)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an arrow in a terminal that only has ASCII
    # a batch system's "stop" is an interrupt: what is finished is kept
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_cli(command, arguments))


def run_cli(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run a click command and return its exit code."""
    try:
        code = command.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except ReasonXError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_OK  # whoever read stdout has seen enough
    except OSError as error:
        if error.errno is None:
            raise
        click.echo(f"error: {error.filename or 'system'}: {error.strerror}", err=True)
        return EXIT_USAGE
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what is finished is kept; the same command goes on from there", err=True)
        return EXIT_PARTIAL


if __name__ == "__main__":
    main()
