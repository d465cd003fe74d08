"""What a checkpoint says of a network that was compacted in mid-training."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID

from rayprune.pruning.layers.original_shapes import Origins
from rayprune.rllib.settings.keys import STATE_KEY


def pruner_states(directory: Path) -> dict[str, Any]:
    """Return the Pruner states that a Learner saved, by module id; a plain one saved none.

    Args:
        directory: an Algorithm's checkpoint.
    """
    path = directory / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / "state.pkl"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        held = pickle.load(file).get(STATE_KEY)
    return {} if held is None else dict(held["modules"])


def origins_in(directory: Path) -> Origins:
    """Return where the default policy's parameters came from; empty if none ever shrank."""
    origins = Origins()
    origins.load_state_dict(pruner_states(directory).get(DEFAULT_MODULE_ID, {}).get("origins"))
    return origins
