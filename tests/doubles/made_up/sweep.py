"""Writes directories of runs and sweeps whose numbers are MADE UP, after the contract in DESIGN.md.

Nothing was trained: the curves are formulas with noise, only plausible enough to draw.
"""

import json
import math
import random
from pathlib import Path

from rayprune import yaml12

LAYERS = {"encoder.net.mlp.0": 1024, "encoder.net.mlp.2": 65536, "pi": 512, "vf": 256}
TOTAL = sum(LAYERS.values())
CRITERIA = ("l1", "taylor", "random")


def experiment(name, sparsity, criterion="l1", lr=3e-4, seed=0, **more):
    return {
        "name": name,
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "seed": seed,
        "rllib": {"training": {"lr": lr}},
        "pruning": {"sparsity": sparsity, "criterion": criterion, "distribution": "uniform"},
        "stop": {"env_steps": 100_000},
        **more,
    }


def write_made_up_run(out, *, name=None, sparsity=0.9, seed=0, dense=None, finished=True, **config):
    """Write one run; return its directory."""
    out, chance = Path(out), random.Random(f"{name or out.name}{seed}{sparsity}")
    best = _best(sparsity, config.get("criterion", "l1"))
    rows = []
    for iteration in range(1, 51 if finished else 21):
        step = 2000 * iteration
        ramp = sparsity * (1 - (1 - min(1, max(0, (step - 2e4) / 5e4))) ** 3)
        value = best * (1 - math.exp(-step / 2e4)) + chance.gauss(0, best / 30)
        rows.append(
            {
                "iteration": iteration,
                "env_steps": step,
                "updates": 80 * iteration,
                "time_s": 1.5 * iteration,
                "return_mean": value,
                "sparsity": ramp,
                "target_sparsity": sparsity,
                "groups": {"policy": ramp, "value": ramp},
                "mask_churn": 0.01 if iteration % 4 == 0 and 0 < ramp < sparsity else 0.0,
            }
        )
        if iteration % 5 == 0:
            rows[-1]["validation"] = _returns(value)
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(
        yaml12.dump(experiment(name or out.name, sparsity, seed=seed, **config))
    )
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint = "checkpoints/000100000"
    (out / checkpoint).mkdir(parents=True)
    (out / checkpoint / "policy.pkl").write_bytes(b"nothing was trained")
    if finished:
        summary = _summary(name or out.name, sparsity, seed, best, dense, checkpoint)
        (out / "summary.json").write_text(json.dumps(summary))
    return out


def write_made_up_sweep(out, trials=8, *, name="made_up", exploits=6, finished=True):
    """Write one sweep; return its directory. The last trial has failed."""
    out, chance = Path(out), random.Random(0)
    configs = {
        f"t{n:03d}": {
            "pruning.sparsity": round(0.5 + 0.49 * n / max(1, trials - 1), 3),
            "pruning.criterion": CRITERIA[n % 3],
            "rllib.training.lr": round(10 ** chance.uniform(-4, -3), 6),
        }
        for n in range(trials)
    }
    entries, ids = [], list(configs)
    for trial, config in configs.items():
        failed = trial == ids[-1]
        sparsity, criterion = config["pruning.sparsity"], config["pruning.criterion"]
        write_made_up_run(
            out / "trials" / trial,
            name=f"{name}-{trial}",
            sparsity=sparsity,
            criterion=criterion,
            lr=config["rllib.training.lr"],
            finished=not failed,
        )
        entries.append(
            {
                "trial": trial,
                "status": "failed" if failed else "done",
                "error": "The loss became nan at env step 40000." if failed else None,
                "config": config,
                "return": None if failed else _best(sparsity, criterion),
                "sparsity": None if failed else sparsity,
                "flops": None if failed else round(2 * TOTAL * (1 - sparsity)),
                "parameters": None if failed else round(TOTAL * (1 - sparsity)),
                "age": 10,
                "donor": None,
            }
        )
    lineage = []
    for n in range(exploits):
        trial, donor = chance.sample(ids[:-1], 2)
        change = {"pruning.sparsity": [0.6, configs[trial]["pruning.sparsity"]]}
        steps = 10_000 * (n + 2)
        lineage.append(
            {"env_steps": steps, "trial": trial, "donor": donor, "changed": change, "time": n}
        )
        entries[ids.index(trial)].update(donor=donor, age=10 - n)
    front = _front(entries)
    search = {"method": "mo_pbt", "population": trials, "space": dict.fromkeys(configs[ids[0]])}
    _write(out / "lineage.jsonl", "".join(json.dumps(row) + "\n" for row in lineage))
    _write(out / "front.json", json.dumps(front))
    _write(out / "sweep.yaml", yaml12.dump({**experiment(name, 0.9), "search": search}))
    sweep = {
        "schema": 1,
        "name": name,
        "method": "mo_pbt",
        "env_steps": 100_000 * trials,
        "trials": entries,
        "dense_return": 500.0,
        "wall_time_s": 900.0,
    }
    if finished:
        _write(out / "sweep.json", json.dumps(sweep))
    return out


def _best(sparsity, criterion):
    knee = {"l1": 0.97, "taylor": 0.96, "random": 0.9}[criterion]
    return 500 / (1 + math.exp((sparsity - knee) * 120))


def _front(entries):
    done = sorted((e for e in entries if e["return"] is not None), key=lambda e: -e["sparsity"])
    points, best = [], -math.inf
    for entry in done:
        if entry["return"] > best:
            best = entry["return"]
            points.append(
                {
                    "trial": entry["trial"],
                    "return": entry["return"],
                    "sparsity": entry["sparsity"],
                    "test_return": entry["return"] * 0.98,
                    "config": entry["config"],
                    "checkpoint": f"trials/{entry['trial']}/checkpoints/000100000",
                }
            )
    return {
        "objectives": ["return", "sparsity"],
        "hypervolume": 412.5,
        "reference": [0.0, 0.0],
        "points": points,
    }


def _returns(value):
    low, high = value * 0.93, min(500.0, value * 1.05)
    block = {"episodes": 20, "mean": value, "iqm": value, "ci95": [low, high]}
    return {**block, "ci95_over": "episodes"}


def _summary(name, sparsity, seed, best, dense, checkpoint):
    spread = {layer: min(0.999, sparsity * factor) for layer, factor in _spread().items()}
    layers = [
        {
            "name": layer,
            "shape": [256, total // 256],
            "total": total,
            "nonzero": round(total * (1 - spread[layer])),
            "sparsity": 0.0 if layer == "vf" else spread[layer],
            "protected": layer == "vf",
            "group": "value" if layer == "vf" else "policy",
        }
        for layer, total in LAYERS.items()
    ]
    return {
        "schema": 1,
        "name": name,
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "seed": seed,
        "env_steps": 100_000,
        "updates": 4000,
        "wall_time_s": 75.0,
        "sparsity": {
            "prunable": sparsity,
            "all": sparsity * 0.99,
            "groups": {"policy": sparsity, "value": sparsity},
            "layers": layers,
        },
        "parameters": {"total": TOTAL, "nonzero": round(TOTAL * (1 - sparsity))},
        "flops": {"dense": 2 * TOTAL, "sparse": round(2 * TOTAL * (1 - sparsity))},
        "returns": {
            "validation": _returns(best),
            "test": _returns(best * 0.98),
            "dense_test": None if dense is None else _returns(dense),
            "shifts": [],
        },
        "latency": None,
        "target_reached": True,
        "checkpoint": checkpoint,
    }


def _spread():
    return {"encoder.net.mlp.0": 0.8, "encoder.net.mlp.2": 1.01, "pi": 0.7, "vf": 0.0}


def _write(path, content):
    path.write_text(content, encoding="utf-8")
