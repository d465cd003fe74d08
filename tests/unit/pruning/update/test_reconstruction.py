"""What is left of a layer makes up for a cut: held against torch's dense solver, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.update.reconstruction import (
    CUTS,
    RIDGE,
    Calibration,
    Reconstruction,
    masked_ridge,
    repairable,
)

REMEDY = {"remedies": {"reconstruct": True}}


def row_by_row(gram: Tensor, cross: Tensor, keep: Tensor, ridge: float) -> Tensor:
    """Solve each output by itself, with torch's dense solver: the slow loop."""
    found = torch.zeros(keep.shape, dtype=gram.dtype)
    damping = ridge * gram.diagonal().mean()
    for row, allowed in enumerate(keep):
        k = allowed.nonzero().flatten()
        if len(k):
            matrix = gram[k][:, k] + damping * torch.eye(len(k), dtype=gram.dtype)
            found[row, k] = torch.linalg.solve(matrix, cross[k, row])
    return found


@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(9, 4, 9), (40, 7, 40), (40, 7, 6)])
def test_a_masked_ridge_is_that_of_a_slow_loop(
    inputs: int, outputs: int, rank: int, density: float
) -> None:
    torch.manual_seed(inputs + rank)
    seen = torch.randn(200, rank).double() @ torch.randn(rank, inputs).double()
    wanted = torch.randn(200, outputs).double()
    gram, cross = seen.T @ seen / 200, seen.T @ wanted / 200
    keep = torch.rand(outputs, inputs) < density
    found = masked_ridge(gram, cross, keep)
    expected = row_by_row(gram, cross, keep, RIDGE)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert not found[~keep].any()


def test_inputs_that_say_nothing_change_nothing() -> None:
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    found = masked_ridge(nothing, torch.zeros(3, 2, dtype=torch.float64), torch.ones(2, 3) > 0)
    assert not found.any()


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
    )


def states(rows: int = 512) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(rows, 6, generator=generator)


def moved(module: nn.Module, cut: Callable[[Calibration | None], object], repaired: bool) -> float:
    """Return how far a cut moves outputs on states that nothing was solved on."""
    seen, others = states()[:384], states()[384:]
    with torch.no_grad():
        before = module(others)
        cut(Calibration(run=lambda: module(seen)) if repaired else None)
        return float((module(others) - before).square().mean())


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_a_cut_that_is_made_up_for_moves_outputs_less(granularity: str) -> None:
    found = []
    for repaired in (False, True):
        module = net()
        config = {"sparsity": 0.4, "granularity": granularity, "remedies": {"reconstruct": True}}
        pruner = Pruner(module, config, heads=["4"])
        found.append(moved(module, lambda c, p=pruner: p.prune_to(calibration=c), repaired))
        assert pruner.violations() == {}
        assert pruner.sparsity() == pytest.approx(0.4, abs=0.06)
    assert found[1] < found[0] / 5


def test_without_the_remedy_a_calibration_changes_nothing() -> None:
    weights = []
    for calibrated in (False, True):
        module = net()
        pruner = Pruner(module, {"sparsity": 0.5})
        run = Calibration(run=lambda m=module: m(states()))
        pruner.prune_to(calibration=run if calibrated else None)
        weights.append(module[2].weight.detach().clone())
    assert torch.equal(*weights)


def test_units_without_a_weight_stay_as_they_are() -> None:
    module = net()
    layers = repairable({"2": module[2]})
    before = Reconstruction(layers, Calibration(run=lambda: module(states())))
    mask = torch.ones(32, 32, dtype=torch.bool)
    mask[3] = False
    mask[:, 7] = False
    biases = module[2].bias.detach().clone()
    module[2].weight.data *= mask
    before.repair({"2.weight": mask})
    assert not module[2].weight[~mask].any()
    assert module[2].bias[3] == biases[3]
    assert (module[2].bias[4:] != biases[4:]).all()


def test_layers_that_nothing_has_changed_stay_to_the_bit() -> None:
    module = net()
    layers = repairable(dict(module.named_children()))
    kept = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    Reconstruction(layers, Calibration(run=lambda: module(states()))).repair({})
    assert all(torch.equal(layers[name].weight, weight) for name, weight in kept.items())


class Halves:
    """Two processes, each with half of the states: the mean over both, as a group has it."""

    def __init__(self) -> None:
        self.posted: list[list[Tensor]] = []
        self.others: Sequence[list[Tensor]] = ()

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.posted.append([tensor.clone() for tensor in tensors])
        other = self.others[len(self.posted) - 1] if self.others else tensors
        return [(a + b) / 2 for a, b in zip(tensors, other, strict=True)]

    def join(self, tensor: Tensor) -> Tensor:
        raise AssertionError("rows are not asked for")


def test_processes_solve_on_the_states_of_all() -> None:
    def repaired(calibration: Callable[[nn.Module], Calibration]) -> Tensor:
        module = nn.Sequential(nn.Linear(6, 8))
        torch.manual_seed(1)
        nn.init.normal_(module[0].weight)
        nn.init.zeros_(module[0].bias)
        mask = torch.rand(8, 6) < 0.5
        before = Reconstruction({"0": module[0]}, calibration(module))
        module[0].weight.data *= mask
        before.repair({"0.weight": mask})
        return module[0].weight.detach()

    halves, first, second = states().chunk(2), Halves(), Halves()
    repaired(lambda m: Calibration(run=lambda: m(halves[1]), across=second))
    first.others = second.posted
    both = repaired(lambda m: Calibration(run=lambda: m(halves[0]), across=first))
    whole = repaired(lambda m: Calibration(run=lambda: m(states())))
    assert torch.allclose(both, whole, atol=1e-6)


def test_only_layers_that_can_be_solved_are() -> None:
    tied = nn.Linear(4, 4)
    twin = nn.Linear(4, 4)
    twin.weight = tied.weight
    frozen = nn.Linear(4, 4)
    frozen.weight.requires_grad_(False)

    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    layers = {
        "plain": nn.Linear(4, 4),
        "tied": tied,
        "twin": twin,
        "frozen": frozen,
        "own": Own(4, 4),
        "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        "conv": nn.Conv1d(1, 1, 1),
        "spared": nn.Linear(4, 4),
    }
    assert list(repairable(layers, {"spared.weight"})) == ["plain"]


def test_a_frozen_bias_stays() -> None:
    module = net()
    module[0].bias.requires_grad_(False)
    before = module[0].bias.detach().clone()
    config = {"sparsity": 0.5, "remedies": {"reconstruct": True}}
    Pruner(module, config).prune_to(calibration=Calibration(run=lambda: module(states())))
    assert torch.equal(module[0].bias, before)


def test_a_layer_that_is_called_twice_is_solved_by_its_first_call() -> None:
    layer = nn.Linear(6, 6)
    calls = []

    def run() -> None:
        calls.append(layer(layer(states())))

    mask = torch.rand(6, 6) < 0.5
    before = Reconstruction({"0": layer}, Calibration(run=run))
    kept = layer.weight.detach().clone()
    layer.weight.data *= mask
    before.repair({"0.weight": mask})
    assert len(calls) == 2
    assert (layer.weight[mask] != kept[mask]).all()
    assert not layer.weight[~mask].any()


def test_states_that_are_not_finite_change_nothing() -> None:
    module = net()
    bad = states()
    bad[0] = float("nan")
    config = {"sparsity": 0.5, "remedies": {"reconstruct": True}}
    pruner = Pruner(module, config)
    pruner.prune_to(calibration=Calibration(run=lambda: module(bad)))
    assert all(weight.isfinite().all() for weight in module.parameters())
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "changes",
    [{"operation": {"scale": 0.5, "steps": 3}}, {"schedule": {"kind": "set", "every": 10}}],
    ids=["weights that fade", "weights that grow"],
)
def test_what_is_not_made_up_for_is_pruned_as_ever(changes: dict[str, object]) -> None:
    weights = []
    for remedy in (False, True):
        module = net()
        config = PruningConfig.from_dict(
            {
                "sparsity": 0.5,
                "horizon": 100,
                "schedule": {"kind": "cubic", "begin": 10, "end": 90, "every": 10},
                "remedies": {"reconstruct": remedy},
                **changes,
            }
        )
        pruner = Pruner(module, config, seed=3)
        pruner.start()
        for step in range(10, 60, 10):
            pruner.update(step, calibration=Calibration(run=lambda m=module: m(states())))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)


def test_a_step_that_is_taken_in_part_is_made_up_for_in_part() -> None:
    config = {
        "sparsity": 0.9,
        "max_kl": 0.002,
        "horizon": 100,
        "schedule": {"kind": "one_shot", "begin": 10},
        "remedies": {"reconstruct": True},
    }
    taken = []
    for calibrated in (False, True):
        module = net()
        pruner = Pruner(module, config)
        with torch.no_grad():
            before = module(states())

        def divergence(m: nn.Module = module, was: Tensor = before) -> Callable[[], float]:
            return lambda: (m(states()) - was).square().mean().item()

        run = Calibration(run=lambda m=module: m(states()))
        change = pruner.update(10, divergence=divergence, calibration=run if calibrated else None)
        assert change is not None
        assert divergence()() <= 0.002
        assert pruner.violations() == {}
        taken.append(change.sparsity)
    assert taken[1] > taken[0] + 0.05


@pytest.mark.parametrize(
    ("target", "cuts"), [({"sparsity": 0.8}, CUTS), ({"threshold": {"percentile": 50}}, 1)]
)
def test_a_trained_network_is_cut_in_many_steps_each_made_up_for(
    target: dict[str, object], cuts: int
) -> None:
    module = net()
    pruner = Pruner(module, {**target, "remedies": {"reconstruct": True}})
    change = pruner.prune_to(calibration=Calibration(run=lambda: module(states())))
    assert pruner.mask_updates == cuts
    assert change.sparsity == pytest.approx(target.get("sparsity", 0.5), abs=0.01)
    assert change.pruned == sum(int((~mask).sum()) for mask in pruner.held_masks.values())


def test_minibatches_that_come_once_serve_all_cuts() -> None:
    module = net()
    pruner = Pruner(module, {"sparsity": 0.5, "criterion": "wanda"} | REMEDY)
    run = Calibration(run=lambda: module(states()))
    assert pruner.prune_to(batch=iter([states()]), calibration=run).sparsity == 0.5


def test_groups_come_to_their_own_targets_in_many_steps() -> None:
    module = nn.ModuleDict({"pi": net(1), "vf": net(2)})
    config = {
        "sparsity": 0.8,
        "groups": {"vf": {"sparsity": 0.3}},
        "remedies": {"reconstruct": True},
    }
    pruner = Pruner(module, config, groups=lambda name: name.split(".")[0])
    run = Calibration(run=lambda: [part(states()) for part in module.values()])
    pruner.prune_to(calibration=run)
    assert pruner.sparsity("pi") == pytest.approx(0.8, abs=0.01)
    assert pruner.sparsity("vf") == pytest.approx(0.3, abs=0.01)
