"""One policy of several is pruned, the others stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole

from rayprune.errors import ConfigError, InvariantError
from rayprune.rllib import prune
from rayprune.rllib.callback import RESULT_KEY, check_env_runners, learner_reports
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


def by_agent(agent: Any, episode: Any, **_: Any) -> str:
    return "small" if agent == 0 else "large"


def two_policies() -> Any:
    config = configs.ppo(MultiAgentCartPole).environment(env_config={"num_agents": 2})
    return config.multi_agent(policies={"small", "large"}, policy_mapping_fn=by_agent)


def weights_of(module: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in module.unwrapped().named_parameters()}


def test_only_the_chosen_policy_is_pruned_and_both_learn(tmp_path: Path) -> None:
    config = prune(two_policies(), configs.pruning(), modules=["small"])
    algo = configs.build(config)
    try:
        before = {n: w.clone() for n, w in weights_of(_module(algo, "large")).items()}
        for _ in range(2):
            result = algo.train()
        assert list(result[RESULT_KEY]) == ["small"]
        assert result[RESULT_KEY]["small"]["sparsity"] == pytest.approx(0.8, abs=0.01)
        masks = configs.learner_of(algo).masks()
        assert list(masks) == ["small"]
        small, large = weights_of(_module(algo, "small")), weights_of(_module(algo, "large"))
        for name, mask in masks["small"].items():
            assert torch.all(small[name][~mask] == 0)
            assert torch.count_nonzero(large[name]) == large[name].numel()
            assert torch.any(large[name] != before[name])
        runner = algo.env_runner.module["small"]
        held = dict(runner.named_parameters())
        compared = [n for n in masks["small"] if n in held and "critic" not in n and "vf" not in n]
        assert compared
        for name in compared:
            assert torch.all(held[name].detach()[~masks["small"][name]] == 0)
        algo.save_to_path(tmp_path)
        saved = learner_reports(algo)[0]["small"]["digest"]
    finally:
        algo.stop()
    restored = configs.build(config)
    try:
        restored.restore_from_path(str(tmp_path))
        (report,) = learner_reports(restored)
        assert list(report) == ["small"]
        assert report["small"]["digest"] == saved
    finally:
        restored.stop()


def test_the_callback_looks_at_the_pruned_policys_env_runners() -> None:
    algo = configs.build(prune(two_policies(), configs.pruning(), modules=["small"]))
    try:
        algo.train()
        for name, raises in (("large", False), ("small", True)):
            with torch.no_grad():
                for parameter in algo.env_runner.module[name].parameters():
                    parameter.add_(0.1)
            if raises:
                with pytest.raises(InvariantError, match="small"):
                    check_env_runners(algo, learner_reports(algo)[0])
            else:
                check_env_runners(algo, learner_reports(algo)[0])
    finally:
        algo.stop()


def test_each_policy_may_have_its_own_pruning() -> None:
    changes = {"small": {"sparsity": 0.9}, "large": {"granularity": "neuron", "sparsity": 0.5}}
    algo = configs.build(prune(two_policies(), configs.pruning(), modules=changes))
    try:
        result = algo.train()[RESULT_KEY]
        assert result["small"]["sparsity"] == pytest.approx(0.9, abs=0.01)
        assert result["large"]["sparsity"] == pytest.approx(0.5, abs=0.03)
    finally:
        algo.stop()


def test_a_policy_that_is_not_there_is_named() -> None:
    config = prune(two_policies(), configs.pruning(), modules=["smal"])
    with pytest.raises(ConfigError, match=r"one is 'smal'. Did you mean 'small'"):
        configs.build(config)


@pytest.mark.parametrize("modules", ["small", [], {}])
def test_modules_must_be_several_names_or_changes(modules: Any) -> None:
    with pytest.raises(ConfigError, match="`modules` must be"):
        prune(two_policies(), configs.pruning(), modules=modules)


def test_a_policys_changes_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="sparsity"):
        prune(two_policies(), configs.pruning(), modules={"small": {"sparsity": 1.5}})


def _module(algo: Any, name: str) -> Any:
    return configs.learner_of(algo).module[name]
