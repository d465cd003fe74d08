"""Words what no command raised itself: a package that isn't installed, and wrong usage.

Imports nothing that may be missing itself.
"""

from __future__ import annotations

from typing import Any

from rayprune.errors import did_you_mean, shown
from rayprune.extras import extra_of, pip_line

_SHOULD = "Input should be "
"""How pydantic begins, by which Typer reads values."""


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to install, and where.

    >>> missing_package(ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune"))
    "'ray' is not installed here: pip install 'rayprune[rllib]'. In a job, here is the image of ..."
    """
    module = (error.name or str(error)).partition(".")[0]
    extra = extra_of(module)
    # The name of a module is the package's often enough, and where it isn't it is a place to start.
    line = pip_line(extra) if extra else f"pip install {module}"
    return (
        f"{module!r} is not installed here: {line}. In a job, here is the image of the cluster's "
        "nodes."
    )


def wrong_usage(error: Any) -> str:
    """Return what a command line lacks or has too much, and whose help says more.

    Args:
        error: Typer's, whose class for it has moved from click into a private module.
    """
    said = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # the help itself, or nothing once it is shown
        return str(said)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rayprune"
    told = _wrong_option(error) or _wrong_value(error) or f"{said}{_what_is_missing(error)}"
    return f"{told if told.endswith(('.', '?')) else f'{told}.'} Try `{command} --help`."


def _wrong_option(error: Any) -> str:
    if not hasattr(error, "possibilities"):
        return ""
    return f"{error.message}.{did_you_mean(error.option_name, error.possibilities or ())}"


def _wrong_value(error: Any) -> str:
    """Return a refusal in the form of ours, which holds the value; empty where Typer's has it."""
    cause, parameter = error.__cause__, getattr(error, "param", None)
    if parameter is None or not error.message.startswith(_SHOULD) or not hasattr(cause, "errors"):
        return ""
    wanted = error.message.removeprefix(_SHOULD).partition(", unable to")[0]
    given = shown(cause.errors()[0]["input"])
    name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else ""
    return f"`{name or parameter.metavar}` must be {wanted}, but is {given}."


def _what_is_missing(error: Any) -> str:
    parameter = getattr(error, "param", None)
    meant = getattr(parameter, "help", None)
    return f" {meant}" if type(error).__name__ == "MissingParameter" and meant else ""
