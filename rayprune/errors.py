"""Every error that rayprune raises on purpose.

::

    RaypruneError
    ├── InputError           the user can mend it; the command line exits with 2
    │   ├── ConfigError      one or more faults in a config, all reported together
    │   ├── CheckpointError  a checkpoint that is missing, broken or of another network
    │   ├── ResourceError    more CPUs or GPUs asked for than there are
    │   └── StorageError     a directory that can't be written, or already holds a run
    └── RunError             the run itself went wrong; the command line exits with 1
        ├── NonFiniteError   a loss, weight or score became NaN or infinite
        ├── EnvError         the environment raised, or gave a reward that is no number
        └── InvariantError   a promise was broken, such as a pruned weight that is not zero
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class RaypruneError(Exception):
    """Base class of all errors raised on purpose."""


class InputError(RaypruneError, ValueError):
    """Something the user gave is wrong, and the message says how to mend it."""


class ConfigError(InputError):
    """One or more faults of a config, reported together."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


class CheckpointError(InputError):
    """A checkpoint is missing, broken, or belongs to another network."""


class ResourceError(InputError):
    """The cluster can't meet a request for CPUs or GPUs."""


class StorageError(InputError):
    """A directory can't be written to, or already holds a run."""


class RunError(RaypruneError, RuntimeError):
    """A run failed although its input was right."""


class NonFiniteError(RunError):
    """A loss, a weight or a score became NaN or infinite."""


class EnvError(RunError):
    """The environment raised, or gave a reward that is no number."""


class InvariantError(RunError):
    """A promise was broken, such as a pruned weight that is not zero."""


def did_you_mean(value: object, names: Iterable[str]) -> str:
    """Return `` Did you mean 'fisher'?`` for the nearest of ``names``, or nothing.

    >>> did_you_mean("fischer", ["fisher", "l1"])
    " Did you mean 'fisher'?"
    >>> did_you_mean("zebra", ["fisher", "l1"])
    ''
    """
    nearest = difflib.get_close_matches(str(value), list(names), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def shown(value: object) -> str:
    """Return the value as a message shows it: its repr, shortened when it is long."""
    return _SHORT.repr(value)


def unknown_key(field: str, names: Sequence[str], key: object = None) -> str:
    """Return the fault of a key that isn't among ``names``.

    Args:
        field: the key with all that leads to it.
        names: those that are known.
        key: the key alone; None takes the last part of ``field``.

    >>> unknown_key("stop.env_step", ["env_steps", "return"])
    "`stop.env_step` is not a known key. Did you mean 'env_steps'?"
    >>> unknown_key("stop.when", ["env_steps", "return"])
    "`stop.when` is not a known key. Known are ['env_steps', 'return']."
    """
    hint = did_you_mean(field.rpartition(".")[2] if key is None else key, names)
    return f"`{field}` is not a known key.{hint or f' Known are {sorted(names)}.'}"


def first_line(error: BaseException | None) -> str:
    r"""Return the first line of what an error says, without a full stop; else its type.

    A line that ends with a colon is a heading, and what it is of follows.

    >>> first_line(ValueError("  two lines.\nof text")), first_line(KeyError())
    ('two lines', 'KeyError')
    >>> first_line(RuntimeError("Error(s) in loading:\n\tsize mismatch for weight."))
    'Error(s) in loading: size mismatch for weight'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    count = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:count]).rstrip(".")
