"""What a request to act holds, and how its JSON is read."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from rayprune.errors import shown
from rayprune.serve.request_error import RequestError

_KEYS: Final = ("observation", "session", "begin", "noise")
_LONGEST: Final = 200
"""Characters of a session's name."""


class ActRequest(NamedTuple):
    """A request to act, its parts of the right types."""

    observation: Any
    session: str | None = None
    begin: bool = False
    noise: Any = None

    def check(self) -> None:
        """Refuse a part of another type.

        Raises:
            RequestError: says which.
        """
        if self.session is not None and not (
            isinstance(self.session, str) and 0 < len(self.session) <= _LONGEST
        ):
            raise RequestError(
                f"`session` must be a text of 1 to {_LONGEST} characters, but is "
                f"{shown(self.session)}.",
                400,
                "session",
            )
        if not isinstance(self.begin, bool):
            raise RequestError(
                f"`begin` must be true or false, but is {shown(self.begin)}.", 400, "begin"
            )
        if self.begin and self.session is None:
            raise RequestError(
                "`begin` must stand beside a `session`, but there is none. Name the session, too.",
                400,
                "begin",
            )


def read_body(body: bytes, header: str | None = None) -> dict[str, Any]:
    """Return the arguments of `PolicyIngress.act` that a request's JSON holds.

    Args:
        body: JSON.
        header: the session that ``x-session-id`` names, if it is given.

    Raises:
        RequestError: it isn't JSON, or has other keys.
    """
    try:
        held = json.loads(body)
    except RecursionError:
        raise RequestError(
            "The body must be nested as the environment's observations are, but is nested too "
            "deeply to be read.",
            400,
        ) from None
    except ValueError as error:
        raise RequestError(
            f'The body must be JSON such as {{"observation": [0.0, 0.0]}}, but isn\'t: {error}.',
            400,
        ) from None
    if not isinstance(held, dict):
        raise RequestError(
            'The body must be one JSON object such as {"observation": [0.0, 0.0]}, but is '
            f"{type(held).__name__}.",
            400,
        )
    more = sorted(set(held) - set(_KEYS))
    if more:
        raise RequestError(
            f"The body's keys must be of {list(_KEYS)}, but {more[0]!r} is among them. Leave it "
            "out, or mend its name.",
            400,
            more[0],
        )
    if "observation" not in held:
        raise RequestError("`observation` must be given, but isn't.", 400, "observation")
    if header is not None and held.setdefault("session", header) != header:
        raise RequestError(
            f"`session` must be what the header x-session-id says, {header!r}, but is "
            f"{shown(held['session'])}. Give one of the two.",
            400,
            "session",
        )
    return held
