"""`RequestError`: a request that is refused, as HTTP and Python tell it."""

from __future__ import annotations

from typing import Any

from rayprune.errors import InputError


class RequestError(InputError):
    """A request that can't be answered, with what to send instead.

    Args:
        message: names field, constraint, value and way out.
        status: HTTP's code for it.
        field: the part of the request that it is about.

    >>> RequestError("`session` must be a text.", 400, "session").to_dict()
    {'error': {'status': 400, 'field': 'session', 'message': '`session` must be a text.'}}
    """

    def __init__(self, message: str, status: int = 400, field: str | None = None) -> None:
        # All of them: an exception is pickled by its `args`.
        super().__init__(message, status, field)
        self.message, self.status, self.field = message, status, field

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the body of HTTP's answer."""
        told = {"status": self.status, "field": self.field, "message": self.message}
        return {"error": told}
