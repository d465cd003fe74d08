"""What `PruningConfig` makes of each shipped file, and of each choice that stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayprune import PruningConfig
from rayprune.config import load_experiment
from tests.golden.nets import check

ROOT = Path(__file__).parents[2]
CRITERIA = [
    "l1",
    "l2",
    "random",
    "relative",
    "normalised",
    "lamp",
    "snip",
    "taylor",
    "movement",
    "fisher",
    "wanda",
    "wanda_rows",
    "information_gain",
    "shapley",
    "dormant",
    "return",
]
GRANULARITIES = ["weight", "neuron", "filter", "block", "input", "layer", "hybrid", "2:4", "1:4"]
KINDS = [
    "one_shot",
    "linear",
    "cubic",
    "exponential",
    "iterative",
    "lottery",
    "gated",
    "static",
    "set",
    "rigl",
    "grow",
    "revive",
]


def _alone() -> dict[str, dict[str, Any]]:
    """Return the least that each choice can be given by."""
    found: dict[str, dict[str, Any]] = {"nothing else": {}}
    for kind in KINDS:
        lottery = {"rewind_to": 0, "rounds": 3} if kind == "lottery" else {}
        found[f"schedule {kind}"] = {"schedule": {"kind": kind, **lottery}}
    for name in CRITERIA:
        unit = name in ("information_gain", "shapley", "dormant")
        granularity = "neuron" if unit else "layer" if name == "return" else "weight"
        found[f"criterion {name}"] = {"criterion": name, "granularity": granularity}
    for name in GRANULARITIES:
        implied = ":" in name or name == "hybrid"
        hybrid = {"hybrid": {"neuron": 0.4, "weight": 0.8}} if name == "hybrid" else {}
        target = {"sparsity": None} if implied else {}
        found[f"granularity {name}"] = {"granularity": name, **hybrid, **target}
    found["a schedule that waits"] = {"schedule": {"begin": {"return": 100}}}
    found["distillation"] = {"distillation": {}}
    found["distillation from the start"] = {"distillation": {"from": "start", "weight": 2}}
    found["evidence"] = {"evidence": {"minibatches": 3}}
    found["threshold"] = {"sparsity": None, "threshold": {"percentile": 5}}
    found["penalty"] = {"penalty": {"kind": "l1", "strength": 1}}
    found["operation"] = {"operation": {"scale": 0.5, "steps": 3}}
    found["groups"] = {"groups": {"critic": {"sparsity": 0}}}
    found["layers"] = {"distribution": {"pi.0": 0.5}}
    found["dense"] = {"sparsity": 0}
    return found


def _resolved(config: PruningConfig) -> dict[str, Any]:
    target = config.target
    whole = config.schedule["kind"] == "gated" or target is None
    return {
        "to_dict": config.to_dict(),
        "target": target,
        "dense": config.dense,
        "every": config.every,
        "gated": config.gated,
        "unbounded": config.unbounded,
        "needs_horizon": config.needs_horizon,
        "resolved_horizon": config.resolved_horizon,
        "fading": [config.fading_updates, config.fading_factor],
        "schedule": repr(config.build_schedule(0.8 if whole else target, horizon=1000)),
    }


def test_shipped_files_and_defaults_resolve_as_in_the_golden_file() -> None:
    found: dict[str, Any] = {}
    for path in sorted((ROOT / "tune_configs").rglob("*.yaml"), key=lambda path: path.name):
        experiment = load_experiment(path, check_paths=False)
        rest = experiment.model_dump(mode="json", by_alias=True, exclude={"pruning"})
        found[path.name] = {**_resolved(experiment.pruning), "experiment": rest}
    for name, fields in _alone().items():
        found[name] = _resolved(PruningConfig(**{"sparsity": 0.8, **fields}))
    check("configs.json", found)
