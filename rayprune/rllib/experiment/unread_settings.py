"""Settings that RLlib's methods accept and that nothing on its new API stack reads.

Found by following each keyword argument of each method that a YAML may use, for each algorithm, to
the attribute it sets, and that to where Ray 2.60 reads it: the files of the old stack
(RolloutWorker, policies, ModelV2, TensorFlow) left out. What RLlib itself refuses is not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rayprune.algorithms import ALGORITHMS, is_offline

_OFFLINE: Final = frozenset(filter(is_offline, ALGORITHMS))
_ONLINE: Final = frozenset(ALGORITHMS) - _OFFLINE
_IMPALAS: Final = frozenset({"APPO", "IMPALA"})
_WHOLE_BATCH: Final = frozenset({"DQN", "SAC", "BC", "CQL"})

_LEAVE: Final = "Leave it out."
_WRAPPER: Final = "Wrap the environment instead."
_NETWORK: Final = "Set `rllib.rl_module.model_config` instead."
_TENSORFLOW: Final = "It is of TensorFlow; leave it out."
_READS_DATA: Final = (
    "It is about reading recorded data, which this algorithm doesn't; leave it out."
)
_SAMPLES_NOT: Final = "This algorithm learns from recorded data and samples none; leave it out."

# Method, its keyword arguments, the algorithms (None: all) and what to do instead.
_UNREAD: Final[tuple[tuple[str, tuple[str, ...], frozenset[str] | None, str], ...]] = (
    ("debugging", ("fake_sampler", "log_sys_usage"), None, _LEAVE),
    (
        "env_runners",
        ("preprocessor_pref",),
        None,
        "Wrap the environment (gymnasium.wrappers.AtariPreprocessing), or give connectors as "
        "`rllib.env_runners.env_to_module_connector: module:name`.",
    ),
    ("env_runners", ("compress_observations",), None, _LEAVE),
    ("env_runners", ("enable_connectors",), None, "Connectors are always on; leave it out."),
    (
        "env_runners",
        ("sample_collector",),
        None,
        "Give a connector as `rllib.env_runners.env_to_module_connector: module:name` instead.",
    ),
    (
        "env_runners",
        ("remote_worker_envs", "remote_env_batch_wait_ms"),
        None,
        "Set `rllib.env_runners.gym_env_vectorize_mode: async` instead.",
    ),
    (
        "env_runners",
        ("synchronize_filter", "update_worker_filter_stats", "use_worker_filter_stats"),
        None,
        "The statistics of `observation_filter: MeanStdFilter` are always shared; leave it out.",
    ),
    ("env_runners", ("sampler_perf_stats_ema_coef",), None, _LEAVE),
    ("env_runners", ("enable_tf1_exec_eagerly",), None, _TENSORFLOW),
    (
        "env_runners",
        ("use_env_runner_state_server", "env_runner_state_server_max_concurrency"),
        frozenset(ALGORITHMS) - _IMPALAS,
        "Only APPO and IMPALA read it; leave it out.",
    ),
    (
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
        _OFFLINE,
        _SAMPLES_NOT,
    ),
    (
        "environment",
        ("clip_rewards",),
        None,
        "Wrap the environment (gymnasium.wrappers.ClipReward), or scale rewards with "
        "`normalise: {rewards: true}`.",
    ),
    (
        "environment",
        ("action_mask_key",),
        None,
        "Give a module of your own that masks actions, as `rllib.rl_module.module_class`.",
    ),
    ("environment", ("is_atari",), None, _WRAPPER),
    ("environment", ("disable_env_checking",), None, _LEAVE),
    (
        "experimental",
        (
            "_disable_action_flattening",
            "_disable_initialize_loss_from_dummy_batch",
            "_disable_preprocessor_api",
            "_tf_policy_handles_more_than_one_loss",
        ),
        None,
        _LEAVE,
    ),
    (
        "framework",
        ("eager_max_retraces", "eager_tracing", "local_tf_session_args", "tf_session_args"),
        None,
        _TENSORFLOW,
    ),
    (
        "framework",
        (
            "torch_compile_worker",
            "torch_compile_worker_dynamo_backend",
            "torch_compile_worker_dynamo_mode",
        ),
        None,
        "EnvRunners compile nothing; `torch_compile_learner` compiles the Learners' modules.",
    ),
    (
        "learners",
        ("num_aggregator_actors_per_learner", "max_requests_in_flight_per_aggregator_actor"),
        frozenset(ALGORITHMS) - _IMPALAS,
        "Only APPO and IMPALA have aggregators; leave it out.",
    ),
    (
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
        None,
        _LEAVE,
    ),
    (
        "offline_data",
        ("output_max_file_size",),
        None,
        "Set `output_max_rows_per_file` instead.",
    ),
    (
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
        _ONLINE,
        _READS_DATA,
    ),
    (
        "python_environment",
        ("extra_python_environs_for_driver", "extra_python_environs_for_worker"),
        None,
        "Set environment variables where the command is started, or in Ray's `runtime_env`.",
    ),
    (
        "reporting",
        ("keep_per_episode_custom_metrics", "metrics_episode_collection_timeout_s"),
        None,
        _LEAVE,
    ),
    ("training", ("model",), None, _NETWORK),
    ("training", ("policy_model_config", "q_model_config"), frozenset({"SAC", "CQL"}), _NETWORK),
    (
        "training",
        ("optimizer",),
        None,
        "Adam is what the Learners use: set `lr` and `grad_clip`.",
    ),
    (
        "training",
        ("minibatch_size", "num_epochs", "shuffle_batch_per_epoch"),
        _WHOLE_BATCH,
        "This algorithm makes one update of each batch: set `train_batch_size_per_learner`.",
    ),
    (
        "training",
        ("num_aggregator_actors_per_learner", "max_requests_in_flight_per_aggregator_actor"),
        frozenset(ALGORITHMS) - _IMPALAS,
        "Only APPO and IMPALA have aggregators; leave it out.",
    ),
    ("training", ("use_gae",), frozenset({"PPO"}), "PPO always uses it; set `lambda_`."),
    (
        "training",
        ("use_gae", "lambda_"),
        frozenset({"APPO"}),
        "APPO estimates by V-trace: set `vtrace_clip_rho_threshold`.",
    ),
    (
        "training",
        ("decay", "epsilon", "momentum", "opt_type", "_lr_vf", "_separate_vf_optimizer"),
        _IMPALAS,
        "The Learners use Adam, one for all of a network: set `lr`.",
    ),
    (
        "training",
        ("learner_queue_timeout", "replay_buffer_num_slots", "timeout_s_aggregator_manager"),
        _IMPALAS,
        _LEAVE,
    ),
    (
        "training",
        ("minibatch_buffer_size", "num_multi_gpu_tower_stacks"),
        frozenset({"IMPALA"}),
        _LEAVE,
    ),
    (
        "training",
        ("target_worker_clipping",),
        frozenset({"APPO"}),
        "Set `clip_param` or `vtrace_clip_rho_threshold`.",
    ),
    (
        "training",
        ("noisy", "sigma0"),
        frozenset({"DQN"}),
        "DQN's noisy layers are of the old stack; set `epsilon`, a schedule of exploration.",
    ),
    ("training", ("hiddens",), frozenset({"DQN"}), _NETWORK),
    ("training", ("adam_epsilon",), frozenset({"DQN"}), "Set `lr` and `grad_clip`."),
    (
        "training",
        ("categorical_distribution_temperature",),
        frozenset({"DQN"}),
        "Set `epsilon`, a schedule of exploration.",
    ),
    ("training", ("before_learn_on_batch",), frozenset({"DQN"}), "Give a learner connector."),
    (
        "training",
        ("store_buffer_in_checkpoints",),
        frozenset({"DQN", "SAC", "CQL"}),
        "rayprune's checkpoints always hold the buffer; leave it out.",
    ),
    (
        "training",
        ("optimization_config",),
        frozenset({"SAC", "CQL"}),
        "Set `actor_lr`, `critic_lr` and `alpha_lr`.",
    ),
    (
        "training",
        ("_deterministic_loss", "_use_beta_distribution"),
        frozenset({"SAC", "CQL"}),
        _LEAVE,
    ),
    (
        "training",
        ("lagrangian", "lagrangian_thresh"),
        frozenset({"CQL"}),
        "Set `min_q_weight`, which is constant.",
    ),
    (
        "training",
        (
            "gamma",
            "lambda_",
            "moving_average_sqd_adv_norm_start",
            "moving_average_sqd_adv_norm_update_rate",
            "vf_coeff",
        ),
        frozenset({"BC"}),
        "BC clones actions, without returns or values; leave it out.",
    ),
)


def unread(method: str, key: str, algorithm: object) -> str | None:
    """Return what to do instead of a setting that an algorithm ignores, None for one it reads.

    >>> unread("training", "model", "PPO")
    'Set `rllib.rl_module.model_config` instead.'
    >>> unread("training", "lr", "PPO") is None
    True
    """
    for its_method, keys, algorithms, instead in _UNREAD:
        if method == its_method and key in keys and (algorithms is None or algorithm in algorithms):
            return instead
    return None


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
