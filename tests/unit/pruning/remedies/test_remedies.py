import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.schedules.times import in_steps


@given(st.floats(0.05, 0.95), st.sampled_from(["uniform", "global"]), st.integers(0, 50))
def test_a_rescaled_layer_keeps_its_norm(sparsity, distribution, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    before = {name: weight.norm().item() for name, weight in net.named_parameters()}
    config = PruningConfig(sparsity=sparsity, distribution=distribution, remedies={"rescale": True})
    pruner = Pruner(net, config)
    change = pruner.prune_to()
    for name, weight in pruner.parameters.items():
        left = weight.norm().item()
        assert left == pytest.approx(before[name], rel=1e-5) or left == 0
        if name in change.changed:
            assert change.scales[name] >= 1
    assert pruner.violations() == {}
    assert Pruner(nn.Linear(4, 4), config.replace(remedies={})).prune_to().scales == {}


def test_a_time_is_a_fraction_up_to_one():
    assert (in_steps(0.25, 1000), in_steps(250, 1000)) == (250.0, 250)


@pytest.mark.parametrize(
    ("remedies", "message"),
    [
        ({"n_step": 1}, "`remedies.n_step` must be an integer of at least 2, but is 1."),
        ({"replay_limit": 10}, "`remedies.replay_limit` must be an integer of at least 100"),
        ({"replay_reset": "all"}, "`remedies.replay_reset` must be an integer"),
        ({"rescale": 1}, "`remedies.rescale` must be true or false, but is 1."),
        ({"n_step_from": 0.5}, "but `remedies.n_step` is missing"),
        ({"nstep": 3}, "Did you mean 'n_step'?"),
        ({"n_step": 3, "n_step_from": -1}, "`remedies.n_step_from` must be a number of at least 0"),
        (3, "`remedies` must be a mapping of"),
    ],
)
def test_a_wrong_remedy_is_refused_with_the_way_out(remedies, message):
    (fault,) = PruningConfig.faults_of({"sparsity": 0.5, "remedies": remedies}, prefix="")
    assert message in fault
