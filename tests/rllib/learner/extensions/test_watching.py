"""The plasticity watch and all other diagnostics: whatever they meet, training goes on as without.

Learners alone, on made-up minibatches, wherever no environment is needed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from rich.console import Console
from torch import Tensor, nn

from rayprune.cli.printing.tables import summary_table
from rayprune.pruning.measures import plasticity
from rayprune.pruning.measures.plasticity import WINDOW
from rayprune.rllib import prune
from rayprune.rllib.learner import report
from rayprune.rllib.learner.extensions.plasticity import PlasticityWindows
from rayprune.tracking.record import read_rows
from tests.rllib import configs, experiments

WIDTH, ACTIONS, ROWS = 4, 2, 16
OBSERVED = gym.spaces.Box(-1, 1, (WIDTH,), np.float32)
CHOSEN = gym.spaces.Discrete(ACTIONS)


class Net(TorchRLModule, ValueFunctionAPI):
    """A plain module of a user's, whose parts the cases below change."""

    def setup(self) -> None:
        super().setup()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh())
        self.pi, self.vf = nn.Linear(8, ACTIONS), nn.Linear(8, 1)

    def body(self, obs: Tensor) -> Tensor:
        features: Tensor = self.net(obs)
        return features

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.pi(self.body(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        values: Tensor = self.vf(self.body(batch[Columns.OBS])).squeeze(-1)
        return values


class Experts(Net):
    """One of two experts by the minibatch's mean; a third is never chosen."""

    def setup(self) -> None:
        super().setup()
        self.ex = nn.ModuleList(nn.Linear(WIDTH, 8) for _ in range(3))

    def body(self, obs: Tensor) -> Tensor:
        features: Tensor = self.ex[int(obs.mean() > 0)](obs).relu()
        return features


class Twice(Net):
    """The same layer twice in one forward, and dimensions that differ."""

    def body(self, obs: Tensor) -> Tensor:
        both: Tensor = self.net(obs) + self.net(-obs[:, None]).squeeze(1)
        return both


class Strange(Net):
    """What comes after a layer is no tensor."""

    def setup(self) -> None:
        super().setup()
        self.first, self.wrap = nn.Linear(WIDTH, WIDTH), Wrap()

    def body(self, obs: Tensor) -> Tensor:
        features: Tensor = self.net(self.wrap(self.first(obs))["wrapped"])
        return features


class Wrap(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"wrapped": x}


class Scripted(Net):
    def setup(self) -> None:
        super().setup()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.extra = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()))

    def body(self, obs: Tensor) -> Tensor:
        features: Tensor = self.net(self.extra(obs))
        return features


class Counting:
    """A backend of torch.compile that runs each graph as it is, and counts them."""

    graphs = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        Counting.graphs += 1
        return graph.forward


class Compiled(Net):
    def setup(self) -> None:
        super().setup()
        self.net = torch.compile(self.net, backend=Counting())


class CompiledMethod(Net):
    def setup(self) -> None:
        super().setup()
        self.body = torch.compile(self.body, backend=Counting())  # type: ignore[method-assign]


def learner_of(
    modules: dict[str, type[Net]], every: int | None, trained: list[str] | None = None, **more: Any
) -> Any:
    specs = {
        name: RLModuleSpec(kind, observation_space=OBSERVED, action_space=CHOSEN)
        for name, kind in modules.items()
    }
    config = configs.ppo(None).environment(None, observation_space=OBSERVED, action_space=CHOSEN)
    config.multi_agent(
        policies=dict.fromkeys(modules, (None, OBSERVED, CHOSEN, None)),
        policy_mapping_fn=lambda agent, episode, **_: agent,
        policies_to_train=trained,
    )
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs), model_config={})
    pruning = configs.pruning(plasticity=None if every is None else {"every": every}, **more)
    torch.manual_seed(0)
    return prune(config, pruning).build_learner()


def batch_of(names: list[str], seed: int, rows: int = ROWS) -> MultiAgentBatch:
    chance = torch.Generator().manual_seed(seed)

    def columns() -> dict[str, Tensor]:
        return {
            "obs": torch.randn(rows, WIDTH, generator=chance),
            "actions": torch.randint(ACTIONS, (rows,), generator=chance),
            "action_dist_inputs": torch.zeros(rows, ACTIONS),
            "action_logp": torch.full((rows,), -float(np.log(ACTIONS))),
            "advantages": torch.randn(rows, generator=chance),
            "value_targets": torch.randn(rows, generator=chance),
        }

    return MultiAgentBatch({name: SampleBatch(columns()) for name in names}, env_steps=rows)


def update(learner: Any, names: list[str], step: int, rows: int = ROWS) -> None:
    learner.update(
        batch=batch_of(names, step, rows),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 10 * step},
        minibatch_size=rows,
        num_epochs=1,
    )


Turn = Callable[[int], list[str]]


def weights_of(learner: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().clone()
        for name in learner.module.keys()  # noqa: SIM118 - a MultiRLModule is no dict
        for key, value in learner.module[name].named_parameters()
    }


def trained(
    modules: dict[str, type[Net]], every: int | None, turn: Turn, **more: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights after two windows, and the figures of the last one."""
    learner = learner_of(modules, every, **more)
    figures: dict[str, Any] = {}
    for step in range(2 * WINDOW + 2):
        update(learner, turn(step), step, rows=ROWS + step % 3)
        figures.update(learner.extension(PlasticityWindows).take())
    return weights_of(learner), figures


def always(*names: str) -> Turn:
    return lambda step: list(names)


CASES: dict[str, tuple[dict[str, type[Net]], Turn, dict[str, Any]]] = {
    "some are not trained": ({"a": Net, "b": Net}, always("a", "b"), {"trained": ["a"]}),
    "in turns": ({"a": Net, "b": Net}, lambda step: [["a"], ["b"]][step % 2], {}),
    "one seldom": ({"a": Net, "b": Net}, lambda step: ["a"] if step % 20 else ["a", "b"], {}),
    "experts": ({"a": Experts}, always("a"), {}),
    "a layer twice": ({"a": Twice}, always("a"), {}),
    "no tensor": ({"a": Strange}, always("a"), {}),
    "scripted": ({"a": Scripted}, always("a"), {}),
    "by neuron": ({"a": Experts}, always("a"), {"granularity": "neuron", "sparsity": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same_to_the_bit_whatever_has_no_gradient(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    modules, turn, more = CASES[case]
    off, nothing = trained(modules, None, turn, **more)
    with caplog.at_level(logging.WARNING):
        on, figures = trained(modules, WINDOW, turn, **more)
    assert nothing == {}
    assert on.keys() == off.keys()
    assert all(torch.equal(on[name], off[name]) for name in on)
    assert "failed" not in caplog.text
    assert "a" in figures
    assert ("b" in figures) == (case in ("in turns", "one seldom")), "nothing trains it otherwise"


def test_figures_are_of_the_layers_that_ran() -> None:
    _, figures = trained({"a": Experts}, WINDOW, always("a"))
    assert set(figures["a"]["dormant"]) == {"ex.0", "ex.1"}
    assert set(figures["a"]["gradient_snr"]) == {"ex.0", "ex.1", "pi", "vf"}


def test_modules_may_come_and_go_and_layers_thaw_in_mid_window() -> None:
    def run(every: int | None) -> tuple[dict[str, Tensor], Any]:
        learner = learner_of({"a": Net}, every)
        learner.module["a"].net[0].requires_grad_(False)
        for step in range(WINDOW + 2):
            if step == 3:
                spec = RLModuleSpec(Net, observation_space=OBSERVED, action_space=CHOSEN)
                learner.add_module(module_id="b", module_spec=spec)
            if step == 5:
                learner.module["a"].net[0].requires_grad_(True)
            if step == 9:
                learner.remove_module("b")
            update(learner, ["a", "b"] if 3 <= step < 9 else ["a"], step)
        return weights_of(learner), learner.extension(PlasticityWindows).take()

    (off, _), (on, figures) = run(None), run(100)
    assert all(torch.equal(on[name], off[name]) for name in off)
    assert set(figures["a"]["gradient_snr"]) == {"net.0", "net.2", "pi", "vf"}
    assert list(figures) == ["a"]


def test_a_layer_that_the_user_swaps_is_measured_where_it_stands() -> None:
    learner = learner_of({"a": Net}, 100)
    for step in range(WINDOW):
        if step == 4:
            with torch.no_grad():
                learner.module["a"].net[2] = nn.Linear(8, 8)
        update(learner, ["a"], step)
    assert "net.0" in learner.extension(PlasticityWindows).take()["a"]["gradient_snr"]


@pytest.mark.parametrize("kind", [Compiled, CompiledMethod])
def test_a_compiled_part_is_compiled_as_often_as_without_the_watch(
    kind: type[Net], caplog: pytest.LogCaptureFixture
) -> None:
    def run(every: int | None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
        torch._dynamo.reset()
        Counting.graphs = 0
        return *trained({"a": kind}, every, always("a")), Counting.graphs

    off, _, plain = run(None)
    with caplog.at_level(logging.WARNING):
        on, figures, watched = run(WINDOW)
    assert watched == plain > 0
    assert all(torch.equal(on[name], off[name]) for name in off)
    assert figures["a"]["gradient_snr"]
    assert caplog.text.count("No dormant units and effective ranks of 'a'") == 1


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every diagnostic raises, each in its own place."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("broken on purpose")

    monkeypatch.setattr(plasticity, "effective_rank", fail)
    for name in ("dead_units", "histogram_of"):
        monkeypatch.setattr(report, name, fail)
    monkeypatch.setattr("rayprune.pruning.pruner.Pruner.coverage", fail)


@pytest.mark.usefixtures("broken")
def test_a_diagnostic_that_fails_says_so_once_and_training_goes_on_as_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    off, _ = trained({"a": Net}, None, always("a"))
    learner = learner_of({"a": Net}, WINDOW)
    with caplog.at_level(logging.WARNING):
        for step in range(2 * WINDOW + 2):
            update(learner, ["a"], step, rows=ROWS + step % 3)
            assert learner.extension(PlasticityWindows).take() == {}
        for _ in range(2):
            told = learner.diagnostics()["a"]
            assert (told["scores"], told["dead_units"]) == ({}, {})
            assert learner.pruning_report()["a"]["itop"] is None
    on = weights_of(learner)
    assert all(torch.equal(on[name], off[name]) for name in off)
    assert not any(part._forward_hooks for part in learner.module["a"].modules())
    for name in ("plasticity", "scores", "dead_units", "itop"):
        assert caplog.text.count(f"The diagnostic '{name}' of 'a' failed") == 1
    assert caplog.text.count("OSError: broken on purpose") == 4


@pytest.mark.usefixtures("ray_session")
def test_a_policy_outside_policies_to_train_lets_the_others_train() -> None:
    config = configs.ppo(MultiAgentCartPole).environment(env_config={"num_agents": 2})
    config.multi_agent(
        policies={"p0", "p1"},
        policy_mapping_fn=lambda agent, episode, **_: f"p{agent}",
        policies_to_train=["p0"],
    )
    algorithm = configs.build(prune(config, configs.pruning(plasticity={"every": WINDOW})))
    try:
        # How many minibatches p0 has in an iteration depends on how long its pole stands.
        told = [algorithm.train()["rayprune"] for _ in range(8)]
    finally:
        algorithm.stop()
    figures = [result["p0"]["plasticity"] for result in told]
    assert any(held and held["gradient_snr"] for held in figures)
    assert not any("p1" in result for result in told), "what isn't trained is left alone"


@pytest.mark.usefixtures("ray_session")
def test_a_run_ends_with_its_summary_though_every_diagnostic_of_its_driver_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("broken on purpose")

    monkeypatch.setattr("rayprune.rllib.evaluation.evaluator.count_flops", fail)
    monkeypatch.setattr("rayprune.rllib.evaluation.open_policy.sensor_report", fail)
    for name in ("measure_closeness", "learning_of"):
        monkeypatch.setattr(f"rayprune.rllib.training.summary.{name}", fail)
    evaluation = {"every": 200, "episodes": 1, "dense": "train"}
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 400}, evaluation=evaluation)
    with caplog.at_level(logging.WARNING):
        summary = experiments.train(what, tmp_path)
    assert [summary[key] for key in ("flops", "sensors", "closeness", "learning")] == [None] * 4
    assert summary["returns"]["test"]["episodes"] == 1
    assert not any("flops" in row for row in read_rows(tmp_path / "results.jsonl"))
    for name in ("sensors", "closeness", "learning"):
        assert caplog.text.count(f"The diagnostic '{name}' of 'tiny' failed") == 1
    assert caplog.text.count("'flops' of 'default_policy' failed") == 2  # in both of the runs
    table = Console(file=(shown := StringIO()), width=200)
    table.print(summary_table(summary, "dense", "pruned"))
    assert "sparsity of prunable weights" in shown.getvalue()
    assert "FLOPs" not in shown.getvalue()
