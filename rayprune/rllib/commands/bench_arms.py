"""What `rayprune bench` times: a policy in a runtime, ready to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tree

from rayprune.deploy.formats import open_artifact
from rayprune.deploy.measure.latency import Arm
from rayprune.deploy.policy.interface import Port
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import timing_inputs
from rayprune.rllib.evaluation.evaluator import Evaluator

RLLIB: Final = "forward_inference"
"""The runtime of whoever doesn't export: RLlib's module, called with a batch."""
EAGER: Final = "eager"
"""The plain torch module in Python, observation in, action out, without RLlib around it."""
DENSE: Final = "dense"
PRUNED: Final = "pruned"

Opener = Callable[[int], Callable[[int], Arm]]
"""From threads, then a batch size, to what is timed."""


@dataclass(slots=True)
class BenchArm:
    """One policy in one runtime."""

    target: str
    policy: str
    """``dense`` or ``pruned``; of a file its name."""
    runtime: str
    open: Opener
    file: Path | None = None
    observes: tuple[Port, ...] = ()
    """What goes into the file."""
    memory: dict[int, int] | None = None

    @property
    def name(self) -> str:
        """Its own among all; a file is its own policy."""
        return " ".join(dict.fromkeys((self.target, self.policy, self.runtime)))


def eager(policy: DeployablePolicy) -> Opener:
    """Return calls of a plain torch module."""

    def of_batch(batch: int) -> Arm:
        inputs = [torch.from_numpy(given) for given in timing_inputs(policy.interface, batch)]

        def call() -> object:
            with torch.inference_mode():
                return policy(*inputs)

        return call

    return lambda _threads: of_batch


def rllib_module(evaluator: Evaluator, seed: int) -> Opener:
    """Return calls of RLlib's module, with the first observation of the episode of ``seed``."""
    one = evaluator.first_batch(seed)

    def of_batch(batch: int) -> Arm:
        many = tree.map_structure(lambda leaf: _repeated(leaf, batch), one)

        def call() -> object:
            with torch.no_grad():
                return evaluator.module.forward_inference(many)

        return call

    return lambda _threads: of_batch


def _repeated(leaf: Any, batch: int) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.repeat(batch, *(1 for _ in leaf.shape[1:]))


def exported(file: Path) -> Opener:
    """Return calls of an exported file in its own runtime."""

    def of_threads(threads: int) -> Callable[[int], Arm]:
        artifact = open_artifact(file, threads=threads)

        def of_batch(batch: int) -> Arm:
            inputs = timing_inputs(artifact.interface, batch)
            return lambda: artifact.run(inputs)

        return of_batch

    return of_threads
