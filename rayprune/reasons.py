"""Says in a line why something failed: not the envelope that came, but what is in it.

Ray, RLlib and gymnasium each raise an exception of their own around a user's, often without text.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

Error = TypeVar("Error", bound=BaseException)

RAISED: Final = (Exception, SystemExit)
"""What may come out of a user's code: ``sys.exit`` there must not choose a command's exit code."""
_OF_GYMNASIUM: Final = re.compile(r"\s*was raised from the environment creator for .*", re.DOTALL)
"""What it appends to the text of whatever an environment's constructor raised."""
_REMOTE: Final = "ray::"
_OURS: Final = Path(__file__).parent
_LIBRARIES: Final = {
    "site-packages",
    "dist-packages",
    f"python{sys.version_info.major}.{sys.version_info.minor}",
}


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, outermost first."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = _within(inner)


def found_in(error: BaseException, kind: type[Error]) -> Error | None:
    """Return the outermost exception of a kind in an exception's chain, None without one."""
    inner = (inner for inner in chain_of(error) if not _is_envelope(inner))
    return next((one for one in inner if isinstance(one, kind)), None)


def reason_of(error: BaseException) -> str:
    """Return the type, text and place of the outermost exception that has something to say.

    >>> try:
    ...     raise RuntimeError from ValueError("the sensor is lost")
    ... except RuntimeError as error:
    ...     reason_of(error)
    'ValueError: the sensor is lost'
    """
    chain = [inner for inner in chain_of(error) if not _is_envelope(inner)]
    said = next((inner for inner in chain if text_of(inner)), chain[-1])
    name, text, place = type(said).__name__, text_of(said), _place(said, quoted=not text_of(said))
    return f"{name}: {text}{place}" if text else f"{name}{place}"


def text_of(error: BaseException) -> str:
    """Return the first line of what an exception says, without a full stop; empty if nothing."""
    lines = [line.strip() for line in _OF_GYMNASIUM.sub("", str(error)).splitlines()]
    told = [line.rstrip(".") for line in lines if line]
    # The text of Ray's own errors is a remote process's traceback, and ends with the reason.
    return "" if not told else told[-1 if _REMOTE in str(error) else 0]


def _within(error: BaseException) -> BaseException | None:
    # Ray's RayTaskError holds what a remote process raised, whose own chain pickling has cut.
    remote = getattr(error, "cause", None)
    if isinstance(remote, BaseException):
        return remote
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _is_envelope(error: BaseException) -> bool:
    """Whether it is Ray's around the exception itself: also of its class, a traceback its text."""
    return isinstance(getattr(error, "cause", None), BaseException)


def _place(error: BaseException, *, quoted: bool) -> str:
    """Return where in the user's code an exception was raised, with the line if asked for."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(Path(frame.filename))]
    # Where the text is enough, a line of a library or of ours would only be noise.
    frame = next(reversed(own or (frames if quoted else [])), None)
    if frame is None or frame.filename.startswith("<"):
        return ""
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f" at {place}, `{frame.line}`" if quoted else f" ({place})"


def _is_users(file: Path) -> bool:
    return not (_LIBRARIES & set(file.parts) or _OURS in file.parents)
