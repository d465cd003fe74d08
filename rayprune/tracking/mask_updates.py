"""What a run's mask updates did to its policy, from its rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

MEASURES: Final = ("kl", "value_change", "greedy_changed")
"""What a mask update is measured by; see `rayprune.pruning.reports.PolicyChange`."""


def updates_in(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return all mask updates that rows tell of, in their order."""
    return [update for row in rows for update in row.get("mask_updates") or ()]


def row_of_updates(updates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a row says of an iteration's mask updates; nothing where there were none.

    ``mask_updates`` has each as it was told, ``policy_change`` the largest figures, and the least
    share of a step that was ``taken``, under a trust region.

    >>> told = row_of_updates([{"step": 10, "kl": 0.25, "taken": 1.0}, {"step": 20, "kl": 0.125}])
    >>> told["mask_updates"][1], told["policy_change"]
    ({'step': 20, 'kl': 0.125}, {'kl': 0.25, 'taken': 1.0})
    """
    if not updates:
        return {}
    largest = {key: most["value"] for key, most in _largest(updates).items()}
    taken = [update["taken"] for update in updates if "taken" in update]
    largest |= {"taken": min(taken)} if taken else {}
    return {"mask_updates": list(updates), **({"policy_change": largest} if largest else {})}


def mask_updates_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the block ``mask_updates`` of summary.json; None where rows tell of none.

    Returns:
        ``{"count", "largest": {"kl": {"value", "step"}, ...}, "in_part", "behind"}``: how many
        there were, the largest of each figure and when, how many a trust region took in part, and
        whether some of what was due was held back to the end.

    >>> rows = [{"mask_updates": [{"step": 5, "kl": 0.5, "taken": 0.25}], "pruning_behind": True}]
    >>> mask_updates_of(rows)["largest"], mask_updates_of(rows)["behind"]
    ({'kl': {'value': 0.5, 'step': 5}}, True)
    """
    updates = updates_in(rows)
    if not updates:
        return None
    return {
        "count": len(updates),
        "largest": _largest(updates),
        "in_part": sum(update.get("taken", 1.0) < 1.0 for update in updates),
        "behind": bool(rows[-1].get("pruning_behind")),
    }


def held_back(pruning: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on a trust region that kept a run from its target; empty if none did.

    Args:
        pruning: a `rayprune.pruning.config.PruningConfig`.
        rows: the run's.
    """
    if not rows or not rows[-1].get("pruning_behind"):
        return ""
    given = {name: getattr(pruning, name) for name in ("max_kl", "max_value_change")}
    bounds = " and ".join(f"`pruning.{name}` {x:g}" for name, x in given.items() if x is not None)
    verb = "hold" if bounds.count("`pruning.") > 1 else "holds"
    return (
        f" {bounds} {verb} mask updates back, at a sparsity of {rows[-1]['sparsity']:.3f}: raise "
        "what bounds them, or give them more env steps."
    )


def _largest(updates: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for key in MEASURES:
        told = [update for update in updates if key in update]
        if told:
            most = max(told, key=lambda update: float(update[key]))
            found[key] = {"value": most[key], "step": most["step"]}
    return found
