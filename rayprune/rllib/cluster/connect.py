"""Joins a Ray cluster, or starts an own Ray; says within seconds why a cluster can't be joined."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import ray
from ray.exceptions import AuthenticationError

from rayprune.errors import ResourceError

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

LOCAL: Final = "local"
PATIENCE_S: Final = 5
"""How long a head may take to answer the first bytes."""
JOINING_S: Final = 3
"""How long it may then take to let us in; Ray itself asks for twenty seconds."""
_JOINING: Final = "RAY_gcs_server_port_wait_time_s"
"""Where Ray (2.60) looks how often to ask, about once a second."""
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The preface of HTTP/2 (RFC 9113, 3.4) and empty settings: what gRPC servers expect first."""
_SETTINGS: Final = 4
"""Type of the frame that such a server answers with."""


@contextlib.contextmanager
def on_ray(address: str | None, config: AlgorithmConfig) -> Iterator[None]:
    """Be connected to Ray inside the block; a Ray that is started for it ends with it.

    Args:
        address: as `connect_with` takes it.
        config: as `connect` does.
    """
    ours = connect(address, config)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def connect(address: str | None, config: AlgorithmConfig) -> bool:
    """Connect to Ray for an algorithm, as `connect_with` does.

    Args:
        address: as `connect_with` takes it.
        config: the algorithm that will run; an own Ray declares as many CPUs as it asks for.
    """

    def cpus() -> int:
        # RLlib itself isn't needed to join a cluster.
        from rayprune.rllib.cluster.resources import request

        return int(request(config).get("CPU", 1))

    return connect_with(address, cpus)


def connect_with(address: str | None, cpus: Callable[[], int]) -> bool:
    """Connect to Ray; return whether this call started or joined it, and so should leave it.

    Args:
        address: a cluster's address, ``"local"`` for an own Ray, or None for ``RAY_ADDRESS`` where
            that is set (a job has it) and an own Ray otherwise: whatever cluster happens to run on
            this machine is never joined by accident.
        cpus: gives how many an own Ray declares, where this machine hasn't as many.

    Raises:
        ResourceError: no Ray answers at the address, or it doesn't let this process in.
    """
    if ray.is_initialized():
        return False
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if where == LOCAL:
        # One thread an actor: several torch processes on few cores fight for them otherwise.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        most = max(os.cpu_count() or 1, cpus())
        ray.init(address=LOCAL, num_cpus=most, include_dashboard=False, **quiet)
    else:
        _check_answers(where)
        _join(where, quiet)
    _protect_token()
    return True


def _join(where: str, quiet: dict[str, Any]) -> None:
    held = os.environ.get(_JOINING)
    os.environ[_JOINING] = held or str(JOINING_S)
    try:
        ray.init(address=where, **quiet)
    except AuthenticationError as error:
        raise _refused(where) from error
    except ConnectionError as error:
        # It speaks gRPC, or the check before would have told.
        raise (_no_cluster if where == "auto" else _refused)(where) from error
    except (RuntimeError, ValueError) as error:
        raise _unfit(where, error) from error
    finally:
        if held is None:
            del os.environ[_JOINING]


def _check_answers(where: str) -> None:
    """Raise ResourceError if no head listens there: Ray itself would try for minutes."""
    if where == "auto":
        return
    parts = urlsplit(where if "://" in where else f"gcs://{where}")
    if parts.scheme in ("http", "https"):
        raise _dashboard(where)
    try:
        if parts.hostname is None or parts.port is None:
            raise ValueError("it is not of the form HOST:PORT")
        with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S) as line:
            if os.environ.get("RAY_USE_TLS") in ("1", "true"):
                return
            line.sendall(_HELLO)
            frame = line.recv(9)
    except (OSError, ValueError) as error:
        raise _no_cluster(where, str(error)) from error
    if frame.startswith(b"HTTP/"):
        raise _dashboard(where)
    if len(frame) < 9 or frame[3] != _SETTINGS:
        raise _no_cluster(where, "what listens there is not Ray")


def _no_cluster(where: str, reason: str = "none was started on this machine") -> ResourceError:
    return ResourceError(
        f"No Ray cluster answers at {where!r}: {reason.rstrip('.')}. Start one with "
        "`ray start --head`, or leave `--address` out to run on this machine."
    )


def _dashboard(where: str) -> ResourceError:
    return ResourceError(
        f"{where!r} is the address of a dashboard, which takes jobs: `rayprune submit CONFIG "
        "--address URL`. To join a cluster from one of its nodes give HEAD:6379, or `auto`."
    )


def _refused(where: str) -> ResourceError:
    return ResourceError(
        f"The Ray cluster at {where!r} does not let this process in, which is what a wrong or "
        "missing token looks like. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or "
        "RAY_AUTH_TOKEN_PATH, a file) to what `ray get-auth-token` prints on its head; for a "
        "cluster without tokens RAY_AUTH_MODE=disabled."
    )


def _unfit(where: str, error: Exception) -> ResourceError:
    told = " ".join(str(error).split()).rstrip(".")
    if "Version mismatch" not in told:
        return _no_cluster(where, told)
    return ResourceError(
        f"{told.replace('Version mismatch', f'The cluster at {where!r} has other versions')}. "
        "Use the same here, or send a job, which runs on the cluster's: `rayprune submit CONFIG`."
    )


def _protect_token() -> None:
    """Ray writes its authentication token for everybody to read."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    with contextlib.suppress(OSError):
        path.chmod(0o600)
