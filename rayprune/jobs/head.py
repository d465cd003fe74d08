"""The head of a cluster, as jobs reach it: over HTTP, where Ray's dashboard is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from rayprune.errors import InputError, ResourceError
from rayprune.extras import require

PORT: Final = 8265
"""Ray's default of its dashboard."""
PATIENCE_S: Final = 5.0
"""How long a head may take to answer the first question."""
_ADDRESS: Final = "RAY_API_SERVER_ADDRESS"
_EXAMPLE: Final = f"http://HEAD:{PORT}"


def require_job_client() -> None:
    """Refuse early where Ray's client for jobs isn't installed."""
    require("`rayprune submit`", "jobs")


def head_url(address: str | None) -> str:
    """Return the URL that jobs are submitted to.

    Args:
        address: what ``--address`` says, which comes first, other than in Ray's own client; None
            for ``RAY_API_SERVER_ADDRESS``, and then for a ``RAY_ADDRESS`` that is a URL.

    >>> head_url("10.0.0.1"), head_url("https://ray.example.org/")
    ('http://10.0.0.1:8265', 'https://ray.example.org')

    Raises:
        InputError: there is none, or it is an address for something else.
    """
    given = address or os.environ.get(_ADDRESS) or _url_in(os.environ.get("RAY_ADDRESS"))
    if not given:
        raise InputError(
            f"Which cluster? Give its head's dashboard: `--address {_EXAMPLE}`, or set {_ADDRESS}."
        )
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if parts.scheme not in ("http", "https") or not parts.hostname or given in ("auto", "local"):
        raise InputError(
            f"`--address` must be the URL of the head's dashboard, such as {_EXAMPLE}, but is "
            f"{given!r}. Ray's other addresses are for `rayprune train --address`."
        )
    if "://" not in given and ":" not in given:
        return f"http://{given}:{PORT}"
    return parts.geturl().rstrip("/")


def _url_in(value: str | None) -> str | None:
    return value if value and value.startswith(("http://", "https://")) else None


def check_head(url: str) -> None:
    """Raise ResourceError unless a head of this Ray's release answers, and lets us in.

    Args:
        url: from `head_url`.
    """
    import requests
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )

    headers = get_auth_headers_if_auth_enabled({})
    try:
        answer = requests.get(f"{url}/api/version", headers=headers, timeout=PATIENCE_S)
    except requests.RequestException as error:
        raise _no_head(url, _told(error)) from error
    check_token(url, answer.status_code)
    try:
        version = answer.json()["ray_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_head(url, "what answers there is not Ray") from error
    check_release(url, str(version))


def _no_head(url: str, reason: str) -> ResourceError:
    return ResourceError(
        f"No Ray dashboard answers at {url!r}: {reason}. Start the head with `ray start --head "
        f"--dashboard-host=0.0.0.0` (and a token), or forward its port: `ssh -L {PORT}:localhost:"
        f"{PORT} HEAD`. Its image needs `ray[default]`."
    )


def check_token(url: str, status: int) -> None:
    """Raise ResourceError if the head's answer was that it wants another token.

    Args:
        url: where.
        status: of HTTP.
    """
    if status not in (401, 403):
        return
    told = "asks for a token" if status == 401 else "refuses this token"
    raise ResourceError(
        f"The cluster at {url!r} {told}. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or "
        "RAY_AUTH_TOKEN_PATH, a file; the default is ~/.ray/auth_token) to the cluster's: on its "
        "head, `ray get-auth-token` prints it."
    )


def check_release(url: str, theirs: str) -> None:
    """Raise ResourceError if a cluster runs another release of Ray than this process.

    RLlib's inner hooks, which the adaptor uses, move between releases.

    Args:
        url: where.
        theirs: its version, such as ``"2.60.0"``.
    """
    import ray

    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ResourceError(
            f"The cluster at {url!r} runs Ray {theirs}, but rayprune runs on Ray "
            f"{ray.__version__} here. Give the cluster an image with `ray[default,rllib]=="
            f"{ray.__version__}`."
        )


def _told(error: BaseException) -> str:
    """Return in a few words what went wrong; requests' own words hold its objects' addresses."""
    if "Timeout" in type(error).__name__:
        return f"nothing for {PATIENCE_S:g} s"
    inner = error.__cause__ or error.__context__
    return _told(inner) if inner else str(error).rstrip(".")


@contextmanager
def client(url: str) -> Iterator[Any]:
    """Give Ray's client of jobs at ``url``.

    Ray's own lets RAY_ADDRESS and RAY_API_SERVER_ADDRESS override the address that it is given.
    """
    from ray.job_submission import JobSubmissionClient

    # Else it names each file that it leaves out of the package, several times.
    logging.getLogger("ray").setLevel(logging.WARNING)
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = url
    try:
        yield JobSubmissionClient(url)
    finally:
        if before is None:
            del os.environ[_ADDRESS]
        else:
            os.environ[_ADDRESS] = before
