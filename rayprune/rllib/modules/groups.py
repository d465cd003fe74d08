"""Which of an RLModule's layers are policy, value or shared, heads, or the Learner's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ray.rllib.core.rl_module.apis import InferenceOnlyAPI

# Words between dots and underscores in RLlib's own module names: `encoder.actor_encoder`, `pi`,
# `af` (DQN's advantage stream), `encoder.critic_encoder`, `vf`, `qf_encoder`, `qf_twin`.
_WORDS: Final = {
    "policy": frozenset({"policy", "actor", "pi", "af", "advantage", "logits"}),
    "value": frozenset({"value", "values", "critic", "vf", "qf", "q"}),
}
SHARED: Final = "shared"

# Nets that end in the module's outputs; the first segment of a layer's name tells.
_HEADS: Final = frozenset({"pi", "vf", "af", "qf", "qf_twin"})


def group_of(layer: str) -> str:
    """Return ``"policy"``, ``"value"`` or ``"shared"`` for a layer's dotted name.

    The outermost telling segment decides, so a user's module gets its groups by naming its parts.

    >>> [group_of(n) for n in ("encoder.actor_encoder.net.mlp.0", "vf.net.mlp.0", "encoder.cnn.0")]
    ['policy', 'value', 'shared']
    """
    for segment in layer.split("."):
        words = set(re.split(r"[_\d]+", segment.lower()))
        for group, telling in _WORDS.items():
            if words & telling:
                return group
    return SHARED


def output_heads(layers: Iterable[str]) -> frozenset[str]:
    """Return the layers whose output units are actions, values or Q-values, by names alone.

    `rayprune.rllib.modules.heads` falls back on it for layers that it can't run. For RLlib's own
    nets these are the last layers under ``pi``, ``vf``, ``af``, ``qf`` and ``qf_twin``; for other
    modules the last layer of each group.

    Args:
        layers: dotted layer names in the order of registration.

    >>> sorted(output_heads(["encoder.mlp.0", "pi.mlp.0", "pi.mlp.2", "vf.mlp.0"]))
    ['pi.mlp.2', 'vf.mlp.0']
    >>> sorted(output_heads(["policy.body.0", "policy.head", "value.body.0", "value.head"]))
    ['policy.head', 'value.head']
    """
    names = list(layers)
    heads = {name.split(".")[0]: name for name in names if name.split(".")[0] in _HEADS}
    if heads:
        return frozenset(heads.values())
    last_of_group = {group_of(name): name for name in names}
    # A trunk that feeds policy and value heads ends in hidden units, not in outputs.
    if len(last_of_group) > 1:
        last_of_group.pop(SHARED, None)
    return frozenset(last_of_group.values())


def kept_back(module: Any) -> tuple[str, ...]:
    """Return the name prefixes of what only the Learner needs: critics, and target networks.

    RLlib's LSTM modules have a critic encoder on the EnvRunner too, at its initial weights.
    """
    if not isinstance(module, InferenceOnlyAPI):
        return ()
    return tuple(module.get_non_inference_attributes())
