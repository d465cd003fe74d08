"""`PolicyIngress`: takes requests, checks them, holds sessions, sends again what a replica lost.

::

    POST   /policies/NAME/act              {"observation": [...], "session": "a", "begin": true}
    DELETE /policies/NAME/sessions/ID
    GET    /policies                       what is served, and counts
    GET    /policies/NAME                  a policy's interface, hash and source
    GET    /policies/NAME/example          a body that `act` takes
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

import numpy as np
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.runs import draw_noise
from rayprune.errors import RaypruneError, RunError
from rayprune.reasons import found_in, reason_of
from rayprune.serve.act_request import ActRequest, read_body
from rayprune.serve.catalogue import Catalogue, PolicyFile, look_up
from rayprune.serve.example import example_body
from rayprune.serve.listener import Listener
from rayprune.serve.metrics import IngressMetrics
from rayprune.serve.observations import noise_input, observation_inputs
from rayprune.serve.request_error import RequestError
from rayprune.serve.sessions import Session, Sessions
from rayprune.serve.shared_calls import SharedCalls

_LOST: Final = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
"""What Ray raises when a replica is gone, or can't be reached, before it has answered."""
_PAUSE_S: Final = 0.05
_SPARE, _A_NUMBER = 2**20, 64
"""Bytes of a request's body: beside its numbers, and of each number."""
_LOG: Final = logging.getLogger(__name__)
QUEUE: Final = 4096
"""Requests that one ingress answers at a time; what comes on top waits, or is told to."""


class PolicyIngress:
    """The part of the application that HTTP and handles talk to; a class for Serve's deployments.

    A request that it has taken is answered even if the replica that was to act is lost: acting
    changes nothing in a replica, so the request is sent to another.

    Args:
        replicas: the deployment of `rayprune.serve.replica.PolicyReplica`.
        catalogue: what is served.
        sessions: how many are held.
        patience_s: how long a request waits for a replica's answer, and is sent again where
            replicas are lost.
        together: whether requests that wait are sent in one call, whatever their policies; of
            several replicas each would have to have all of them open.
    """

    def __init__(
        self,
        replicas: DeploymentHandle[Any],
        catalogue: Catalogue,
        sessions: int,
        patience_s: float,
        together: bool = False,
    ) -> None:
        self._catalogue, self._patience_s = catalogue, patience_s
        self._sessions = Sessions(sessions)
        self._metrics = IngressMetrics()
        self._replicas = replicas
        self._handles: dict[str, DeploymentHandle[Any]] = {}
        self._shared = SharedCalls(replicas.act_many.remote) if together else None
        self._listener = Listener(self, QUEUE)
        self._draw = np.random.default_rng()

    async def act(
        self,
        policy: str,
        observation: Any,
        *,
        session: str | None = None,
        begin: bool = False,
        noise: Any = None,
    ) -> dict[str, Any]:
        """Act on one observation.

        Args:
            policy: its name.
            observation: raw, as the environment gives it, nested as the space is, without a batch.
            session: which episode this is a step of; policies with a recurrent state need it.
            begin: the episode begins here.
            noise: of a policy that draws its actions; None to have it drawn here.

        Returns:
            ``{"policy", "action", "dist_inputs"}`` as NumPy has them, ``"noise"`` where there is
            one, ``"session"`` and ``"step"`` where one was given.

        Raises:
            RequestError: the request is wrong, and says how to mend it.
            RaypruneError: the policy's file can't be opened any more.
        """
        started = time.perf_counter()
        asked = ActRequest(observation, session, begin, noise)
        asked.check()
        held = look_up(self._catalogue, policy)
        told = await self._answer(held, asked)
        self._metrics.served(policy, 1000 * (time.perf_counter() - started))
        return told

    async def reconfigure(self, listens: Mapping[str, Any]) -> None:
        """Listen for HTTP in this process; Serve calls it with the deployment's `user_config`.

        Args:
            listens: ``{"host": ..., "port": ...}``.
        """
        await self._listener.close()
        await self._listener.open(**listens)

    async def close(self) -> None:
        """Take no more HTTP; return once what was taken is answered."""
        await self._listener.close()

    def end_session(self, policy: str, session: str) -> None:
        """End a session, so that its place is free.

        Raises:
            RequestError: there is none.
        """
        self._sessions.end(look_up(self._catalogue, policy), session)
        self._tell_sessions()

    def policies(self) -> dict[str, Any]:
        """Return what is served, and what has been counted here."""
        return {
            "policies": sorted(self._catalogue),
            "sessions": {"held": len(self._sessions), "forgotten": self._sessions.forgotten},
            "counts": {**self._metrics.counts},
        }

    async def __call__(self, request: Request) -> Response:
        """Answer HTTP."""
        status, told = await self._told(request)
        self._metrics.answered(status)
        if status == 204:
            return Response(status_code=status)
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse(told, status, headers)

    async def _told(self, request: Request) -> tuple[int, Any]:
        try:
            return await self._route(request)
        except RequestError as error:
            return error.status, error.to_dict()
        except Exception as error:
            # Ray's own wrap those of a replica.
            refused = found_in(error, RequestError)
            if refused is not None:
                return refused.status, refused.to_dict()
            failed = found_in(error, RaypruneError)
            if failed is not None or isinstance(error, BackPressureError):
                message = str(failed) if failed is not None else reason_of(error)
                return 503, RequestError(message, 503).to_dict()
            _LOG.exception("A request failed.")
            message = f"The policy failed: {reason_of(error)}. The server's log has more."
            return 500, RequestError(message, 500).to_dict()

    async def _route(self, request: Request) -> tuple[int, Any]:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        match request.method, path.strip("/").split("/"):
            case "POST", ["policies", name, "act"]:
                body = await _body(request, look_up(self._catalogue, name))
                asked = read_body(body, request.headers.get("x-session-id"))
                return 200, _plain(await self.act(name, **asked))
            case "DELETE", ["policies", name, "sessions", *session] if session:
                self.end_session(name, "/".join(session))
                return 204, None
            case "GET", ["policies"]:
                return 200, self.policies()
            case "GET", ["policies", name]:
                return 200, look_up(self._catalogue, name).to_dict()
            case "GET", ["policies", name, "example"]:
                return 200, example_body(look_up(self._catalogue, name))
            case method, _:
                raise RequestError(
                    f"There is no {method} {path}. There are POST /policies/NAME/act, DELETE "
                    "/policies/NAME/sessions/ID, GET /policies, GET /policies/NAME and GET "
                    "/policies/NAME/example.",
                    404,
                )

    async def _answer(self, policy: PolicyFile, asked: ActRequest) -> dict[str, Any]:
        observed = observation_inputs(policy, asked.observation)
        noise = self._noise(policy, asked)
        async with self._session(policy, asked) as session:
            state = [] if session is None else list(session.state.values())
            action, dist_inputs, *following = await self._send(
                policy.name, [*observed, *noise, *state]
            )
            _require_numbers(policy, action, dist_inputs)
            told = {"policy": policy.name, "action": action[0], "dist_inputs": dist_inputs[0]}
            if noise:
                told["noise"] = noise[0][0]
            if session is not None:
                session.follow(policy, following)
                told |= {"session": asked.session, "step": session.steps}
            return told

    def _noise(self, policy: PolicyFile, asked: ActRequest) -> list[Array]:
        if asked.noise is not None:
            return [noise_input(policy, asked.noise)]
        return draw_noise(policy.interface, 1, int(self._draw.integers(2**63)))

    @contextlib.asynccontextmanager
    async def _session(
        self, policy: PolicyFile, asked: ActRequest
    ) -> AsyncIterator[Session | None]:
        if asked.session is None:
            if policy.interface.states:
                raise RequestError(
                    f"`session` must be given, because policy {policy.name!r} remembers: a text of "
                    'your choice, with `"begin": true` at an episode\'s first step.',
                    400,
                    "session",
                )
            yield None
            return
        if asked.begin:
            session = self._sessions.begin(policy, asked.session)
        else:
            session = self._sessions.get(policy, asked.session)
        self._tell_sessions()
        async with session.turn:
            yield session

    async def _send(self, name: str, inputs: list[Array]) -> list[Array]:
        """Have a replica act; where it is lost before it has answered, have another one act."""
        until = time.monotonic() + self._patience_s
        while (left := until - time.monotonic()) > 0:
            try:
                return await asyncio.wait_for(self._acted(name, inputs), left)
            except asyncio.TimeoutError:
                break
            except _LOST:
                self._metrics.sent_again()
            await asyncio.sleep(_PAUSE_S)
        raise RunError(
            f"No replica has answered for policy {name!r} within {self._patience_s:g} s. They may "
            "be starting; ask again, and look at Ray Serve's status."
        )

    async def _acted(self, name: str, inputs: list[Array]) -> list[Array]:
        answer = None if self._shared is None else await self._shared.act(name, inputs)
        if answer is None:
            answer = cast("list[Array]", await self._handle(name).act.remote(name, inputs))
        return answer

    def _handle(self, name: str) -> DeploymentHandle[Any]:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = self._replicas.options(multiplexed_model_id=name)
        return handle

    def _tell_sessions(self) -> None:
        self._metrics.sessions(len(self._sessions), self._sessions.forgotten)


async def _body(request: Request, policy: PolicyFile) -> bytes:
    """Return a request's body, of which no more is held than its policy's inputs may take.

    Raises:
        RequestError: it is longer.
    """
    numbers = sum(math.prod(port.shape) for port in policy.interface.inputs)
    most, held = _SPARE + _A_NUMBER * numbers, bytearray()
    with contextlib.suppress(ClientDisconnect):  # half of the JSON is told as such, to nobody
        async for part in request.stream():
            held += part
            if len(held) > most:
                raise RequestError(
                    f"The body must be of at most {most:,} bytes, which is plenty for the "
                    f"{numbers:,} numbers that policy {policy.name!r} reads, but is longer. Send "
                    "one observation.",
                    413,
                )
    return bytes(held)


def _require_numbers(policy: PolicyFile, action: Array, dist_inputs: Array) -> None:
    made = "NaN" if np.isnan(dist_inputs).any() else None
    if made is None and not np.isfinite(action).all():
        made = "an infinite action"
    if made is not None:
        raise RequestError(
            f"`observation` must be one that policy {policy.name!r} makes numbers of, but "
            f"it makes {made} of it. Send what the environment gives, at its scale.",
            422,
            "observation",
        )


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as JSON has it: a float32 as the float64 of the same value."""
    return {
        key: _listed(value) if isinstance(value, (np.ndarray, np.generic)) else value
        for key, value in told.items()
    }


def _listed(value: Any) -> Any:
    """Return an array as lists; JSON has no infinity, so that it is null.

    >>> _listed(np.float32([0.5, -np.inf]))
    [0.5, None]
    """
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        held = value.astype(object)
        held[~np.isfinite(value)] = None
        return held.tolist()
    return value.tolist()
