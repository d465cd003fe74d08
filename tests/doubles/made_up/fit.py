"""What a fit comes to, made up: two candidates trained, one of them good."""

from __future__ import annotations

from typing import Any

FLASH = {
    "budget": "flash",
    "what": "code and constants",
    "unit": "B",
    "limit": 16384.0,
    "measured": 9012,
    "share": 0.55,
    "met": True,
}
PORT = {"name": "obs", "shape": [4], "dtype": "float32"}
MEAN = {"dense": 500.0, "pruned": 498.5, "difference": -1.5, "margin": 25.0, "least_margin": 0.01}


def made_up_fit(*, met: bool = True) -> dict[str, Any]:
    """Return the content of fit.json."""
    good: dict[str, Any] = {
        "candidate": "64x64-weight-50",
        "wave": 1,
        "config": {
            "rllib.rl_module.model_config.fcnet_hiddens": [64, 64],
            "pruning.sparsity": 0.5,
            "pruning.granularity": "weight",
        },
        "precision": "float32",
        "return": 499.0,
        "sparsity": 0.501,
        "env_steps": 120_000,
        "artifact": "candidates/64x64-weight-50/policy.c",
        "certificate": "candidates/64x64-weight-50/certificate",
        "sha256": "5" * 64,
        "weights_sha256": "7" * 64,
        "interface": {
            "observations": [PORT],
            "states": [],
            "action": {"name": "action", "shape": [], "dtype": "int64"},
            "dist_inputs": {"name": "dist_inputs", "shape": [2], "dtype": "float32"},
        },
        "figures": {"flash_bytes": 9012},
        "measurement": {"tools": {"qemu": "7.2"}, "notes": ["Counted in QEMU."]},
        "uses": [FLASH],
        "worst_share": 0.55,
        "met": True,
        "certified": met,
        "verdict": "non-inferior" if met else "undecided",
        "pairs": 140,
        "confidence": 0.975,
        "mean": MEAN,
        "tail": MEAN,
        "reason": "The return is shown to be kept." if met else "Nothing is shown.",
    }
    bad = {
        "candidate": "8x8-<dense>",
        "wave": 1,
        "return": 40.0,
        "met": False,
        "certified": False,
        "reason": "It earns 40.0 on the validation seeds.",
    }
    plan = [
        {
            "candidate": row["candidate"],
            "weights": 2000,
            "verdict": "fits",
            "reason": "flash 9,012 B of 16,384 B",
            "figures": {"flash_bytes": 9012},
        }
        for row in (good, bad, {"candidate": "32x32-dense"}, {"candidate": "4x4-dense"})
    ]
    return {
        "schema": 1,
        "name": "pole",
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "seed": 0,
        "target": "cortex-m4",
        "return": 0.95,
        "budgets": {"flash": 16384.0},
        "met": met,
        "exit_code": 0 if met else 1,
        "reason": "64x64-weight-50 keeps to every budget." if met else "None of 2 is good.",
        "dense": {"validation": {"iqm": 500.0}, "floor": 475.0},
        "chosen": good if met else None,
        "nearest": [] if met else ["64x64-weight-50", "8x8-<dense>"],
        "judged": [good, bad],
        "trained": ["64x64-weight-50", "8x8-<dense>", "32x32-dense"],
        "plan": plan,
        "versions": {"rayprune": "0.1.0", "ray": "2.60.0"},
        "artifact": {"file": "artifact/policy.c", "certificate": "c", "model_card": "m"},
    }
