"""Forward passes, distributions and metrics beside RLlib's own, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchSquashedGaussian,
)
from ray.rllib.core.models.torch.primitives import TorchMLP
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import nn

from rayprune.pruning.layers.resizing import fit_to
from rayprune.rllib.sampling.distributions import draw_of
from rayprune.rllib.sampling.forwards import exploring
from rayprune.rllib.sampling.metrics import quicken
from rayprune.rllib.sampling.straight import straight
from tests.rllib import configs

VECTOR, IMAGE = Box(-1, 1, (5,)), Box(-1, 1, (12, 12, 3))
CNN = {"conv_filters": [[4, 3, 2], [8, 3, 2]]}
DISTRIBUTIONS = [TorchCategorical, TorchDiagGaussian, TorchSquashedGaussian]


def module_of(config: Any, observations: Any, actions: Any) -> Any:
    config.environment(observation_space=observations, action_space=actions)
    spec = config.get_rl_module_spec(spaces={"default_policy": (observations, actions)})
    spec.inference_only = True
    spec.observation_space, spec.action_space = observations, actions
    return spec.build().eval()


def same_forward(module: Any, batch: Any) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        theirs = module._forward_exploration(batch, t=1234)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with torch.no_grad():
        ours = exploring(module)(batch, 1234)
    assert torch.equal(torch.get_rng_state(), after)
    assert set(theirs) == set(ours)
    for name, values in theirs.items():
        assert values.dtype == ours[name].dtype
        assert torch.equal(values, ours[name])


def is_straight(module: Any) -> bool:
    return "lambda" not in exploring(module).__qualname__ or "_inputs_of" in (
        exploring(module).__qualname__
    )


@pytest.mark.parametrize(
    ("config", "observations", "actions"),
    [
        (configs.ppo(), VECTOR, Discrete(3)),
        (configs.ppo(), VECTOR, Box(-1, 1, (2,))),
        (configs.ppo(free_log_std=True), VECTOR, Box(-1, 1, (2,))),
        (configs.ppo(vf_share_layers=True, fcnet_activation="relu"), VECTOR, Discrete(3)),
        (configs.ppo(**CNN), IMAGE, Discrete(3)),
        (configs.sac(), VECTOR, Box(-1, 1, (2,))),
        (configs.sac(), VECTOR, Discrete(3)),
        (configs.dqn(), VECTOR, Discrete(3)),
        (configs.dqn(dueling=False, epsilon=[(0, 1.0), (2000, 0.1)]), VECTOR, Discrete(3)),
        (configs.dqn(num_atoms=5, v_min=-2.0, v_max=2.0), VECTOR, Discrete(3)),
        (configs.dqn(epsilon=[(0, 0.9), (2000, 0.5)]), VECTOR, Discrete(2)),
    ],
)
@pytest.mark.parametrize("rows", [1, 7])
def test_default_modules_explore_alike(
    config: Any, observations: Any, actions: Any, rows: int
) -> None:
    module = module_of(config.copy(copy_frozen=False), observations, actions)
    assert is_straight(module)
    same_forward(module, {Columns.OBS: torch.randn(rows, *observations.shape)})


@pytest.mark.parametrize("most", [0.01, 0.3])
def test_deviations_are_bounded_alike(most: float) -> None:
    module = module_of(configs.ppo(), VECTOR, Box(-1, 1, (3,)))
    same_forward(module, {Columns.OBS: torch.randn(4, 5)})
    # As they arrive with weights: another number, in the same memory.
    module.pi.log_std_clip_param_const.fill_(most)
    same_forward(module, {Columns.OBS: 9 * torch.randn(4, 5)})


def test_weights_of_another_size_count_at_once() -> None:
    module = module_of(configs.ppo(), VECTOR, Discrete(3))
    small = module_of(configs.ppo(fcnet_hiddens=[7, 5]), VECTOR, Discrete(3))
    explore, batch = exploring(module), {Columns.OBS: torch.randn(4, 5)}
    fit_to(module, small.state_dict())
    module.load_state_dict(small.state_dict())
    with torch.no_grad():
        expected = small._forward_exploration(batch, t=0)[Columns.ACTION_DIST_INPUTS]
        assert torch.equal(explore(batch, 0)[Columns.ACTION_DIST_INPUTS], expected)


def test_a_module_of_ones_own_is_called_as_it_is() -> None:
    module = module_of(configs.ppo(), VECTOR, Discrete(3))

    class Own(type(module)):  # type: ignore[misc]
        def _forward(self, batch: Any, **_: Any) -> Any:
            return {Columns.ACTIONS: torch.zeros(len(batch[Columns.OBS]))}

    module.__class__ = Own
    assert set(exploring(module)({Columns.OBS: torch.randn(2, 5)}, 0)) == {Columns.ACTIONS}


def test_hooks_of_layers_are_called() -> None:
    net = TorchMLP(input_dim=3, hidden_layer_dims=[4], output_dim=2)
    seen: list[Any] = []
    net.mlp[0].register_forward_hook(lambda *_: seen.append(1))
    values = torch.randn(2, 3)
    assert torch.equal(straight(net)(values), net(values))
    assert len(seen) == 2


def test_layers_of_every_kind() -> None:
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.LayerNorm(4), nn.SiLU(), nn.Flatten())
    values = torch.randn(2, 3)
    assert torch.equal(straight(net)(values), net(values))


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", [(1, 4), (8, 4), (8, 1, 4)])
def test_actions_are_drawn_alike(kind: Any, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3
    torch.manual_seed(5)
    distribution = kind.from_logits(inputs)
    actions = distribution.sample()
    log_probs, after = distribution.logp(actions), torch.get_rng_state()
    torch.manual_seed(5)
    draw = draw_of(kind)
    assert draw is not None
    ours, ours_of = draw(inputs)
    assert torch.equal(torch.get_rng_state(), after)
    assert (ours.dtype, ours_of.dtype) == (actions.dtype, log_probs.dtype)
    assert torch.equal(ours, actions)
    assert torch.equal(ours_of, log_probs)


@pytest.mark.parametrize("kind", [TorchDiagGaussian, TorchSquashedGaussian])
def test_deviations_that_are_no_numbers_are_refused_alike(kind: Any) -> None:
    draw, inputs = draw_of(kind), torch.tensor([[0.0, 1.0, 0.0, np.nan]])
    assert draw is not None
    with pytest.raises(RuntimeError) as theirs:
        kind.from_logits(inputs).sample()
    with pytest.raises(RuntimeError) as ours:
        draw(inputs)
    assert str(ours.value) == str(theirs.value)
    # Means may be none.
    assert draw(torch.tensor([[np.nan, 1.0, 0.0, 0.0]]))[0].isnan().tolist() == [[True, False]]


def test_distributions_of_others_are_left_to_them() -> None:
    assert draw_of(type("Own", (TorchCategorical,), {})) is None


def test_metrics_are_rllibs() -> None:
    theirs, ours = MetricsLogger(), MetricsLogger()
    quicken(ours)
    for logger in (theirs, ours):
        logger.log_value(("a", "b"), 3.0, window=2)
        logger.log_value(("a", "b"), 5.0, window=2)
        logger.log_value("ema", 1.0)
        logger.log_value("sum", 2, reduce="sum")
        logger.log_value("life", 2, reduce="lifetime_sum", with_throughput=True)
    for value in (4, 0, 7):
        theirs.log_value("ema", value)
        theirs.log_value("sum", value, reduce="sum")
        theirs.log_value("life", value, reduce="lifetime_sum", with_throughput=True)
        theirs.log_value("new", value)
    ours.push_all("ema", [4, 0, 7])
    ours.push_all("new", [4, 0, 7])
    for value in (4, 0, 7):
        ours.add("sum", value, reduce="sum")
        ours.add("life", value, reduce="lifetime_sum", with_throughput=True)
    for again in range(2):
        for key in (("a", "b"), "ema", "sum", "life", "new"):
            assert np.array_equal(theirs.peek(key), ours.peek(key), equal_nan=True), (key, again)
        theirs.reduce(), ours.reduce()


def test_a_mean_counts_as_often_as_its_values() -> None:
    one, many = MetricsLogger(), MetricsLogger()
    quicken(one)
    for logger in (one, many):
        logger.log_value("seconds", 1.0)
    one.push_mean("seconds", 3.0, 50)
    for _ in range(50):
        many.log_value("seconds", 3.0)
    assert one.peek("seconds") == pytest.approx(many.peek("seconds"))
    one.push_mean("never", 3.0, 0)
    assert "never" not in one
