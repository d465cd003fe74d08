"""The algorithms of RLlib by the names that a YAML gives, one line each; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayprune.pruning.registry import Registry

_FAMILIES = "rayprune.rllib.algorithms"


@dataclass(frozen=True, slots=True)
class KnownAlgorithm:
    """An algorithm that a YAML may name."""

    line: str
    """What it is, for ``rayprune list algorithms``."""
    family: Any
    """`rayprune.rllib.algorithms.family.AlgorithmFamily`'s subclass, or where: "module:Class"."""
    offline: bool = False
    """Whether it learns from recorded data: its clock is the number of updates."""
    critic: bool = False
    """Whether it trains a critic beside the policy that acts, which stays on the Learners."""
    draws: bool = False
    """Whether its policy is a distribution of actions, of which a KL can be told."""

    @property
    def built_in(self) -> bool:
        """Whether it came with rayprune."""
        return str(getattr(self.family, "__module__", self.family)).startswith(_FAMILIES)


ALGORITHMS: Registry[KnownAlgorithm] = Registry(
    "algorithm",
    {
        "PPO": KnownAlgorithm(
            "proximal policy optimisation; on-policy, discrete or continuous actions",
            f"{_FAMILIES}.ppo:PPOFamily",
            critic=True,
            draws=True,
        ),
        "APPO": KnownAlgorithm(
            "asynchronous PPO; target networks, discrete or continuous actions",
            f"{_FAMILIES}.appo:APPOFamily",
            critic=True,
            draws=True,
        ),
        "IMPALA": KnownAlgorithm(
            "asynchronous actor-critic with V-trace; discrete or continuous actions",
            f"{_FAMILIES}.impala:IMPALAFamily",
            critic=True,
            draws=True,
        ),
        "DQN": KnownAlgorithm(
            "deep Q-learning; replay buffer, discrete actions", f"{_FAMILIES}.dqn:DQNFamily"
        ),
        "SAC": KnownAlgorithm(
            "soft actor-critic; replay buffer, discrete or continuous actions",
            f"{_FAMILIES}.sac:SACFamily",
            critic=True,
            draws=True,
        ),
        "TQC": KnownAlgorithm(
            "truncated quantile critics; replay buffer, continuous actions",
            f"{_FAMILIES}.tqc:TQCFamily",
            critic=True,
            draws=True,
        ),
        "DreamerV3": KnownAlgorithm(
            "learns in a model of the world; discrete or continuous actions",
            f"{_FAMILIES}.dreamerv3:DreamerV3Family",
        ),
        "BC": KnownAlgorithm(
            "behaviour cloning; offline data, discrete or continuous actions",
            f"{_FAMILIES}.bc:BCFamily",
            offline=True,
            draws=True,
        ),
        "MARWIL": KnownAlgorithm(
            "cloning weighed by advantages; offline data, discrete or continuous actions",
            f"{_FAMILIES}.marwil:MARWILFamily",
            critic=True,
            offline=True,
            draws=True,
        ),
        "CQL": KnownAlgorithm(
            "conservative Q-learning; offline data, continuous actions",
            f"{_FAMILIES}.cql:CQLFamily",
            critic=True,
            offline=True,
            draws=True,
        ),
        "IQL": KnownAlgorithm(
            "implicit Q-learning; offline data, continuous actions",
            f"{_FAMILIES}.iql:IQLFamily",
            critic=True,
            offline=True,
            draws=True,
        ),
    },
)
"""Name -> what is known of it, in the order in which they are listed."""


def register_algorithm(
    name: str, family: type | str, *, line: str, offline: bool = False, critic: bool = False
) -> None:
    """Let YAML files name one more algorithm, by the rules that hold for those of RLlib.

    Args:
        name: as a YAML gives it.
        family: a subclass of `rayprune.rllib.algorithms.family.AlgorithmFamily`, or where it lies,
            as ``"module:Class"``.
        line: what it is.
        offline: whether it learns from recorded data.
        critic: whether it trains a critic beside the policy, whose layers are group ``value``.

    Raises:
        ConfigError: there is one of that name.
    """
    ALGORITHMS.add(name, KnownAlgorithm(line, family, offline, critic))


def is_offline(name: object) -> bool:
    """Return whether a name is that of an algorithm which learns from recorded data.

    >>> is_offline("BC"), is_offline("PPO"), is_offline("Dreamer"), is_offline(["BC"])
    (True, False, False, False)
    """
    return isinstance(name, str) and name in ALGORITHMS and ALGORITHMS[name].offline
