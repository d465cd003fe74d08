"""What `rayprune certify` says of its pairs: the reason of a verdict, and where actions part."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rayprune.rllib.evaluation.paired_episodes import EpisodePair
from rayprune.rllib.export.fingerprint import weights_of
from rayprune.statistics.noninferiority import INFERIOR, NON_INFERIOR, QUESTIONS


def divergence(pairs: Sequence[EpisodePair]) -> dict[str, Any]:
    """Return the share of pairs whose actions part, and at which steps."""
    steps = [pair.diverged_at for pair in pairs if pair.diverged_at is not None]
    return {
        "diverged": len(steps) / len(pairs),
        "first": min(steps, default=None),
        "median": statistics.median(steps) if steps else None,
    }


def reason(verdict: str, found: dict[str, dict[str, Any]], tail: float, outside: int) -> str:
    """Say in a sentence why the verdict is what it is."""
    if outside:
        return (
            f"{outside} of the returns were outside of the range that the pilot suggested, and "
            "counting them as its ends would flatter the pruned policy. Give --return-range."
        )
    names = {"mean": "mean return", "tail": f"mean of the worst {tail:.0%} of episodes"}
    names = {name: text.replace("%", " %") for name, text in names.items()}
    if verdict == NON_INFERIOR:
        return "Both the " + " and the ".join(names.values()) + " are within their margins."
    refuted = [name for name in QUESTIONS if found[name]["refuted_at"] is not None]
    unshown = [name for name in QUESTIONS if found[name]["shown_at"] is None]
    told = " and the ".join(names[name] for name in (refuted if verdict == INFERIOR else unshown))
    if verdict == INFERIOR:
        return f"The {told} is lower than the dense policy's by more than the margin."
    return (
        f"The {told} could be neither shown nor refuted to be within the margin. Play more "
        "--episodes, or allow a wider margin."
    )


def same_weights(dense: Mapping[str, Any], pruned: Mapping[str, Any]) -> str:
    """Say so where two policies differ in their files only."""
    if weights_of(dense) != weights_of(pruned):
        return ""
    return (
        " Both are made of the same weights: this is about what exporting changed, and nothing "
        "about pruning."
    )
