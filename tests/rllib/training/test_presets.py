"""The shipped presets: each is built, and runs its first iterations."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayprune.config import ExperimentConfig
from rayprune.presets import presets
from rayprune.rllib.commands.record import record_episodes
from rayprune.rllib.experiment.experiment_checks import load_checked
from tests.rllib.experiments import train

NEEDS = {
    "dqn_highway": ("highway_env", "highway"),
    "fit_lunarlander_host": ("Box2D", "box2d"),
    "mo_pbt_lunarlander": ("Box2D", "box2d"),
    "ppo_halfcheetah": ("mujoco", "mujoco"),
    "ppo_hopper": ("mujoco", "mujoco"),
    "ppo_lunarlander": ("Box2D", "box2d"),
    "ppo_lunarlander_wind": ("Box2D", "box2d"),
    "ppo_minatar_breakout": ("minatar", "minatar"),
    "ppo_minigrid_doorkey": ("minigrid", "minigrid"),
    "ppo_pong": ("ale_py", "atari"),
    "ppo_walker2d": ("mujoco", "mujoco"),
    "sac_inverted_pendulum": ("mujoco", "mujoco"),
}
"""Preset -> the module that its environment imports, and the extra that brings it."""
FIELDS = ("driving", "games", "memory", "robots", "search", "trading")
"""Folders whose presets no other test of the default suite builds."""
SHORT = ("tracking={wandb: off, tensorboard: false}", "evaluation={every: 1000000, episodes: 1}")


def built(name: str, *overrides: str) -> ExperimentConfig:
    module, extra = NEEDS.get(name, ("rayprune", ""))
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'rayprune[{extra}]'")
    return load_checked(presets()[name], overrides)


@pytest.mark.parametrize("name", [n for n, p in presets().items() if p.parent.name in FIELDS])
def test_a_preset_is_built_with_its_environment_and_its_network(name: str) -> None:
    assert built(name).name == name


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> dict[str, Path]:
    """What other presets begin with: policies of a few steps, and what they recorded."""
    return dict(_made(tmp_path_factory.mktemp("sources")))


def _made(place: Path) -> Iterator[tuple[str, Path]]:
    for name, steps in (("ppo_cartpole", 2000), ("sac_pendulum", 600), ("ppo_lunarlander", 4096)):
        if name in NEEDS and importlib.util.find_spec(NEEDS[name][0]) is None:
            continue
        train(built(name, f"stop.env_steps={steps}", *SHORT), place / name)
        yield name, place / name
        env = name.partition("_")[2]
        record_episodes(place / name, place / env, episodes=3, seed=0, explore=True)
        yield env, place / env


@pytest.mark.slow
@pytest.mark.parametrize("name", presets())
def test_a_preset_runs_its_first_iterations(
    name: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    overrides = [*SHORT, *_first_steps(name, sources)]
    summary = train(built(name, *overrides), tmp_path / "run")
    assert 0 <= summary["sparsity"]["prunable"] < 1
    assert summary["returns"]["test"]["episodes"] == 1


def _first_steps(name: str, sources: dict[str, Path]) -> list[str]:
    text = presets()[name].read_text(encoding="utf-8")
    env = name.rsplit("_", 1)[-1]
    if "updates:" in text:
        return ["stop.updates=20", f"rllib.offline_data.input_=[{sources[env]}]"]
    own = {"ppo_long_pole": "ppo_cartpole", "ppo_lunarlander_wind": "ppo_lunarlander"}.get(name)
    begun = [f"start_from={sources[own]}"] if own in sources else []
    return ["stop.env_steps=1200", *begun]
