"""A recipe in a script: it says of the algorithm what it says in a YAML."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray import tune
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

from rayprune import PruningConfig
from rayprune.config import load_experiment
from rayprune.rllib import prune
from rayprune.rllib.settings.keys import CONFIG_KEY

RECIPE = {"recipe": "recommended", "sparsity": 0.9}
DENSE_CRITIC = {"value": {"sparsity": 0.0}}


class OwnPPOConfig(PPOConfig):
    """A user's own algorithm, derived from RLlib's."""


def held(pruning: Any, config: Any = None) -> dict[str, Any]:
    pruned = prune(config or PPOConfig().environment("CartPole-v1"), pruning)
    return pruned.learner_config_dict[CONFIG_KEY]


def test_a_script_gets_what_a_yaml_gets(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "{name: a, algorithm: PPO, env: CartPole-v1, stop: {env_steps: 60000}, "
        "pruning: {recipe: recommended, sparsity: 0.9, horizon: 60000}}"
    )
    told = load_experiment(path, []).pruning.to_dict()
    assert told["max_kl"] == 0.05
    assert held(PruningConfig(**RECIPE, horizon=60_000)) == told
    assert held({**RECIPE, "horizon": 60_000}) == told


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"max_kl": None}, None),
        ({"max_kl": 0.01}, 0.01),
        ({"groups": {}}, {}),
        ({"groups": {"policy": {"sparsity": 0.5}}}, {"policy": {"sparsity": 0.5}}),
    ],
)
def test_what_the_user_gives_stays(given, kept):
    (name,) = given
    for pruning in (
        PruningConfig(**RECIPE, **given),
        PruningConfig(**RECIPE).replace(**given),
        {**RECIPE, **given},
    ):
        assert held(pruning)[name] == kept


def test_a_copy_for_another_horizon_is_filled_in_too():
    found = held(PruningConfig(**RECIPE).over(6000))
    assert (found["schedule"]["every"], found["groups"]) == (100, DENSE_CRITIC)


def test_a_config_that_was_stored_is_explicit():
    stored = pickle.loads(pickle.dumps(PruningConfig(**RECIPE)))
    assert (held(stored)["max_kl"], held(stored)["groups"]) == (None, {})
    assert held(PruningConfig(**RECIPE).to_dict())["groups"] == {}


def test_an_algorithm_without_critic_and_distribution_gets_neither():
    found = held(PruningConfig(**RECIPE), DQNConfig().environment("CartPole-v1"))
    assert (found["max_kl"], found["groups"]) == (None, {})


def test_a_derived_algorithm_is_taken_for_what_it_is_derived_from():
    found = held(RECIPE, OwnPPOConfig().environment("CartPole-v1"))
    assert (found["max_kl"], found["groups"]) == (0.05, DENSE_CRITIC)


def test_domains_of_tune_are_left_for_the_trial():
    found = held({**RECIPE, "sparsity": tune.uniform(0.5, 0.9)})
    assert isinstance(found["sparsity"], tune.search.sample.Float)
    assert (found["max_kl"], found["groups"]) == (0.05, DENSE_CRITIC)


def test_without_a_recipe_nothing_is_added():
    config = PruningConfig(sparsity=0.9)
    assert held(config) == config.to_dict()
