"""The policy that a checkpoint holds: weights, masks, and what shrank while it was trained."""

from __future__ import annotations

import pickle
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID

from rayprune.errors import CheckpointError, first_line
from rayprune.policies.identity import weights_sha256
from rayprune.pruning.layers.original_shapes import OriginalShapes
from rayprune.pruning.layers.resizing import OF_RESIZED
from rayprune.pruning.layers.torch_prune import plain_state
from rayprune.pruning.quantisation.quantiser import is_quantisation
from rayprune.rllib.modules.groups import kept_back
from rayprune.rllib.settings.keys import STATE_KEY

MODULE: Final = Path("learner_group", "learner", "rl_module", DEFAULT_MODULE_ID)
"""Where an Algorithm's checkpoint holds the default policy."""
MODULE_FILE: Final = "module_state.pkl"
_CONNECTORS: Final = ("env_to_module", "module_to_env")


def is_module(path: Path) -> bool:
    """Whether ``path`` is a checkpoint of an RLModule alone, made with ``module.save_to_path``."""
    return (path / MODULE_FILE).is_file()


class SavedPolicy:
    """A checkpoint's default policy; each of its files is read once, when it is first asked for.

    Args:
        directory: an Algorithm's checkpoint, rayprune's or plain RLlib's, or an RLModule's own.

    All properties raise CheckpointError where no single-agent policy is in it, or it can't be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connectors: dict[str, Any] = {}

    @cached_property
    def weights(self) -> dict[str, Any]:
        """The parameters by name, as NumPy arrays.

        What ``torch.nn.utils.prune`` holds in three parts is one array here.
        """
        # RLlib writes those of a single number as numbers.
        return {name: np.asarray(value) for name, value in self._plain[0].items()}

    @property
    def torch_masks(self) -> dict[str, torch.Tensor]:
        """The masks that ``torch.nn.utils.prune`` had put on, by parameter name."""
        return self._plain[1]

    @cached_property
    def pruner(self) -> dict[str, Any] | None:
        """The state of its Pruner; None where a plain Learner saved it."""
        path = self.directory / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / "state.pkl"
        if not path.is_file():
            return None
        with path.open("rb") as file:
            held = pickle.load(file).get(STATE_KEY)
        return None if held is None else held["modules"].get(DEFAULT_MODULE_ID)

    @cached_property
    def origins(self) -> OriginalShapes:
        """Where its parameters came from; empty if none ever shrank."""
        origins = OriginalShapes()
        origins.restore(origins.unpack((self.pruner or {}).get("origins")))
        return origins

    @property
    def place(self) -> Path:
        """Where its module lies."""
        return self.directory if is_module(self.directory) else self.directory / MODULE

    def sha256(self) -> str:
        """Return the SHA-256 of its weights: names and bits, in order of names."""
        return weights_sha256(self.weights)

    def check_fits(self, module: Any) -> None:
        """Raise CheckpointError unless it has ``module``'s parameters.

        RLlib loads what has the same name and passes over the rest without a word.

        Args:
            module: a torch RLModule; it may lack what only a Learner needs, such as target networks
                (with an LSTM it has critics, so that RLlib doesn't call it inference-only).
        """
        held = {name: tuple(value.shape) for name, value in self.weights.items()}
        # What a policy of full precision lacks, a module that can round has by itself.
        own = {
            name: tuple(value.shape)
            for name, value in module.state_dict().items()
            if name in held or not is_quantisation(name)
        }
        # What was compacted in mid-training belongs to a module of the original sizes, which
        # resizes.
        whole = {name: self.origins.shape(name, value) for name, value in self.weights.items()}
        wrong = [n for n, shape in own.items() if shape not in (held.get(n), whole.get(n))]
        if not getattr(module, "inference_only", False):
            apart = kept_back(module)
            known = {*own, *(n for n in held if n.rpartition(".")[2] in OF_RESIZED)}
            wrong += [name for name in held if name not in known and not name.startswith(apart)]
        if wrong:
            name = wrong[0]
            raise CheckpointError(
                f"checkpoint {str(self.directory)!r} is of another network: {len(wrong)} "
                f"parameter(s) differ, first {name!r} with shape {held.get(name)} there and "
                f"{own.get(name)} here. Use the `rllib.rl_module`, `env` and `algorithm` that it "
                "was trained with, or say `transfer: {}` to take over what fits."
            )

    def restore_connectors(self, env_runner: Any) -> None:
        """Put the states of its connectors, such as observation filters, into an EnvRunner's."""
        for name in _CONNECTORS:
            connector = getattr(env_runner, f"_{name}")
            if name in self._connectors:
                connector.set_state(self._connectors[name])
            elif (path := self._connector_path(name)) is not None:
                connector.restore_from_path(str(path.absolute()))
                self._connectors[name] = connector.get_state()

    def _connector_path(self, name: str) -> Path | None:
        places = (self.directory / "env_runner", self.directory)
        return next((p for at in places if (p := at / f"{name}_connector").is_dir()), None)

    @cached_property
    def _plain(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        try:
            with (self.place / MODULE_FILE).open("rb") as file:
                return plain_state(pickle.load(file))
        except (OSError, pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(
                f"checkpoint {str(self.directory)!r} can't be read: {first_line(error)}."
            ) from error
