"""What one action costs once a policy is exported: a search's objective, cached by architecture.

Weights make no difference to how long a dense layer takes, its widths do. So policies of the same
widths are timed once on a machine, whichever trial has them, and compare as equals.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.shrink import shrink
from rayprune.deploy.formats import format_named, open_artifact
from rayprune.deploy.measure.latency import time_arms
from rayprune.deploy.measure.machine import cpu
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import timing_inputs
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.export.recorded import Recorded
from rayprune.tracking.record import write_atomic
from rayprune.tracking.versions import versions

RUNTIME: Final = "onnx"
_ROUNDS: Final = 20


def policy_latency(evaluator: Evaluator, seed: int, cache: Path | None = None) -> float:
    """Return the microseconds of one greedy action in ONNX Runtime, dead units removed.

    Batch 1, one thread. It is the least of twenty blocks' medians: other trials may keep the cores
    busy, which can only make a block slower.

    Args:
        evaluator: holds the policy.
        seed: of the episode that the export is proven on.
        cache: a folder of what was timed before; None for this user's on this machine.

    Raises:
        InputError: the policy can't be exported, or a package is missing.
    """
    policy = plain_copy(deployable(evaluator))
    recorded = Recorded(policy.interface)
    evaluator.returns(seed, 1, recorded.watch)
    inputs = recorded.inputs(policy.interface)
    small = shrink(policy, inputs)
    known = (_place() if cache is None else cache) / f"{architecture(small.policy)}.json"
    if not known.is_file():
        found = _timed(small.policy, small.inputs(inputs))
        known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(known, json.dumps({"latency_us": found}) + "\n")
    return float(json.loads(known.read_text(encoding="utf-8"))["latency_us"])


def architecture(policy: DeployablePolicy) -> str:
    """Return what policies that cost the same have in common, as a name: modules and shapes."""
    shapes = {name: list(values.shape) for name, values in policy.state_dict().items()}
    # A layer's repr tells its widths, strides and padding; what it holds is told by the shapes.
    about: dict[str, Any] = {"modules": repr(policy), "shapes": shapes}
    about["machine"] = {"cpu": cpu(), "versions": versions()}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _timed(policy: DeployablePolicy, inputs: Any) -> float:
    with tempfile.TemporaryDirectory(prefix="rayprune-latency-") as place:
        file = Path(place) / f"policy{format_named(RUNTIME).suffix}"
        export_policy(policy, file, RUNTIME, recorded=inputs, about={}, compacted=False)
        artifact = open_artifact(file, threads=1)
        given = timing_inputs(artifact.interface, 1)
        timings = time_arms({"policy": lambda: artifact.run(given)}, rounds=_ROUNDS)["policy"]
    return 1e6 * float(timings.medians.min())


def _place() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"rayprune-latency-{user}"
