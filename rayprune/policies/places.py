"""Where policies from elsewhere lie: a zip, or ``nets.py:make@weights.pt``; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

WHOLE_MODULES: Final = (".pkl", ".pt", ".pth")
"""How files end that may hold a whole module, pickled."""


class ModuleSpec(NamedTuple):
    """Where a module's code and weights are."""

    source: str
    """A Python file, or a module's dotted name."""
    factory: str
    """What of it makes the `torch.nn.Module`: a function, or the class itself."""
    weights: Path | None = None
    """A file of ``torch.save(module.state_dict(), ...)``."""

    @classmethod
    def parse(cls, text: str) -> ModuleSpec | None:
        """Read a text; None where it isn't one of these.

        >>> ModuleSpec.parse("nets.py:make@actor.pt")
        ModuleSpec(source='nets.py', factory='make', weights=PosixPath('actor.pt'))
        >>> ModuleSpec.parse("nets.py:make@12:30/actor.pt").weights
        PosixPath('12:30/actor.pt')
        >>> ModuleSpec.parse("runs/ppo"), ModuleSpec.parse("s3://bucket/run")
        (None, None)
        """
        # A folder may be named by the time, `runs/12:30`, on either side.
        for colon in (place for place, letter in enumerate(text) if letter == ":"):
            source, (factory, _, weights) = text[:colon], text[colon + 1 :].partition("@")
            if source and factory.isidentifier():
                return cls(source, factory, Path(weights) if weights else None)
        return None

    def __str__(self) -> str:
        at = "" if self.weights is None else f"@{self.weights}"
        return f"{self.source}:{self.factory}{at}"


def is_foreign(place: Path | str) -> bool:
    """Whether a place is that of a policy from elsewhere.

    >>> is_foreign("nets.py:make"), is_foreign("runs/ppo_cartpole"), is_foreign("policy.onnx")
    (True, False, False)
    """
    named = Path(place).suffix in (".zip", *WHOLE_MODULES) or is_code(place)
    return named or ModuleSpec.parse(str(place)) is not None


def is_code(place: Path | str) -> bool:
    """Whether a place begins with a Python file, whatever of it is named.

    >>> is_code("nets.py"), is_code("nets.py:make"), is_code("package.nets:make")
    (True, True, False)
    """
    return Path(str(place).partition(":")[0]).suffix == ".py"
