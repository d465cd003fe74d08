"""RLlib's source of offline data, with the steps in memory and drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import ray
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from rayprune.errors import InputError
from rayprune.rllib.offline.columns import needs_returns, steps_for
from rayprune.rllib.offline.draws import Draws, Modules
from rayprune.rllib.offline.files import UnreadableError
from rayprune.rllib.offline.sources import sources_of
from rayprune.rllib.settings.kept_parts import keep

MOST_BYTES: Final = 2**30
"""Of unpacked Parquet files that are held in memory."""


class RecordedData(OfflineData):
    """What an offline algorithm samples from.

    RLlib's own streams rows through Ray Data in the order of the files, from the first one again
    after each resume. Here they are read once, and minibatches are drawn at random without
    replacement, the same ones whether a run was interrupted or not. Data that is too large, or not
    a table of steps, is streamed as RLlib does.

    Args:
        config: the algorithm's.
    """

    def __init__(self, config: Any) -> None:
        self._draws: Iterator[Modules] | None = None
        self._shards: list[Draws] = []
        self._streams = _reason_against(config)
        if self._streams:
            self._stream(config)
            return
        self.config = config
        self.iter_batches_kwargs: dict[str, Any] = {}
        # As RLlib's own begins; an Algorithm sets them.
        self.locality_hints = self.learner_handles = self.module_spec = None
        self.spaces: Any = None

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 1,
        module_state: Any = None,
    ) -> Any:
        """Return iterators for Learners, one each, or a batch for the one that is here."""
        if not self._streams:
            self._read(num_shards)
        if self._streams:
            return super().sample(num_samples, return_iterator, num_shards, module_state)
        if return_iterator:
            return self._shards
        if self._draws is None:
            self._draws = self._shards[0].minibatches(num_samples)
        columns = {mid: SampleBatch(own) for mid, own in next(self._draws).items()}
        return MultiAgentBatch(columns, num_samples)

    def cross_barrier(self) -> None:
        """Begin anew with what is drawn, as a run that is resumed does."""
        self._draws = None

    def _read(self, num_shards: int) -> None:
        if self._shards:
            return
        try:
            steps = steps_for(
                self.config,
                self.spaces[INPUT_ENV_SPACES],
                self.module_spec,
                sources_of(self.config.input_),
            )
        except UnreadableError as reason:
            self._streams = str(reason)
            self._stream(self.config)
            return
        if num_shards < 1:
            self._shards = [Draws(steps)]
            return
        held = ray.put(steps)
        self._shards = [Draws(held, slice(rank, None, num_shards)) for rank in range(num_shards)]

    def _stream(self, config: Any) -> None:
        if needs_returns(config):
            raise InputError(
                f"`rllib.offline_data` can't be read as whole episodes: {self._streams}. What "
                "MARWIL learns of a state is told by all that follows, so it needs them. Give "
                "fewer or other files; `rayprune record CHECKPOINT --out FOLDER` writes some."
            )
        keep("reading of recorded data", self._streams)
        kept = {
            name: getattr(self, name, None)
            for name in ("spaces", "learner_handles", "module_spec", "locality_hints")
        }
        super().__init__(config)
        vars(self).update(kept)


def _reason_against(config: Any) -> str:
    """Return why RLlib reads the data, in words; empty where it is read here."""
    for name, default in _AS_WE_READ.items():
        if getattr(config, name) != default:
            return f"`{name}` is set"
    if not config.dataset_num_iters_per_learner:
        return "an iteration is a pass over all of it"
    try:
        size = sum(source.size() for source in sources_of(config.input_))
    except UnreadableError as reason:
        return str(reason)
    return f"it holds {size:,} bytes" if size > MOST_BYTES else ""


_AS_WE_READ: Final[Mapping[str, Any]] = {
    "input_read_method": "read_parquet",
    "input_read_method_kwargs": {},
    "input_filesystem": None,
    "input_read_sample_batches": False,
    "input_read_batch_size": None,
    "iter_batches_kwargs": {},
    "prelearner_buffer_class": None,
    "prelearner_class": None,
}
"""Settings that ask for another way of reading, as they are where none is asked for."""
