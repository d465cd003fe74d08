"""The model card: what the policy is, what it takes, what was shown of it, and by what.

The headings follow Mitchell et al. 2019 (arXiv:1810.03993), as far as a policy has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune.fit.budgets import BUDGETS
from rayprune.fit.candidates import FLOAT
from rayprune.fit.fit_spec import Fit
from rayprune.tracking.report.fit_page import told_tools


def model_card(fit: Fit, result: Mapping[str, Any]) -> str:
    """Return the card of the chosen candidate, as Markdown.

    Args:
        fit: what was asked for.
        result: the content of fit.json.
    """
    parts = [
        _head(fit, result),
        _use(result),
        _budgets(result),
        _return(fit, result),
        _training(fit, result),
        _hashes(result),
        _limits(fit, result),
    ]
    return "\n\n".join(parts) + "\n"


def _head(fit: Fit, result: Mapping[str, Any]) -> str:
    chosen = result["chosen"]
    return (
        f"# {result['name']}: a policy for {result['env']} on {result['target']}\n\n"
        f"A greedy policy that {result['algorithm']} trained and rayprune made small "
        f"(`{chosen['candidate']}`: {_network(chosen)}). It keeps to every budget that it was "
        f"made for, and to {100 * result['return']:g} % of the dense policy's return, at "
        f"{100 * fit.config.confidence:g} % confidence."
    )


def _network(chosen: Mapping[str, Any]) -> str:
    values = chosen["config"]
    hiddens = next((v for key, v in values.items() if key.endswith("fcnet_hiddens")), None)
    widths = "the file's own network" if hiddens is None else f"hidden layers of {hiddens}"
    sparsity = values["pruning.sparsity"]
    rounded = "" if chosen["precision"] == FLOAT else f", in {chosen['precision']}"
    if not sparsity:
        return f"{widths}, unpruned{rounded}"
    pruned = f"{100 * chosen['sparsity']:.1f} % pruned by {values['pruning.granularity']}"
    return f"{widths}, {pruned}{rounded}"


def _use(result: Mapping[str, Any]) -> str:
    about = result["chosen"]["interface"]
    ports = [("in", port) for port in about["observations"]]
    ports += [("in, and out as it is next", port) for port in about["states"]]
    ports += [("out", about["action"]), ("out", about["dist_inputs"])]
    listed = "\n".join(
        f"- {way}: `{port['name']}`, {port['dtype']} {port['shape']}" for way, port in ports
    )
    file = Path(result["chosen"]["artifact"]).name
    return f"## Use\n\n`{file}` computes an action of an observation; it needs no Ray.\n\n{listed}"


def _budgets(result: Mapping[str, Any]) -> str:
    rows = []
    for use in result["chosen"]["uses"]:
        quantity = BUDGETS[use["budget"]].quantity
        rows.append(
            [
                use["budget"],
                use["what"],
                quantity.text(use["limit"]),
                quantity.text(use["measured"]),
                f"{100 * use['share']:.0f} %",
            ]
        )
    tools = told_tools(result["chosen"]["measurement"]["tools"])
    table = _table(["budget", "what", "limit", "measured", "used"], rows, numeric=(2, 3, 4))
    notes = " ".join(result["chosen"]["measurement"].get("notes", ()))
    return (
        f"## Budgets\n\n{table}\n\nMeasured on target `{result['target']}`"
        f"{f', with {tools}' if tools else ''}. {notes}".rstrip()
    )


def _return(fit: Fit, result: Mapping[str, Any]) -> str:
    chosen = result["chosen"]
    rows = [
        [name, *(f"{chosen[key][one]:,.1f}" for one in ("dense", "pruned", "margin"))]
        for key, name in (("mean", "mean return"), ("tail", "mean of the worst quarter"))
    ]
    table = _table(["", "dense", "this policy", "may lose"], rows, numeric=(1, 2, 3))
    return (
        f"## Return\n\n{table}\n\n{chosen['pairs']} pairs of episodes on the seeds from "
        f"{fit.experiment.evaluation.test_seed} on, which neither training nor choice has seen. "
        f"Verdict: **{chosen['verdict']}**. {chosen['reason']}"
    )


def _training(fit: Fit, result: Mapping[str, Any]) -> str:
    experiment, chosen = fit.experiment, result["chosen"]
    seeds = experiment.evaluation
    lines = [
        f"- environment: `{experiment.env}`, `env_config` {json.dumps(experiment.env_config)}",
        f"- algorithm: {experiment.algorithm} of RLlib, seed {experiment.seed}, "
        f"{chosen['env_steps']:,} of {experiment.stop.env_steps:,} env steps"
        + (", beginning with the dense reference's weights" if chosen.get("from_dense") else ""),
        f"- the dense reference: the same algorithm and seed, {experiment.stop.env_steps:,} env "
        "steps, the best by the same validation"
        if experiment.evaluation.dense in (None, "train")
        else f"- the dense reference: `{experiment.evaluation.dense}`",
        f"- chosen by {seeds.episodes} validation episodes from seed {seeds.validation_seed}: "
        f"{chosen['return']:,.1f}, dense {result['dense']['validation']['iqm']:,.1f}",
        f"- candidates trained: {len(result['trained'])}; judged, until this was good: "
        f"{len(result['judged'])}",
        "- settings: `fit.yaml`; the trial's own are in its checkpoint's config",
    ]
    return "## Data and training\n\n" + "\n".join(lines)


def _hashes(result: Mapping[str, Any]) -> str:
    chosen = result["chosen"]
    rows = [
        ["file", f"`{chosen['sha256']}`"],
        ["weights", f"`{chosen['weights_sha256']}`"],
        *([name, version] for name, version in result["versions"].items()),
    ]
    return "## Versions and hashes (SHA-256)\n\n" + _table(["what", "is"], rows)


def _limits(fit: Fit, result: Mapping[str, Any]) -> str:
    return (
        "## Limits\n\nWhat was shown holds for this environment with its `env_config`, and for "
        f"returns of greedy actions. Figures of target `{result['target']}` are those of the tools "
        "above. One seed was trained: another may come out otherwise. Of safety nothing was tested."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    lines = [
        list(head),
        ["---:" if n in numeric else "---" for n in range(len(head))],
        *([cell.replace("|", "\\|") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
