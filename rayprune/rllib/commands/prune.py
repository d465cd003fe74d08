"""``rayprune prune``: prune a trained policy in one shot, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.config import EvaluationConfig, to_yaml
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.update.reconstruction import made_up
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import check_learners, learner_reports
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.cluster.connect import on_ray
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.evaluation.visited_states import VisitedStates
from rayprune.rllib.experiment.algorithm_config import build_module, settings_of
from rayprune.rllib.experiment.network_checks import check_network
from rayprune.rllib.modules.resizable import make_shrinkable
from rayprune.rllib.training import rows
from rayprune.rllib.training.summary import SummarySubject, summarise_run
from rayprune.rllib.wrap import check_undriven, with_pruning
from rayprune.storage.copies import shown
from rayprune.tracking.record import prepare_out, to_json, write_atomic
from rayprune.tracking.versions import versions


def prune_checkpoint(
    checkpoint: Path,
    pruning: PruningConfig,
    out: Path,
    *,
    episodes: int,
    seed: int,
    address: str | None,
) -> dict[str, Any]:
    """Prune a policy at once and write it, with its returns before and after, to ``out``.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        pruning: what to prune; its schedule plays no part.
        out: a new directory, laid out like a run's.
        episodes: test episodes before and after.
        seed: their first seed.
        address: a Ray cluster, None for an own Ray.

    Returns:
        The summary; ``returns.dense_test`` is the policy before.

    Raises:
        InputError: no checkpoint, or a pruning that its network can't take.
    """
    held = settings_of(checkpoint)
    directory, config, saved = held.directory, _local(held.config), SavedPolicy(held.directory)
    _check(config, saved, pruning)
    evaluation = _seeds(config, episodes, seed)
    prepare_out(out, resume=False)
    with OpenPolicy(config, saved) as policy:
        before = policy.measure(seed, episodes)
        seen = _seen(policy, evaluation) if made_up(pruning) else {}
    target = out / "checkpoints" / "000000000"
    experiment_yaml = _experiment_yaml(directory, pruning, evaluation)
    with on_ray(address, config):
        check_undriven(pruning)
        pruned = with_pruning(config, pruning)
        if saved.origins:
            make_shrinkable(pruned)
        _prune(pruned, directory, target, experiment_yaml, seen)
    if experiment_yaml is not None:
        write_atomic(out / "config.yaml", experiment_yaml)
    progress = {"env_steps": 0, "updates": 0, "wall_time_s": 0.0, "best": target.name}
    dense = {"test": before, "checkpoint": shown(directory)}
    summary = summarise_run(_subject(out.name, config, evaluation), target, progress, dense)
    write_atomic(out / "summary.json", to_json(summary, indent=2) + "\n")
    return summary


def _subject(name: str, config: AlgorithmConfig, evaluation: EvaluationConfig) -> SummarySubject:
    return SummarySubject(
        name=name,
        algorithm=type(config).__name__.removesuffix("Config"),
        seed=config.seed or 0,
        config=config,
        evaluation=evaluation,
    )


def _seeds(config: AlgorithmConfig, episodes: int, seed: int) -> EvaluationConfig:
    evaluation = EvaluationConfig(episodes=episodes, test_seed=seed)
    if abs(evaluation.validation_seed - seed) < episodes:
        # Test episodes that also validate would be the same ones twice.
        evaluation = evaluation.model_copy(update={"validation_seed": seed + episodes})
    trained_on = config.seed
    if trained_on is not None and seed <= trained_on < seed + episodes:
        raise ConfigError(
            f"`--seed` {seed} with {episodes} episodes takes in {trained_on}, the seed that the "
            "policy was trained with. Take another."
        )
    return evaluation


def _local(config: AlgorithmConfig) -> AlgorithmConfig:
    """Return the config for one process: nothing is sampled or trained."""
    own = config.copy(copy_frozen=False)
    own.env_runners(num_env_runners=0)
    return own.learners(num_learners=0, num_gpus_per_learner=0)


def _check(config: AlgorithmConfig, saved: SavedPolicy, pruning: PruningConfig) -> None:
    if pruning.sparsity == 0:
        raise ConfigError("`sparsity` must be greater than 0 to prune a checkpoint, but is 0.")
    check_network(build_module(config), pruning)
    single = [x.granularity for x in pruning.shared_out if not x.chosen.granularity.removes_units]
    if saved.origins and single:
        raise InputError(
            f"The networks of {str(saved.directory)!r} shrank in training (`compact_every`): only "
            "whole units can go from them. `--granularity` must be 'neuron' or 'hybrid', but is "
            f"{single[0]!r}. Or `start_from` it, which takes it in its whole shape."
        )


def _seen(policy: OpenPolicy, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return what a policy meets in episodes that nobody tests it on, by module id."""
    states, first = VisitedStates(), evaluation.validation_seed
    policy.evaluator.returns(first, evaluation.episodes, states.watch)
    return {DEFAULT_MODULE_ID: states.batch_with_actions()}


def _prune(
    config: AlgorithmConfig,
    directory: Path,
    target: Path,
    experiment_yaml: str | None,
    seen: Mapping[str, Any],
) -> None:
    algorithm = config.build_algo()
    try:
        checkpoints.load_algorithm(algorithm, directory)
        given = learner_reports(algorithm)[0][DEFAULT_MODULE_ID]
        foreach_learner(algorithm, lambda learner: learner.prune_now(seen))
        reports = learner_reports(algorithm)
        if reports[0][DEFAULT_MODULE_ID]["digest"] == given["digest"]:
            raise ConfigError(
                f"There is nothing left to prune: the checkpoint's sparsity is "
                f"{given['sparsity']:.3f} already. Give a higher `sparsity`."
            )
        check_learners(reports)
        meta = {"env_steps": 0, "pruning": rows.plain_report(reports[0][DEFAULT_MODULE_ID])}
        checkpoints.save(algorithm, target, experiment_yaml, meta)
    finally:
        algorithm.stop()


def _experiment_yaml(
    directory: Path, pruning: PruningConfig, evaluation: EvaluationConfig
) -> str | None:
    """Return the resolved experiment of one of our checkpoints, with the pruning done to it."""
    if not (directory / checkpoints.CONFIG_FILE).is_file():
        return None
    experiment = checkpoints.read_experiment(directory)
    changed = experiment.model_copy(update={"pruning": pruning, "evaluation": evaluation})
    return to_yaml(changed, versions())
