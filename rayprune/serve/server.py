"""Policies served from a terminal: Ray and Serve as far as they don't run yet, and their end."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus

from rayprune.errors import InputError, ResourceError, RunError
from rayprune.reasons import reason_of
from rayprune.rllib.cluster.connect import LOCAL, connect_with
from rayprune.serve.catalogue import Catalogue
from rayprune.serve.deployment import PolicyDeployment

_LOOKS_S: Final = 5.0
_ANSWERS_S: Final = 5.0
_ENDS_S: Final = 15.0


@dataclass(frozen=True)
class Server:
    """Policies that are served over HTTP."""

    url: str
    """Where, without a slash at its end."""
    application: str

    def watch(self) -> None:
        """Return never; raise where the application is gone.

        Raises:
            RunError: it was ended elsewhere, or its Ray is gone.
        """
        while True:
            time.sleep(_LOOKS_S)
            try:
                there = serve.status().applications.get(self.application)
            except Exception as error:  # Ray's, of many kinds
                raise RunError(f"Ray can't be reached any more: {reason_of(error)}.") from error
            if there is None or there.status == ApplicationStatus.DELETING:
                raise RunError(f"The application {self.application!r} was ended elsewhere.")

    def told(self) -> dict[str, Any]:
        """Return what `GET /policies` says; empty where nothing answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/policies", timeout=_ANSWERS_S) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}


@contextlib.contextmanager
def serving(
    deployment: PolicyDeployment,
    catalogue: Catalogue,
    *,
    host: str,
    port: int,
    name: str,
    address: str | None,
) -> Iterator[Server]:
    """Serve policies inside the block; what was started for it ends with it.

    Args:
        deployment: how.
        catalogue: which.
        host: where HTTP listens. On a cluster whose Serve listens already it does so there, and
            the policies are below ``/NAME``.
        port: likewise.
        name: of the application, unlike others' on the same cluster.
        address: as `connect_with` takes it.

    Raises:
        InputError: the port or the name is taken, or the cluster is too small.
        RunError: Serve can't start the application.
    """
    for module in ("ray", "ray.serve"):
        logging.getLogger(module).setLevel(logging.ERROR)
    ours = connect_with(address, lambda: deployment.cpus)
    try:
        _check_cpus(deployment)
        # Where all is on this machine, nothing need stand between it and clients.
        where = address or os.environ.get("RAY_ADDRESS") or LOCAL
        direct = ours and where == LOCAL and deployment.ingresses == 1
        with _serve(host, port, direct=direct) as (place, own):
            prefix = "" if own else f"/{name}"
            listen = (host, port) if direct and own else None
            with _application(deployment.bind(catalogue, listen), name, prefix):
                yield Server(place + prefix, name)
    finally:
        if ours:
            ray.shutdown()


@contextlib.contextmanager
def _serve(host: str, port: int, *, direct: bool) -> Iterator[tuple[str, bool]]:
    """Have Serve run inside the block; yield the URL, and whether Serve is ours.

    Args:
        host: where HTTP listens.
        port: likewise.
        direct: the ingress listens there, and no proxy of Serve's.
    """
    client: Any = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        # Somebody's, who has chosen its place.
        held = client.http_config
        yield _url(held.host, held.port), False
        return
    _check_free(host, port)
    quiet = {"log_level": "ERROR"}
    if direct:
        serve.start(proxy_location="Disabled", logging_config=quiet)
    else:
        serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
    try:
        yield _url(host, port), True
    finally:
        serve.shutdown()


@contextlib.contextmanager
def _application(application: serve.Application, name: str, prefix: str) -> Iterator[None]:
    if name in serve.status().applications:
        raise InputError(
            f"An application {name!r} runs on this cluster already. End it, or give another "
            "`--name`."
        )
    ingress: Any = None
    try:
        try:
            ingress = serve.run(application, name=name, route_prefix=prefix or "/")
        except RuntimeError as error:
            raise RunError(f"Serve can't start the policies: {reason_of(error)}.") from error
        yield
    finally:
        # Also what has begun to start, on a Serve that may be somebody else's.
        with contextlib.suppress(Exception):  # its Ray may be gone, which was told
            if ingress is not None:
                ingress.close.remote().result(timeout_s=_ENDS_S)
            serve.delete(name)


def _url(host: str, port: int) -> str:
    """Return where a client on this machine finds what listens.

    >>> _url("0.0.0.0", 8000), _url("::1", 8000)
    ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check_free(host: str, port: int) -> None:
    """Raise InputError for a place where something listens: Serve would try for a minute."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise InputError(
                    f"`--host` must be an address of this machine, but is {host!r} "
                    f"({error.strerror}). Give 127.0.0.1, or 0.0.0.0 for all of its networks."
                ) from error
            raise InputError(
                f"`--port` must be free, but {host}:{port} can't be listened at "
                f"({error.strerror}). Give another."
            ) from error


def _check_cpus(deployment: PolicyDeployment) -> None:
    there = ray.cluster_resources().get("CPU", 0)
    if there < deployment.cpus:
        raise ResourceError(
            f"Serving takes {deployment.cpus} CPUs, one for each of {deployment.replicas} replicas "
            f"and {deployment.ingresses} ingresses, but the cluster has {there:g}. Give fewer "
            "`--replicas`."
        )
