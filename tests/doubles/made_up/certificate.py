"""A certificate whose numbers are MADE UP: nothing was played."""


def made_up_certificate(**changes):
    figures = {
        "dense": 498.0,
        "pruned": 496.5,
        "difference": -1.5,
        "margin": 24.9,
        "p": 0.0013,
        "p_against": 1.0,
        "shown_at": 68,
        "refuted_at": None,
        "least_margin": 0.031,
    }
    return {
        "schema": 1,
        "rayprune": "0.1.0",
        "date": "2026-11-29T14:22:06+00:00",
        "policies": {
            "dense": {
                "name": "runs/a/dense/checkpoints/000100000",
                "kind": "checkpoint",
                "sha256": 32 * "ab",
                "version": "rayprune 0.1.0, ray 2.60.0",
                "date": "2026-11-28T09:00:00+00:00",
            },
            "pruned": {
                "name": "policy.onnx",
                "kind": "file",
                "sha256": 32 * "0f",
                "version": "rayprune 0.1.0",
                "date": "2026-11-29T10:30:00+00:00",
            },
        },
        "dense": "runs/a/dense/checkpoints/000100000",
        "pruned": "runs/a/checkpoints/000120000",
        "env": "CartPole-v1",
        "env_config": {},
        "verdict": "non-inferior",
        "certified": True,
        "exit_code": 0,
        "reason": "Both the mean return and the tail are within their margins.",
        "pairs": 3,
        "decided_at": 3,
        "settings": {
            "margin": 0.05,
            "absolute": False,
            "tail_margin": 0.1,
            "tail": 0.25,
            "confidence": 0.95,
            "episodes": 1000,
            "seed": 20000,
            "return_range": None,
        },
        "range": {"low": 0.0, "high": 500.0, "source": "environment", "outside": 0},
        "mean": figures,
        "tail": {**figures, "p": 0.0464, "shown_at": 137, "least_margin": None},
        "closeness": {"agreement": 0.883, "action_difference": None, "states": 10000},
        "divergence": {"diverged": 1.0, "first": 0, "median": 8.0},
        "parameters": {
            "dense": {"total": 67586, "nonzero": 67586},
            "pruned": {"total": 67586, "nonzero": 6886},
        },
        "evidence": {
            name: {"for": [0.1, 1.5, 3.2], "against": [-0.1, -0.5, -1.0]}
            for name in ("mean", "tail")
        },
        **changes,
    }


def made_up_pairs():
    return [
        {
            "seed": 20000 + n,
            "dense": 500.0,
            "pruned": 500.0 - 2 * n,
            "dense_steps": 500,
            "pruned_steps": 500 - 2 * n,
            "diverged_at": None if n == 0 else 8 * n,
        }
        for n in range(3)
    ]
