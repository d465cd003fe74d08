"""Policies on a real Ray Serve: many a replica, under load, and with a replica killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprune.deploy import open_artifact
from tests.command_line import start
from tests.doubles import policies
from tests.doubles.served import write
from tests.serve.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]  # Serve takes ten seconds to start


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._held = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
        self._held.request(method, path, None if body is None else json.dumps(body))
        answer = self._held.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def act(self, policy: str, **body: Any) -> tuple[int, Any]:
        return self.ask(f"/policies/{policy}/act", body)


def observations(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


def wait_for_all(counts: list[int], more: int) -> None:
    """Wait until each has counted on so far."""
    goals, until = [count + more for count in counts], time.monotonic() + 240
    while any(count < goal for count, goal in zip(counts, goals, strict=True)):
        assert time.monotonic() < until, counts
        time.sleep(0.02)


@pytest.fixture
def app(port: int) -> Iterator[Any]:
    from ray import serve

    from rayprune.serve import PolicyDeployment

    def run(artifacts: list[Any], **options: Any) -> Any:
        return serve.run(PolicyDeployment(**options).bind(artifacts), name="tested")

    yield run
    serve.delete("tested")


def stats() -> dict[str, int]:
    from ray import serve

    counted: dict[str, int] = (
        serve.get_deployment_handle("policies", "tested").stats.remote().result()
    )
    return counted


def test_policies_of_unlike_spaces_act_as_their_files_to_the_bit(app, port, files, tmp_path):
    big = write(tmp_path / "image.pt2", policies.image())
    handle = app([*files.values(), big], loaded=2)
    client = Client(port)
    for name in ("choose", "remember"):
        direct, state, begin = open_artifact(files[name]), None, {"session": "a", "begin": True}
        for observation in observations(5):
            expected = direct.act(observation[None], state)
            state = expected.state
            status, told = client.act(name, observation=observation.tolist(), **begin)
            assert status == 200, told
            got = np.array(told["dist_inputs"], np.float32)
            assert got.tobytes() == expected.dist_inputs[0].tobytes()
            begin = {"session": "a"}
    image = np.random.default_rng(0).normal(size=(84, 84, 4)).astype(np.float32)
    told = handle.act.remote("image", image).result()
    expected = open_artifact(big).act(image[None])
    assert told["dist_inputs"].tobytes() == expected.dist_inputs[0].tobytes()
    # Three were asked of two places.
    counted = stats()
    assert (counted["loads"], counted["open"]) == (3, 2)
    assert counted["evictions"] == 1


def test_requests_that_come_together_are_answered_together_each_as_if_alone(app, port, files):
    handle = app([files["choose"]], wait_ms=20.0)
    given = observations(64)
    answers = [handle.act.remote("choose", one) for one in given]
    direct = open_artifact(files["choose"])
    for one, answer in zip(given, answers, strict=True):
        expected = direct.act(one[None]).dist_inputs[0]
        assert answer.result()["dist_inputs"].tobytes() == expected.tobytes()
    counted = stats()
    assert counted["requests"] == 64
    assert counted["batches"] < 32


def test_no_request_is_lost_with_a_replica_that_is_killed_under_load(app, port, files):
    from ray import serve

    # Requests wait in the replicas, so that some are there when one is killed.
    app([files["choose"], files["remember"]], replicas=2, wait_ms=100.0)
    direct = open_artifact(files["choose"])
    given = observations(16)
    expected = [direct.act(one[None]).dist_inputs[0].tobytes() for one in given]
    wrong: list[Any] = []
    done, ended = [0] * 6, threading.Event()

    def load(place: int) -> None:
        client, step = Client(port), 0
        while not ended.is_set():
            i = done[place] % len(given)
            status, told = client.act("choose", observation=given[i].tolist())
            if status != 200 or np.array(told["dist_inputs"], np.float32).tobytes() != expected[i]:
                wrong.append((status, told))
            session = {"session": str(place), "begin": step == 0}
            status, told = client.act("remember", observation=given[i].tolist(), **session)
            step += 1
            if status != 200 or told["step"] != step:
                wrong.append((status, told))
            done[place] += 1

    threads = [threading.Thread(target=load, args=(place,)) for place in range(len(done))]
    for thread in threads:
        thread.start()
    killed = set()
    for _ in range(2):
        # Policies are open, and requests on their way.
        wait_for_all(done, 5)
        pid = serve.get_deployment_handle("policies", "tested").pid.remote().result()
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    wait_for_all(done, 5)
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(killed) == 2
    _, told = Client(port).ask("/policies", method="GET")
    assert told["counts"]["failed"] == 0
    assert told["counts"]["sent_again"] > 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_shows_how_to_ask_and_ends_when_it_is_told_to(files, sign):
    port = free_port()
    process = start("serve", files["choose"], f"walk={files['remember']}", "--port", port, "--json")
    told: list[str] = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("Ctrl-C"):
            break
    assert process.poll() is None, "".join(told)
    example = re.search(r"curl .*", "".join(told))[0]
    if shutil.which("curl"):
        out = subprocess.run(example, shell=True, capture_output=True, text=True, check=True).stdout
        assert json.loads(out)["policy"] == "choose"
    assert Client(port).act("walk", observation=[0.0] * 4)[0] == 400
    process.send_signal(sign)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads(out)["counts"]["refused"] == 1


def test_a_torn_file_is_told_before_serve_starts(files, tmp_path: Path):
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(files["choose"].read_bytes()[:-9])
    process = start("serve", torn)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 2, told
    assert "Copy it anew" in told
    assert "Starting" not in told


def test_a_taken_port_is_told(files):
    with socket.create_server(("127.0.0.1", 0)) as held:
        process = start("serve", files["choose"], "--port", held.getsockname()[1])
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2, told
    assert "`--port` must be free" in told
