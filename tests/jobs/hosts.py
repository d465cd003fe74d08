"""Real hosts on one machine: network, process and mount namespaces, joined by a bridge.

Each host has its own address, ``/proc``, ``/dev/shm`` and ``/tmp/ray``, and shares the rest of the
file system. It needs root.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
SHELL = """
mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm
mkdir -p /tmp/ray && mount --bind {files} /tmp/ray
hostname {name} && printf '127.0.0.1 localhost\n{address} {name}\n' > /tmp/ray/hosts
# Gloo, over which Learners talk, listens at the address of the host's own name.
mount --bind /tmp/ray/hosts /etc/hosts
exec "$@"
"""
MEMORY = 100_000_000
"""Bytes of a node's object store: the least that Ray takes is 75 MiB."""


def possible() -> bool:
    """Whether this process may make hosts."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("ip"):
        return False
    made = subprocess.run(["unshare", "-n", "-p", "-m", "-u", "-f", "true"], capture_output=True)
    return made.returncode == 0


class Hosts:
    """Hosts that run one Ray node each; made by `hosts`."""

    def __init__(self, count: int) -> None:
        number = os.getpid()
        # An interface's name has at most 15 characters.
        self._tag = f"rp{number % 100_000}"
        self._net = f"10.{64 + number % 128}.{number // 128 % 256}"
        self._count = count
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the head takes jobs."""
        return f"http://{self.ip(0)}:8265"

    @property
    def gcs(self) -> str:
        """Where nodes and drivers join."""
        return f"{self.ip(0)}:6379"

    def ip(self, host: int) -> str:
        return f"{self._net}.{host + 1}"

    def make(self) -> None:
        _ip("link", "add", self._tag, "type", "bridge")
        _ip("addr", "add", f"{self._net}.254/24", "dev", self._tag)
        _ip("link", "set", self._tag, "up")
        for host in range(self._count):
            space, wire = self._space(host), self._wire(host)
            _ip("netns", "add", space)
            _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", wire, "master", self._tag, "up")
            _ip("-n", space, "addr", "add", f"{self.ip(host)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "route", "add", "default", "via", f"{self._net}.254")

    def unmake(self) -> None:
        for host in list(self._nodes):
            self.kill(host)
        for host in range(self._count):
            # First, and by name: a space lives on while a process in it is still dying.
            subprocess.run(["ip", "link", "del", self._wire(host)], capture_output=True)
            subprocess.run(["ip", "netns", "del", self._space(host)], capture_output=True)
        subprocess.run(["ip", "link", "del", self._tag], capture_output=True)

    def start(
        self,
        host: int,
        cpus: int,
        environment: Mapping[str, str],
        log: Path,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        """Start a host's Ray node: the first host's is the head. Ray's logs stay beside `log`."""
        role = ["--head", "--port=6379", "--dashboard-host=0.0.0.0"]
        role = role if host == 0 else [f"--address={self.gcs}"]
        command = [
            *(str(BIN / "ray"), "start", *role, f"--node-ip-address={self.ip(host)}"),
            *(f"--num-cpus={cpus}", f"--object-store-memory={MEMORY}"),
            *("--disable-usage-stats", "--block", f"--resources={json.dumps(resources or {})}"),
        ]
        with log.open("wb") as file:
            self._nodes[host] = subprocess.Popen(
                [*self.enter(host, log.parent), *command],
                stdout=file,
                stderr=file,
                # Ray's files would else be in a directory that the hosts share.
                env={**cleaned(), **environment, "TMPDIR": "/tmp"},
                cwd=ROOT,
            )

    def enter(self, host: int, place: Path) -> list[str]:
        """Return what to put before a command that shall run on a host.

        Args:
            host: its number.
            place: where the folder that it takes for `/tmp/ray` is made.
        """
        name, address = f"host{host}", self.ip(host)
        _ip("link", "set", self._wire(host), "up")
        files = tempfile.mkdtemp(prefix=f"host{host}-", dir=place)
        shell = SHELL.format(name=name, address=address, files=shlex.quote(files))
        spaces = ["unshare", "-p", "-m", "-u", "-f", "--kill-child"]
        return [
            *("ip", "netns", "exec", self._space(host), *spaces),
            *("bash", "-ec", shell, name),
        ]

    def kill(self, host: int) -> None:
        """Cut a host's power: its connections aren't closed, they fall silent."""
        node = self._nodes.pop(host)
        _ip("link", "set", self._wire(host), "down")
        node.kill()
        node.wait()

    def run(self, host: int, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in a host's network."""
        return subprocess.Popen(["ip", "netns", "exec", self._space(host), *command], **options)

    def _space(self, host: int) -> str:
        return f"{self._tag}h{host}"

    def _wire(self, host: int) -> str:
        return f"{self._tag}v{host}"


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """Give that many hosts; take them and all that runs on them away again."""
    made = Hosts(count)
    try:
        made.make()
        yield made
    finally:
        made.unmake()


def cleaned() -> dict[str, str]:
    """Return the environment without what would lead Ray elsewhere; tokens are off, explicitly."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{BIN}:{os.environ['PATH']}"
    # A node and its agents have 30 s to start: little where several share one busy core.
    patience = {"RAY_raylet_start_wait_time_s": "200", "RAY_agent_register_timeout_ms": "200000"}
    return {**kept, **patience, "PATH": path, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def wait_for_nodes(url: str, count: int, token: str | None = None) -> None:
    """Wait until the head's dashboard knows of just that many nodes alive."""

    def reached() -> bool:
        summary = ask(f"{url}/nodes?view=summary", token)["data"]["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in summary) == count

    _wait(reached, f"{count} nodes were not what {url} knew of")


def wait_for_agent(url: str, token: str | None = None) -> None:
    """Wait until the head takes a job, one that does nothing: it comes up before it can."""
    nothing = json.dumps({"entrypoint": "true"}).encode()
    _wait(lambda: bool(ask(f"{url}/api/jobs/", token, nothing)), f"{url} took no job")


def ask(url: str, token: str | None, posted: bytes | None = None) -> Any:
    """Return what a head answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if posted is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=posted, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _wait(ready: Callable[[], bool], what: str, limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except (urllib.error.URLError, OSError, KeyError, ValueError):
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{what} within {limit_s:g} s")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
