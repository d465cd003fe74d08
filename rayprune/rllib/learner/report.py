"""What a Learner reports of its masks: sparsities, broken promises, and what costs more to know."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rayprune.pruning.config import choices_of
from rayprune.pruning.measures.counting import dead_units
from rayprune.pruning.measures.histograms import histogram_of
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.algorithms.target_networks import target_parameters
from rayprune.rllib.learner.extensions.cut_off import CutOff
from rayprune.rllib.learner.extensions.evidence import MinibatchEvidence
from rayprune.rllib.learner.module_pruners import ModulePruners
from rayprune.rllib.learner.sparse_moments_and_targets import masked_targets
from rayprune.rllib.modules.groups import kept_back


def reports(modules: ModulePruners) -> dict[str, dict[str, Any]]:
    """Return by module id what the masks are now, with every broken promise."""
    return {mid: _report(modules, mid, pruner) for mid, pruner in modules.pruners.items()}


def diagnoses(modules: ModulePruners) -> dict[str, dict[str, Any]]:
    """Return by module id what takes passes over scores and over units."""
    known = modules.events.of(MinibatchEvidence).convergence
    return {
        mid: {**_diagnosis(modules, mid, pruner), "convergence": known.get(mid, {})}
        for mid, pruner in modules.pruners.items()
    }


def uncovered_lines(modules: ModulePruners) -> list[str]:
    """Return what sparsities are not of, a line for each module; see `Pruner.uncovered`."""
    lines = {mid: pruner.uncovered.line() for mid, pruner in modules.pruners.items()}
    return [f"{mid!r}: {line}." for mid, line in lines.items() if line] + _left_alone(modules)


def _left_alone(modules: ModulePruners) -> list[str]:
    """Return a line for each module that is chosen and left alone, with the reason."""
    others = [mid for mid in modules.learner.module.keys() if mid not in modules.pruners]  # noqa: SIM118
    whys = {mid: modules.chosen.left_alone(mid) for mid in others}
    return [f"{mid!r} is left alone: {why}" for mid, why in whys.items() if why]


def _report(modules: ModulePruners, module_id: str, pruner: Pruner) -> dict[str, Any]:
    module = modules.module(module_id)
    masks, written = pruner.held_masks, pruner.written_masks
    layers = pruner.layer_counts()
    groups = dict.fromkeys(layer.group for layer in layers if not layer.exempt)
    copies = {id(copy) for _, copy in target_parameters(module)}
    named = {n: p for n, p in module.named_parameters() if id(p) not in copies}
    parameters = list(named.values())
    return {
        "sparsity": pruner.masked(),
        "groups": {g: pruner.masked(g) for g in groups},
        "own_groups": {
            name: {
                **choices_of(member.config),
                "sparsity": member.masked(),
                "finished": member.finished(modules.clock),
            }
            for name, member in pruner.own_groups.items()
        },
        "itop": modules.diagnostics.take("itop", module_id, pruner.coverage, None),
        "layers": layers,
        "uncovered": pruner.uncovered.to_dict(),
        "cut_off": modules.events.of(CutOff).report(module_id, pruner),
        "parameters": {
            "total": sum(pruner.origins.size(name, p) for name, p in named.items()),
            "held": sum(p.numel() for p in parameters),
            "nonzero": sum(int(torch.count_nonzero(p)) for p in parameters),
        },
        "violations": {**pruner.violations(), **_stale_targets(pruner)},
        "finite": all(bool(torch.isfinite(p).all()) for p in parameters),
        "digest": _digest(masks),
        "finished": pruner.finished(modules.clock),
        "behind": pruner.behind,
        "most": pruner.most,
        "kept": {
            name: int(written[name].sum())
            for name in masks
            if not name.startswith(kept_back(module))
        },
        "weights_seq_no": modules.learner._weights_seq_no,
        "step": modules.clock,
        "updates": modules.updates,
        "mask_updates": pruner.mask_updates,
    }


def _stale_targets(pruner: Pruner) -> dict[str, int]:
    """Return how many pruned weights of target networks are not zero; empty if right."""
    masks = pruner.written_masks
    found = {
        f"target of {name}": int(torch.count_nonzero(target[~masks[name]]))
        for name, target in masked_targets(pruner)
        if name in masks
    }
    return {name: count for name, count in found.items() if count}


def _diagnosis(modules: ModulePruners, module_id: str, pruner: Pruner) -> dict[str, Any]:
    kinds: dict[str, Callable[[Pruner], Any]] = {
        "scores": _score_histograms,
        "dead_units": _dead_units,
    }
    return {
        key: modules.diagnostics.take(key, module_id, partial(measure, pruner), {})
        for key, measure in kinds.items()
    }


def _score_histograms(pruner: Pruner) -> dict[str, Any]:
    masks = pruner.held_masks
    scores: dict[str, Tensor] = {}
    for member in pruner.members:
        # Scores from data are known only in the moment of a mask update.
        criterion = member.config.chosen.criterion
        if not (criterion.evidence or criterion.needs_returns):
            scores |= member.scores()
    drawn = {name: histogram_of(s, masks.get(name)) for name, s in scores.items()}
    return {name: histogram for name, histogram in drawn.items() if histogram is not None}


def _dead_units(pruner: Pruner) -> dict[str, int]:
    layers = {layer.name for layer in pruner.layer_counts()}
    dead = dead_units(pruner.module)
    return {name: count for name, count in dead.items() if name in layers}


def _digest(masks: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(name.encode())
        digest.update(masks[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
