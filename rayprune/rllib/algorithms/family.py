"""What there is to know of an RLlib algorithm, and what holds for any on the new API stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.rl_module.apis import QNetAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from rayprune.algorithms import is_offline
from rayprune.rllib.algorithms.offline import offline_faults, set_offline_defaults
from rayprune.rllib.algorithms.policy import Policy, kl_between, policy_from
from rayprune.rllib.algorithms.target_networks import target_pairs
from rayprune.rllib.algorithms.values import Values, values_by_api
from rayprune.rllib.environments.action_spaces import action_space_faults
from rayprune.rllib.environments.environment import guarded_env
from rayprune.rllib.models import OWN_MODULES, ActorCritic

LEAVE_OUT: Final = "Leave it out."
SET_MODEL: Final = "Set `rllib.rl_module.model_config` instead."


class Unread(NamedTuple):
    """Settings that RLlib's methods accept and that nothing on its new API stack reads."""

    method: str
    keys: tuple[str, ...]
    instead: str
    """What to do, for the message."""


class AlgorithmFamily:
    """An algorithm of RLlib, and those derived from it; this is the default for any other.

    What is said here holds for an actor-critic that samples for itself and updates in step with
    its samples. A subclass says what is different, and is named in `rayprune.algorithms`.

    Args:
        name: as a YAML names it; empty for the default.
    """

    config_class: ClassVar[type[AlgorithmConfig] | None] = None
    """RLlib's class of its configs, which also tells the algorithm."""
    module_class: ClassVar[type | None] = None
    """RLlib's class of its modules, if those aren't run as any other."""
    linear_catalog: ClassVar[type[Catalog] | None] = None
    """RLlib's catalog of its networks, as one that needs no hidden layer."""

    actions: ClassVar[tuple[type, ...] | None] = None
    """The action spaces that it takes at all; None for no such limit."""
    squashes: ClassVar[bool] = False
    """Whether it squashes continuous actions into bounds, and knows no others."""
    replays: ClassVar[bool] = False
    """Whether it has a replay buffer, which fills while it trains."""
    asynchronous: ClassVar[bool] = False
    """Whether its Learners update in a thread of their own, while EnvRunners sample."""
    acts_by_values: ClassVar[bool] = False
    """Whether its policy is the best of its Q-values, and no distribution of its own."""
    competes: ClassVar[bool] = False
    """Whether several of its networks can learn from one target; see `critic_loss`."""
    one_update: ClassVar[bool] = False
    """Whether it makes one update of each batch, in place of several of its minibatches."""
    no_lstm: ClassVar[str] = ""
    """Why RLlib's own networks of it can't be recurrent; empty where they can."""
    no_units: ClassVar[str] = ""
    """Why no whole units of its networks can go; empty where they can."""

    learned_attributes: ClassVar[tuple[str, ...]] = ()
    """Tensors by module id that its Learner learns, and that RLlib's checkpoints leave out."""
    moment_attributes: ClassVar[tuple[str, ...]] = ()
    """Moments by module id that its Learner remembers, and that RLlib's checkpoints leave out."""

    value_net: ClassVar[bool] = True
    """Whether its networks have a value net beside the policy."""
    fuses_actions: ClassVar[bool] = False
    """Whether its networks read observations and actions together."""
    learns_deviation: ClassVar[bool] = True
    """Whether `model_config` may say how the deviation of continuous actions is learnt."""
    initialises_heads: ClassVar[bool] = False
    """Whether its networks read from `model_config` how heads begin."""
    unread: ClassVar[tuple[Unread, ...]] = ()
    """What RLlib accepts for it and reads nowhere, beside what holds for all."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    @property
    def offline(self) -> bool:
        """Whether it learns from recorded data, and samples none."""
        return is_offline(self.name)

    @property
    def known_config(self) -> type[AlgorithmConfig] | None:
        """RLlib's class of its configs, as far as it is imported."""
        return self.config_class

    def config(self) -> AlgorithmConfig:
        """Return a fresh config."""
        return (self.config_class or AlgorithmConfig)()

    def set_defaults(self, config: AlgorithmConfig) -> None:
        """Set what RLlib would otherwise ask for or get wrong; an experiment's own blocks follow.

        Args:
            config: fresh, with its environment; changed in place.
        """
        # SAC's iterations end by the clock on the wall: two runs of one seed would differ.
        config.reporting(min_time_s_per_iteration=0)
        # RLlib's minute is as long as it waits for samples: one fault would cost an iteration.
        config.fault_tolerance(delay_between_env_runner_restarts_s=1.0)
        if self.asynchronous:
            # Without a clock an iteration is whatever happens to have arrived, often nothing.
            config.reporting(min_sample_timesteps_per_iteration=1000)
        if self.offline:
            set_offline_defaults(config)

    def allow_linear(self, config: AlgorithmConfig) -> None:
        """Let RLlib's networks do without hidden layers, where ``model_config`` says so.

        Args:
            config: changed in place; without a module spec of its own.
        """
        if self.linear_catalog is None or config.model_config.get("fcnet_hiddens", True):
            return
        given: Any = config.get_default_rl_module_spec()
        rllibs: Any = self.config().get_default_rl_module_spec()
        if given.module_class is rllibs.module_class:
            # With nothing but the catalog: RLlib fills in the rest, as it stands when it builds.
            config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=self.linear_catalog))

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do, of what shows before anything is built.

        Args:
            blocks: the YAML's ``rllib``.
        """
        if self.offline:
            yield from offline_faults(self.name, blocks)
        if self.no_lstm and self.is_recurrent(blocks):
            yield self._lstm_fault("Leave it out, or choose PPO, APPO or IMPALA.")

    def is_recurrent(self, blocks: Mapping[str, Any]) -> bool:
        """Return whether a YAML's ``rllib`` asks for an LSTM."""
        return value_at(blocks, "rl_module", "model_config", "use_lstm") is True

    def _lstm_fault(self, way_out: str) -> str:
        return f"`rllib.rl_module.model_config.use_lstm` can't be true: {self.no_lstm}. {way_out}"

    def action_faults(self, config: AlgorithmConfig) -> list[str]:
        """Return the faults of an action space that it can't take.

        Raises:
            EnvError: the environment can't be made.
        """
        env = guarded_env(config)
        space = env.action_space
        env.close()
        if self.actions is None or isinstance(space, self.actions):
            # A module of the user's own may have a distribution of its own.
            own = has_own_module(config)
            return [] if own else [*action_space_faults(space, self.name, squashes=self.squashes)]
        names = " or ".join(kind.__name__ for kind in self.actions)
        return [
            f"`{self.name}` can't be built for `env` {config.env!r}: it needs actions "
            f"in a {names} space, but they are {space}. Choose another `algorithm` or `env`."
        ]

    def module_faults(self, config: AlgorithmConfig) -> list[str]:
        """Return the fault of a module of ours that is made for other algorithms."""
        given = getattr(config._rl_module_spec, "module_class", None)
        default: Any = config.get_default_rl_module_spec()
        if given not in OWN_MODULES or _fits(given, default.module_class):
            return []
        fitting = [own.__name__ for own in OWN_MODULES if _fits(own, default.module_class)]
        instead = f"Take one of {fitting}, or leave it out" if fitting else "Leave it out"
        return [
            f"`rllib.rl_module.module_class` {given.__name__} is no network for {self.name}, which "
            f"asks for what {default.module_class.__name__} has. {instead}."
        ]

    def policy(self, module: Any, batch: dict[str, Any]) -> Policy:
        """Return a module's policy in a minibatch, with its graph.

        Args:
            module: a TorchRLModule, not wrapped.
            batch: a minibatch as a Learner has it.

        Raises:
            InputError: there is no action distribution that has a density.
        """
        return policy_from(module, module.forward_train(batch))

    def critic_loss(self, learner: Any, module_id: str, loss: Tensor) -> Tensor | None:
        """Return the loss of the Q-values, by which networks that share a target compare.

        Args:
            learner: RLlib's, which has just computed a loss of the module.
            module_id: of the module.
            loss: as it returned it.

        Returns:
            A scalar; None where there are no Q-values with a target network.
        """
        del learner, module_id, loss
        return None

    def has_values(self, module: Any) -> bool:
        """Return whether a module has a value output or Q-values."""
        return isinstance(module, ValueFunctionAPI)

    def temperature(self, learner: Any, module_id: str) -> float:
        """Return what weighs the entropy in the values' targets now; 0.0 without such a term."""
        del learner, module_id
        return 0.0

    def values(
        self,
        module: Any,
        batch: dict[str, Any],
        config: Any,
        temperature: float,
        embeddings: Any = None,
    ) -> Values:
        """Return a module's values and their targets, as its algorithm bootstraps them.

        Args:
            module: one that `has_values`.
            batch: a minibatch as a Learner has it.
            config: the algorithm's.
            temperature: see there.
            embeddings: what the policy's forward pass left for the value head.
        """
        del temperature
        return values_by_api(module, batch, config, embeddings)

    def value_outputs(self, module: Any, batch: dict[str, Any]) -> list[Tensor]:
        """Return the values alone, one tensor for each value net."""
        return [module.compute_values(batch)]

    def all_forwards(self, module: Any, batch: dict[str, Any]) -> list[Any]:
        """Return the outputs of a module's policy, values and target networks.

        Args:
            module: a TorchRLModule as a Learner holds it, not wrapped.
            batch: observations, states, and actions where they are continuous.
        """
        outputs: list[Any] = [module._forward_inference(batch)]
        if isinstance(module, ValueFunctionAPI):
            outputs.append(module.compute_values(batch))
        if target_pairs(module):
            outputs.append(module.forward_target(batch))
        return outputs

    def teacher_kl(
        self,
        student: Any,
        teacher: Any,
        outputs: Mapping[str, Any],
        batch: dict[str, Any],
        temperature: float,
    ) -> Tensor | None:
        """Return ``KL(teacher || student)`` by row; None where the outputs say no policy.

        Args:
            student: the module that trains.
            teacher: a frozen one of the same class.
            outputs: of the student's ``forward_train``.
            batch: what is observed; shape ``(B, ...)``, or ``(B, T, ...)``.
            temperature: divides Q-values; of no account where there is an action distribution.
        """
        del temperature
        if Columns.ACTION_DIST_INPUTS not in outputs:
            return None
        cls, target = student.get_train_action_dist_cls(), distribution_inputs(teacher, batch)
        return kl_between(
            cls.from_logits(target), cls.from_logits(outputs[Columns.ACTION_DIST_INPUTS])
        )


@torch.no_grad()
def distribution_inputs(teacher: Any, batch: dict[str, Any]) -> Tensor:
    """Return the inputs of a teacher's action distribution."""
    inputs: Tensor = teacher.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    return inputs


def _fits(own: type, default: type) -> bool:
    # What samples or clones needs a policy alone, and perhaps values; Q-networks are each
    # algorithm's own.
    if issubclass(own, ActorCritic):
        return not issubclass(default, QNetAPI)
    rllibs = next(base for base in own.__mro__ if base.__module__.startswith("ray."))
    return rllibs is default


def has_own_module(config: AlgorithmConfig) -> bool:
    """Whether a config names an RLModule class that is neither RLlib's nor ours."""
    given = getattr(config._rl_module_spec, "module_class", None)
    if given is None:
        return False
    default: Any = config.get_default_rl_module_spec()
    return not issubclass(given, (ActorCritic, default.module_class))


def value_at(nested: Any, *path: str) -> Any:
    """Return what lies at a path of a nested mapping that may be anything; None for nothing.

    >>> blocks = {"training": {"lr": 0.1}, "env_runners": 3}
    >>> value_at(blocks, "training", "lr"), value_at(blocks, "env_runners", "explore")
    (0.1, None)
    """
    for key in path:
        nested = nested.get(key) if isinstance(nested, Mapping) else None
    return nested
