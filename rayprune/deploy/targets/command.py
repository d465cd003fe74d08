"""Target ``command: ...``: a user's own board, measured by a program of theirs."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.formats import FORMATS
from rayprune.deploy.targets.base import Latency, Measurement, Target
from rayprune.deploy.targets.toolchain import run
from rayprune.errors import InputError, RunError

WORD: Final = "command"
PATIENCE_S: Final = 600.0
_WHOLE: Final = ("flash_bytes", "ram_bytes", "instructions")
_KNOWN: Final = (*_WHOLE, "latency_us", "energy_uj", "self_test", "tools", "notes")
_FORM: Final = (
    "It is to print one JSON object with some of "
    f"{', '.join(_KNOWN)}; latency_us is {{'p50': ..., 'p99': ...}}."
)


class CommandTarget(Target):
    """A program that gets a file's path and prints JSON.

    Args:
        name: ``command: PROGRAM ARGUMENTS``; the path goes where ``{file}`` stands, or behind.
        options: none.
        timeout_s: how long the program may take.
    """

    reports = frozenset(_KNOWN) - {"tools", "notes"}
    line = "a board of your own: a program that gets the file and prints JSON"

    def __init__(
        self, name: str, options: Sequence[str] = (), *, timeout_s: float = PATIENCE_S
    ) -> None:
        super().__init__(name, options)
        self.formats = ("c", *(kind for kind in FORMATS if kind != "c"))
        self.timeout_s = timeout_s
        self._command = _split(name.partition(":")[2])

    def missing(self, kind: str | None = None) -> tuple[str, ...]:
        """See `Target.missing`."""
        del kind
        return ()

    def check(self, artifact: Path) -> None:
        """See `Target.check`."""
        super().check(artifact)
        if shutil.which(self._command[0]) is None:
            raise InputError(
                f"Target {self.name!r}: there is no program {self._command[0]!r} that can be run. "
                "Give its path, and make it executable."
            )

    def _measured(self, artifact: Path) -> Measurement:
        file = str(artifact.resolve())
        command = [part.replace("{file}", file) for part in self._command]
        if command == self._command:
            command.append(file)
        return self._read(self._run(command))

    def _run(self, command: list[str]) -> str:
        try:
            done = run(command, timeout_s=self.timeout_s)
        except RunError as error:
            raise RunError(f"Target {self.name!r}: {error}") from error
        except OSError as error:
            raise InputError(f"Target {self.name!r} can't be run: {error}.") from error
        if done.code:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            why = f": {lines[-1].strip()}" if lines else ", and says nothing of it"
            raise RunError(f"Target {self.name!r} ended with {done.code}{why}.")
        return done.stdout

    def _read(self, said: str) -> Measurement:
        try:
            held = json.loads(said)
        except ValueError as error:
            raise self._fault(f"is no JSON: {said.strip()[:200]!r}") from error
        if not isinstance(held, dict):
            raise self._fault(f"is no JSON object: {said.strip()[:200]!r}")
        unknown = sorted(set(held) - set(_KNOWN))
        if unknown:
            raise self._fault(f"has unknown names {unknown}")
        told = {key: value for key, value in held.items() if value is not None}
        if not set(told) - {"tools", "notes"}:
            raise self._fault("holds no figure")
        return Measurement(target=self.name, **self._checked(told))

    def _checked(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of a measurement; what is of another kind is refused by name."""
        fields: dict[str, Any] = {}
        for key, value in told.items():
            if key in _WHOLE:
                fields[key] = round(self._number(key, value))
            elif key == "energy_uj":
                fields[key] = self._number(key, value)
            elif key == "latency_us":
                fields[key] = self._latency(value)
            elif key == "self_test":
                fields[key] = self._of(bool, key, value)
            elif key == "tools":
                held = self._of(dict, key, value)
                fields[key] = {str(name): str(version) for name, version in held.items()}
            else:
                fields[key] = tuple(map(str, self._of(list, key, value)))
        return fields

    def _latency(self, value: Any) -> Latency:
        if not isinstance(value, dict) or set(value) != set(Latency._fields):
            raise self._fault(f"has `latency_us` {value!r}, which must be {{'p50', 'p99'}}")
        found = Latency(*(self._number(f"latency_us.{k}", value[k]) for k in Latency._fields))
        if found.p99 < found.p50:
            raise self._fault(f"has a p99 of {found.p99:g} below its p50 of {found.p50:g}")
        return found

    def _number(self, key: str, value: Any) -> float:
        # True is a number in Python, and NaN is one in its JSON.
        usable = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not usable or not 0 <= value < float("inf"):
            raise self._fault(f"has `{key}` {value!r}, which must be a number, 0 or more")
        return float(value)

    def _of(self, kind: type[Any], key: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise self._fault(f"has `{key}` {value!r}, which must be a {kind.__name__}")
        return value

    def _fault(self, what: str) -> RunError:
        return RunError(f"What target {self.name!r} printed {what}. {_FORM}")


def _split(text: str) -> list[str]:
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise InputError(
            f"`--target command: {text.strip()}` can't be read: {error}. Write the program as a "
            "shell takes it, quotes closed."
        ) from error
    if not parts:
        raise InputError(
            "`--target command:` must be followed by a program, as in `command: ./measure.sh`."
        )
    return parts
