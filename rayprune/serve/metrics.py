"""What is measured of serving, for Prometheus by way of Ray, and counted for people."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final

from ray.serve import metrics

_MS: Final = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0]
_SIZES: Final = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


class ReplicaMetrics:
    """Those of a replica that acts."""

    def __init__(self) -> None:
        self.counts: Tally[str] = Tally(loads=0, evictions=0, batches=0, requests=0)
        self._sizes = metrics.Histogram(
            "rayprune_batch_size",
            description="Requests that a policy answered together.",
            boundaries=_SIZES,
            tag_keys=("policy",),
        )
        self._loads = metrics.Counter(
            "rayprune_policy_loads", description="Policies opened.", tag_keys=("policy",)
        )
        self._evictions = metrics.Counter(
            "rayprune_policy_evictions",
            description="Policies closed because others were asked for since.",
            tag_keys=("policy",),
        )

    def loaded(self, policy: str) -> None:
        """Count a policy that is opened."""
        self.counts["loads"] += 1
        self._loads.inc(1, {"policy": policy})

    def evicted(self, policy: str) -> None:
        """Count a policy that is closed."""
        self.counts["evictions"] += 1
        self._evictions.inc(1, {"policy": policy})

    def batch(self, policy: str, size: int) -> None:
        """Count requests that are answered together."""
        self.counts["batches"] += 1
        self.counts["requests"] += size
        self._sizes.observe(size, {"policy": policy})


class IngressMetrics:
    """Those of the process that takes requests."""

    def __init__(self) -> None:
        self.counts: Tally[str] = Tally(served=0, refused=0, failed=0, sent_again=0)
        self._latency = metrics.Histogram(
            "rayprune_latency_ms",
            description="From a request's arrival to its answer, in milliseconds.",
            boundaries=_MS,
            tag_keys=("policy",),
        )
        self._answers = metrics.Counter(
            "rayprune_answers", description="Answers, by HTTP's codes.", tag_keys=("status",)
        )
        self._again = metrics.Counter(
            "rayprune_requests_sent_again",
            description="Requests whose replica was lost, sent to another.",
        )
        self._sessions = metrics.Gauge("rayprune_sessions", description="Sessions held.")
        self._forgotten = metrics.Gauge(
            "rayprune_sessions_forgotten", description="Sessions forgotten for newer ones."
        )

    def served(self, policy: str, milliseconds: float) -> None:
        """Count an action."""
        self.counts["served"] += 1
        self._latency.observe(milliseconds, {"policy": policy})

    def answered(self, status: int) -> None:
        """Count an answer over HTTP."""
        if status >= 400:
            self.counts["refused" if status < 500 else "failed"] += 1
        self._answers.inc(1, {"status": str(status)})

    def sent_again(self) -> None:
        """Count a request that is sent to another replica."""
        self.counts["sent_again"] += 1
        self._again.inc(1)

    def sessions(self, held: int, forgotten: int) -> None:
        """Tell how many sessions there are, and how many were forgotten so far."""
        self._sessions.set(held)
        self._forgotten.set(forgotten)
