"""`RLModuleNetwork`: an RLModule's inference pass on plain tensors, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from ray.rllib.core.rl_module.apis import QNetAPI
from torch import Tensor, nn

from rayprune.deploy.policy.interface import Port
from rayprune.errors import InputError

Path = tuple[Any, ...]


class _FreeLogStdHead(TorchFreeLogStdMLPHead):
    """RLlib's, for any batch size: that asks for ``len(mean)``, which is a constant when traced."""

    def _forward(self, *inputs: Any, **_: Any) -> Any:
        mean, log_std = self.net(*inputs), self.log_std
        if self.clip_log_std:
            bound = self.log_std_clip_param_const
            log_std = torch.clamp(log_std, -bound, bound)
        return torch.cat([mean, log_std.unsqueeze(0).expand(mean.shape[0], -1)], dim=1)


class RLModuleNetwork(nn.Module):
    """Maps an observation's leaves and the states to ``(dist_inputs, *next states)``.

    Only states that the policy's outputs depend on are ports: RLlib's recurrent modules run their
    critic's memory beside the policy's, and it is of no use here.

    Args:
        module: an RLModule in eval mode.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        for part in module.modules():
            if type(part) is TorchFreeLogStdMLPHead:
                part.__class__ = _FreeLogStdHead
        self.module = module
        self.acts_on_q = False
        """Whether it takes the best Q-value, instead of having a distribution."""
        self.stateful = bool(module.is_stateful())
        initial = module.get_initial_state() if self.stateful else {}
        self._initial = {path: np.asarray(leaf) for path, leaf in tree.flatten_with_path(initial)}
        self._nesting = initial
        self._observation = module.observation_space.sample()
        # All of them, until it is known which are needed.
        self._needed: list[Path] = list(self._initial)
        self._needed = self._find_needed()
        with torch.no_grad():
            states = [torch.from_numpy(port.zeros(1)) for port in self.ports]
            self(*self._leaves(), *states)

    @property
    def ports(self) -> tuple[Port, ...]:
        """The states that go in and come out."""
        return tuple(
            Port(".".join(["state", *map(str, path)]), self._initial[path].shape)
            for path in self._needed
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step, batch first."""
        count = len(inputs) - len(self._needed)
        leaves, states = inputs[:count], inputs[count:]
        outputs = self._outputs(self._batch(leaves, states))
        if not self.stateful:
            return (outputs[Columns.ACTION_DIST_INPUTS],)
        following = dict(tree.flatten_with_path(outputs[Columns.STATE_OUT]))
        dist_inputs = outputs[Columns.ACTION_DIST_INPUTS].squeeze(1)
        return (dist_inputs, *(following[path] for path in self._needed))

    def _batch(self, leaves: Sequence[Tensor], states: Sequence[Tensor]) -> dict[str, Any]:
        if not self.stateful:
            return {Columns.OBS: tree.unflatten_as(self._observation, list(leaves))}
        timed = [leaf.unsqueeze(1) for leaf in leaves]
        given = dict(zip(self._needed, states, strict=True))
        held = [
            given[path] if path in given else _zeros(leaf, leaves[0])
            for path, leaf in self._initial.items()
        ]
        return {
            Columns.OBS: tree.unflatten_as(self._observation, timed),
            Columns.STATE_IN: tree.unflatten_as(self._nesting, held),
        }

    def _outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        outputs = self.module._forward_inference(batch)
        if Columns.ACTION_DIST_INPUTS not in outputs and isinstance(self.module, QNetAPI):
            self.acts_on_q = True
            outputs = self.module.compute_q_values(batch)
            return {**outputs, Columns.ACTION_DIST_INPUTS: outputs[QF_PREDS]}
        if Columns.ACTION_DIST_INPUTS not in outputs:
            raise InputError(
                f"{type(self.module).__name__} gives actions without {Columns.ACTION_DIST_INPUTS!r}"
                ", so what it does can't be checked. Let its forward return that key."
            )
        return dict(outputs)

    def _leaves(self) -> list[Tensor]:
        """Return the leaves of one observation, batch first."""
        given = [torch.from_numpy(np.array(leaf)) for leaf in tree.flatten(self._observation)]
        return [(x.float() if x.is_floating_point() else x).unsqueeze(0) for x in given]

    def _find_needed(self) -> list[Path]:
        """Return the states that reach the distribution's inputs, through later steps too."""
        reached = {path: self._reached_from(path) for path in self._initial}
        needed: set[Path] = {path for path, (direct, _) in reached.items() if direct}
        grown = True
        while grown:
            more = {path for path, (_, later) in reached.items() if later & needed} - needed
            needed, grown = needed | more, bool(more)
        return [path for path in self._initial if path in needed]

    def _reached_from(self, path: Path) -> tuple[bool, set[Path]]:
        """Return whether a state reaches the distribution's inputs, and which next states it does.

        A NaN goes wherever its place is computed with, through weights of zero too.
        """
        leaves = self._leaves()
        states = {key: torch.zeros(1, *leaf.shape) for key, leaf in self._initial.items()}
        states[path].fill_(float("nan"))
        with torch.no_grad():
            dist_inputs, *following = self(*leaves, *states.values())
        later = {
            key for key, state in zip(states, following, strict=True) if bool(state.isnan().any())
        }
        return bool(dist_inputs.isnan().any()), later


def _zeros(leaf: np.ndarray[Any, Any], beside: Tensor) -> Tensor:
    return torch.zeros(beside.shape[0], *leaf.shape)
