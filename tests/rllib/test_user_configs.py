"""Configs as users have them run with exact zeros, or are refused at build in a sentence."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import ConfigError, InputError
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.parametrised import effective, originals
from rayprune.rllib.callback import RESULT_KEY
from tests.doubles import user_configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300), pytest.mark.matrix]

CASES = dict(user_configs.cases())
ITERATIONS = 4
# Refused, with a piece of the sentence that says why.
REFUSED = {
    "tied-neuron": "whose weights are tied",
    "FrozenBody-neuron": "Everything that could be pruned is frozen",
    "PPO linear-neuron": "neuron",
}
# Of a layer that no loss uses, data tell nothing: told when the first mask update is due.
UNUSED = {name for name in CASES if name.startswith("unused-") and CASES[name].criterion != "l1"}


@pytest.mark.parametrize("name", CASES)
def test_a_users_config_keeps_its_zeros_or_is_refused(name: str) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in REFUSED:
            with pytest.raises((ConfigError, InputError), match=REFUSED[name]):
                case.config().build_algo()
            return
        algorithm = case.config().build_algo()
        try:
            if name in UNUSED:
                with pytest.raises(InputError, match=r"'net.never.weight'.* Protect that layer"):
                    _run(name, algorithm)
            else:
                _run(name, algorithm)
        finally:
            algorithm.stop()


def _run(name: str, algorithm: Any) -> None:
    for iteration in range(ITERATIONS):
        result = algorithm.train()
        zeros_are_exact(algorithm, acting=not name.startswith(user_configs.ASYNCHRONOUS))
        CASES[name].between(algorithm, iteration)
    pruned = [told["sparsity"] for told in result[RESULT_KEY].values()]
    # Of the only pruned module, once it is removed, there is nothing to tell.
    assert max(pruned, default=1.0) > 0.3
    if CASES[name].pruning.get("granularity", "weight") != "weight":
        actions_differ(algorithm)


def zeros_are_exact(algorithm: Any, *, acting: bool) -> None:
    """Assert that what the Learners' masks prune is zero there, and on an EnvRunner that acts."""
    learners = algorithm.learner_group.foreach_learner(_weights)
    runner = algorithm.env_runner.module
    for result in learners:
        for module_id, (masks, weights, synced) in result.get().items():
            held = _of(runner, module_id)
            for name, mask in masks.items():
                assert torch.count_nonzero(weights[name][~mask]) == 0, (module_id, name)
                if acting and name in held and name in synced:
                    pruned = held[name].detach()[~mask]
                    assert torch.count_nonzero(pruned) == 0, (module_id, name)


def _weights(learner: Any) -> dict[str, Any]:
    return {
        mid: (
            masks,
            {
                n: p.detach().cpu().clone()
                for n, p in computed(learner.module[mid].unwrapped()).items()
            },
            set(learner.module[mid].unwrapped().get_state(inference_only=True)),
        )
        for mid, masks in learner.masks().items()
    }


def _of(runner: Any, module_id: str) -> dict[str, Any]:
    module = runner[module_id] if hasattr(runner, "keys") and module_id in runner else runner
    return computed(module)


def computed(module: Any) -> dict[str, torch.Tensor]:
    """Return a module's parameters by name, those of a normalised weight as what they make."""
    found = dict(module.named_parameters())
    for name, part in module.named_modules():
        for key, _ in originals(part):
            found[join(name, key)] = effective(part, key)
    return found


def actions_differ(algorithm: Any) -> None:
    """Assert that the policy's logits depend on what it sees, where it takes plain vectors."""
    module = algorithm.get_module(DEFAULT_MODULE_ID)
    if not hasattr(module, "action_head"):
        return
    out = module.forward_inference({"obs": user_configs.observations(module)})
    logits = out["action_dist_inputs"].std(0)
    assert torch.all(logits > 0), logits
