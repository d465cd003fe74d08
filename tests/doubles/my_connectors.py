"""Connectors as a user's own module has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2


class Half(ConnectorV2):
    """Halves the newest observation."""

    def __call__(self, *, episodes: list[Any], batch: Any, **_: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes):
            halved = np.float32(episode.get_observations(-1)) * 0.5
            episode.set_observations(at_indices=-1, new_data=halved)
        return batch


def make(env: Any, spaces: Any, device: Any) -> list[ConnectorV2]:
    return [Half()]
