"""What policies of 8 and 4 bits keep of the return of the policy in floats.

    python benchmarks/quantise.py --preset ppo_cartpole --seeds 0 1 2 [--steps 60000] [--arms ...]
        [--set KEY=VALUE]

For each seed the preset, or another config, is trained as it is (its pruning included, and what
`--set` changes), in floats: the reference. Then

- ``calibrated 8``: its checkpoint exported to C in whole numbers, by its recorded observations;
- ``trained 8`` and ``trained 4``: training goes on from that checkpoint for ``--more`` env steps
  with `quantise`, and what comes of it is exported to C in whole numbers.

Each C file, which equals its model to the bit or isn't written, then plays the reference's test
seeds, ``--episodes`` pairs at most, by `rayprune certify` with a margin of 5 %. A row an arm is
appended to ``benchmarks/results/quantise.jsonl``; what has its row already, of a reference and a
training as long, is not done again, nor is a run that has its summary: an interrupted benchmark
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.commands import ROOT, json_of

RESULTS = ROOT / "benchmarks" / "results" / "quantise.jsonl"
ARMS = ("calibrated 8", "trained 8", "trained 4")
OFF = ("tracking.wandb=off", "tracking.tensorboard=false", "evaluation.dense=null")


def main() -> int:
    """Do what isn't done yet; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ppo_cartpole", help="or the path of a config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=None, help="of the reference")
    parser.add_argument("--more", type=int, default=20_000, help="env steps of trained arms")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--set", action="append", default=[], help="of the reference, KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/quantise"))
    options = parser.parse_args()
    for seed in options.seeds:
        length = "" if options.steps is None else f"-{options.steps}"
        place = (options.runs / f"{Path(options.preset).stem}-{seed}{length}").absolute()
        reference = place / "float"
        steps = [] if options.steps is None else [f"stop.env_steps={options.steps}"]
        train(options.preset, seed, reference, [*options.set, *steps])
        for arm in options.arms:
            which = identity(options, seed, arm, reference)
            if not is_done(which):
                append({**which, **measured(options, seed, arm, place, reference)})
    return 0


def identity(options: argparse.Namespace, seed: int, arm: str, reference: Path) -> dict[str, Any]:
    """Return what tells a row from others."""
    return {
        "preset": Path(options.preset).stem,
        **({"set": options.set} if options.set else {}),
        "seed": seed,
        "arm": arm,
        "reference_steps": json.loads((reference / "summary.json").read_text())["env_steps"],
        "more_steps": options.more if arm.startswith("trained") else 0,
        "episodes": options.episodes,
    }


def measured(
    options: argparse.Namespace, seed: int, arm: str, place: Path, reference: Path
) -> dict[str, Any]:
    """Make an arm's file, let it play, and return what came of it."""
    kind, bits = arm.split()
    checkpoint = reference
    if kind == "trained":
        # By length, so that another `--more` is another run.
        checkpoint = place / f"{arm.replace(' ', '-')}-{options.more}"
        start = json.loads((reference / "summary.json").read_text())["checkpoint"]
        block = f"{{weights: {bits}, activations: 8, start: 0, freeze: 0.5}}"
        settings = [
            *options.set,
            f"stop.env_steps={options.more}",
            f"evaluation.every={max(options.more // 4, 1)}",
            f"start_from={reference / start}",
            f"quantise={block}",
            # Masks come with the checkpoint; nothing more is pruned.
            "pruning.schedule={kind: one_shot, begin: 0}",
        ]
        train(options.preset, seed, checkpoint, settings)
    file = place / f"{arm.replace(' ', '-')}.c"
    told = rayprune("export", checkpoint, "--format", "c", "--int8", "--out", file, "--overwrite")
    out = place / f"{arm.replace(' ', '-')}-certificate"
    pairs = ["--episodes", str(options.episodes), "--out", out]
    found = rayprune("certify", reference, file, *pairs, accepts=(0, 1))
    whole = told["whole_numbers"]
    dense, own = found["mean"]["dense"], found["mean"]["pruned"]
    return {
        "float_return": dense,
        "return": own,
        # Of a cost, as Pendulum's returns are, the share that is lost counts.
        "kept": 1 - (dense - own) / abs(dense) if dense else None,
        "pairs": found["pairs"],
        "verdict": found["verdict"],
        "least_margin": found["mean"].get("least_margin"),
        "agreement": found["closeness"]["agreement"],
        "bits": [[layer["weights"], layer["reads"]] for layer in whole["layers"]],
        "equal_to_the_bit": whole.get("equal_to_the_bit"),
        "weights": told["parameters"]["total"] - told["parameters"]["zero_weights"],
        "layouts": [layout["layout"] for layout in told["layouts"]],
        "table_bytes": sum(layout["bytes"] for layout in told["layouts"]),
    }


def train(preset: str, seed: int, out: Path, settings: list[str]) -> None:
    """Train a run, or go on with one that was interrupted; a finished one is left alone."""
    if (out / "summary.json").is_file():
        return
    given = [part for setting in (*OFF, *settings) for part in ("--set", setting)]
    resumed = ["--resume"] if out.is_dir() else []
    rayprune("train", preset, "--seed", str(seed), *given, "--out", out, *resumed)


def rayprune(*arguments: Any, accepts: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command; return its JSON."""
    return json_of([str(argument) for argument in arguments], accepts)


def rows() -> Iterator[dict[str, Any]]:
    """Yield what was measured so far."""
    if RESULTS.is_file():
        yield from map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())


def is_done(which: dict[str, Any]) -> bool:
    """Whether an arm has its row."""
    return any(which.items() <= row.items() for row in rows())


def append(row: dict[str, Any]) -> None:
    """Write a row down, and show it."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    shown = f"{row['preset']} seed {row['seed']}, {row['arm']}"
    kept = "" if row["kept"] is None else f" ({row['kept']:.1%})"
    print(f"{shown}: {row['return']:.1f} of {row['float_return']:.1f}{kept}")


if __name__ == "__main__":
    sys.exit(main())
