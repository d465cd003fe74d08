"""What an exploit moves: a sparse policy's checkpoint is smaller, its moments included."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprune.rllib import prune
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.checkpoints.saved_policy import MODULE, MODULE_FILE
from tests.rllib import configs

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("ray_session")]

LEARNER = Path("learner_group", "learner", "state.pkl")


def saved(place: Path, sparsity: float) -> tuple[int, dict[str, Any]]:
    """Return the bytes of the arrays' files of a checkpoint, and the Learner's state in it."""
    config = prune(
        configs.ppo().rl_module(model_config={"fcnet_hiddens": [128, 128]}),
        configs.pruning(sparsity=sparsity),
    )
    algorithm = configs.build(config)
    algorithm.train()
    checkpoints.save(algorithm, place, None, {"env_steps": 200})
    algorithm.stop()
    files = [place / LEARNER, place / MODULE / MODULE_FILE]
    return sum(path.stat().st_size for path in files), pickle.loads((place / LEARNER).read_bytes())


def arrays_in(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [array for part in parts for array in arrays_in(part)]


def test_a_sparse_checkpoint_is_smaller_in_proportion(tmp_path: Path) -> None:
    dense, _ = saved(tmp_path / "dense", 0.0)
    # Weights and both of Adam's moments, and in one bit each which of them are left.
    assert dense > 3 * 4 * 2 * 128 * 128
    for sparsity in (0.5, 0.95):
        sparse, state = saved(tmp_path / str(sparsity), sparsity)
        # 1/32 for the bits of each array, 1/96 for those of the masks, biases and names on top.
        assert sparse < (1 - sparsity + 1 / 32 + 1 / 96) * dense + 16_000
        moments = [one for one in arrays_in(state["optimizer"]) if one.shape == (128, 128)]
        assert len(moments) == 4
        for moment in moments:
            assert moment.flags.writeable
            assert (moment == 0).mean() == pytest.approx(sparsity, abs=0.02)
