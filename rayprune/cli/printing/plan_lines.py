"""What ``rayprune sweep --plan`` tells people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.cli.printing.tables import chosen_in, percent
from rayprune.cli.printing.terminal_reporter import duration


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return a plan as lines: what a trial needs, how many run at once, how long it takes.

    Args:
        plan: what `rayprune.search.planning.sweep_plan.plan_sweep` returned.
    """
    lines = [
        f"A trial     {_amounts(plan['trial'])}{_bundles(plan['bundles'])}",
        f"Cluster     {_amounts(plan['cluster'])} on {plan['nodes']} node(s)",
        f"At once     {plan['at_once']} of {plan['trials']} trials"
        + (f", in {plan['rounds']} rounds" if plan["rounds"] > 1 else ""),
    ]
    for name, group in plan.get("groups", {}).items():
        target = "a threshold" if group["target"] is None else percent(group["target"])
        lines.append(f"Group       {name}: {', '.join(chosen_in(group))}, to {target}")
    if plan["estimate_s"] is None:
        return [*lines, f"Time        not known. {plan['uncalibrated']}"]
    measured, estimate = plan["calibration"], plan["estimate_s"]
    lines += [
        f"Calibrated  {1 / measured['step_s']:,.0f} env steps a second in "
        f"{measured['env_steps']:,} steps; start {measured['start_s']:.1f} s, measurement "
        f"{measured['evaluation_s']:.1f} s{_longest(measured)}, checkpoint "
        f"{measured['save_s']:.2f} s",
        f"A trial     {_span(estimate['trial'])}",
    ]
    if estimate["dense"][1]:
        lines.append(f"Dense       {_span(estimate['dense'])}, before the population")
    return [*lines, f"The sweep   {_span(estimate['sweep'])}"]


def _span(bounds: tuple[float, float]) -> str:
    least, most = map(duration, bounds)
    return f"about {least}" if least == most else f"{least} to {most}"


def _longest(measured: Mapping[str, Any]) -> str:
    longest = measured["longest_evaluation_s"]
    return "" if longest is None else f" (up to {longest:.1f} s when episodes get longer)"


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(amounts.items())) or "nothing"


def _bundles(bundles: list[dict[str, float]]) -> str:
    """Say how a trial is split: a part lies on one node."""
    if len(bundles) == 1:
        return ""
    return f", in {len(bundles)} parts: " + " | ".join(map(_amounts, bundles))
