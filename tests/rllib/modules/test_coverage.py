"""What is frozen is left alone, what isn't covered or is cut off is told: in algorithms."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.layers.masked import MASKABLE
from rayprune.rllib import prune
from rayprune.rllib.callback import RESULT_KEY, learner_reports
from rayprune.rllib.modules.cut_off import Teller, constant_outputs
from rayprune.tracking.record import read_rows
from rayprune.tracking.reporter import NullReporter
from tests.doubles import shared_encoder
from tests.rllib import configs, experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


class Own(TorchRLModule, ValueFunctionAPI):
    """A body, an embedding that nothing prunes, and two heads."""

    frozen: tuple[str, ...] = ()

    def setup(self) -> None:
        super().setup()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh())
        self.table = nn.Parameter(0.1 * torch.randn(16, 16))
        self.pi, self.vf = nn.Linear(16, 2), nn.Linear(16, 1)
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"action_dist_inputs": self.pi(self.body(batch["obs"]) @ self.table)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        return self.vf(self.body(batch["obs"])).squeeze(-1)


class Frozen(Own):
    frozen = ("body.0",)


class AllFrozen(Own):
    frozen = ("body", "pi", "vf")


def own(module_class: type = Own, **pruning: Any) -> Any:
    config = configs.ppo().rl_module(rl_module_spec=RLModuleSpec(module_class=module_class))
    return prune(config, configs.pruning(**{"plasticity": None, **pruning}))


def by_agent(agent: Any, *_: Any, **__: Any) -> str:
    return f"p{agent}"


def two_policies(trained: Any) -> Any:
    config = configs.ppo(MultiAgentCartPole).environment(env_config={"num_agents": 2})
    return config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=by_agent, policies_to_train=trained
    )


def by_name(module_id: str, _: Any) -> bool:
    return module_id == "p0"


def by_batch(module_id: str, batch: Any) -> bool:
    return module_id in batch.policy_batches and module_id < "p1"


def zeros(algo: Any, module_id: str = DEFAULT_MODULE_ID) -> dict[str, int]:
    module = configs.learner_of(algo).module[module_id].unwrapped()
    named = module.named_parameters()
    return {name: int((p == 0).sum()) for name, p in named if p.dim() > 1 and bool((p == 0).any())}


def warnings_of(caplog: Any) -> list[str]:
    return [r.message for r in caplog.records if r.name == "rayprune.rllib.callback"]


def test_a_frozen_layer_is_left_alone_and_unfreezing_it_has_it_pruned(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        algo = configs.build(own(Frozen))
    assert warnings_of(caplog) == [
        "'default_policy': sparsity is of 304 of 624 weights; not covered: table (256); frozen: "
        "body.0.weight (64)."
    ]
    try:
        result = algo.train()[RESULT_KEY][DEFAULT_MODULE_ID]
        assert result["sparsity"] == pytest.approx(0.8, abs=0.01)
        assert result["uncovered"] == {"weights": 624, "covered": 304}
        assert result["cut_off"] is None
        assert set(zeros(algo)) == {"body.2.weight", "pi.weight", "vf.weight"}
        (report,) = learner_reports(algo)
        assert report[DEFAULT_MODULE_ID]["uncovered"]["frozen"] == {"body.0.weight": 64}
        configs.learner_of(algo).module[DEFAULT_MODULE_ID].body.requires_grad_(True)
        algo.train()
        assert zeros(algo)["body.0.weight"] == 51
    finally:
        algo.stop()


def test_a_module_whose_every_layer_is_frozen_is_refused_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="Everything that could be pruned is frozen"):
        configs.build(own(AllFrozen))
    algo = configs.build(own(AllFrozen, frozen="prune"))
    try:
        algo.train()
        assert set(zeros(algo)) == {"body.0.weight", "body.2.weight", "pi.weight", "vf.weight"}
    finally:
        algo.stop()


@pytest.mark.parametrize(
    "trained",
    [["p0"], {"p0"}, by_name, by_batch],
    ids=["list", "set", "function", "function of the batch"],
)
@pytest.mark.parametrize("schedule", [configs.AT_ONCE, {"kind": "static"}], ids=["ramp", "static"])
def test_what_policies_to_train_leaves_out_is_left_alone(
    trained: Any, schedule: Any, caplog: Any
) -> None:
    late = trained is by_batch
    if late and schedule["kind"] == "static":
        pytest.skip("before there is a batch, a function of it can't be asked")
    config = prune(two_policies(trained), configs.pruning(schedule=schedule))
    with caplog.at_level(logging.WARNING):
        algo = configs.build(config)
    told = [line for line in warnings_of(caplog) if "'p1' is left alone" in line]
    assert len(told) == (0 if late else 1)
    try:
        result = algo.train()[RESULT_KEY]
        assert result["p0"]["sparsity"] == pytest.approx(0.8, abs=0.01)
        assert result.get("p1", {"sparsity": 0.0})["sparsity"] == 0
        assert zeros(algo, "p0")
        assert zeros(algo, "p1") == {}
    finally:
        algo.stop()


def test_naming_a_module_asks_for_it_and_one_that_is_trained_later_is_pruned_then() -> None:
    named = prune(two_policies(["p0"]), configs.pruning(), modules=["p0", "p1"])
    algo = configs.build(named)
    try:
        algo.train()
        assert zeros(algo, "p1")
    finally:
        algo.stop()
    algo = configs.build(prune(two_policies(["p0"]), configs.pruning()))
    try:
        algo.train()
        assert zeros(algo, "p1") == {}
        configs.learner_of(algo).config.policies_to_train = ["p0", "p1"]  # as add_module does
        algo.train()
        assert zeros(algo, "p1")
    finally:
        algo.stop()


class NoLayers(TorchRLModule, ValueFunctionAPI):
    """Weights that no mask can reach."""

    def setup(self) -> None:
        super().setup()
        self.table = nn.Parameter(0.1 * torch.randn(4, 3))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"action_dist_inputs": (batch["obs"] @ self.table)[..., :2]}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        return (batch["obs"] @ self.table)[..., 2]


def learner_of_two(*kinds: type, trained: Any = None, **changes: Any) -> Any:
    seen, acts = gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Discrete(2)
    names = [f"p{index}" for index in range(len(kinds))]
    specs = [RLModuleSpec(kind, observation_space=seen, action_space=acts) for kind in kinds]
    config = configs.ppo(None).environment(None, observation_space=seen, action_space=acts)
    config.multi_agent(
        policies=dict.fromkeys(names, (None, seen, acts, None)),
        policy_mapping_fn=by_agent,
        policies_to_train=trained,
    )
    spec = MultiRLModuleSpec(rl_module_specs=dict(zip(names, specs, strict=True)))
    config.rl_module(rl_module_spec=spec, model_config={})
    return prune(config, configs.pruning(), **changes).build_learner()


def test_a_module_without_layers_to_prune_is_left_alone_beside_others() -> None:
    learner = learner_of_two(Own, NoLayers)
    assert list(learner.pruners) == ["p0"]
    (line,) = (line for line in learner.uncovered_lines() if "p1" in line)
    kinds = ", ".join(kind.__name__ for kind in MASKABLE)
    assert line == f"'p1' is left alone: none of its layers is a {kinds}."
    with pytest.raises(ConfigError, match=r"None of \['p0', 'p1'\] has a layer to prune"):
        learner_of_two(NoLayers, NoLayers)
    with pytest.raises(InputError, match="has no layer to prune"):
        learner_of_two(Own, NoLayers, modules=["p1"])


def test_what_was_pruned_while_it_was_trained_is_pruned_after_a_restore_too() -> None:
    first = learner_of_two(Own, Own)
    first.prune_now()
    state = first.get_state()
    state["should_module_be_updated"] = ["p0"]
    second = learner_of_two(Own, Own, trained=["p0"])
    assert list(second.pruners) == ["p0"]
    second.set_state(state)
    assert second.masks().keys() == first.masks().keys() == {"p0", "p1"}
    for name, mask in first.masks()["p1"].items():
        assert not mask.all()
        assert torch.equal(second.masks()["p1"][name], mask)


def test_sacs_own_flips_of_requires_grad_are_no_freezing() -> None:
    algo = configs.build(prune(configs.sac(), configs.pruning()))
    try:
        for _ in range(2):
            result = algo.train()[RESULT_KEY][DEFAULT_MODULE_ID]
        assert result["sparsity"] == pytest.approx(0.8, abs=0.01)
        assert any(name.startswith("qf") for name in zeros(algo))
        (report,) = learner_reports(algo)
        assert report[DEFAULT_MODULE_ID]["uncovered"]["frozen"] == {}
        assert report[DEFAULT_MODULE_ID]["cut_off"] is None
    finally:
        algo.stop()


def test_an_empty_layer_is_told_once_when_it_happens(caplog: Any) -> None:
    config = own(distribution={"body.2": 0.999, "body.0": 0.0, "pi": 0.0, "vf": 0.0}, sparsity=0.5)
    algo = configs.build(config)
    try:
        with caplog.at_level(logging.WARNING):
            results = [algo.train()[RESULT_KEY][DEFAULT_MODULE_ID] for _ in range(2)]
        found = {
            "empty_layers": ["body.2"],
            "constant_outputs": {"action_dist_inputs": "body.2", "vf_preds": "body.2"},
        }
        assert [result["cut_off"] for result in results] == [found, found]
        told = [line for line in warnings_of(caplog) if "sparsity is of" not in line]
        assert len(told) == 3
        assert told[0].startswith("No weight is left in body.2:")
        assert "cut default_policy's vf_preds off from the observation: it ends at bod" in told[2]
    finally:
        algo.stop()


def test_no_path_is_told_though_no_layer_is_empty() -> None:
    algo = configs.build(own(sparsity=0.1))
    try:
        algo.train()
        (pruner,) = configs.learner_of(algo).pruners.values()
        module = pruner.module
        batch = {"obs": torch.randn(8, 4)}
        assert constant_outputs(batch, pruner) == {}
        with torch.no_grad():
            module.body[0].weight[1:] = 0.0  # only its first unit reads the observation,
            module.body[2].weight[:, 0] = 0.0  # and nothing reads that one
        cut = {"action_dist_inputs": "body.2", "vf_preds": "body.2"}
        assert constant_outputs(batch, pruner) == cut
        with torch.no_grad():
            module.body[2].weight[:, 0] = 1.0
            module.body[0].bias[0] = -1e6  # its ReLU is dead
        assert set(constant_outputs(batch, pruner)) == set(cut)
        same = {"obs": torch.ones(8, 4)}
        assert constant_outputs(same, pruner) == {}
        assert module.training
    finally:
        algo.stop()


def test_a_policy_is_run_with_the_encoder_beside_it() -> None:
    seen = gym.spaces.Box(-1, 1, (4,), np.float32)
    parent = shared_encoder.build(seen, gym.spaces.Discrete(3))
    pruner = Pruner(parent["p0"], PruningConfig(sparsity=0.2))
    pruner.prune_to()
    batch = {"obs": torch.randn(8, 4)}
    assert constant_outputs(batch, pruner, parent) == {}
    with torch.no_grad():
        pruner.layers["_pi_head.2"].weight.zero_()
    assert constant_outputs(batch, pruner, parent) == {"action_dist_inputs": "_pi_head.2"}
    assert list(batch) == ["obs"]


class Counting(Own):
    """Counts its forwards, and draws noise in each."""

    def setup(self) -> None:
        super().setup()
        self.register_buffer("forwards", torch.zeros(()))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.forwards += 1
        logits = super()._forward(batch)["action_dist_inputs"]
        return {"action_dist_inputs": logits + torch.randn_like(logits)}


def test_looking_for_cut_off_outputs_counts_no_forward_and_sees_through_noise() -> None:
    seen, acts = gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Discrete(2)
    module = Counting(observation_space=seen, action_space=acts, model_config={})
    pruner = Pruner(module, PruningConfig(sparsity=0.2))
    pruner.prune_to()
    batch, drawn = {"obs": torch.randn(8, 4)}, torch.get_rng_state()
    assert constant_outputs(batch, pruner) == {}
    with torch.no_grad():
        module.body[0].weight.zero_()
    cut = {"action_dist_inputs": "body.0", "vf_preds": "body.0"}
    assert constant_outputs(batch, pruner) == cut
    assert module.forwards == 0
    assert torch.equal(torch.get_rng_state(), drawn)


def test_each_output_ends_at_a_layer_of_its_own() -> None:
    seen, acts = gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Discrete(2)
    module = DefaultPPOTorchRLModule(
        observation_space=seen,
        action_space=acts,
        model_config=DefaultModelConfig(vf_share_layers=False),
        catalog_class=PPOCatalog,
    )
    pruner = Pruner(module, PruningConfig(sparsity=0.2))
    pruner.prune_to()
    with torch.no_grad():
        for name in ("actor", "critic"):
            getattr(module.encoder, f"{name}_encoder").net.mlp[0].weight.zero_()
    ends = constant_outputs({"obs": torch.randn(8, 4)}, pruner)
    assert ends == {
        "action_dist_inputs": "encoder.actor_encoder.net.mlp.0",
        "vf_preds": "encoder.critic_encoder.net.mlp.0",
    }


def test_what_was_told_is_not_told_again() -> None:
    teller = Teller()
    found = {"empty_layers": ["pi.0"], "constant_outputs": {"vf_preds": None}}
    assert len(teller.lines("one", found)) == 2
    assert teller.lines("one", found) == []
    assert len(teller.lines("two", found)) == 2
    assert teller.lines("one", None) == []


def test_a_run_tells_at_its_start_and_in_its_summary(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener(NullReporter):
        def message(self, text: str) -> None:
            told.append(text)

    what = experiments.experiment(
        experiments.PPO,
        rllib={
            **experiments.PPO["rllib"],
            "rl_module": {"module_class": "tests.rllib.modules.test_coverage:Frozen"},
        },
        pruning={
            "sparsity": 0.5,
            "schedule": configs.AT_ONCE,
            "distribution": {"body.2": 0.999, "pi": 0.0, "vf": 0.0},
        },
        stop={"env_steps": 400},
        evaluation={"every": 400, "episodes": 1},
    )
    experiments.train(what, tmp_path, reporter=Listener())
    line = "'default_policy': sparsity is of 304 of 624 weights; not covered: table (256); frozen: "
    assert len([text for text in told if text.startswith(line)]) == 1
    assert len([text for text in told if text.startswith("No weight is left in body.2:")]) == 1
    assert len([text for text in told if "off from the observation" in text]) == 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["uncovered"]["frozen"] == {"body.0.weight": 64}
    assert summary["uncovered"]["not_maskable"] == {"table": 256}
    assert summary["cut_off"]["empty_layers"] == ["body.2"]
    rows = read_rows(tmp_path / "results.jsonl")
    assert rows[-1]["cut_off"] == summary["cut_off"]
