"""Many policies on one replica of `rayprune serve`, beside one process for each of them.

    python benchmarks/serve.py [--policies 200] [--clients 1 16] [--seconds 10] [--json]

Closed loops of clients that keep their connections, each asking a policy drawn at random, as soon
as it has its last answer. Clients and servers share this machine's cores. Arms, which take turns
(the others' processes are stopped meanwhile):

- serve: `rayprune serve`'s application, all policies open on one replica, one ingress that listens
  itself;
- proxy: the same behind Serve's own proxy, as on clusters (only where it is asked for);
- processes: for each policy one process of uvicorn and ONNX Runtime, its own port, nothing checked:
  what one would write by hand. Forked from one that has imported all, so that memory is shared.

Every hundredth answer is held against the file's own, run directly. ``cpu_ms`` is the processor
time of all of an arm's processes for one request, which other load on the machine changes little.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rayprune.deploy import export_policy, open_artifact
from rayprune.deploy.policy.actions import Choose, Decide
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.policy import DeployablePolicy, Observe

SHAPES = ((4, 64, 2), (8, 64, 4), (17, 128, 6), (24, 256, 4))
"""Numbers observed, units of both hidden layers, choices."""
HELD_AGAINST = 100
KEEP_ALIVE_S = 300


class Network(nn.Module):
    """A tanh MLP, 90 % of its weights zero."""

    def __init__(self, size: int, hidden: int, choices: int) -> None:
        super().__init__()
        torch.manual_seed(size)
        first, second = nn.Linear(size, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, choices)
        self.layers = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
        with torch.no_grad():
            for parameter in self.layers.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(torch.rand_like(parameter) < 0.1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Map observations to logits."""
        return (self.layers(x),)


def write_policies(folder: Path, count: int) -> list[Path]:
    """Write so many files, of as many spaces as there are `SHAPES`."""
    made = []
    for size, hidden, choices in SHAPES:
        interface = Interface(
            observations=(Port("obs", (size,)),),
            action=Port("action", (), "int64"),
            dist_inputs=Port("dist_inputs", (choices,)),
        )
        decide = Decide(Choose([choices], several=False))
        policy = DeployablePolicy(Observe(), Network(size, hidden, choices), decide, interface)
        recorded = [np.random.default_rng(0).normal(size=(64, size)).astype(np.float32)]
        path = folder / f"of{size}.onnx"
        export_policy(policy, path, "onnx", recorded=recorded, about={})
        made.append(path)
    paths = [folder / f"policy{i:03d}.onnx" for i in range(count)]
    for i, path in enumerate(paths):
        shutil.copyfile(made[i % len(made)], path)
    return paths


class Load:
    """Clients of one arm."""

    def __init__(self, paths: Sequence[Path], places: Sequence[tuple[int, str]]) -> None:
        self.places = places
        self.artifacts = [open_artifact(path) for path in paths[: len(SHAPES)]]
        self.bodies, self.expected = [], []
        draw = np.random.default_rng(1)
        for artifact in self.artifacts:
            port = artifact.interface.observations[0]
            given = draw.normal(size=(16, *port.shape)).astype(np.float32)
            self.bodies.append([json.dumps({"observation": x.tolist()}).encode() for x in given])
            self.expected.append([artifact.act(x[None]).dist_inputs[0] for x in given])

    async def run(self, clients: int, seconds: float) -> dict[str, Any]:
        """Ask for some seconds; return what came of it."""
        times: list[float] = []
        wrong: list[Any] = []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(self._client(i, until, times, wrong) for i in range(clients)))
        held = 1000 * np.array(times)
        return {
            "clients": clients,
            "requests": len(times),
            "wrong": len(wrong),
            "per_second": round(len(times) / seconds, 1),
            "p50_ms": round(float(np.percentile(held, 50)), 2),
            "p99_ms": round(float(np.percentile(held, 99)), 2),
        }

    async def open_all(self) -> None:
        """Ask each policy once."""
        links: dict[int, Any] = {}
        for place in range(len(self.places)):
            status, _ = await self._ask(links, place, self.bodies[place % len(SHAPES)][0])
            assert status == 200
        _close(links)

    async def _client(self, seed: int, until: float, times: list[float], wrong: list[Any]) -> None:
        draw, links = random.Random(seed), {}
        while (started := time.perf_counter()) < until:
            place, i = draw.randrange(len(self.places)), draw.randrange(16)
            kind = place % len(SHAPES)
            status, body = await self._ask(links, place, self.bodies[kind][i])
            times.append(time.perf_counter() - started)
            if status != 200:
                wrong.append(status)
            elif len(times) % HELD_AGAINST == 0:
                got = np.array(json.loads(body)["dist_inputs"], np.float32)
                if got.tobytes() != self.expected[kind][i].tobytes():
                    wrong.append(place)
        _close(links)

    async def _ask(self, links: dict[int, Any], place: int, body: bytes) -> tuple[int, bytes]:
        port, path = self.places[place]
        if port not in links:
            links[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = links[port]
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(told.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(told[9:12]), await reader.readexactly(length)


def _close(links: dict[int, Any]) -> None:
    for _, writer in links.values():
        writer.close()


@contextlib.contextmanager
def proxied(paths: Sequence[Path]) -> Iterator[tuple[list[tuple[int, str]], list[int]]]:
    """Serve all on one replica, behind Serve's proxy."""
    with served(paths, proxy=True) as found:
        yield found


@contextlib.contextmanager
def served(
    paths: Sequence[Path], *, proxy: bool = False
) -> Iterator[tuple[list[tuple[int, str]], list[int]]]:
    """Serve all on one replica; yield where each is asked, and the processes that hold them."""
    import ray
    from ray import serve

    from rayprune.serve import PolicyDeployment

    (port,) = free_ports(1)
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
    options = {"host": "127.0.0.1", "port": port}
    started = {"http_options": options} if proxy else {"proxy_location": "Disabled"}
    serve.start(**started, logging_config={"log_level": "ERROR"})
    listen = None if proxy else ("127.0.0.1", port)
    try:
        serve.run(PolicyDeployment().bind(paths, listen), name="bench")
        replica = serve.get_deployment_handle("policies", "bench")
        yield (
            [(port, f"/policies/{path.stem}/act") for path in paths],
            [replica.pid.remote().result()],
        )
    finally:
        serve.shutdown()
        ray.shutdown()


@contextlib.contextmanager
def processes(paths: Sequence[Path]) -> Iterator[tuple[list[tuple[int, str]], list[int]]]:
    """Serve each in a process of its own, likewise."""
    import onnxruntime
    import uvicorn

    ports = free_ports(len(paths))
    children = []
    for path, port in zip(paths, ports, strict=True):
        child = os.fork()
        if child == 0:
            session = onnxruntime.InferenceSession(str(path), _one_thread(onnxruntime))
            # A client may not come back to a policy of 200 within uvicorn's five seconds.
            quiet: Any = {"log_level": "critical", "lifespan": "off"}
            uvicorn.run(_asgi(session), port=port, timeout_keep_alive=KEEP_ALIVE_S, **quiet)
            os._exit(0)
        children.append(child)
    try:
        for port in ports:
            _wait_for(port)
        yield [(port, "/act") for port in ports], children
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _one_thread(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _asgi(session: Any) -> Any:
    name = session.get_inputs()[0].name

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        given = np.array([json.loads(body)["observation"]], np.float32)
        action, dist_inputs = session.run(None, {name: given})
        told = {"action": action[0].tolist(), "dist_inputs": dist_inputs[0].tolist()}
        text = json.dumps(told).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


def free_ports(count: int) -> list[int]:
    """Return ports where nothing listens."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _wait_for(port: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"Nothing listens at {port}.")


def megabytes(pids: Sequence[int]) -> float:
    """Return the proportional memory of processes: pages that are shared count in parts."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(next(line for line in rollup.splitlines() if "Pss:" in line).split()[1])
    return round(total / 1024, 1)


def cpu_seconds(root: int) -> float:
    """Return the processor time of a process and all that it has started and that still runs."""
    told = Path(f"/proc/{root}/stat").read_text().rpartition(")")[2].split()
    own = (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    found = own
    for child in children:
        with contextlib.suppress(OSError):
            found += cpu_seconds(int(child))
    return found


class Arm:
    """An arm that is ready, in a process of its own that takes orders.

    Args:
        name: of it, in `ARMS`.
        paths: the policies' files.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name, started = name, time.perf_counter()
        context = multiprocessing.get_context("fork")
        self._orders, there = context.Pipe()
        self._process = context.Process(target=_hold, args=(name, paths, there))
        self._process.start()
        self.places, self.pids = self._orders.recv()
        self.load = Load(paths, self.places)
        asyncio.run(self.load.open_all())
        self.ready_s = round(time.perf_counter() - started, 1)

    def measure(self, clients: int, seconds: float) -> dict[str, Any]:
        """Ask for some seconds; return a row."""
        root = self._process.pid
        assert root is not None
        before = cpu_seconds(root)
        told = asyncio.run(self.load.run(clients, seconds))
        spent = 1000 * (cpu_seconds(root) - before) / max(told["requests"], 1)
        figures = {"cpu_ms": round(spent, 2), "mb": megabytes(self.pids)}
        return {"arm": self.name, "ready_s": self.ready_s, **told, **figures}

    def let(self, sign: signal.Signals) -> None:
        """Stop the processes that hold policies, or let them go on."""
        if self.name == "processes":
            # Each wakes up ten times a second, all together another arm's rival.
            for pid in self.pids:
                os.kill(pid, sign)

    def end(self) -> None:
        """End it."""
        self.let(signal.SIGCONT)
        self._orders.send(None)
        self._process.join()


def _hold(name: str, paths: Sequence[Path], orders: Any) -> None:
    with ARMS[name](paths) as (places, pids):
        orders.send((places, pids))
        orders.recv()


ARMS = {"processes": processes, "serve": served, "proxy": proxied}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=["processes", "serve"], choices=ARMS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_policies(Path(folder), asked.policies)
        arms = []
        try:
            for name in asked.arms:
                arms.append(Arm(name, paths))
                arms[-1].let(signal.SIGSTOP)
            for number in range(asked.rounds):
                for clients in asked.clients:
                    for arm in arms if number % 2 == 0 else arms[::-1]:
                        arm.let(signal.SIGCONT)
                        rows.append({"round": number, **arm.measure(clients, asked.seconds)})
                        arm.let(signal.SIGSTOP)
                        print(rows[-1], flush=True)
        finally:
            for arm in arms:
                arm.end()
    if asked.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
