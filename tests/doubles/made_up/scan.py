"""The result of a sensitivity scan whose numbers are MADE UP: nothing was trained."""

LADDER = (0.5, 0.8, 0.95)


def made_up_scan():
    layers = [
        _layer("encoder.actor_encoder.net.mlp.0", "policy", (490.0, 480.0, 130.0), 0.81),
        _layer("encoder.actor_encoder.net.mlp.2", "policy", (500.0, 499.0, 470.0), 0.93),
        _layer("pi.net.mlp.0", "policy", (500.0, 500.0, 300.0), 0.85),
        _layer("encoder.critic_encoder.net.mlp.0", "value", (0.001, 0.04, 30.0), 0.8),
        _layer("vf.net.mlp.0", "value", (0.002, 0.2, 0.9), 0.6),
    ]
    split = {layer["name"]: layer["suggested"] for layer in layers}
    return {
        "schema": 1,
        "checkpoint": "runs/dense/checkpoints/000200000",
        "env": "CartPole-v1",
        "algorithm": "PPO",
        "settings": {
            "sparsities": LADDER,
            "criterion": "l1",
            "granularity": "weight",
            "episodes": 20,
            "tolerance": 0.05,
        },
        "unpruned": {"episodes": 20, "mean": 500.0, "iqm": 500.0, "ci95": [500.0, 500.0]},
        "floor": 475.0,
        "sparsity_now": 0.0,
        "layers": layers,
        "suggested": {
            "distribution": split,
            "sparsity": 0.86,
            "target": None,
            "together": _rung(None, 455.0, None),
        },
    }


def _layer(name, group, values, suggested):
    by_return = group == "policy"
    return {
        "name": name,
        "shape": [256, 256],
        "total": 65536,
        "group": group,
        "measured_by": "return" if by_return else "value_error",
        "sparsity_now": 0.0,
        "suggested": suggested,
        "ladder": [
            _rung(sparsity, value if by_return else None, None if by_return else value)
            for sparsity, value in zip(LADDER, values, strict=True)
        ],
    }


def _rung(sparsity, iqm, unexplained):
    return {
        "sparsity": sparsity,
        "reached": sparsity,
        "iqm": iqm,
        "mean": iqm,
        "ci95": None if iqm is None else [iqm - 30, min(500.0, iqm + 25)],
        "gap": None if iqm is None else {"iqm": 500 - iqm, "ci95": [480 - iqm, 530 - iqm]},
        "agreement": 0.97,
        "action_difference": None,
        "kl": 0.02,
        "value_rmse": unexplained,
        "value_unexplained": unexplained,
    }
