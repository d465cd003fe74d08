"""rayprune's checkpoints: RLlib's own, with the experiment and the run's progress beside it.

::

    checkpoints/000020000/
        rllib_checkpoint.json, learner_group/, ...   what RLlib writes, masks among it; weights
                                                     without their zeros
        replay_buffer.pkl                            where the algorithm has a buffer
        rayprune.yaml                                the resolved experiment
        rayprune.json                                step, sparsity and returns
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID

from rayprune.config import ExperimentConfig, load_experiment
from rayprune.deploy.storage import rewrite_sparsely
from rayprune.errors import CheckpointError, first_line
from rayprune.import_path import search_here
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.checkpoints.barrier import load_buffer, save_buffer
from rayprune.rllib.checkpoints.saved_policy import MODULE_FILE, SavedPolicy, is_module
from rayprune.rllib.connectors.filter_state import check_statistics, consolidate, gather
from rayprune.storage.urls import url_of
from rayprune.tracking.record import storage_error, to_json, write_atomic
from rayprune.tracking.remote import fetch_checkpoint

META_FILE: Final = "rayprune.json"
CONFIG_FILE: Final = "rayprune.yaml"
_LEARNER_FILE: Final = "state.pkl"
"""Its optimizers' moments, which are as sparse as the weights, and twice as many."""


def save(
    algorithm: Algorithm,
    directory: Path,
    experiment_yaml: str | None,
    meta: Mapping[str, object],
) -> None:
    """Write a checkpoint that is whole or not there at all.

    Args:
        algorithm: between two iterations.
        directory: the checkpoint's directory; its parent is made.
        experiment_yaml: the resolved experiment; None where there is only RLlib's config.
        meta: what the run needs to go on: ``env_steps`` at least.

    Raises:
        StorageError: the disk is full or can't be written.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        gather(algorithm)
        consolidate(algorithm)
        # Absolute: pyarrow takes a relative path for a URI without a scheme.
        algorithm.save_to_path(str(temporary.absolute()))
        rewrite_sparsely(temporary, MODULE_FILE)
        rewrite_sparsely(temporary / COMPONENT_LEARNER_GROUP, _LEARNER_FILE)
        save_buffer(algorithm, temporary)
        if experiment_yaml is not None:
            write_atomic(temporary / CONFIG_FILE, experiment_yaml)
        save_meta(temporary, meta)
        put_in_place(temporary, directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error(error, directory) from error


def put_in_place(new: Path, directory: Path) -> None:
    """Rename ``new`` to ``directory``, and delete what was there only when that is done."""
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old.tmp")
    if directory.exists():
        # It may be the only checkpoint, and a kill may come while it is deleted.
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def save_meta(directory: Path, meta: Mapping[str, object]) -> None:
    """Replace what a run knows beside a checkpoint of its own; the rest stays as it is.

    Raises:
        StorageError: the disk is full or can't be written.
    """
    write_atomic(directory / META_FILE, to_json(dict(meta), indent=2) + "\n")


def restore(algorithm: Algorithm, directory: Path) -> dict[str, Any]:
    """Put a checkpoint into a freshly built algorithm; return its meta data.

    Raises:
        CheckpointError: it is of another network, or damaged.
    """
    meta = read_meta(directory)
    SavedPolicy(directory).check_fits(module_of(algorithm))
    check_statistics(algorithm, directory)
    load_algorithm(algorithm, directory)
    load_buffer(algorithm, directory)
    # As RLlib's own `load_checkpoint` ends.
    assert algorithm.config is not None
    make_callback(
        "on_checkpoint_loaded",
        callbacks_objects=algorithm.callbacks,
        callbacks_functions=algorithm.config.callbacks_on_checkpoint_loaded,
        kwargs={"algorithm": algorithm},
    )
    return meta


def load_algorithm(algorithm: Algorithm, directory: Path) -> None:
    """Put RLlib's part of a checkpoint into ``algorithm``.

    Raises:
        CheckpointError: it is of another network, or damaged.
    """
    try:
        with _env_runners_optional(algorithm):
            algorithm.restore_from_path(str(directory.absolute()))
    except CheckpointError:
        raise
    except Exception as error:  # RLlib raises whatever it meets: pickle's, torch's, its own
        raise CheckpointError(
            f"checkpoint {str(directory)!r} does not fit this network: {first_line(error)}. "
            "Use the `rllib.rl_module`, `env` and `algorithm` that it was trained with."
        ) from error


def module_of(algorithm: Algorithm) -> Any:
    """Return the default policy's module: an EnvRunner's, or the Learner's where there are none."""
    if algorithm.env_runner_group is not None:
        return algorithm.get_module()
    return foreach_learner(algorithm, _unwrapped)[0]


def _unwrapped(learner: Any) -> Any:
    return learner.module[DEFAULT_MODULE_ID].unwrapped()


class _NoEnvRunners:
    """Stands in while RLlib restores an offline algorithm, which has no EnvRunners to sync."""

    def __bool__(self) -> bool:
        return False

    def sync_weights(self, **_: Any) -> None:
        """Nobody to sync with."""

    def num_remote_env_runners(self) -> int:
        """There is none."""
        return 0


@contextmanager
def _env_runners_optional(algorithm: Algorithm) -> Iterator[None]:
    """Let RLlib 2.60 restore without EnvRunners: it syncs them without asking if there are any."""
    if algorithm.env_runner_group is not None:
        yield
        return
    algorithm.env_runner_group = _NoEnvRunners()  # type: ignore[assignment]
    try:
        yield
    finally:
        algorithm.env_runner_group = None


def read_meta(directory: Path) -> dict[str, Any]:
    """Return a rayprune checkpoint's meta data.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    path = directory / META_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{str(directory)!r} is no checkpoint of rayprune: it has no {META_FILE}. "
            "Give a directory under a run's `checkpoints/`, or the run's own directory."
        )
    return _json_of(path)


def read_experiment(directory: Path) -> ExperimentConfig:
    """Return the experiment that a checkpoint was written by."""
    read_meta(directory)
    return load_experiment(directory / CONFIG_FILE, check_paths=False)


def _read_rllib_config(directory: Path) -> AlgorithmConfig:
    """Return the AlgorithmConfig that RLlib saved with a checkpoint.

    Raises:
        CheckpointError: it can't be read.
    """
    try:
        with (directory / "class_and_ctor_args.pkl").open("rb") as file:
            held = pickle.load(file)
        state = held["ctor_args_and_kwargs"][0][0]
        return AlgorithmConfig.from_state(state).copy(copy_frozen=False)
    except Exception as error:  # pickles fail with whatever their classes raise
        raise CheckpointError(
            f"the config of checkpoint {str(directory)!r} can't be read: {first_line(error)}."
        ) from error


def locate(path: Path) -> Path:
    """Return the checkpoint that ``path`` means: itself, or a finished run's chosen one.

    Args:
        path: a directory, or a URL, of which a local copy is made.

    Raises:
        CheckpointError: nothing there is a checkpoint.
        StorageError: a URL can't be read.
    """
    if url_of(path) is not None:  # asked from Python; commands have fetched it before Ray's import
        path = fetch_checkpoint(path)
    if not path.exists():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist.")
    summary = path / "summary.json"
    if summary.is_file():
        chosen = _json_of(summary).get("checkpoint")
        if chosen is not None:
            return path / str(chosen)
    if (path / "checkpoints").is_dir():
        newest = latest(path)
        if newest is not None:
            return newest
    if is_checkpoint(path):
        return path
    raise CheckpointError(
        f"{str(path)!r} is no checkpoint. "
        "Give one of rayprune's or of RLlib's (made with `algo.save_to_path`)."
    )


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a checkpoint of an RLlib Algorithm, ours or plain."""
    return (path / "learner_group").is_dir()


def fetch(source: str | Path, *, module_will_do: bool = False) -> Path:
    """Return the checkpoint that an experiment names; of a URL a local copy is made.

    Args:
        source: a directory or a URL.
        module_will_do: whether an RLModule's own checkpoint is enough.

    Raises:
        CheckpointError: nothing there is a checkpoint.
        StorageError: a URL can't be read.
    """
    path = fetch_checkpoint(source)
    return path if module_will_do and is_module(path) else locate(path)


def open_settings(path: Path) -> tuple[Path, ExperimentConfig | AlgorithmConfig]:
    """Return the checkpoint that ``path`` means, and what it was trained with.

    Returns:
        Its directory, and the experiment, or RLlib's config where the checkpoint is plain RLlib's.

    Raises:
        CheckpointError: nothing there is a checkpoint, or it can't be read.
    """
    directory = locate(path)
    if (directory / CONFIG_FILE).is_file():
        return directory, read_experiment(directory)
    search_here()  # what was pickled by its name may lie beside the script that made it
    return directory, _read_rllib_config(directory)


def is_ours(path: Path) -> bool:
    """Whether a checkpoint was written by rayprune, not by plain RLlib."""
    return (path / META_FILE).is_file()


def latest(run: Path) -> Path | None:
    """Return the checkpoint with most env steps in a run's directory, None if there is none."""
    found = [path for path in (run / "checkpoints").glob("[0-9]*") if is_ours(path)]
    return max(found, default=None, key=lambda path: int(path.name))


def prune_old(run: Path, keep: set[str]) -> None:
    """Delete the checkpoints of a run but those named, and what a kill left half-written."""
    for path in (run / "checkpoints").glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (run / "checkpoints").glob("[0-9]*"):
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _json_of(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(path)!r} is damaged: {first_line(error)}. Take another checkpoint."
        ) from error
    if not isinstance(held, dict):
        raise CheckpointError(f"{str(path)!r} is damaged: it holds no JSON object.")
    return held
