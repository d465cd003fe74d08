"""`PolicyDeployment`: exported policies as an application of Ray Serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import LoggingConfig

from rayprune.errors import ConfigError
from rayprune.pruning.checks import is_finite
from rayprune.serve.catalogue import Catalogue, read_catalogue
from rayprune.serve.ingress import QUEUE, PolicyIngress
from rayprune.serve.opened_policy import Stack
from rayprune.serve.replica import PolicyReplica

LARGEST_BATCH: Final = 1024
_BY_SESSION: Final = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


@dataclass(frozen=True, kw_only=True)
class PolicyDeployment:
    """How policies are served.

    ::

        handle = serve.run(PolicyDeployment(replicas=2).bind(["cartpole.onnx", "walk=policy.c"]))
        answer = await handle.act.remote("cartpole", observation)

    Raises:
        ConfigError: a value is out of its range.
    """

    replicas: int = 1
    """Processes that act, each with policies of its own open; any of them may be lost."""
    ingresses: int = 1
    """Processes that take requests and hold sessions. With more than one, HTTP's requests of a
    session need the header ``x-session-id``, by which they find the one that holds it."""
    loaded: int = 256
    """Policies that a replica holds open; the least recently used makes place."""
    batch: int = 32
    """The most requests of a policy that are answered together."""
    wait_ms: float = 0.0
    """How long a request waits for others to be answered with."""
    stack: Stack = "exact"
    """``exact``: an answer is, bit for bit, what the file gives for that observation alone;
    ``always``: whole batches, whose last bits depend on what else is in them."""
    sessions: int = 10_000
    """Sessions that an ingress holds; the least recently used is forgotten."""
    patience_s: float = 60.0
    """How long a request waits for a replica's answer, and is sent again where one is lost."""
    health_s: float = 10.0
    """Seconds between the self-tests of the open policies."""

    def __post_init__(self) -> None:
        counts = ("replicas", "ingresses", "loaded", "batch", "sessions")
        faults = [
            f"`{name}` must be a whole number of at least 1, but is {getattr(self, name)!r}."
            for name in counts
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1
        ]
        if isinstance(self.batch, int) and self.batch > LARGEST_BATCH:
            faults.append(
                f"`batch` must be at most {LARGEST_BATCH}, but is {self.batch}: each size is tried "
                "when a file is opened."
            )
        for name, least in (("wait_ms", 0), ("patience_s", 0.01), ("health_s", 0.1)):
            value = getattr(self, name)
            if not (is_finite(value) and value >= least):
                faults.append(
                    f"`{name}` must be a finite number of at least {least}, but is {value!r}."
                )
        if self.stack not in get_args(Stack):
            faults.append(f"`stack` must be one of {list(get_args(Stack))}, but is {self.stack!r}.")
        if faults:
            raise ConfigError(faults)

    @property
    def cpus(self) -> int:
        """How many CPUs it asks Ray for."""
        return self.replicas + self.ingresses

    def bind(
        self,
        artifacts: Sequence[str | Path] | Catalogue,
        listen: tuple[str, int] | None = None,
    ) -> serve.Application:
        """Return the application that ``ray.serve.run`` takes.

        Args:
            artifacts: exported files' paths or URLs, each ``FILE`` or ``NAME=FILE``; or what
                `read_catalogue` made of them.
            listen: host and port at which the ingress itself listens for HTTP, on whatever node
                it is; None for Serve's proxies alone, which take twice the time. Of one ingress.

        Raises:
            ConfigError: several ingresses can't listen at one place.
            InputError: a file isn't there, isn't whole, or has a name that another has.
        """
        if listen is not None and self.ingresses > 1:
            raise ConfigError(
                f"`listen` must be left out where there are several ingresses ({self.ingresses}), "
                "which can't all listen at one place: Serve's proxies do."
            )
        catalogue = artifacts if isinstance(artifacts, Mapping) else read_catalogue(artifacts)
        shared: dict[str, Any] = {
            "logging_config": LoggingConfig(enable_access_log=False, log_level="WARNING"),
            "ray_actor_options": {"num_cpus": 1},
            # How often a replica that is to end looks whether it has answered all.
            "graceful_shutdown_wait_loop_s": 0.1,
        }
        # Serve's decorator says less of what it returns than there is.
        replicas: Any = serve.deployment(
            PolicyReplica,
            name="policies",
            num_replicas=self.replicas,
            max_ongoing_requests=max(4 * self.batch, 128),
            health_check_period_s=self.health_s,
            **shared,
        )
        ingress: Any = serve.deployment(
            PolicyIngress,
            name="ingress",
            num_replicas=self.ingresses,
            max_ongoing_requests=QUEUE,
            **shared,
        )
        if self.ingresses > 1:
            ingress = ingress.options(request_router_config=_sticky())
        if listen is not None:
            ingress = ingress.options(user_config={"host": listen[0], "port": listen[1]})
        acting = replicas.bind(
            catalogue,
            loaded=self.loaded,
            batch=self.batch,
            wait_ms=self.wait_ms,
            stack=self.stack,
        )
        # To one replica all goes together, unless requests wait for others of their policy.
        together = self.replicas == 1 and self.wait_ms == 0
        whole: serve.Application = ingress.bind(
            acting, catalogue, self.sessions, self.patience_s, together
        )
        return whole


def _sticky() -> RequestRouterConfig:
    """Return what leads a session's requests to one ingress: no other one knows it."""
    chosen: dict[str, Any] = {
        "request_router_class": _BY_SESSION,
        "request_router_kwargs": {"num_fallback_replicas": 0},
    }
    return RequestRouterConfig(**chosen)
