"""The machine: GPU, Ray's cluster, W&B's login, compilers, memory and disk."""

from __future__ import annotations

import netrc
import os
import shutil
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rayprune.cli.setup.check import ABSENT, BROKEN, DOUBTFUL, OK, Check
from rayprune.deploy.measure.machine import cores, cpu
from rayprune.errors import first_line
from rayprune.extras import installed

_GIB: Final = 2**30
_LEAST_DISK: Final = 0.2 * _GIB
"""A small run's checkpoints fit into it."""
_MUCH_DISK: Final = 2 * _GIB
_FULL: Final = 0.95
"""The share of a disk from which on Ray stores no more objects there."""
_LEAST_SHARED: Final = 1 * _GIB
_LEAST_MEMORY: Final = 2 * _GIB
_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""A container's memory: cgroups of version 2 and 1."""
_PATIENCE_S: Final = 2.0
_RAYS_PORT: Final = 6379
_WANDB: Final = "https://api.wandb.ai"


def machine_checks(address: str | None, *, start_ray: bool) -> Iterator[Check]:
    """Yield the checks; one that fails itself says so.

    Args:
        address: of a Ray cluster; None for what the environment names.
        start_ray: start Ray here, and tell what it has; takes seconds.
    """
    checks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("processor", _processor),
        ("gpu", _gpu),
        ("ray", lambda: _ray(address, start_ray=start_ray)),
        ("wandb", _wandb),
        ("compilers", _compilers),
        ("disk", _disks),
    )
    for part, check in checks:
        try:
            yield from check()
        except Exception as error:  # a check must not end the others
            yield Check(part, part, DOUBTFUL, f"can't be checked: {first_line(error)}")


def _processor() -> Iterator[Check]:
    yield Check("machine", "cores", OK, f"{cores()} of {cpu()}")
    free = _available_memory()
    if free is not None:
        enough = free >= _LEAST_MEMORY
        way_out = "" if enough else "end other programs: Ray's workers take about 0.5 GiB each"
        yield Check("machine", "memory", OK if enough else DOUBTFUL, f"{_size(free)} free", way_out)


def _gpu() -> Iterator[Check]:
    if not installed("torch"):
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("machine", "gpu", OK, f"{', '.join(names)} (CUDA {torch.version.cuda})")
    elif shutil.which("nvidia-smi"):
        built = "for the CPU alone" if torch.version.cuda is None else f"for {torch.version.cuda}"
        yield Check(
            "machine",
            "gpu",
            DOUBTFUL,
            f"there is a driver, but torch {torch.__version__} ({built}) sees none",
            "install the torch for this driver: https://pytorch.org/get-started/locally",
        )
    else:
        yield Check("machine", "gpu", ABSENT, "none: policies train on the CPU")


def _ray(address: str | None, *, start_ray: bool) -> Iterator[Check]:
    address = address or os.environ.get("RAY_ADDRESS")
    if address == "auto":
        found = "whichever runs here: without one, runs end at once"
        way_out = "" if start_ray else "`--start-ray` tries it"
        yield Check("ray", "cluster", DOUBTFUL, found, way_out)
    elif address and address != "local":
        yield _reachable(address)
    elif not start_ray:
        yield Check("ray", "cluster", OK, "none named: each run starts Ray here")
    if start_ray and installed("ray"):
        yield Check("ray", "resources", OK, _resources(address))


def _reachable(address: str) -> Check:
    try:
        socket.create_connection(_host_and_port(address), _PATIENCE_S).close()
    except (OSError, ValueError) as error:  # ValueError: a port that is no number
        return Check(
            "ray",
            "cluster",
            BROKEN,
            f"{address} doesn't answer: {first_line(error)}",
            "start it (`ray start --head`), mend `--address` or RAY_ADDRESS, or unset that",
        )
    return Check("ray", "cluster", OK, f"{address} answers")


def _host_and_port(address: str) -> tuple[str, int]:
    parsed = urllib.parse.urlsplit(address if "://" in address else f"ray://{address}")
    return parsed.hostname or "127.0.0.1", parsed.port or _RAYS_PORT


def _resources(address: str | None) -> str:
    import ray

    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        held: dict[str, Any] = ray.cluster_resources()
    finally:
        ray.shutdown()
    return ", ".join(f"{held.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _wandb() -> Iterator[Check]:
    if not installed("wandb"):
        return
    url = os.environ.get("WANDB_BASE_URL", _WANDB)
    host = urllib.parse.urlsplit(url).hostname or url
    if os.environ.get("WANDB_API_KEY") or _in_netrc(host):
        yield Check("wandb", "login", OK, f"a key for {host}")
        return
    way_out = "`wandb login`, or leave `tracking.wandb: offline`, which needs none"
    yield Check("wandb", "login", ABSENT, f"no key for {host}: runs stay offline", way_out)


def _in_netrc(host: str) -> bool:
    try:
        # W&B's own variable for where it writes the key.
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _compilers() -> Iterator[Check]:
    if not installed("torch"):
        return
    from rayprune.deploy.targets import TARGETS, target_class

    for name in TARGETS:
        if name == "command":
            continue
        missing = target_class(name)(name).missing()
        found = f"lacks {', '.join(missing)}" if missing else "can be measured here"
        way_out = f"apt-get install {' '.join(missing)}" if missing else ""
        yield Check("targets", name, ABSENT if missing else OK, found, way_out)


def _disks() -> Iterator[Check]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    status = OK if free >= _MUCH_DISK else DOUBTFUL if free >= _LEAST_DISK else BROKEN
    way_out = "" if status == OK else "make room, or give `--out` on another disk"
    yield Check("disk", "runs", status, f"{_size(free)} free in {here}", way_out)
    if not os.access(here, os.W_OK):
        yield Check("disk", "writable", BROKEN, f"{here} can't be written", "give another `--out`")
    # Where Ray keeps its sessions; from there on it refuses to store objects.
    sessions = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    whole = shutil.disk_usage(sessions)
    if whole.used / whole.total >= _FULL:
        found = f"{sessions} is {whole.used / whole.total:.0%} full".replace("%", " %")
        way_out = "make room there, or set RAY_TMPDIR to a folder on another disk"
        yield Check("disk", sessions, DOUBTFUL, f"{found}: Ray stores no objects there", way_out)
    shared = Path("/dev/shm")
    if shared.is_dir():
        left = shutil.disk_usage(shared).free
        enough = left >= _LEAST_SHARED
        way_out = "" if enough else "`docker run --shm-size=2g`: without, Ray is slow"
        yield Check("disk", "/dev/shm", OK if enough else DOUBTFUL, f"{_size(left)} free", way_out)


def _available_memory() -> int | None:
    """Return the bytes that are free, no more than a container's limit; None where nobody tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # macOS
        return None
    return min([int(line.split()[1]) * 1024, *_container_limits()])


def _container_limits() -> Iterator[int]:
    for file in _LIMITS:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            yield int(text)


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB"
