"""Settings that RLlib's methods accept and that nothing on its new API stack reads.

Found by following each keyword argument of each method that a YAML may use, for each algorithm, to
the attribute it sets, and that to where Ray 2.60 reads it: the files of the old stack
(RolloutWorker, policies, ModelV2, TensorFlow) left out. What RLlib itself refuses is not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rayprune.algorithms import ALGORITHMS
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.family import LEAVE_OUT, SET_MODEL, AlgorithmFamily, Unread

_WRAPPER: Final = "Wrap the environment instead."
_TENSORFLOW: Final = "It is of TensorFlow; leave it out."
_READS_DATA: Final = (
    "It is about reading recorded data, which this algorithm doesn't; leave it out."
)
_SAMPLES_NOT: Final = "This algorithm learns from recorded data and samples none; leave it out."

UNREAD_BY_ALL: Final[tuple[Unread, ...]] = (
    Unread("debugging", ("fake_sampler", "log_sys_usage"), LEAVE_OUT),
    Unread(
        "env_runners",
        ("preprocessor_pref",),
        "Wrap the environment (gymnasium.wrappers.AtariPreprocessing), or give connectors as "
        "`rllib.env_runners.env_to_module_connector: module:name`.",
    ),
    Unread("env_runners", ("compress_observations",), LEAVE_OUT),
    Unread("env_runners", ("enable_connectors",), "Connectors are always on; leave it out."),
    Unread(
        "env_runners",
        ("sample_collector",),
        "Give a connector as `rllib.env_runners.env_to_module_connector: module:name` instead.",
    ),
    Unread(
        "env_runners",
        ("remote_worker_envs", "remote_env_batch_wait_ms"),
        "Set `rllib.env_runners.gym_env_vectorize_mode: async` instead.",
    ),
    Unread(
        "env_runners",
        ("synchronize_filter", "update_worker_filter_stats", "use_worker_filter_stats"),
        "The statistics of `observation_filter: MeanStdFilter` are always shared; leave it out.",
    ),
    Unread("env_runners", ("sampler_perf_stats_ema_coef",), LEAVE_OUT),
    Unread("env_runners", ("enable_tf1_exec_eagerly",), _TENSORFLOW),
    Unread(
        "environment",
        ("clip_rewards",),
        "Wrap the environment (gymnasium.wrappers.ClipReward), or scale rewards with "
        "`normalise: {rewards: true}`.",
    ),
    Unread(
        "environment",
        ("action_mask_key",),
        "Give a module of your own that masks actions, as `rllib.rl_module.module_class`.",
    ),
    Unread("environment", ("is_atari",), _WRAPPER),
    Unread("environment", ("disable_env_checking",), LEAVE_OUT),
    Unread(
        "experimental",
        (
            "_disable_action_flattening",
            "_disable_initialize_loss_from_dummy_batch",
            "_disable_preprocessor_api",
            "_tf_policy_handles_more_than_one_loss",
        ),
        LEAVE_OUT,
    ),
    Unread(
        "framework",
        ("eager_max_retraces", "eager_tracing", "local_tf_session_args", "tf_session_args"),
        _TENSORFLOW,
    ),
    Unread(
        "framework",
        (
            "torch_compile_worker",
            "torch_compile_worker_dynamo_backend",
            "torch_compile_worker_dynamo_mode",
        ),
        "EnvRunners compile nothing; `torch_compile_learner` compiles the Learners' modules.",
    ),
    Unread(
        "offline_data",
        (
            "actions_in_input_normalized",
            "input_config",
            "offline_sampling",
            "output_config",
            "postprocess_inputs",
            "prelearner_module_synch_period",
            "shuffle_buffer_size",
        ),
        LEAVE_OUT,
    ),
    Unread("offline_data", ("output_max_file_size",), "Set `output_max_rows_per_file` instead."),
    Unread(
        "python_environment",
        ("extra_python_environs_for_driver", "extra_python_environs_for_worker"),
        "Set environment variables where the command is started, or in Ray's `runtime_env`.",
    ),
    Unread(
        "reporting",
        ("keep_per_episode_custom_metrics", "metrics_episode_collection_timeout_s"),
        LEAVE_OUT,
    ),
    Unread("training", ("model",), SET_MODEL),
    Unread("training", ("optimizer",), "Adam is what the Learners use: set `lr` and `grad_clip`."),
)
"""Whatever the algorithm."""

_NOT_ASYNCHRONOUS: Final[tuple[Unread, ...]] = (
    Unread(
        "env_runners",
        ("use_env_runner_state_server", "env_runner_state_server_max_concurrency"),
        "Only APPO and IMPALA read it; leave it out.",
    ),
    Unread(
        "learners",
        ("num_aggregator_actors_per_learner", "max_requests_in_flight_per_aggregator_actor"),
        "Only APPO and IMPALA have aggregators; leave it out.",
    ),
    Unread(
        "training",
        ("num_aggregator_actors_per_learner", "max_requests_in_flight_per_aggregator_actor"),
        "Only APPO and IMPALA have aggregators; leave it out.",
    ),
)
"""Of algorithms whose Learners update in step with the samples."""

_OFFLINE: Final[tuple[Unread, ...]] = (
    Unread(
        "env_runners",
        (
            "batch_mode",
            "broadcast_env_runner_states",
            "create_local_env_runner",
            "custom_resources_per_env_runner",
            "episodes_to_numpy",
            "explore",
            "max_requests_in_flight_per_env_runner",
            "merge_env_runner_states",
            "num_cpus_per_env_runner",
            "num_gpus_per_env_runner",
            "rollout_fragment_length",
            "sample_timeout_s",
            "validate_env_runners_after_construction",
        ),
        _SAMPLES_NOT,
    ),
)
"""Of algorithms that learn from recorded data."""

_ONLINE: Final[tuple[Unread, ...]] = (
    Unread(
        "offline_data",
        (
            "dataset_num_iters_per_learner",
            "ignore_final_observation",
            "input_",
            "input_compress_columns",
            "input_filesystem",
            "input_filesystem_kwargs",
            "input_read_batch_size",
            "input_read_episodes",
            "input_read_method",
            "input_read_method_kwargs",
            "input_read_sample_batches",
            "input_read_schema",
            "iter_batches_kwargs",
            "map_batches_kwargs",
            "materialize_data",
            "materialize_mapped_data",
            "offline_data_class",
            "prelearner_buffer_class",
            "prelearner_buffer_kwargs",
            "prelearner_class",
            "prelearner_use_recorded_module_states",
        ),
        _READS_DATA,
    ),
)
"""Of algorithms that sample."""

_ONE_UPDATE: Final[tuple[Unread, ...]] = (
    Unread(
        "training",
        ("minibatch_size", "num_epochs", "shuffle_batch_per_epoch"),
        "This algorithm makes one update of each batch: set `train_batch_size_per_learner`.",
    ),
)
"""Of algorithms that make one update of each batch."""


def unread(method: str, key: str, algorithm: object) -> str | None:
    """Return what to do instead of a setting that an algorithm ignores, None for one it reads.

    >>> unread("training", "model", "PPO")
    'Set `rllib.rl_module.model_config` instead.'
    >>> unread("training", "lr", "PPO") is None
    True
    """
    known = isinstance(algorithm, str) and algorithm in ALGORITHMS
    more = unread_by(family_named(str(algorithm))) if known else ()
    for row in (*UNREAD_BY_ALL, *more):
        if method == row.method and key in row.keys:
            return row.instead
    return None


def unread_by(family: AlgorithmFamily) -> tuple[Unread, ...]:
    """Return what an algorithm doesn't read, beside what none does."""
    return (
        *(() if family.asynchronous else _NOT_ASYNCHRONOUS),
        *(_OFFLINE if family.offline else _ONLINE),
        *(_ONE_UPDATE if family.one_update else ()),
        *family.unread,
    )


def unread_faults(algorithm: object, method: str, keywords: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fault of each keyword argument that nothing would read."""
    for key in keywords:
        instead = unread(method, str(key), algorithm)
        if instead is not None:
            whose = f" with {algorithm}" if algorithm in ALGORITHMS else ""
            yield (
                f"`rllib.{method}.{key}` does nothing{whose}: RLlib's new API stack accepts it and "
                f"reads it nowhere. {instead}"
            )
