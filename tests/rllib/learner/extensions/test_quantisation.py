"""Quantisation-aware training in a Learner: what rounds, what stays, and who follows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch

from rayprune.errors import ConfigError
from rayprune.pruning.quantisation.layers import FROZEN, OBSERVING, OFF, QuantisedLayer
from rayprune.pruning.quantisation.quantiser import quantised_layers
from rayprune.pruning.quantisation.rounding import rounded, weight_grid
from rayprune.rllib import prune
from rayprune.rllib.learner.extensions.quantisation import QuantisationAwareTraining
from rayprune.rllib.learner.updates.replays import Replays
from rayprune.rllib.modules.resizable import Shrinkable
from tests.rllib import configs
from tests.rllib.learner.updates import twins

pytestmark = pytest.mark.timeout(120)

QUANTISE = {"weights": 4, "start": 150, "freeze": 350}
"""Updates end at 100, 200, ...: two in full precision, two that observe, then ranges stay."""
EPOCHS = {"num_epochs": 3, "minibatch_size": 16, "shuffle_batch_per_epoch": True}


def ppo() -> Any:
    return twins.spaces(configs.ppo(), twins.VECTOR, twins.DISCRETE)


def learner_of(config: Any, *, lean: bool = True, **changes: Any) -> Any:
    quantise = {**QUANTISE, **changes.pop("quantise", {})}
    pruning = configs.pruning(plasticity=None, **changes)
    given = config.copy(copy_frozen=False)
    return twins.built(prune(given, pruning, quantise=quantise, lean=lean))


def module_of(learner: Any) -> Any:
    return learner.module[DEFAULT_MODULE_ID]


def check_zeros(learner: Any) -> None:
    """Assert that what is masked is zero, in full precision and as it is computed with."""
    pruner = learner.pruners[DEFAULT_MODULE_ID]
    assert pruner.masks
    for name, mask in pruner.masks.items():
        layer = module_of(learner).get_submodule(name.rpartition(".")[0])
        seen = layer.weight
        if isinstance(layer, QuantisedLayer):
            seen = rounded(seen, weight_grid(seen, layer.precision.weights))
        assert not seen[~mask].any()


def test_phases_come_in_turn_lean_updates_hold_and_masked_weights_stay_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (learner_of(ppo(), lean=lean) for lean in (False, True))
    replayed, phases = Replays.replayed, []

    def noted(*args: Any) -> Any:
        found = replayed(*args)
        if found is not None:
            phases.append(second.extension(QuantisationAwareTraining).phase(DEFAULT_MODULE_ID))
        return found

    monkeypatch.setattr(Replays, "replayed", noted)

    def batches() -> Iterator[MultiAgentBatch]:
        return (twins.ppo_batch(first, 48, seed=seed) for seed in range(6))

    expected, found = (twins.after_updates(own, batches, **EPOCHS) for own in (first, second))
    assert twins.differences(expected[0], found[0]) == []
    assert twins.differences(expected[1], found[1]) == []
    # Recordings can't hold while ranges follow what comes.
    assert set(phases) == {OFF, FROZEN}
    check_zeros(second)
    module = module_of(second)
    rounding = quantised_layers(module)
    assert set(rounding) == {
        "encoder.actor_encoder.net.mlp.0",
        "encoder.actor_encoder.net.mlp.2",
        "pi.net.mlp.0",
    }
    assert [layer.precision.activations for layer in rounding.values()] == [16, 8, 8]
    assert not any(torch.equal(*map(torch.abs, (w, w.round()))) for w in module.parameters())


def test_a_resumed_learner_goes_on_as_the_one_that_was_not_stopped() -> None:
    whole, parted = (learner_of(ppo()) for _ in range(2))
    made = [twins.ppo_batch(whole, 48, seed=seed) for seed in range(4)]

    def update(learner: Any, number: int) -> None:
        learner.cross_barrier()
        torch.manual_seed(number)
        clock = {"num_env_steps_sampled_lifetime": 100 * (number + 1)}
        learner.update(
            batch=twins.copied(made[number]), timesteps=clock, num_epochs=2, minibatch_size=48
        )

    for number in range(3):
        update(whole, number)
        update(parted, number)
    assert parted.extension(QuantisationAwareTraining).phase(DEFAULT_MODULE_ID) == OBSERVING
    resumed = learner_of(ppo())
    resumed.set_state(parted.get_state())
    update(whole, 3)
    update(resumed, 3)
    assert twins.differences(*(own.get_state()["rl_module"] for own in (whole, resumed))) == []
    assert resumed.extension(QuantisationAwareTraining).phase(DEFAULT_MODULE_ID) == FROZEN


def test_target_networks_round_as_their_sources_do_and_critics_do_not() -> None:
    learner = learner_of(
        twins.spaces(configs.dqn(), twins.VECTOR, twins.DISCRETE), quantise={"start": 0}
    )
    for number in range(2):
        batch = twins.replayed_batch(learner.config, 16, number)
        learner.update(batch=batch, timesteps={"num_env_steps_sampled_lifetime": 100 + number})
    module = module_of(learner)
    rounding = quantised_layers(module)
    assert {name.split(".")[0] for name in rounding} == {
        "encoder", "af", "vf", "_target_encoder", "_target_af", "_target_vf",
    }  # fmt: skip
    for name, layer in rounding.items():
        if name.startswith("_target"):
            source = rounding[name.removeprefix("_target_")]
            assert torch.equal(layer.activation_range, source.activation_range)
            assert (layer.precision.phase, source.precision.phase) == (FROZEN, OBSERVING)
    check_zeros(learner)


def test_env_runners_act_with_the_rounded_policy() -> None:
    config = prune(configs.ppo(), configs.pruning(), quantise={"start": 0, "freeze": 0})
    runner = SingleAgentEnvRunner(config=config)
    learner = twins.built(
        twins.spaces(config, runner.env.single_observation_space, runner.env.single_action_space)
    )
    clock = {"num_env_steps_sampled_lifetime": 100}
    learner.update(batch=twins.ppo_batch(learner, 48), timesteps=clock, num_epochs=1)
    runner.module.set_state(learner.module.get_state(inference_only=True)[DEFAULT_MODULE_ID])
    given = {"obs": torch.randn(7, 4)}
    module = module_of(learner).eval()
    acted = runner.module.eval()._forward_inference(given)["action_dist_inputs"]
    assert torch.equal(acted, module._forward_inference(given)["action_dist_inputs"])
    assert quantised_layers(runner.module).keys() == quantised_layers(module).keys()
    runner.stop()


def test_networks_shrink_until_they_round_and_it_is_told_why_not_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner = learner_of(ppo(), granularity="neuron", sparsity=0.5, compact_every=1)
    module = module_of(learner)
    assert isinstance(module, Shrinkable)
    layer, sizes = module.get_submodule("encoder.actor_encoder.net.mlp.0"), []
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            if number == 2:  # rounding has begun at the end of the last update
                learner.config.learner_config_dict["rayprune"]["sparsity"] = 0.75
            learner.update(
                batch=twins.ppo_batch(learner, 48, seed=number),
                timesteps={"num_env_steps_sampled_lifetime": 100 * (number + 1)},
                num_epochs=1,
            )
            sizes.append(layer.out_features)
    assert sizes == [16] * 4
    assert learner.pruning_report()[DEFAULT_MODULE_ID]["sparsity"] > 0.7
    assert caplog.text.count("is compacted no more, since it is quantised") == 1


def test_compiled_learners_are_refused() -> None:
    config = ppo().framework(torch_compile_learner=True)
    with pytest.raises(ConfigError, match="can't be had with `torch_compile_learner`"):
        prune(config, configs.pruning(), quantise={})


def test_a_module_that_can_t_round_is_refused_with_a_way_out() -> None:
    config = prune(ppo(), configs.pruning(), quantise={})
    config.rl_module(rl_module_spec=ppo().get_default_rl_module_spec())
    with pytest.raises(ConfigError, match="Call `prune` last, or leave `quantise` out"):
        twins.built(config)
