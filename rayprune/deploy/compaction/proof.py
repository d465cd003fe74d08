"""The proof: a smaller network computes what the masked one does, or an error says where not."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.double_precision import in_precision
from rayprune.deploy.compaction.inputs import cast, cast_like, randomised
from rayprune.deploy.compaction.plan import Plan, apply_plan
from rayprune.deploy.compaction.trace import Forward, as_arguments, call, tensors_in
from rayprune.errors import InvariantError
from rayprune.pruning.layers.hooks import hooked, unit_axis
from rayprune.pruning.layers.plain_parameters import bake, copied
from rayprune.pruning.measures.counting import count_parameters

BOUNDS: Final = {"f64": 1e-12, "f32": 1e-5, "f16": 1e-2, "bf16": 1e-1}
"""Largest difference of any output; of one above 1, as a share of it. A dozen or more units in the
last place, for sums in another order; that the plan is right is what f64 shows."""
DTYPES: Final = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
}
"""What a module's parameters may be, the finest first."""

Act = Callable[[Any], Tensor]
"""From what a forward returns to the actions chosen, the first axis being the batch's."""


@dataclass(frozen=True, slots=True)
class NetworkPair:
    """A masked network and the smaller one, in one precision, on the CPU.

    Of a module that mixes types the precision is its coarsest one's.
    """

    masked: nn.Module
    small: nn.Module
    plan: Plan
    forward: Forward | None
    precision: str

    def outputs(self, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """Run both; the masked one's outputs come in the form of the smaller one's."""
        arguments = self.plan.ground(arguments)
        with in_precision(DTYPES[self.precision]):
            masked = self.plan.adapt_outputs(call(self.masked, arguments, self.forward))
            small = call(self.small, self.plan.adapt(arguments), self.forward)
        return masked, self.plan.comparable(small)


def prove(
    masked: nn.Module,
    small: nn.Module,
    plan: Plan,
    example_input: Any,
    *,
    forward: Forward | None = None,
    act: Act | None = None,
    observations: Iterable[Any] = (),
    random: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Prove that ``small`` computes what ``masked`` does.

    In the module's own precision, mostly f32, the two are compared as they are. In f64 the plan is
    applied to a double copy of the masked one: that shows that the plan is right, where the other
    shows what rounding adds.

    Args:
        masked: the network before compaction; left as it is.
        small: the network after it.
        plan: what was done.
        example_input: as in :func:`~rayprune.deploy.compaction.compact.compact`; compared too.
        forward: what was compacted, if not the module itself.
        act: what chooses actions from the outputs; they must be the same.
        observations: recorded inputs, each of the form of ``example_input``.
        random: how many random inputs of that form are compared.
        seed: of the random inputs.

    Returns:
        The certificate, of plain JSON types. Its ``zero_states`` counts the places of states that
        were compared at zero only, because no episode that starts there leaves it.

    Raises:
        InvariantError: an output or an action differs; the message names the first layer that does.
    """
    recorded = [as_arguments(observation) for observation in observations]
    generator = torch.Generator().manual_seed(seed)
    example = as_arguments(example_input)
    drawn = [randomised(example, generator) for _ in range(random)]
    double, own = _on_cpu(masked, torch.float64), precision_of(masked)
    exact = _on_cpu(small) if own == "f64" else apply_plan(copy.deepcopy(double), plan)
    pairs = {
        own: NetworkPair(_on_cpu(masked), _on_cpu(small), plan, forward, own),
        "f64": NetworkPair(double, exact, plan, forward, "f64"),
    }
    inputs = [example, *recorded, *drawn]
    errors = {name: compare(pair, inputs, act) for name, pair in pairs.items()}
    before, after = count_parameters(masked), count_parameters(small)
    return {
        "schema": 1,
        "removed": [asdict(removed) for removed in plan.removed],
        "left": [asdict(left) for left in plan.left],
        "zero_states": sum(units.numel() for units in plan.grounded.values()),
        "parameters": {"before": before.total, "after": after.total},
        "bounds": {name: BOUNDS[name] for name in pairs},
        "errors": errors,
        "actions": "equal" if act else None,
        "observations": {
            "recorded": sum(_rows(arguments) for arguments in recorded),
            "random": sum(_rows(arguments) for arguments in drawn),
            "seed": seed,
            "sha256": _hash([leaf for args in recorded for leaf in tensors_in(args)]),
        },
        "sha256": {"masked": hash_of(masked), "small": hash_of(small)},
    }


def compare(pair: NetworkPair, inputs: Sequence[tuple[Any, ...]], act: Act | None = None) -> float:
    """Return the largest error over the inputs.

    Raises:
        InvariantError: it is above the precision's bound, or an action differs.
    """
    worst, precision = 0.0, pair.precision
    for given in inputs:
        # A module may take other types than its own, and convert them: the example's are right.
        exact = precision == "f64"
        arguments = cast(given, torch.float64) if exact else cast_like(given, inputs[0])
        masked, small = pair.outputs(arguments)
        error = error_between(masked, small)
        if not error <= BOUNDS[precision]:
            raise InvariantError(
                f"The compacted network departs from the masked one by {error:.3g} in {precision}, "
                f"where {BOUNDS[precision]:.0e} is allowed; first in "
                f"{first_departure(pair, arguments, BOUNDS[precision])}. Keep that layer whole."
            )
        if act is not None and not torch.equal(act(masked), act(small)):
            raise InvariantError(
                f"The compacted network chooses other actions in {precision}, although its outputs "
                f"are within {BOUNDS[precision]:.0e}: the two best are as good as equal."
            )
        worst = max(worst, error)
    return worst


def error_between(masked: Any, small: Any) -> float:
    """Return the largest difference of two forwards' tensors; infinite if their shapes differ.

    >>> error_between(torch.tensor([1.0, 400.0]), torch.tensor([1.5, 400.0]))
    0.5
    """
    ours, theirs = tensors_in(masked), tensors_in(small)
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    return max((_error(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def first_departure(pair: NetworkPair, arguments: tuple[Any, ...], bound: float) -> str:
    """Return the name of the first layer whose live units differ; the output, if none does."""
    seen: list[dict[str, Tensor]] = []
    for network, given in (
        (pair.masked, pair.plan.ground(arguments)),
        (pair.small, pair.plan.adapt(pair.plan.ground(arguments))),
    ):
        parts = {name: part for name, part in network.named_modules() if name in pair.plan.units}
        layers = {part: name for name, part in parts.items()}
        # What an attention layer gives are other units: those of its output projection.
        names = {x: n for x, n in layers.items() if not isinstance(x, nn.MultiheadAttention)}
        outputs: dict[str, Tensor] = {}
        with hooked(names, _recorder(outputs, names)), in_precision(DTYPES[pair.precision]):
            call(network, given, pair.forward)
        seen.append(outputs)
    masked, small = seen
    for name, output in masked.items():
        living = pair.plan.units[name]
        axis = unit_axis(pair.masked.get_submodule(name))
        ours = output.index_select(axis, living[living >= 0])
        theirs = small[name].index_select(axis, (living >= 0).nonzero().flatten())
        if not error_between(ours, theirs) <= bound:
            return f"layer {name!r}"
    return "the outputs"


def precision_of(module: nn.Module) -> str:
    """Return the name of the coarsest type that a module's parameters have.

    >>> precision_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).bfloat16())), precision_of(
    ...     nn.ReLU()
    ... )
    ('bf16', 'f32')
    """
    held = {parameter.dtype for parameter in module.parameters()}
    names = [name for name, dtype in DTYPES.items() if dtype in held]
    return names[-1] if names else "f32"


def hash_of(module: nn.Module) -> str:
    """Return the SHA-256 of a state dict: names, types, shapes and bits, in order of names."""
    state = module.state_dict()
    tensors = {name: value for name, value in sorted(state.items()) if isinstance(value, Tensor)}
    return _hash(list(tensors.values()), list(tensors))


def _recorder(outputs: dict[str, Tensor], names: Mapping[nn.Module, str]) -> Callable[..., None]:
    def record(layer: nn.Module, given: Any, output: Any) -> None:
        outputs.setdefault(names[layer], output[0] if isinstance(output, tuple) else output)

    return record


def _error(ours: Tensor, theirs: Tensor) -> float:
    if not ours.numel():
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    scale = ours.abs().clamp(min=1.0)
    difference = torch.where(ours == theirs, 0.0, (ours - theirs).abs() / scale)
    return float(difference.nan_to_num(nan=float("inf")).max())


def _on_cpu(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    # The plan is of the weights themselves, where torch computes them from others.
    plain = copied(module)
    bake(plain)
    return plain.to("cpu", dtype).eval()


def _rows(arguments: tuple[Any, ...]) -> int:
    tensors = tensors_in(arguments)
    return tensors[0].shape[0] if tensors and tensors[0].dim() else 1


def _hash(tensors: Sequence[Tensor], names: Sequence[str] = ()) -> str:
    digest = hashlib.sha256("\n".join(names).encode())
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()
