from __future__ import annotations

import asyncio
import json
import socket

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

pytest.importorskip("starlette", reason="needs the extra `serve`")

from ray import serve
from starlette.requests import Request

from rayprune.deploy import open_artifact
from rayprune.errors import ConfigError, InputError
from rayprune.serve import PolicyDeployment
from rayprune.serve.ingress import PolicyIngress
from rayprune.serve.request_error import RequestError
from tests.doubles.served import Replicas

OBSERVATION = [0.1, -0.2, 0.3, 0.4]


@pytest.fixture
def replicas(opened):
    return Replicas(opened)


@pytest.fixture(params=[False, True], ids=["alone", "together"])
def ingress(replicas, catalogue, request):
    return PolicyIngress(replicas, catalogue, 2, 5.0, request.param)


def ask(ingress, path, body=None, method="POST", header=None):
    """Return the status and the JSON that HTTP would be answered with."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def receive():
        return {"type": "http.request", "body": text}

    headers = [] if header is None else [(b"x-session-id", header.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    answer = asyncio.run(ingress(Request({**scope, "query_string": b""}, receive)))
    return answer.status_code, json.loads(answer.body) if answer.body else None


def test_an_action_over_http_is_the_files_own_to_the_bit(ingress, files):
    expected = open_artifact(files["choose"]).act(np.array([OBSERVATION]))
    status, told = ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    assert (status, told["action"]) == (200, int(expected.actions[0]))
    got = np.array(told["dist_inputs"], np.float32)
    assert got.tobytes() == expected.dist_inputs[0].tobytes()


def test_a_session_remembers_as_the_file_does(ingress, files):
    direct, state, body = open_artifact(files["remember"]), None, {"session": "a", "begin": True}
    for step in range(1, 4):
        expected = direct.act(np.array([OBSERVATION]), state)
        state = expected.state
        status, told = ask(ingress, "/policies/remember/act", {"observation": OBSERVATION, **body})
        assert (status, told["session"], told["step"]) == (200, "a", step)
        assert np.array(told["action"], np.float32).tobytes() == expected.actions[0].tobytes()
        body = {"session": "a"}
    status, told = ask(ingress, "/policies/remember/act", {"observation": OBSERVATION}, header="a")
    assert (status, told["step"]) == (200, 4)
    assert ask(ingress, "/policies/remember/sessions/a", method="DELETE") == (204, None)
    assert ask(ingress, "/policies/remember/sessions/a", method="DELETE")[0] == 404
    body = {"observation": OBSERVATION, "session": "robot/7", "begin": True}
    assert ask(ingress, "/policies/remember/act", body)[0] == 200
    assert ask(ingress, "/policies/remember/sessions/robot/7", method="DELETE") == (204, None)


def test_drawn_actions_come_with_their_noise(ingress, files):
    _, told = ask(ingress, "/policies/draw/act", {"observation": OBSERVATION})
    again = {"observation": OBSERVATION, "noise": told["noise"]}
    assert ask(ingress, "/policies/draw/act", again)[1] == told
    direct = open_artifact(files["draw"])
    noise = np.array([told["noise"]], np.float32)
    assert told["action"] == int(direct.act(np.array([OBSERVATION]), noise=noise).actions[0])


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "told"),
    [
        ("choose", {"observation": [0.0]}, 400, "observation", "shape [4], but has [1]"),
        ("choose", b'{"observation": [NaN, 0, 0, 0]}', 400, "observation", "nan at [0]"),
        ("chose", {"observation": OBSERVATION}, 404, "policy", "Did you mean 'choose'?"),
        ("remember", {"observation": OBSERVATION}, 400, "session", "because policy 'remember'"),
        ("remember", {"observation": OBSERVATION, "session": "z"}, 404, "session", "called 'z'"),
        ("remember", {"observation": OBSERVATION, "session": 1}, 400, "session", "must be a text"),
        ("choose", {"observation": OBSERVATION, "begin": True}, 400, "begin", "beside a `session`"),
        ("choose", {"observation": OBSERVATION, "noise": [0]}, 400, "noise", "acts greedily"),
        ("choose", {"observatoin": OBSERVATION}, 400, "observatoin", "mend its name"),
        ("choose", {}, 400, "observation", "must be given"),
        ("choose", [1], 400, None, "one JSON object"),
        ("choose", b"{", 400, None, "must be JSON"),
        ("choose", b"[" * 100_000, 400, None, "nested too deeply"),
        ("choose", b" " * 1_100_000 + b"{}", 413, None, "at most 1,048,832 bytes"),
        ("choose", {"observation": OBSERVATION, "begin": [[]]}, 400, "begin", "but is [[]]"),
    ],
)
def test_a_wrong_request_is_told_what_to_send(ingress, path, body, status, field, told):
    got, answer = ask(ingress, f"/policies/{path}/act", body)
    assert (got, answer["error"]["field"]) == (status, field), answer
    assert told in answer["error"]["message"]


def test_an_action_made_of_nan_is_none(ingress, opened, monkeypatch):
    nan = [np.array([0]), np.full((1, 3), np.nan, np.float32)]
    monkeypatch.setattr(opened["choose"], "act", lambda items: [nan])
    status, told = ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    assert (status, told["error"]["field"]) == (422, "observation")
    assert "makes NaN of it" in told["error"]["message"]


def test_an_infinite_action_is_none_and_an_infinite_logit_is_null(ingress, opened, monkeypatch):
    def answered(action, *logits):
        made = [np.array([action]), np.array([logits], np.float32)]
        monkeypatch.setattr(opened["choose"], "act", lambda items: [made])
        return ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})

    status, told = answered(np.float32("inf"), 1.0)
    assert (status, told["error"]["field"]) == (422, "observation")
    assert "makes an infinite action of it" in told["error"]["message"]
    # A masked choice; JSON has no infinity.
    status, told = answered(1, -np.inf, 0.5)
    assert (status, told["action"], told["dist_inputs"]) == (200, 1, [None, 0.5])


def test_what_is_served_can_be_asked(ingress):
    ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    ask(ingress, "/policies/choose/act", {})
    status, told = ask(ingress, "/policies", method="GET")
    assert (status, told["policies"]) == (200, ["choose", "draw", "remember"])
    assert (told["counts"]["served"], told["counts"]["refused"]) == (1, 1)
    _, told = ask(ingress, "/policies/choose", method="GET")
    assert told["interface"]["observations"] == [{"name": "obs", "shape": [4], "dtype": "float32"}]
    _, example = ask(ingress, "/policies/remember/example", method="GET")
    assert ask(ingress, "/policies/remember/act", example)[0] == 200
    status, told = ask(ingress, "/nothing", method="GET")
    assert status == 404
    assert "POST /policies/NAME/act" in told["error"]["message"]


def test_what_a_lost_replica_has_not_answered_is_sent_to_another(ingress, replicas):
    replicas.faults = [ActorDiedError(), ActorUnavailableError("gone", b"0" * 16)]
    status, told = ask(
        ingress,
        "/policies/remember/act",
        {"observation": OBSERVATION, "session": "a", "begin": True},
    )
    assert (status, told["step"], len(replicas.calls)) == (200, 1, 3)
    assert ingress.policies()["counts"]["sent_again"] == 2


def test_a_file_that_is_gone_is_no_fault_of_the_request(ingress, replicas):
    replicas.faults = [InputError("The file has changed.")]
    status, told = ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    assert (status, told["error"]["message"]) == (503, "The file has changed.")


def test_a_fault_of_ours_is_told_and_counted_as_one(ingress, replicas):
    replicas.faults = [KeyError("nothing known")]
    status, told = ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    assert status == 500
    assert told["error"]["message"].startswith("The policy failed: KeyError: 'nothing known'")
    assert ingress.policies()["counts"]["failed"] == 1


def test_a_client_that_leaves_in_the_middle_is_no_fault_of_ours(ingress):
    received = iter(
        [
            {"type": "http.request", "body": b'{"observation": [', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive():
        return next(received)

    scope = {"type": "http", "method": "POST", "path": "/policies/choose/act", "headers": []}
    answer = asyncio.run(ingress(Request({**scope, "query_string": b""}, receive)))
    assert answer.status_code == 400
    assert ingress.policies()["counts"]["failed"] == 0


@pytest.mark.parametrize("silent", [False, True])
def test_a_request_is_not_kept_for_ever(replicas, catalogue, monkeypatch, silent):
    ingress = PolicyIngress(replicas, catalogue, sessions=2, patience_s=0.1)
    replicas.faults = [ActorDiedError() for _ in range(99)]
    if silent:
        monkeypatch.setattr(replicas, "remote", lambda *given: asyncio.sleep(60))
    status, told = ask(ingress, "/policies/choose/act", {"observation": OBSERVATION})
    assert status == 503
    assert "No replica has answered for policy 'choose' within 0.1 s" in told["error"]["message"]


def test_a_session_s_requests_take_turns(ingress):
    async def both():
        first = ingress.act("remember", OBSERVATION, session="a", begin=True)
        await first
        return await asyncio.gather(
            *(ingress.act("remember", OBSERVATION, session="a") for _ in range(3))
        )

    assert [told["step"] for told in asyncio.run(both())] == [2, 3, 4]


def test_a_handle_raises_what_http_tells(ingress):
    with pytest.raises(RequestError, match="shape"):
        asyncio.run(ingress.act("choose", [1.0]))


def test_settings_are_checked_all_at_once(files):
    with pytest.raises(ConfigError) as caught:
        PolicyDeployment(
            replicas=0,
            batch=5000,
            wait_ms=float("inf"),
            patience_s=0,
            health_s="often",
            stack="some",
        )
    assert [fault.split("`")[1] for fault in caught.value.faults] == [
        "replicas",
        "batch",
        "wait_ms",
        "patience_s",
        "health_s",
        "stack",
    ]
    assert isinstance(PolicyDeployment().bind([files["choose"]]), serve.Application)


def test_it_listens_itself_answers_what_it_has_taken_and_gives_the_port_back(replicas, catalogue):
    ingress = PolicyIngress(replicas, catalogue, sessions=2, patience_s=5.0)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            asyncio.run(ingress.reconfigure({"host": "127.0.0.1", "port": port}))

    async def asked():
        await ingress.reconfigure({"host": "127.0.0.1", "port": port})
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"observation": OBSERVATION})
        head = f"POST /policies/choose/act HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
        writer.write(f"{head}\r\n\r\n{body}".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        told = json.loads(await reader.readexactly(length))
        writer.close()
        await ingress.close()
        return answer, told

    answer, told = asyncio.run(asked())
    assert answer.startswith("http/1.1 200")
    assert told["policy"] == "choose"
    socket.create_server(("127.0.0.1", port)).close()


def test_several_ingresses_can_not_listen_at_one_place(files):
    with pytest.raises(ConfigError, match="`listen` must be left out"):
        PolicyDeployment(ingresses=2).bind([files["choose"]], ("127.0.0.1", 8000))
