"""The ``rayprune`` command: its subcommands, its exit codes, and how errors are told.

Exit 0 is done, 1 a run that failed, 2 wrong input, 130 an interruption. People read standard
error; ``--json`` puts one JSON object on standard output, errors too, and nothing else there.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from rayprune.cli.bench import bench
from rayprune.cli.certify import certify
from rayprune.cli.evaluate import evaluate
from rayprune.cli.export import export
from rayprune.cli.fit import fit
from rayprune.cli.list import list_names
from rayprune.cli.options import person
from rayprune.cli.prune import prune
from rayprune.cli.record import record
from rayprune.cli.refusals import missing_package, wrong_usage
from rayprune.cli.report import report
from rayprune.cli.sensitivity import sensitivity
from rayprune.cli.serve import serve
from rayprune.cli.setup.doctor import doctor
from rayprune.cli.setup.init import init
from rayprune.cli.setup.schema import schema
from rayprune.cli.submit import submit
from rayprune.cli.sweep import sweep
from rayprune.cli.train import train
from rayprune.cli.verify import verify
from rayprune.errors import ConfigError, InputError, RaypruneError
from rayprune.reasons import found_in, reason_of
from rayprune.tracking.record import to_json
from rayprune.tracking.reporter import telling

INTERRUPTED = 130
"""The shell's own code for a process that Ctrl-C ended: 128 + SIGINT."""


class InterruptedCommandError(Exception):
    """Ctrl-C, with what the interrupted command has to say; Typer would swallow that."""


def _interruptible(command: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(command)
    def wrapper(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        try:
            return command(*arguments, **keywords)
        except KeyboardInterrupt as error:
            raise InterruptedCommandError(str(error) or "Interrupted.") from error

    return wrapper


class _Commands(TyperGroup):
    """Says which commands there are when an unknown one is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            if hasattr(error, "message"):
                error.message = f"{error.message} There are {sorted(self.commands)}."
            raise


def _tell_version(wanted: bool) -> None:
    if wanted:
        from rayprune.cli.setup.packages import installed_version

        typer.echo(f"rayprune {installed_version('rayprune') or '(not installed)'}")
        raise typer.Exit


def _unwrapped(docstring: str | None) -> str:
    """Return a docstring with a line for each paragraph and example: Typer keeps line breaks."""
    return re.sub(r"(?<!\n)\n(?!\n|Example:)\s*", " ", inspect.cleandoc(docstring or ""))


app = typer.Typer(
    cls=_Commands,
    epilog="Example: rayprune train ppo_cartpole",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "init": init,
    "train": train,
    "evaluate": evaluate,
    "prune": prune,
    "sensitivity": sensitivity,
    "record": record,
    "bench": bench,
    "certify": certify,
    "export": export,
    "verify": verify,
    "serve": serve,
    "sweep": sweep,
    "fit": fit,
    "submit": submit,
    "report": report,
    "list": list_names,
    "doctor": doctor,
    "schema": schema,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, help=_unwrapped(_command.__doc__))(_interruptible(_command))


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train deep-RL policies small: prune while RLlib trains, and prove what is left."""


def run(arguments: Sequence[str], stdout: TextIO) -> int:
    """Run one command line.

    Args:
        arguments: what follows ``rayprune``.
        stdout: where ``--json`` writes its one object.

    Returns:
        The exit code.
    """
    try:
        with telling(lambda text: person().print(text, markup=False)):
            result = app(args=arguments, prog_name="rayprune", standalone_mode=False)
    except Exception as error:
        return _fail(error, arguments, stdout)
    if "--json" in arguments and isinstance(result, Mapping):
        print(to_json(result), file=stdout, flush=True)
    if isinstance(result, Mapping):
        # A command whose answer is a gate's says so itself.
        return int(result.get("exit_code", 0))
    return result if isinstance(result, int) else 0


def claim_stdout() -> TextIO:
    """Keep standard output for us alone: what anything else prints there goes to stderr.

    Ray's workers and native libraries write to the descriptor, so it's the descriptor that moves,
    for as long as the process lives.
    """
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return kept


def _fail(error: Exception, arguments: Sequence[str], stdout: TextIO) -> int:
    error = _told_cause(error)
    code, message = exit_code(error), _message(error)
    if "--debug" in arguments:
        traceback.print_exception(error, file=sys.stderr)
    if "--json" in arguments:
        faults = error.faults if isinstance(error, ConfigError) else (message,)
        details = {"type": type(error).__name__, "message": message, "faults": faults}
        print(to_json({"error": {**details, "exit_code": code}}), file=stdout, flush=True)
    person().print(message, style="red" if code != INTERRUPTED else "yellow", markup=False)
    return code


def exit_code(error: Exception) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, InterruptedCommandError):
        return INTERRUPTED
    return (
        2 if isinstance(error, (InputError, ModuleNotFoundError)) or _is_usage_error(error) else 1
    )


def _message(error: Exception) -> str:
    if isinstance(error, (RaypruneError, InterruptedCommandError)):
        return str(error)
    if _is_usage_error(error):
        return wrong_usage(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    return f"{reason_of(error)}. Rerun with --debug for the traceback."


def _is_usage_error(error: Exception) -> bool:
    # Typer's class for it has moved from click into a private module, its method has not.
    return hasattr(error, "format_message")


def _told_cause(error: Exception) -> Exception:
    """Return the error of ours that Ray or RLlib has wrapped, or else the error itself."""
    # Ray's RayTaskError is also of its cause's class, but its text is a whole traceback.
    return found_in(error, RaypruneError) or error
