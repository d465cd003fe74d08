"""Steps that go on with an episode, handed over without the episode that RLlib makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rayprune.rllib.replay.transitions import Array


@dataclass(slots=True)
class Piece:
    """A chunk that neither begins nor ends its episode; `whole` is what RLlib makes of it.

    It answers what RLlib's EnvRunner asks of a chunk for its metrics, and what a replay buffer
    asks that keeps arrays.
    """

    id_: str
    t_started: int
    """Steps of the episode before it."""
    observations: Array
    """From the last one before it on, shape ``(steps + 1, ...)``."""
    infos: list[Any]
    """As many."""
    actions: Array
    """Shape ``(steps, ...)``."""
    rewards: Array
    """Shape ``(steps,)``."""
    outputs: dict[str, Array]
    """Of the module and the connectors, each of shape ``(steps, ...)``."""
    seconds: float
    """From its first step's end to its last one's."""
    whole: Callable[[], Any]
    """Returns RLlib's chunk, of arrays."""

    def __len__(self) -> int:
        """Return how many steps it has."""
        return len(self.rewards)

    @property
    def t(self) -> int:
        """Steps of the episode up to its end."""
        return self.t_started + len(self.rewards)

    def get_return(self) -> Any:
        """Return the sum of its rewards."""
        return sum(self.rewards)

    def get_duration_s(self) -> float:
        """Return `seconds`."""
        return self.seconds


def whole_episodes(handed: Iterable[Any]) -> list[Any]:
    """Return RLlib's episodes in place of pieces."""
    return [one.whole() if type(one) is Piece else one for one in handed]
