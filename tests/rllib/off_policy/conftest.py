"""Algorithms that train in this process need no cluster."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from rayprune.rllib.off_policy import training_step


@pytest.fixture(autouse=True)
def _no_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # RLlib puts weights there even for the EnvRunner beside the Learner, which starts a cluster.
    monkeypatch.setattr(ray, "put", lambda value, **_: value)


@pytest.fixture(autouse=True)
def _figures_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # An iteration of these tests has fewer updates than log nothing in a run.
    monkeypatch.setattr(training_step, "FIGURES_EVERY", 5)


@pytest.fixture
def debug_lines(caplog: pytest.LogCaptureFixture) -> Any:
    """Return what was told of parts that are left to RLlib."""
    caplog.set_level("DEBUG", logger="rayprune")
    return lambda: [
        line for line in caplog.messages if line.startswith("RLlib's own training step")
    ]
