"""`prune` composes with what the user has, and replaces nothing."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import cloudpickle
import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID

import rayprune
from rayprune import PruningConfig
from rayprune.errors import ConfigError
from rayprune.rllib import PruningCallback, prune, pruned
from rayprune.rllib.learner.mixin import PruningMixin
from rayprune.rllib.settings.keys import CONFIG_KEY
from tests.rllib import configs

pytestmark = pytest.mark.timeout(300)


class OwnCallback(RLlibCallback):
    """Counts its calls."""

    calls: ClassVar[list[int]] = []

    def on_train_result(self, *, result: dict[str, Any], **kwargs: Any) -> None:
        self.calls.append(result["training_iteration"])


class OwnLearner(PPOTorchLearner):
    """A user's Learner."""

    updates: ClassVar[list[int]] = []

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        self.updates.append(1)


def test_prune_returns_the_same_kind_of_config_and_leaves_the_users_alone() -> None:
    before = PPOConfig().environment("CartPole-v1").training(lr=0.001)
    after = prune(before, PruningConfig(sparsity=0.9))
    assert type(after) is PPOConfig
    assert after.lr == 0.001
    assert CONFIG_KEY not in before.learner_config_dict
    assert after.learner_config_dict[CONFIG_KEY]["sparsity"] == 0.9
    assert not issubclass(before.learner_class, PruningMixin)
    assert issubclass(after.learner_class, before.learner_class)


def test_prune_twice_changes_the_pruning_and_wraps_once() -> None:
    once = prune(PPOConfig(), PruningConfig(sparsity=0.9))
    twice = prune(once, PruningConfig(sparsity=0.5))
    assert twice.learner_class is once.learner_class
    assert twice.learner_config_dict[CONFIG_KEY]["sparsity"] == 0.5
    assert twice.callbacks_class is PruningCallback
    functions = [twice.callbacks_on_algorithm_init, twice.callbacks_on_train_result]
    assert [len(held) for held in functions] == [1, 1]


def test_a_dict_with_tune_domains_is_completed_and_left_for_the_trial() -> None:
    config = prune(PPOConfig(), {"sparsity": tune.uniform(0.5, 0.98)})
    held = config.learner_config_dict[CONFIG_KEY]
    assert held["criterion"] == "l1"
    assert type(held["sparsity"]).__name__ == "Float"


def test_a_plain_dict_is_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sparsity'"):
        prune(PPOConfig(), {"sparsty": 0.5})


def test_the_old_api_stack_is_refused_with_the_way_out() -> None:
    old = PPOConfig().api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    with pytest.raises(ConfigError, match="new API stack"):
        prune(old, PruningConfig(sparsity=0.5))


def test_a_pruning_learner_class_pickles_by_reference_and_loads_in_a_fresh_process() -> None:
    data = pickle.dumps(pruned(PPOTorchLearner))
    assert len(data) < 300
    assert pickle.loads(data) is pruned(PPOTorchLearner)
    code = "import pickle,sys; print(pickle.loads(sys.stdin.buffer.read()).__mro__[3].__name__)"
    fresh = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert fresh.stdout.decode().strip() == "PPOTorchLearner", fresh.stderr.decode()[-500:]


def test_a_learner_class_of_main_travels_by_value() -> None:
    local = type("Local", (PPOTorchLearner,), {"__module__": "__main__"})
    loaded = cloudpickle.loads(cloudpickle.dumps(pruned(local)))
    assert issubclass(loaded, PPOTorchLearner)
    assert any(cls.__name__ == "PruningMixin" for cls in loaded.__mro__)


@pytest.mark.usefixtures("ray_session")
def test_the_users_callback_and_learner_still_run() -> None:
    config = configs.ppo().callbacks(OwnCallback).learners(learner_class=OwnLearner)
    OwnCallback.calls.clear()
    OwnLearner.updates.clear()
    algo = configs.build(prune(config, configs.pruning()))
    try:
        result = algo.train()
    finally:
        algo.stop()
    assert OwnCallback.calls == [1]
    assert OwnLearner.updates == [1]
    assert result["rayprune"][DEFAULT_MODULE_ID]["sparsity"] == pytest.approx(0.8, abs=0.01)


AFTERWARDS: dict[str, Any] = {
    "learner_class": lambda c: c.learners(learner_class=OwnLearner),
    "learner_config_dict": lambda c: c.update_from_dict({"learner_config_dict": {"own": 1}}),
    "callbacks_class": lambda c: c.callbacks(OwnCallback),
    "both": lambda c: c.callbacks(OwnCallback).learners(learner_class=OwnLearner),
}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("field", AFTERWARDS)
def test_what_is_set_after_prune_is_refused_when_the_algorithm_is_built(field: str) -> None:
    config = AFTERWARDS[field](prune(configs.ppo(), configs.pruning()))
    named = "learner_class" if field == "both" else field
    with pytest.raises(ConfigError, match=rf"(?s)`{named}` was set to .*Call `prune` last"):
        configs.build(config)


def test_a_pruning_config_can_be_serialised_with_and_without_own_callbacks() -> None:
    alone = prune(PPOConfig(), PruningConfig(sparsity=0.5)).serialize()
    assert alone["callbacks"] == "rayprune.rllib.callback.PruningCallback"
    own = PPOConfig().callbacks(OwnCallback)
    both = prune(own, PruningConfig(sparsity=0.5)).serialize()["callbacks"]
    assert both == f"{alone['callbacks']}, {own.serialize()['callbacks']}"


def test_composed_callbacks_are_called_in_order_and_survive_a_copy() -> None:
    calls: list[str] = []

    class First(RLlibCallback):
        def on_evaluate_end(self, **_: Any) -> None:
            calls.append("first")

    class Second(First):
        def on_evaluate_end(self, **_: Any) -> None:
            calls.append("second")

    config = PPOConfig().callbacks([First, functools.partial(Second)])
    held = prune(config, PruningConfig(sparsity=0.5)).copy().callbacks_class
    held().on_evaluate_end(algorithm=None, evaluation_metrics={})
    assert calls == ["first", "second"]
    both = prune(PPOConfig().callbacks(OwnCallback), PruningConfig(sparsity=0.5)).callbacks_class
    assert pickle.loads(pickle.dumps(both)).classes == (PruningCallback, OwnCallback)


def _largest_first(weight: Any) -> Any:
    """Score by the negative size: the smallest weights are kept."""
    return -weight.abs()


@pytest.mark.usefixtures("ray_session", "registries")
def test_an_own_criterion_reaches_remote_learners() -> None:
    rayprune.register_criterion("largest_first", _largest_first)
    config = prune(
        configs.ppo().learners(num_learners=1), configs.pruning(criterion="largest_first")
    )
    algo = configs.build(config)
    try:
        result = algo.train()
    finally:
        algo.stop()
    assert result["rayprune"][DEFAULT_MODULE_ID]["sparsity"] == pytest.approx(0.8, abs=0.01)
