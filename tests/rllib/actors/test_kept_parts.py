"""What RLlib's own code does of training is known, wherever it runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rayprune.cli.options import in_detail
from rayprune.rllib import prune
from rayprune.rllib.actors.kept_parts import kept_everywhere
from rayprune.rllib.settings.kept_parts import forget_kept_parts, keep, kept_parts
from tests.rllib import configs


@pytest.fixture(autouse=True)
def _anew() -> Any:
    forget_kept_parts()
    yield
    forget_kept_parts()


def trained(config: Any, **how: Any) -> dict[str, str]:
    algo = configs.build(prune(config, configs.pruning(), **how))
    try:
        algo.train()
        return kept_everywhere(algo)
    finally:
        algo.stop()


@pytest.mark.usefixtures("ray_session")
def test_what_a_callback_keeps_is_named_and_nothing_else() -> None:
    assert trained(configs.ppo()) == {}
    found = trained(configs.ppo().callbacks(on_episode_step=lambda **_: None))
    assert list(found) == ["EnvRunner"]
    assert found["EnvRunner"].endswith("watches every step")


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_learners_elsewhere_are_asked() -> None:
    found = trained(configs.dqn().learners(num_learners=1).env_runners(num_env_runners=1))
    assert found == {"training step": "Learners are remote"}
    assert "gradient" in str(trained(configs.ppo().learners(num_learners=2)))


def test_lean_false_is_a_reason() -> None:
    prune(configs.ppo(), configs.pruning(), lean=False)
    assert kept_parts() == {"training loop": "`lean` is false"}


def test_details_are_heard_where_they_are_wanted() -> None:
    heard: list[str] = []
    level = logging.getLogger("rayprune").level
    for wanted in (False, True):
        with in_detail(heard.append, wanted=wanted):
            keep("loop", "it is so")
    keep("loop", "it is so")
    assert heard == ["RLlib's own loop is kept: it is so."]
    assert logging.getLogger("rayprune").level == level
