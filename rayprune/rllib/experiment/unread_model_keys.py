"""Keys of ``rl_module.model_config`` that RLlib's networks of an algorithm don't read.

Found by building each algorithm's default module in Ray 2.60 with one key changed after the other,
for vectors and images, choices and continuous actions: what is listed here changes nothing. A test
does so again (``tests/rllib/experiment/test_unread_model_keys.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import gymnasium as gym

from rayprune.rllib.algorithms import families, family_named
from rayprune.rllib.algorithms.family import AlgorithmFamily

_HEAD_HIDDENS: Final = "head_fcnet_hiddens"
_FCNET_HIDDENS: Final = "fcnet_hiddens"
_SHARED: Final = "vf_share_layers"
_KWARGS: Final = "_kwargs"
_OUT: Final = "leave it out."


def unread_model_faults(algorithm: str, model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fault of each key that nothing reads, whatever the environment.

    Args:
        algorithm: as the YAML names it.
        model: its ``model_config``, for RLlib's own module.
    """
    family = family_named(algorithm)
    for key in _set_in(model):
        instead = _unread(family, key, model)
        if instead is not None:
            yield _fault(key, f" with {algorithm}", instead)


def unread_for_spaces(
    algorithm: str, model: Mapping[str, Any], seen: gym.Space[Any], actions: gym.Space[Any]
) -> Iterator[str]:
    """Yield the fault of each key that nothing reads for these spaces.

    Args:
        algorithm: as the YAML names it.
        model: its ``model_config``, for RLlib's own module.
        seen: what the module observes.
        actions: the module's.
    """
    image = len(seen.shape or ()) == 3
    continuous = isinstance(actions, gym.spaces.Box)
    # Their Q-networks read actions by fully connected layers, images or not.
    fuses = family_named(algorithm).fuses_actions and continuous
    dense = {_FCNET_HIDDENS, "fcnet_activation"} if fuses else set()
    for key in _set_in(model):
        if key.startswith("conv_") and not image:
            yield _fault(key, f" for observations of shape {seen.shape}", f"For images; {_OUT}")
        elif key.startswith("fcnet_") and image and key not in dense:
            instead = f"Images are read by `conv_filters`; set `{_HEAD_HIDDENS}` for layers behind."
            yield _fault(key, f" for images of shape {seen.shape}", instead)
        elif not continuous and (key.startswith("fusionnet_") or "log_std" in key):
            yield _fault(key, f" for actions {actions}", f"For continuous ones; {_OUT}")


def _where(what: str) -> str:
    """Return the names of the algorithms of which something is true, in words."""
    *others, last = [family.name for family in families() if getattr(family, what)]
    return f"{', '.join(others)} and {last}" if others else last


def _set_in(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that ask for something: what is off or empty is so anyway."""
    for key, value in model.items():
        off = value is None or value is False or (isinstance(value, (list, dict)) and not value)
        if not off or key == _SHARED:
            yield str(key)


def _fault(key: str, where: str, instead: str) -> str:
    return f"`rllib.rl_module.model_config.{key}` does nothing{where}. {instead}"


def _unread(family: AlgorithmFamily, key: str, model: Mapping[str, Any]) -> str | None:
    """Return what to do instead of a key, None for one that is read."""
    base = key.removesuffix(_KWARGS)
    if key.startswith("lstm_use_prev"):
        return (
            "Give `rllib.env_runners.env_to_module_connector: module:name` of a connector that "
            "adds it to the observation."
        )
    if (key.startswith("lstm_") or key == "max_seq_len") and not model.get("use_lstm"):
        return "Set `use_lstm: true`, or leave it out."
    if key.startswith("head_fcnet_"):
        return _unread_of_head(family, key, model)
    if key == _SHARED and not family.value_net:
        return f"Only {_where('value_net')} have a value net beside the policy; {_OUT}"
    if key.startswith("fusionnet_") and not family.fuses_actions:
        return f"Only {_where('fuses_actions')} fuse observations and actions; {_OUT}"
    if "log_std" in key and not family.learns_deviation:
        return f"DQN has no deviation, and the others bound it themselves; {_OUT}"
    if base != key and not model.get(base):
        return f"Set `{base}` too, or leave it out."
    linear = _FCNET_HIDDENS in model and not model[_FCNET_HIDDENS]
    if key.startswith("fcnet_") and key != _FCNET_HIDDENS and linear and not family.fuses_actions:
        return f"Give `{_FCNET_HIDDENS}` a layer, or leave it out."
    return None


def _unread_of_head(family: AlgorithmFamily, key: str, model: Mapping[str, Any]) -> str | None:
    if "initializer" in key:
        if not family.initialises_heads:
            return f"Only DQN reads how heads begin; {_OUT}"
        base = key.removesuffix(_KWARGS)
        return f"Set `{base}` too, or leave it out." if not model.get(base) else None
    if key.endswith("layernorm") and not family.value_net:
        return f"Only {_where('value_net')} read it; {_OUT}"
    if key != _HEAD_HIDDENS and not model.get(_HEAD_HIDDENS):
        return f"Set `{_HEAD_HIDDENS}`, or leave it out."
    return None
