"""What a person reads when a command is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

from rayprune.cli.printing.terminal_reporter import number

_SAME: Final = 0.01
"""Sparsities that differ by less do so by rounding."""


def summary_table(summary: Mapping[str, Any], before: str, after: str) -> Table:
    """Return a run's result.

    Args:
        summary: the content of summary.json.
        before: the column of the dense policy; left out when it was not measured.
        after: the column of the policy that the summary is about.
    """
    returns, sparsity = summary["returns"], summary["sparsity"]
    parameters, flops = summary["parameters"], summary["flops"]
    dense = returns.get("dense_test")
    rows = [
        ("test return, IQM [95 %]", interval(dense), interval(returns["test"])),
        ("sparsity of prunable weights", "", percent(sparsity["prunable"])),
        *_groups(sparsity.get("own_groups") or {}),
        *_budgets(sparsity.get("groups") or {}, sparsity.get("own_groups") or {}),
        ("sparsity of all parameters", "", percent(sparsity["all"])),
        ("parameters", count(parameters["total"]), count(parameters["nonzero"])),
        *_held(parameters),
    ]
    if flops:  # None where counting them failed
        sparse = f"{count(flops['sparse'])} (sparse)"
        rows.append(("FLOPs of one action", count(flops["dense"]), sparse))
    if "gate" in summary:
        tried, rolled_back = len(summary["gate"]["tries"]), summary["gate"]["rollbacks"]
        rows.append(
            ("tries that held / were rolled back", "", f"{tried - rolled_back} / {rolled_back}")
        )
    table = _table(f"{summary['name']}, seed {summary['seed']}")
    close = summary.get("closeness")
    if close:
        table.caption, table.caption_justify = closeness_line(close), "left"
    for name in (before, after) if dense else (after,):
        table.add_column(name, justify="right")
    for label, dense_cell, cell in rows:
        table.add_row(label, *([dense_cell] if dense else []), cell)
    return table


def _groups(own: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return a row for each group that has choices of its own.

    >>> chosen = {"schedule": "static", "criterion": "l1", "granularity": "weight"}
    >>> _groups({"policy": {**chosen, "sparsity": 0.9}})
    [('of group policy (static, l1, weight)', '', '90.0 %')]
    """
    return [
        (f"of group {name} ({', '.join(chosen_in(group))})", "", percent(group["sparsity"]))
        for name, group in own.items()
    ]


def _budgets(groups: Mapping[str, float], own: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return a row for each other group, where groups differ: a dense critic, for one.

    >>> _budgets({"policy": 0.9, "value": 0.0}, {})
    [('of group policy', '', '90.0 %'), ('of group value', '', '0.0 %')]
    >>> _budgets({"policy": 0.9, "value": 0.901}, {})
    []
    """
    if max(groups.values(), default=0.0) - min(groups.values(), default=0.0) < _SAME:
        return []
    return [
        (f"of group {name}", "", percent(sparsity))
        for name, sparsity in groups.items()
        if name not in own
    ]


def chosen_in(group: Mapping[str, Any]) -> list[str]:
    """Return what a group has chosen, in single words."""
    return [str(group[key]) for key in ("schedule", "criterion", "granularity")]


def _held(parameters: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Return a row for what live compaction has left, zeros included; none where nothing went."""
    held = parameters.get("held", parameters["total"])
    return [("parameters held", "", count(held))] if held < parameters["total"] else []


def evaluation_table(result: Mapping[str, Any], title: str) -> Table:
    """Return every block of returns that the result holds, a row each."""
    table = _table(title)
    table.add_column("episodes", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("IQM [95 %]", justify="right")
    blocks = {**result, **(result.get("returns") or {})}
    for name, block in blocks.items():
        if isinstance(block, Mapping) and "iqm" in block:
            table.add_row(
                name.replace("_", " "),
                str(block.get("episodes", "")),
                number(block.get("mean")),
                interval(block),
            )
    sparsity = result.get("sparsity")
    if isinstance(sparsity, Mapping) and "prunable" in sparsity:
        table.caption = f"sparsity of prunable weights: {percent(sparsity['prunable'])}"
    return table


def closeness_line(closeness: Mapping[str, Any]) -> str:
    """Return how close a policy is to the dense one, in a line.

    >>> closeness_line({"agreement": 0.98, "kl": 0.0123, "value_rmse": 2.5, "states": 9000})
    'On 9,000 states of the dense policy: 98.0 % same actions, KL 0.0123 nats, value RMSE 2.5'
    """
    forms = {
        "agreement": "{:.1%} same actions",
        "action_difference": "mean action difference {:.4g}",
        "kl": "KL {:.3g} nats",
        "value_rmse": "value RMSE {:.3g}",
    }
    known = {key: closeness[key] for key in forms if closeness.get(key) is not None}
    told = [forms[key].format(value).replace("%", " %") for key, value in known.items()]
    return f"On {count(closeness['states'])} states of the dense policy: {', '.join(told)}"


def sensor_lines(result: Mapping[str, Any], most: int = 12) -> list[str]:
    """Return what to say of sensors that nothing reads any more; nothing where all are read.

    Args:
        result: a summary or an evaluation.
        most: how many names a line may hold.

    >>> sensor_lines({"sensors": {"kept": ["obs[0]"], "unplugged": ["obs[1]"]}})
    ['Unplugged      obs[1]', 'Still read     obs[0]']
    """
    sensors = result.get("sensors") or {}
    if not sensors.get("unplugged"):
        return []
    lines = {"Unplugged": sensors["unplugged"], "Still read": sensors["kept"]}
    return [f"{title:<15}{_few(names, most)}" for title, names in lines.items()]


def _few(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def interval(block: Mapping[str, Any] | None) -> str:
    """Return ``487.1 [470.0, 500.0]``."""
    if not block:
        return "-"
    low, high = block.get("ci95") or (None, None)
    return f"{number(block.get('iqm'))} [{number(low)}, {number(high)}]"


def percent(fraction: float | None) -> str:
    """Return ``90.1 %``, or a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def count(value: int | None) -> str:
    """Return ``68,354``, or a dash for None."""
    return "-" if value is None else f"{value:,}"


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    return table
