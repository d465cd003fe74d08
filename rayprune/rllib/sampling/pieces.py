"""From an episode under way to a piece of it: no episode is made of that unless it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from rayprune.rllib.replay.pieces import Piece
from rayprune.rllib.sampling.episodes import Steps, buffer_of, fill, last_of, with_first

_OWN: Final = ("observations", "infos", "actions", "rewards")
_OF_STATES: Final = ("observations", "infos")
"""There is one more of them than of steps."""


def piece_of(episode: Any, steps: Steps, lookback: int) -> Piece | None:
    """Return an episode's next piece, and let the episode go on in place, as if it had been cut.

    Args:
        episode: of lists, with none of the steps in it yet; nobody else holds it.
        steps: at least one, of which none ends it.
        lookback: how many steps the episode looks back to.

    Returns:
        None where that isn't possible; nothing was done then.
    """
    outputs = episode.extra_model_outputs
    values = {
        "observations": steps.observations,
        "infos": steps.infos,
        "actions": steps.actions,
        "rewards": steps.rewards,
        **steps.outputs,
    }
    before = {**{name: getattr(episode, name) for name in _OWN}, **outputs}
    if not episode.t_started or episode.custom_data or list(values) != list(before):
        return None
    if not all(_is_alike(before[name].data, values[name]) for name in values if name != "infos"):
        return None
    piece = Piece(
        id_=episode.id_,
        t_started=episode.t,
        observations=with_first(before["observations"].data[-1:], steps.observations),
        infos=[before["infos"].data[-1], *steps.infos],
        actions=steps.actions,
        rewards=steps.rewards,
        outputs=steps.outputs,
        seconds=steps.ended - steps.began,
        whole=partial(_whole, episode, episode.t, before, steps),
    )
    known = min(lookback, len(episode.rewards.data) + len(steps))
    for name, buffer in before.items():
        data = last_of(buffer.data, values[name], lookback + (name in _OF_STATES))
        after = _like(buffer, data, min(known, len(data)))
        if name in outputs:
            outputs[name] = after
        else:
            setattr(episode, name, after)
    episode.t = episode.t_started = piece.t
    return piece


def _is_alike(items: Any, values: Any) -> bool:
    """Whether items in a list are of the values' type."""
    plain = type(values) is np.ndarray and type(items) is list
    return plain and all(getattr(item, "dtype", None) == values.dtype for item in items)


def _whole(episode: Any, t_started: int, before: Mapping[str, Any], steps: Steps) -> Any:
    """Return RLlib's chunk of an episode that has gone on since."""
    result: Any = copy.copy(episode)
    copies = {name: _like(held, [*held.data], held.lookback) for name, held in before.items()}
    for name in _OWN:
        setattr(result, name, copies.pop(name))
    result.extra_model_outputs, result._custom_data = copies, {}
    result.t = result.t_started = t_started
    result._start_time = None
    fill(result, steps, to_numpy=True)
    return result


def _like(buffer: Any, data: list[Any], lookback: int) -> Any:
    return buffer_of(data, lookback, buffer._space, buffer._space_struct)
