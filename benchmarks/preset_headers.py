"""Writes into the head of each preset what it was measured to give, or that it wasn't.

    python benchmarks/preset_headers.py            # rewrite the heads of tune_configs/
    python benchmarks/preset_headers.py --check    # only say which would change; exit code 1 if any

The figures are the rows of benchmarks/results/presets.jsonl (benchmarks/presets.py), and for one
preset those of benchmarks/results/methods.jsonl, whose arm is the preset as it stands.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprune.tracking.record import read_rows

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ARMS: Final = ("pruned", "dense")
METHODS: Final = {
    ("lunarlander", "cubic ERK"): ("ppo_lunarlander", "pruned"),
    ("lunarlander", "dense"): ("ppo_lunarlander", "dense"),
}
"""(table, arm) of benchmarks/methods.py -> (preset, arm): the arms that change nothing else.

CartPole's were run before ppo_cartpole took the recipe, and say nothing of it now."""
NOT_RUN: Final = "# Not run here by benchmarks/presets.py: no figures."
_BLOCK: Final = re.compile(r"^# (?:Measured:|Not run here).*\n(?:#.*\n)*", re.M)


def all_rows() -> list[dict[str, Any]]:
    """Return the rows of all presets, by preset, arm and seed."""
    rows = [*read_rows(RESULTS / "presets.jsonl")]
    for row in read_rows(RESULTS / "methods.jsonl"):
        meant = METHODS.get((row["table"], row["arm"]))
        if meant:
            rows.append(_from_methods(row, *meant))
    return sorted(rows, key=lambda row: (row["preset"], row["arm"], row["seed"]))


def _from_methods(row: dict[str, Any], preset: str, arm: str) -> dict[str, Any]:
    test = {"mean": row["test"], "episodes": row["test_episodes"]}
    named = {"preset": preset, "arm": arm, "train_time_s": row["wall_time_s"]}
    return {**row, **named, "test": test, "nonzero": row["parameters"]}


def header(text: str, preset: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a preset's text with the head that its rows ask for.

    Args:
        text: of the YAML file.
        preset: its name.
        rows: of `all_rows`; those of other presets are passed over.
    """
    own = {arm: [r for r in rows if (r["preset"], r["arm"]) == (preset, arm)] for arm in ARMS}
    block = "\n".join(_measured(own) if own["pruned"] else [NOT_RUN]) + "\n"
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: block, text, count=1)
    first_key = re.search(r"^[^#\n]", text, re.M)
    at = first_key.start() if first_key else len(text)
    return text[:at] + block + text[at:]


def _measured(own: dict[str, list[dict[str, Any]]]) -> list[str]:
    pruned, dense = own["pruned"], own["dense"]
    beside = f", dense {_returns(dense)}" if dense else ""
    seeds = ", ".join(str(row["seed"]) for row in pruned)
    kind = "mean" if "ci95" not in pruned[0]["test"] else "interquartile mean [95 %]"
    return [
        f"# Measured: return {_returns(pruned)} with {_share(pruned)} pruned{beside}",
        *[f"#   {arm}: {_detail(own[arm])}" for arm in ARMS if own[arm]],
        f"#   Seeds {seeds}; {_length(pruned)}; {kind} of {pruned[0]['test']['episodes']} test "
        "episodes; minutes on two cores that did other work too.",
    ]


def _returns(rows: Sequence[dict[str, Any]]) -> str:
    """Return each seed's return, without its interval."""
    return ", ".join(_figure(row["test"].get("iqm", row["test"]["mean"])) for row in rows)


def _share(rows: Sequence[dict[str, Any]]) -> str:
    return f"{100 * sum(row['sparsity'] for row in rows) / len(rows):.1f} %"


def _detail(rows: Sequence[dict[str, Any]]) -> str:
    parts = []
    if "ci95" in rows[0]["test"]:
        parts.append(", ".join(_interval(row["test"]) for row in rows))
    if "nonzero" in rows[0]:
        parts.append(f"{rows[0]['nonzero']:,} parameters")
    if "onnx_bytes" in rows[0]:
        parts.append(f"{rows[0]['onnx_bytes']:,} bytes as ONNX")
    minutes = sum(row["train_time_s"] for row in rows) / len(rows) / 60
    return "; ".join([*parts, f"{minutes:.1f} min"])


def _interval(test: dict[str, Any]) -> str:
    low, high = test["ci95"]
    return f"{_figure(test['iqm'])} [{_figure(low)}, {_figure(high)}]"


def _length(rows: Sequence[dict[str, Any]]) -> str:
    steps = rows[0]["env_steps"]
    return f"{steps:,} env steps" if steps else f"{rows[0]['updates']:,} updates"


def _figure(value: float) -> str:
    """Return a return with three digits or more.

    >>> _figure(0.9345), _figure(-122.51), _figure(500.0)
    ('0.93', '-123', '500')
    """
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) >= 1
        else f"{value:.2f}"
    )


def main() -> int:
    """Rewrite the heads, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    rows, stale = all_rows(), []
    for path in sorted((ROOT / "tune_configs").rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        wanted = header(text, path.stem, rows)
        if wanted != text:
            stale.append(path.stem)
            if not check:
                path.write_text(wanted, encoding="utf-8")
    print("\n".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
