"""What the Learner's optimizers need: fused Adam, fewer checks, moments as sparse as weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor
from torch.optim import Optimizer

# Fused kernels exist for these devices and floats (torch.optim.Optimizer checks both at each step).
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def fuse_adam(optimizers: Iterable[Optimizer]) -> None:
    """Let plain Adam and AdamW step in one fused kernel.

    torch's for-loop Adam on a CPU runs several times slower than the fused one, and slower still
    over moments that are mostly zero. The results agree up to rounding. A user who chose
    ``foreach``, ``capturable`` or ``differentiable`` keeps that choice.
    """
    for optimizer in optimizers:
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            continue
        for group in optimizer.param_groups:
            if _may_fuse(group):
                group["fused"] = True


def _may_fuse(group: dict[str, object]) -> bool:
    if any(group.get(key) for key in ("foreach", "capturable", "differentiable")):
        return False
    if group.get("fused") is False:
        return False
    parameters = group["params"]
    assert isinstance(parameters, list)
    return all(p.device.type in _FUSED_DEVICES and torch.is_floating_point(p) for p in parameters)


@contextmanager
def checks_spared(
    config: AlgorithmConfig, gradients: Mapping[Any, Tensor | None]
) -> Iterator[None]:
    """Spare RLlib two checks of every gradient for NaN when one look at their norms will do.

    RLlib's ``apply_gradients`` asks ``isfinite().all()`` of each gradient twice: several kernels
    and, on a GPU, two waits for each parameter. Finite norms say the same of all at once. Where a
    norm is not finite (or too large for a float) nothing is spared, and RLlib does what it does.

    Args:
        config: the Learner's own; its ``torch_skip_nan_gradients`` switches the checks off.
        gradients: what is about to be applied.
    """
    found = [gradient for gradient in gradients.values() if gradient is not None]
    if config.torch_skip_nan_gradients or not found or not _all_finite(found):
        yield
        return
    # Not by assignment, which a frozen config refuses; and put back whatever happens.
    vars(config)["torch_skip_nan_gradients"] = True
    try:
        yield
    finally:
        vars(config)["torch_skip_nan_gradients"] = False


def _all_finite(gradients: list[Tensor]) -> bool:
    # Not every optimizer's parameters share a device; norms are scalars, cheap to bring together.
    norms = torch._foreach_norm(gradients)
    return bool(torch.isfinite(torch.stack([norm.to(norms[0].device) for norm in norms])).all())


def learning_rates(optimizers: Iterable[Optimizer]) -> dict[torch.nn.Parameter, float]:
    """Return the learning rate that each parameter is stepped with now."""
    return {
        parameter: float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def moments(optimizers: Iterable[Optimizer], parameter: torch.nn.Parameter) -> Iterator[Tensor]:
    """Yield the optimizer state that lies weight by weight (Adam's moments, momentum).

    L-BFGS keeps vectors of all parameters together: their parts are yielded as views. Other state
    that holds more than tensors shaped like the parameter and numbers may be in other coordinates
    (SOAP's eigenbasis) or in codes (8-bit Adam), where a mask means nothing; it is passed over.

    Yields:
        Tensors shaped like ``parameter``, to be written in place.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            yield from _lbfgs_parts(optimizer, parameter)
            continue
        held = list(optimizer.state.get(parameter, {}).values())
        if all(_is_number(value) or _is_alike(value, parameter) for value in held):
            yield from (value for value in held if _is_alike(value, parameter))


def _is_alike(value: Any, parameter: torch.nn.Parameter) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == parameter.shape
        and torch.is_floating_point(value)
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value is None or isinstance(value, (bool, int, float, str))


def _lbfgs_parts(optimizer: torch.optim.LBFGS, parameter: torch.nn.Parameter) -> Iterator[Tensor]:
    parameters: list[torch.nn.Parameter] = optimizer.param_groups[0]["params"]
    places = [index for index, own in enumerate(parameters) if own is parameter]
    if not places:
        return
    start = sum(own.numel() for own in parameters[: places[0]])
    held = optimizer.state.get(parameters[0], {})
    for key in ("d", "prev_flat_grad", "old_dirs", "old_stps"):
        for flat in held.get(key) or () if key.startswith("old") else [held.get(key)]:
            if isinstance(flat, Tensor):
                yield flat[start : start + parameter.numel()].view_as(parameter)


def steps_elementwise(optimizer: Optimizer) -> bool:
    """Return whether a zero weight with zero gradient and zero state stays where it is."""
    hooked = any(
        getattr(optimizer, name, None)
        for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    )
    return not hooked and type(optimizer) in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def optimizers_of(
    learner: Any, module_id: str, parameters: Iterable[torch.nn.Parameter] | None = None
) -> list[Optimizer]:
    """Return the optimizers that step a module, whatever they are registered under.

    One optimizer may step all modules (RLlib keeps it under `ALL_MODULES`), and a user's Learner
    may hold others that RLlib doesn't know.

    Args:
        learner: a torch Learner, built.
        module_id: of the module; its own optimizers come first, SAC's temperature's too.
        parameters: those by which optimizers know the module, where that has others by now.
    """
    own = [optimizer for _, optimizer in learner.get_optimizers_for_module(module_id)]
    known = set(learner.module[module_id].parameters() if parameters is None else parameters)
    others = [
        optimizer
        for optimizer in _all_optimizers(learner)
        if any(p in known for group in optimizer.param_groups for p in group["params"])
    ]
    return list({id(optimizer): optimizer for optimizer in [*own, *others]}.values())


def _all_optimizers(learner: Any) -> Iterator[Optimizer]:
    for value in (learner._named_optimizers, *vars(learner).values()):
        yield from _optimizers_in(value)


def _optimizers_in(value: Any) -> Iterator[Optimizer]:
    """Yield an optimizer, those of a dict or sequence, and those that others are wrapped around."""
    if isinstance(value, dict):
        value = list(value.values())
    for held in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(held, Optimizer):
            yield held
        for name in ("optimizer", "base_optimizer"):
            inner = getattr(held, "__dict__", {}).get(name)
            if isinstance(inner, Optimizer):
                yield inner


class ModuleOptimizers:
    """The optimizers that step each pruned module of a Learner, looked for when they may differ.

    Args:
        learner: a torch Learner.
        pruners: by module id; always the same mapping.
    """

    def __init__(self, learner: Any, pruners: Mapping[str, Any]) -> None:
        self._learner = learner
        self._pruners = pruners
        self._found: dict[str, list[Optimizer]] = {}
        self._elementwise: dict[str, bool] = {}
        self._known: tuple[int, ...] = ()

    def of(self, module_id: str) -> list[Optimizer]:
        """Return the optimizers that step a module."""
        self.look()
        return self._found[module_id]

    def step_elementwise(self, module_id: str) -> bool:
        """Return whether a step leaves a module's zero weights where they are."""
        return self._elementwise.get(module_id, False)

    def forget(self) -> None:
        """Look anew next time: modules have come or gone."""
        self._known = ()

    def look(self, *, again: bool = False) -> None:
        """Find them, if there are others than before, or ``again``."""
        held = (
            *map(id, self._learner._named_optimizers.values()),
            *map(id, self._pruners.values()),
        )
        if held == self._known and not again:
            return
        self._known = held
        self._found = {mid: optimizers_of(self._learner, mid) for mid in self._pruners}
        self._elementwise = {
            mid: all(map(steps_elementwise, found)) for mid, found in self._found.items()
        }


def forget_state(learner: Any, module_id: str) -> None:
    """Forget what optimizers know of a module, but not what one of several knows of the others."""
    own = [optimizer for _, optimizer in learner.get_optimizers_for_module(module_id)]
    for optimizer in optimizers_of(learner, module_id):
        if any(optimizer is registered for registered in own):
            optimizer.state.clear()
        for parameter in learner.module[module_id].parameters():
            optimizer.state.pop(parameter, None)
