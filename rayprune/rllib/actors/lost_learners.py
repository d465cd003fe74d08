"""Ends a Learner's wait for another whose node is gone, which would last half an hour.

Learners average gradients over connections that nobody closes where a host loses its power, and
torch waits 30 minutes for an answer. Ray knows within about a minute that the node is dead.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Any, Final

import ray
from ray.rllib.algorithms.algorithm import Algorithm

from rayprune.rllib.actors.learners import foreach_learner, learner_group

logger = logging.getLogger(__name__)

POLL_S: Final = 5.0
"""Seconds between two looks at the cluster's nodes."""


def watch_learners(algorithm: Algorithm) -> None:
    """Start a thread that kills what is left of an algorithm's Learners when one's node is dead.

    Training then fails at once, with Ray's own error. Learners on one node wait for no other, and
    aren't watched.
    """
    group: Any = learner_group(algorithm)
    if group.is_local or len(group) < 2:
        return
    nodes = set(foreach_learner(algorithm, lambda _: ray.get_runtime_context().get_node_id()))
    if len(nodes) > 1:
        watch = (weakref.ref(group), nodes)
        threading.Thread(target=_watch, args=watch, name="lost Learners", daemon=True).start()


def _watch(held: weakref.ref[Any], nodes: set[str]) -> None:
    """Look until the group is gone, shut down, or lost."""
    while True:
        time.sleep(POLL_S)
        group = held()
        if group is None or group._is_shut_down or not ray.is_initialized():
            return
        if nodes & _dead():
            logger.warning("The node of a Learner is dead. The other Learners are ended with it.")
            for learner in group._workers:
                ray.kill(learner)
            return
        del group


def _dead() -> set[str]:
    try:
        return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
    except Exception:  # Ray is about to shut down, or its head doesn't answer just now
        return set()
