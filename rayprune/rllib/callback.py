"""PruningCallback: reads the Learners after every iteration, logs, and asserts the zeros."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from rayprune.errors import InvariantError, NonFiniteError
from rayprune.pruning.blocks.groups import own_blocks
from rayprune.pruning.criteria import find_criterion
from rayprune.pruning.schedules.times import waits_for_return
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.actors.lost_env_runners import LostEnvRunners, wait_for_env_runners
from rayprune.rllib.actors.lost_learners import watch_learners
from rayprune.rllib.environments.guard import guard, note_last_observation, silence_tracebacks
from rayprune.rllib.environments.normalising_wrappers import check_environments
from rayprune.rllib.learner.extensions.plasticity import PlasticityWindows
from rayprune.rllib.learner.extensions.policy_changes import PolicyChanges
from rayprune.rllib.learner.extensions.signals import begin_if_reached
from rayprune.rllib.modules.cut_off import Teller
from rayprune.rllib.remedies import ask_remedies, begin_remedies
from rayprune.rllib.settings.config_changes import check_composed
from rayprune.rllib.settings.keys import DRIVEN_KEY
from rayprune.rllib.settings.module_configs import is_driven, pruning_in

logger = logging.getLogger(__name__)

RESULT_KEY: Final = "rayprune"
"""Key of what the callback adds to each training result."""

LOST_KEY: Final = "rayprune_lost"
"""Key of the sentences on EnvRunners that were lost in an iteration."""


class PruningCallback(RLlibCallback):
    """Adds sparsity to each result, and stops a run in which a promise is broken.

    It checks on every Learner that pruned weights (and those of target networks) are exactly zero
    and finite, that all Learners hold the same masks, and that no EnvRunner's policy holds more
    non-zero weights than its masks keep. That costs a pass over the weights per iteration.
    """

    checks_zeros = True
    _told = False

    def __init__(self) -> None:
        super().__init__()
        self._teller = Teller()
        self._lost = LostEnvRunners()

    def on_environment_created(self, *, env_runner: Any, **_: Any) -> None:
        """Let an EnvRunner's environments say what is wrong with them."""
        guard(env_runner)
        if is_driven(env_runner.config):
            silence_tracebacks()

    def on_episode_end(self, *, episode: Any, env_runner: Any = None, **_: Any) -> None:
        """Look at the last observation, once an episode."""
        note_last_observation(env_runner, episode)

    def on_env_runners_recreated(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Hear why EnvRunners were lost; an iteration may last until one stays.

        Raises:
            EnvError: their environments fail again and again.
        """
        self._lost.look(algorithm)

    def on_algorithm_init(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Set the remedies that act from the first step on, and look after remote Learners.

        Raises:
            ConfigError: something that `prune` has set was replaced after it, or an environment
                normalises by statistics of its own.
        """
        assert algorithm.config is not None
        check_composed(algorithm.config)
        begin_remedies(algorithm, 0)
        watch_learners(algorithm)
        wait_for_env_runners(algorithm, self._lost)
        if is_driven(algorithm.config):
            silence_tracebacks()
        else:
            check_environments(algorithm)
            for line in uncovered_lines(algorithm):
                logger.warning(line)

    def on_checkpoint_loaded(self, *, algorithm: Algorithm, **_: Any) -> None:
        """Set the remedies that are in force at the checkpoint's clock."""
        assert algorithm.metrics is not None
        lifetime = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        begin_remedies(algorithm, int(algorithm.metrics.peek(lifetime, default=0)))

    def on_train_result(self, *, algorithm: Algorithm, result: dict[str, Any], **_: Any) -> None:
        """Read the Learners, add ``result["rayprune"]``, and raise on a broken promise.

        Raises:
            EnvError: environments fail again and again.
            InvariantError: a pruned weight is not zero, or Learners differ in their masks.
            NonFiniteError: a weight is NaN or infinite.
            RunError: nothing was sampled for long.
        """
        self._lost.look(algorithm)
        result[LOST_KEY] = self._lost.take()
        for reason in () if is_driven(algorithm.config) else result[LOST_KEY]:
            logger.warning(reason)
        reports = learner_reports(algorithm)
        check_learners(reports)
        begin_by_training(algorithm, result)
        if not self._told and waits_for_layer_returns(algorithm):
            self._told = True
            logger.warning(
                "The criterion waits for the return lost without each layer: call "
                "rayprune.rllib.post_layer_returns(algorithm, ...) after each train()."
            )
        check_env_runners(algorithm, reports[0])
        churn, plasticity, updates = foreach_learner(algorithm, _taken_from)[0]
        result[RESULT_KEY] = {
            module_id: {
                **_told_of(report),
                "churn": churn.get(module_id, 0.0),
                "plasticity": plasticity.get(module_id),
                "mask_updates": updates.get(module_id, []),
            }
            for module_id, report in reports[0].items()
        }
        if not is_driven(algorithm.config):
            for module_id, report in reports[0].items():
                for line in self._teller.lines(module_id, report["cut_off"]):
                    logger.warning(line)
        sparsity = max((report["sparsity"] for report in reports[0].values()), default=0.0)
        clock = int(result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME) or 0)
        ask_remedies(algorithm, clock, sparsity, max(churn.values(), default=0.0))


def _taken_from(learner: Any) -> Any:
    """Return what a Learner gives once: churn, plasticity, and the mask updates."""
    windows, changes = learner.extension(PlasticityWindows), learner.extension(PolicyChanges)
    return learner.take_churn(), windows.take(), changes.take()


def _told_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return what of a module's report stands in a result."""
    keys = ("sparsity", "groups", "own_groups", "itop", "updates", "finished", "behind", "cut_off")
    return {
        **{key: report[key] for key in keys},
        "layers": {layer.name: layer.sparsity for layer in report["layers"]},
        "parameters": report["parameters"],
        # The names are in the checkpoints: in every result they would be noise.
        "uncovered": {key: report["uncovered"][key] for key in ("weights", "covered")},
    }


def uncovered_lines(algorithm: Algorithm) -> list[str]:
    """Return what sparsities are not of, and which modules are left alone; a line each."""
    lines: list[str] = foreach_learner(algorithm, _uncovered_lines_of)[0]
    return lines


def _uncovered_lines_of(learner: Any) -> Any:
    # A Learner that was set after `prune` is refused with the first result.
    return learner.uncovered_lines() if hasattr(learner, "uncovered_lines") else []


def waits_for_layer_returns(algorithm: Algorithm) -> bool:
    """Return whether a mask update waits for returns, where no driver of ours measures them."""
    assert algorithm.config is not None
    held = pruning_in(algorithm.config)
    blocks = [held, *own_blocks(held.get("groups")).values()]
    criteria = [find_criterion(block.get("criterion")) for block in blocks]
    if held.get(DRIVEN_KEY) or not any(x is not None and x.needs_returns for x in criteria):
        return False
    awaited = foreach_learner(algorithm, lambda learner: learner.awaited_units())[0]
    return any(awaited.values())


def begin_by_training(algorithm: Algorithm, result: dict[str, Any]) -> None:
    """Let pruning begin that waits for a return, by the training return where no one validates.

    It is RLlib's mean over episodes of the exploring policy, mostly below a validation's.
    """
    assert algorithm.config is not None
    held = pruning_in(algorithm.config)
    if held.get(DRIVEN_KEY) or not waits_for_return(held.get("schedule", {})):
        return
    mean = result.get(ENV_RUNNER_RESULTS, {}).get(EPISODE_RETURN_MEAN)
    clock = int(result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME) or 0)
    begin_if_reached(algorithm, held["schedule"], mean, clock)


def learner_reports(algorithm: Algorithm) -> list[dict[str, dict[str, Any]]]:
    """Return each Learner's ``pruning_report()``, in the order of their ranks."""
    return foreach_learner(algorithm, _report_of)


def _report_of(learner: Any) -> Any:
    return learner.pruning_report()


def check_learners(reports: list[dict[str, dict[str, Any]]]) -> None:
    """Raise if a pruned weight is not zero, a weight not finite, or masks differ over Learners."""
    for rank, report in enumerate(reports):
        for module_id, module in report.items():
            if not module["finite"]:
                raise NonFiniteError(
                    f"Learner {rank}: a weight of {module_id!r} is NaN or infinite. "
                    "Lower `lr`, or set `grad_clip`."
                )
            if module["violations"]:
                # A user's Learner, RLModule or callback that does so is masked after, not refused.
                raise InvariantError(
                    f"Learner {rank}: pruned weights of {module_id!r} are not zero: "
                    f"{module['violations']}. The Learner leaves them at zero, so something "
                    "outside of it has written them since its last update: a function given to "
                    "`foreach_learner`, or code that holds the module. End what does so with "
                    "`learner.mask_weights()`."
                )
            first = reports[0][module_id]
            # Asynchronous Learners are read one after the other, maybe around a mask update.
            same_moment = module["mask_updates"] == first["mask_updates"]
            if same_moment and module["digest"] != first["digest"]:
                raise InvariantError(
                    f"Learner {rank} and Learner 0 differ in {module_id!r}'s masks."
                )


def check_env_runners(algorithm: Algorithm, report: dict[str, dict[str, Any]]) -> None:
    """Raise if an EnvRunner's policy has more non-zero weights in a layer than the masks keep.

    An EnvRunner of an asynchronous algorithm may hold weights from before the last mask update:
    only those that carry the Learner's own sequence number are compared.
    """
    if algorithm.env_runner_group is None:
        return
    for weights_seq_no, counts in algorithm.env_runner_group.foreach_env_runner(nonzero_counts):
        for module_id, held in counts.items():
            module = report.get(module_id)
            if module is None or weights_seq_no != module["weights_seq_no"]:
                continue
            kept = {n: kept for n, kept in module["kept"].items() if n in held}
            dense = {name: held[name] for name, most in kept.items() if held[name] > most}
            if dense:
                raise InvariantError(
                    f"an EnvRunner's {module_id!r} has non-zero pruned weights: {dense}. The "
                    "Learner's are zero, so something on the EnvRunner writes weights: a "
                    "callback, a connector, or the RLModule itself."
                )


def nonzero_counts(env_runner: Any) -> tuple[int, dict[str, dict[str, int]]]:
    """Return an EnvRunner's weights' number, and the non-zero elements of each parameter.

    The counts are ``{module id: {parameter name: count}}``.
    """
    return env_runner._weights_seq_no, {
        module_id: {name: int(torch.count_nonzero(p)) for name, p in module.named_parameters()}
        for module_id, module in _modules(env_runner)
        if isinstance(module, torch.nn.Module)
    }


def _modules(env_runner: Any) -> list[tuple[str, Any]]:
    module = env_runner.module
    if module is None:
        return []
    # A MultiRLModule maps ids to modules; a single-agent EnvRunner holds the module itself.
    if hasattr(module, "_rl_modules"):
        return list(module._rl_modules.items())
    return [(DEFAULT_MODULE_ID, module)]
