"""The heads of an RLModule: the layers that make its actions and values, found by running it."""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from torch import Tensor, nn

from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.pruning.tracing.heads import UNSURE, Runs, beside_others
from rayprune.pruning.tracing.replica import replica, undisturbed
from rayprune.rllib.modules.groups import output_heads

logger = logging.getLogger(__name__)

ROWS: Final = 2
"""Of the batch, and time steps where a module has a state: one would hide which axis is which."""

POLICY: Final = "policy"
VALUE: Final = "value"

_KINDS: Final[Mapping[str, str | None]] = {
    Columns.ACTION_DIST_INPUTS: POLICY,
    Columns.ACTIONS: POLICY,
    Columns.ACTIONS_FOR_ENV: POLICY,
    Columns.ACTION_LOGP: POLICY,
    Columns.ACTION_PROB: POLICY,
    Columns.VF_PREDS: VALUE,
    Columns.VALUES_BOOTSTRAPPED: VALUE,
    # Hidden units, whoever returns them.
    Columns.OBS: None,
    Columns.NEXT_OBS: None,
    Columns.EMBEDDINGS: None,
    Columns.STATE_IN: None,
    Columns.STATE_OUT: None,
    Columns.NEXT_STATE_IN: None,
    Columns.NEXT_STATE_OUT: None,
    ENCODER_OUT: None,
}
"""What the outputs of a forward are, by RLlib's names; None is left out."""

_SCALARS: Final = (
    Columns.REWARDS,
    Columns.ACTION_LOGP,
    Columns.VF_PREDS,
    Columns.VALUES_BOOTSTRAPPED,
    Columns.ADVANTAGES,
    Columns.VALUE_TARGETS,
    Columns.INTRINSIC_REWARDS,
    Columns.RETURNS_TO_GO,
    "weights",
    "n_step",
)
_FLAGS: Final = (Columns.TERMINATEDS, Columns.TRUNCATEDS)

Run = Callable[[Any, dict[str, Any]], Mapping[str, Any]]


def heads_of(
    module: nn.Module,
    targets: list[nn.Module],
    *,
    name: str = "",
    parent: Any = None,
) -> frozenset[str]:
    """Return the layers whose units are the module's outputs, so that no unit can go.

    Args:
        module: is made maskable.
        targets: target networks in it.
        name: the module's id, if it has one.
        parent: the MultiRLModule that holds it, if one does.
    """
    make_maskable(module, exclude=targets)
    layers = maskable_layers(module, exclude=targets)
    return module_heads(module, layers, name=name, parent=parent)


def module_heads(
    module: Any, layers: Mapping[str, nn.Module], *, name: str = "", parent: Any = None
) -> frozenset[str]:
    """Return the layers of an RLModule whose units are actions, values or Q-values.

    A copy runs, as EnvRunners and Learners would run the module, on a batch made from its spaces.
    Names tell only of layers that no run reaches (`output_heads`), and that is logged.

    Args:
        module: not wrapped in DDP; it stays as it is.
        layers: its maskable layers, target networks' left out.
        name: the module's id, for messages.
        parent: the MultiRLModule that holds it, if one does: where the module can't run by itself,
            it runs with the others.
    """
    runs, failures = _run(module, layers)
    if runs.unreached and failures and parent is not None:
        runs, more = _run(module, layers, parent)
        failures = more or failures
    shown = name or type(module).__name__
    like_heads, like_hidden = beside_others(module, layers, runs)
    if like_heads:
        _tell_beside(shown, tuple(x for x in layers if x in like_heads))
    left = runs.unreached - like_heads - like_hidden
    if not left:
        return runs.heads | like_heads
    named = output_heads(layers) & left
    named |= output_heads(x for x in layers if x in left)
    why = "; ".join(failures.values()) or "no forward or value method uses them"
    _tell(shown, tuple(x for x in layers if x in left), why, tuple(sorted(named)))
    return runs.heads | like_heads | named


@functools.cache
def _tell_beside(name: str, heads: tuple[str, ...]) -> None:
    """Say once what was concluded from others of a container."""
    logger.warning(
        "RLModule %r: no run on a made-up batch used what layers %s put out. They count as actions "
        "and values as those beside them do, and keep all their units.",
        name,
        list(heads),
    )


@functools.cache
def _tell(name: str, unreached: tuple[str, ...], why: str, heads: tuple[str, ...]) -> None:
    """Say once that names had to do."""
    logger.warning(
        "RLModule %r: what layers %s put out can't be told by running it (%s). By their names %s "
        "count as actions and values, and keep all their units. If that is wrong, list the right "
        "ones under `pruning.protect`.",
        name,
        list(unreached),
        why,
        list(heads),
    )


def _run(
    module: Any, layers: Mapping[str, nn.Module], parent: Any = None
) -> tuple[Runs, dict[str, str]]:
    """Return what all runs together tell, and why some of them failed."""
    failures: dict[str, str] = {}
    try:
        with undisturbed(module.parameters()):
            copied, module_id = copy_to_run(module, parent)
            batches = list(_batches(module))
    # Whatever a space, a state or a copy of the user's own may raise.
    except Exception as error:
        return Runs(layers, None, []), {"copy": _reason(error)}
    runs = Runs(layers, copied, parts_of(copied))
    for name, run in _methods(module, module_id).items():
        why = _first_that_runs(runs, run, batches)
        if why is not None:
            failures[name] = f"`{name}` fails: {_reason(why)}"
            logger.debug("%s", failures[name], exc_info=why)
    return runs, failures


def _first_that_runs(runs: Runs, run: Run, batches: list[dict[str, Any]]) -> Exception | None:
    """Run on one batch after the other until one will do; return why the first didn't."""
    errors: list[Exception] = []
    for batch in batches:
        # Modules may take things out of their batch.
        own = tree.map_structure(lambda leaf: leaf.clone(), batch)
        try:
            runs.add(functools.partial(_call, run, own))
        # Whatever a user's forward may raise.
        except Exception as error:
            errors.append(error)
        else:
            return None
    return errors[0]


def _call(run: Run, batch: dict[str, Any], copied: Any) -> Mapping[str, Any]:
    return run(copied, batch)


def copy_to_run(module: Any, parent: Any) -> tuple[Any, Any]:
    """Return a copy to run, and under which id the module stands in it; None if it is the copy.

    Args:
        module: not wrapped in DDP. The copy's parameters lie in the memory of its own.
        parent: the MultiRLModule that holds it, of which a copy is made then.
    """
    whole = module if parent is None else parent
    copied = replica(whole, parts_of(whole))
    module_id = None
    if parent is not None:
        module_id = next(key for key in parent.keys() if parent[key].unwrapped() is module)  # noqa: SIM118
    own: Any = copied if module_id is None else copied[module_id].unwrapped()
    trains = not own.inference_only
    if trains and isinstance(own, TargetNetworkAPI) and not _has_targets(own):
        # The Learner makes them; before, a train forward has nothing to compare with.
        own.make_target_networks()
    return copied, module_id


def parts_of(whole: Any) -> list[nn.Module]:
    """Return the torch modules of an RLModule, or of a MultiRLModule, which may be none itself."""
    if isinstance(whole, nn.Module):
        return [whole]
    return [whole[key].unwrapped() for key in whole.keys()]  # noqa: SIM118


def _has_targets(module: Any) -> bool:
    try:
        return bool(module.get_target_network_pairs())
    except AttributeError:
        return False


def _methods(module: Any, module_id: Any) -> dict[str, Run]:
    """Return all that RLlib calls of a module, by name."""

    def forward(name: str, **kwargs: Any) -> Run:
        def run(copied: Any, batch: dict[str, Any]) -> Mapping[str, Any]:
            if module_id is None:
                return _outputs(getattr(copied, name)(batch, **kwargs))
            return _outputs(getattr(copied, name)({module_id: batch}, **kwargs)[module_id])

        return run

    def valued(name: str) -> Run:
        def run(copied: Any, batch: dict[str, Any]) -> Mapping[str, Any]:
            own = copied if module_id is None else copied[module_id].unwrapped()
            return {VALUE: list(_outputs(getattr(own, name)(batch)).values())}

        return run

    methods = {
        "forward_inference": forward("forward_inference"),
        "forward_exploration": forward("forward_exploration", t=0),
    }
    if module.inference_only:
        return methods
    for name in ("compute_values", "compute_q_values"):
        # Asked for by name: a module may have them without saying `ValueFunctionAPI`.
        if callable(getattr(module, name, None)):
            methods[name] = valued(name)
    return {**methods, "forward_train": forward("forward_train")}


def _outputs(returned: Any) -> dict[str, Any]:
    """Sort what a forward returns by kind; hidden units are left out."""
    if not isinstance(returned, Mapping):
        return {VALUE: returned}
    sorted_: dict[str, list[Any]] = {}
    for key, value in returned.items():
        kind = _KINDS.get(key, UNSURE)
        if kind is not None:
            sorted_.setdefault(kind, []).append(value)
    return sorted_


def _batches(module: Any) -> Iterator[dict[str, Any]]:
    """Yield batches to try: as RLlib would make them of samples, and with floats for integers."""
    ahead = (ROWS, ROWS) if module.is_stateful() else (ROWS,)
    device = next(module.parameters()).device
    batch = {
        Columns.OBS: _samples(module.observation_space, ahead),
        Columns.NEXT_OBS: _samples(module.observation_space, ahead),
        Columns.ACTIONS: _samples(module.action_space, ahead),
        **{key: np.zeros(ahead, np.float32) for key in _SCALARS},
        **{key: np.zeros(ahead, bool) for key in _FLAGS},
        Columns.LOSS_MASK: np.ones(ahead, bool),
        Columns.T: np.zeros(ahead, np.int64),
    }
    if module.is_stateful():
        batch[Columns.STATE_IN] = batch[Columns.NEXT_STATE_IN] = tree.map_structure(
            _repeated, module.get_initial_state()
        )
        batch[Columns.SEQ_LENS] = np.full(ROWS, ROWS)
    made = convert_to_torch_tensor(batch, device=device)
    yield made
    observed = tree.map_structure(lambda leaf: leaf.float(), made[Columns.OBS])
    yield {**made, Columns.OBS: observed, Columns.NEXT_OBS: observed}


def _samples(space: gym.Space[Any], ahead: tuple[int, ...]) -> Any:
    """Return random elements of a space, stacked; the space's own generator stays as it is."""
    own = copy.deepcopy(space)
    own.seed(0)
    drawn = [own.sample() for _ in range(math.prod(ahead))]
    return tree.map_structure(
        lambda *leaves: np.stack(leaves).reshape(*ahead, *np.shape(leaves[0])), *drawn
    )


def _repeated(state: Any) -> Any:
    value = state.detach().cpu().numpy() if isinstance(state, Tensor) else np.asarray(state)
    return np.repeat(value[None], ROWS, axis=0)


def _reason(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}".rstrip(": .")
