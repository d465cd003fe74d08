"""Ray nodes that are processes on one machine, where hosts of their own can't be made.

They share the address and ``/proc``, so that a node's death is that of its processes alone, and no
network goes with it. Each has a directory of its own in place of ``/tmp/ray``: in a shared one a
node's agent unpacks a job's working directory over that of the others, under a running driver.

`Processes` is to be used as `tests.jobs.hosts.Hosts` is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.jobs.hosts import MEMORY, ROOT, cleaned


class Processes:
    """Nodes that one child process starts and kills; made by `processes`."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        # Not beside the test's files: paths of sockets have at most 107 characters.
        self._files = Path(tempfile.mkdtemp(prefix="rp", dir="/tmp"))
        self.url = ""

    def start(
        self,
        host: int,
        cpus: int,
        environment: Mapping[str, str],
        log: Path,
        resources: Mapping[str, float],
    ) -> None:
        """Start a node: the first one is the head, which takes jobs. Its URL is then in `url`."""
        if self._child is None:
            self._child = _child(environment, log)
        files = self._files / f"node{host}"
        node = {"num_cpus": cpus, "resources": dict(resources), "object_store_memory": MEMORY}
        node["temp_dir"] = str(files)
        if host == 0:
            # Any free port: another Ray's head on this machine may hold the usual one.
            node["dashboard_agent_listen_port"] = None
            node |= {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
        self.url = f"http://{self._tell('start', host, node)}"

    def kill(self, host: int) -> None:
        """Kill a node's processes, without a warning."""
        self._tell("kill", host, {})

    def end(self) -> None:
        """Kill what is left."""
        if self._child is not None:
            self._child.communicate(timeout=60)
        shutil.rmtree(self._files, ignore_errors=True)

    def _tell(self, verb: str, host: int, node: Mapping[str, Any]) -> str:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps([verb, host, node]) + "\n")
        child.stdin.flush()
        answer = child.stdout.readline()
        assert answer, f"the process of the nodes ended with {child.wait()}"
        return str(json.loads(answer))


@contextmanager
def processes() -> Iterator[Processes]:
    """Give nodes; take them away again."""
    made = Processes()
    try:
        yield made
    finally:
        made.end()


def _child(environment: Mapping[str, str], log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**cleaned(), **environment},
            cwd=ROOT,
            text=True,
        )


def _serve() -> None:
    """Start and kill nodes as the lines of the standard input say, and tell the head's address."""
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    # Ray prints; the answers must stay alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster, nodes = Cluster(), {}
    for line in sys.stdin:
        verb, host, arguments = json.loads(line)
        if verb == "start":
            nodes[host] = cluster.add_node(wait=False, **arguments)
            # As `ray start --head` does: Ray looks there for the cluster of a job, and would take
            # any that it finds running on this machine.
            write_ray_address(cluster.address, arguments["temp_dir"])
        else:
            cluster.remove_node(nodes.pop(host), allow_graceful=False)
        print(json.dumps(cluster.webui_url), file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
