"""``normalise``: turn any AlgorithmConfig into one that normalises."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils import force_list

from rayprune.errors import ConfigError
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.connectors.filter_state import MEAN_STD, freeze, take_statistics
from rayprune.rllib.connectors.pipelines import EnvToModule
from rayprune.rllib.connectors.sampling import hand_over, let_buffer_normalise, replays
from rayprune.rllib.learner.extensions.distillation import Distillation
from rayprune.rllib.models.simba import wants_normalised
from rayprune.rllib.settings.keys import START
from rayprune.rllib.settings.module_configs import pruning_in

Config = TypeVar("Config", bound=AlgorithmConfig)

NO_FILTER: Final = "NoFilter"


class NormalisingCallback(RLlibCallback):
    """Hands samples over normalised, and keeps what a teacher sees as it was taught.

    A teacher for distillation sees the student's batches, so from the first iteration with one on
    the statistics of observations stay as they are.
    """

    def on_algorithm_init(self, *, algorithm: Any, **_: Any) -> None:
        """Let the replay buffer normalise, and begin with the statistics of a teacher's file."""
        let_buffer_normalise(algorithm)
        teacher = _teaching(algorithm).get("from")
        if teacher not in (None, START):
            take_statistics(algorithm, fetch(teacher), partly=False, whose="the teacher's ")
            freeze(algorithm)

    def on_sample_end(  # type: ignore[override]  # old names too
        self, *, env_runner: Any, samples: Any, **_: Any
    ) -> None:
        """Scale rewards, or send the statistics along."""
        if not env_runner.config.in_evaluation:
            hand_over(env_runner, samples)

    def on_train_result(self, *, algorithm: Any, **_: Any) -> None:
        """Freeze the statistics once there is a teacher."""
        if _teaching(algorithm) and any(foreach_learner(algorithm, _has_teacher)):
            freeze(algorithm)


def normalise(config: Config, *, observations: bool = True, rewards: bool = False) -> Config:
    """Return a copy of ``config`` that normalises what its policy sees and learns from.

    Args:
        config: an AlgorithmConfig of RLlib's new API stack that samples, for one policy.
        observations: centre and scale each reading by its running mean and standard deviation, and
            clip it to 10 in magnitude; choices (one-hot) are left alone.
        rewards: divide rewards by the running standard deviation of the discounted return, in
            training only; returns are reported raw.

    Raises:
        ConfigError: an offline or multi-agent algorithm, or a filter that RLlib doesn't know.

    Example::

        config = prune(
            normalise(PPOConfig().environment("Pendulum-v1"), rewards=True),
            PruningConfig(sparsity=0.9, horizon=100_000),
        )
    """
    held = config._env_to_module_connector
    if isinstance(held, EnvToModule):
        observations, rewards = observations or held.observations, rewards or held.rewards
    if not (observations or rewards):
        return config.copy(copy_frozen=False)
    _check(config)
    result = config.copy(copy_frozen=False)
    makers = held.makers if isinstance(held, EnvToModule) else () if held is None else (held,)
    result.env_runners(
        env_to_module_connector=EnvToModule(
            makers, observations=observations, rewards=rewards, rewrite=not replays(config)
        ),
        observation_filter=MEAN_STD if observations else NO_FILTER,
    )
    callbacks = list(force_list(result.callbacks_class))
    if NormalisingCallback not in callbacks:
        # Last: callbacks of the user's own see samples as they were made.
        result.callbacks(callbacks_class=[*callbacks, NormalisingCallback])
    return result


def as_configured(config: Config) -> Config:
    """Return ``config``, normalising where its ``observation_filter`` or its network says so.

    Raises:
        ConfigError: there is no such filter, or nothing that could be normalised.
    """
    wanted = config.observation_filter
    if wanted == NO_FILTER:
        return normalise(config) if _network_wants_it(config) else config
    if wanted != MEAN_STD:
        raise ConfigError(
            f"`observation_filter` must be 'MeanStdFilter' or 'NoFilter', but is {wanted!r}: "
            "RLlib's new API stack reads none, and rayprune makes that one work. For another, give "
            "a connector as `env_to_module_connector`."
        )
    return normalise(config)


def _network_wants_it(config: AlgorithmConfig) -> bool:
    spec = config._rl_module_spec
    if not isinstance(spec, RLModuleSpec):
        return False
    settings = {**config.model_config, **spec._get_model_config()}
    if not wants_normalised(spec.module_class, settings):
        return False
    if config.is_offline:
        raise ConfigError(
            "`model_config.normalise_observations` must be false with an algorithm that learns "
            "from recorded data: it samples nothing to count. Set it so, and normalise what you "
            "record."
        )
    return True


def _teaching(algorithm: Any) -> dict[str, Any]:
    return pruning_in(algorithm.config).get("distillation") or {}


def _has_teacher(learner: Any) -> bool:
    return bool(learner.extension(Distillation).teaches)


def _check(config: AlgorithmConfig) -> None:
    """Raise ConfigError where nothing could be normalised, or wrongly."""
    if config.is_offline:
        raise ConfigError(
            "Normalising needs an algorithm that samples, and this one learns from recorded data: "
            "leave `observation_filter` and `normalise` out, and normalise what you record."
        )
    if config.is_multi_agent:
        raise ConfigError(
            "Normalising is for one policy, and this config has several. Leave "
            "`observation_filter` out, and give a connector as `env_to_module_connector`."
        )
    if not (config.merge_env_runner_states and config.broadcast_env_runner_states):
        raise ConfigError(
            "Normalising needs `merge_env_runner_states` and `broadcast_env_runner_states`: each "
            "EnvRunner would have statistics of its own. Leave both at their defaults."
        )
