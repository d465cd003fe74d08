"""The ``model_config`` of each module: frozen, checked when made, all faults reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar

from rayprune.errors import ConfigError, did_you_mean

# Each maps 0 to 0. A unit whose weights and bias are all zero then stays exactly zero, so it can be
# removed whatever follows it; with a sigmoid it would become a constant that must be carried along.
ACTIVATIONS: Final = ("elu", "gelu", "relu", "silu", "tanh")

# PPO, APPO and IMPALA put this key into every model_config by themselves, as False.
_SHARES_LAYERS: Final = "vf_share_layers"

Config = TypeVar("Config", bound="ModelConfig")
Check = Callable[[Any], bool]
_CHECK: Final = "check"
_MUST_BE: Final = "must_be"


def _checked(default: Any, check: Check, must_be: str) -> Any:
    return field(default=default, metadata={_CHECK: check, _MUST_BE: must_be})


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_widths(value: Any, least: int = 1) -> bool:
    return isinstance(value, tuple) and all(_is_count(width, least) for width in value)


def _is_pairs(value: Any) -> bool:
    return isinstance(value, tuple) and all(_is_widths(v) and len(v) == 2 for v in value)


def _is_blocks(value: Any) -> bool:
    return isinstance(value, tuple) and all(_is_widths(stage, least=0) for stage in value)


def _widths(*default: int) -> Any:
    return _checked(default, _is_widths, "a list of positive whole numbers")


def _maybe_widths() -> Any:
    return _checked(
        None, lambda v: v is None or _is_widths(v), "null or a list of positive whole numbers"
    )


def _cell(default: int) -> Any:
    return _checked(default, _is_count, "a whole number, 0 for no LSTM")


def _width(default: int) -> Any:
    return _checked(default, lambda v: _is_count(v, 1), "a positive whole number")


def _inner_widths(*default: int) -> Any:
    return _checked(
        default, lambda v: _is_widths(v, 0), "a list of whole numbers (0 leaves a block out)"
    )


def _maybe_blocks() -> Any:
    return _checked(
        None,
        lambda v: v is None or _is_blocks(v),
        "null or, for each stage, a list of whole numbers (0 leaves a block out)",
    )


_IS_ACTIVATION: Final = (lambda v: v in ACTIVATIONS, f"one of {list(ACTIVATIONS)}")
_IS_SWITCH: Final = (lambda v: isinstance(v, bool), "true or false")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What all modules have in common."""

    from_rllib: ClassVar[frozenset[str]] = frozenset()
    """Keys that RLlib puts into the ``model_config`` by itself, and reads there."""

    activation: str = _checked("tanh", *_IS_ACTIVATION)
    """After every hidden layer. Each activation offered maps 0 to 0."""
    free_log_std: bool = _checked(False, *_IS_SWITCH)
    """For Box actions: the log-std is a parameter of its own, not an output of the policy net."""

    def __post_init__(self) -> None:
        """Refuse wrong values, all of them at once."""
        faults = [*self._wrong_values()]
        # Conflicts are looked for among right values only.
        if faults := faults or [*self._conflicts()]:
            raise ConfigError(faults)

    @classmethod
    def from_dict(cls: type[Config], given: Mapping[str, Any]) -> Config:
        """Make a config of a plain ``model_config``; lists become tuples.

        >>> MLPConfig.from_dict({"policy_hiddens": [64, 32]}).policy_hiddens
        (64, 32)
        """
        given = {
            key: value
            for key, value in given.items()
            if key not in cls.from_rllib and not (key == _SHARES_LAYERS and value is False)
        }
        known = [f.name for f in fields(cls)]
        faults = [
            f"`model_config.{key}` is not a setting of {cls.__name__.removesuffix('Config')} "
            f"modules, which take {known}.{did_you_mean(key, known)}"
            for key in given
            if key not in known
        ]
        try:
            config = cls(**{k: _frozen(v) for k, v in given.items() if k in known})
        except ConfigError as error:
            raise ConfigError([*faults, *error.faults]) from None
        if faults:
            raise ConfigError(faults)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the complete plain dict, for checkpoints and JSON."""
        return {f.name: _thawed(getattr(self, f.name)) for f in fields(self)}

    def _wrong_values(self) -> Iterator[str]:
        for f in fields(self):
            value = getattr(self, f.name)
            if not f.metadata[_CHECK](value):
                hint = did_you_mean(value, ACTIVATIONS) if f.name == "activation" else ""
                yield (
                    f"`model_config.{f.name}` must be {f.metadata[_MUST_BE]}, "
                    f"but is {_thawed(value)!r}.{hint}"
                )

    def _conflicts(self) -> Iterator[str]:
        return iter(())


@dataclass(frozen=True, kw_only=True)
class MLPConfig(ModelConfig):
    """Fully connected nets over a flat observation."""

    shared_hiddens: tuple[int, ...] = _widths()
    """Layers that both nets start from; none by default."""
    policy_hiddens: tuple[int, ...] = _widths(256, 256)
    """Of the policy net; without any, here and in what is shared, it is the linear policy."""
    value_hiddens: tuple[int, ...] = _widths(256, 256)


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(ModelConfig):
    """Fully connected layers, then an LSTM, in each net that has a cell."""

    shared_hiddens: tuple[int, ...] = _widths()
    shared_cell: int = _cell(0)
    policy_hiddens: tuple[int, ...] = _widths(256)
    policy_cell: int = _cell(256)
    value_hiddens: tuple[int, ...] = _widths(256)
    value_cell: int = _cell(256)
    max_seq_len: int = _checked(20, lambda v: _is_count(v, 1), "a positive whole number")
    """Steps per training sequence; RLlib's connectors read it under this name."""

    @property
    def cells(self) -> dict[str, int]:
        """Cell sizes of the nets that have an LSTM, by net."""
        sizes = {
            "shared": self.shared_cell,
            "policy": self.policy_cell,
            "value": self.value_cell,
        }
        return {net: size for net, size in sizes.items() if size}

    def _conflicts(self) -> Iterator[str]:
        if not self.cells:
            yield (
                "`model_config.policy_cell` must be positive where `shared_cell` and `value_cell` "
                "are 0: no net has a memory. For nets without one take PrunableMLP."
            )


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig):
    """Attention over the last observations, in each net."""

    activation: str = _checked("relu", *_IS_ACTIVATION)
    memory: int = _checked(16, lambda v: _is_count(v, 2), "a whole number of at least 2")
    """How many observations are seen at once, the newest included."""
    policy_width: int = _width(64)
    """Of the policy net's residual stream, which has a token for each observation."""
    policy_heads: int = _width(4)
    """Of each of its attention layers; they share the width."""
    policy_blocks: tuple[int, ...] = _inner_widths(256)
    """Units in the feed-forward part of each block; with 0 it has attention alone."""
    value_width: int = _width(64)
    value_heads: int = _width(4)
    value_blocks: tuple[int, ...] = _inner_widths(256)
    max_seq_len: int = _checked(20, lambda v: _is_count(v, 1), "a positive whole number")
    """Steps per training sequence; RLlib's connectors read it under this name."""

    def _conflicts(self) -> Iterator[str]:
        for net in ("policy", "value"):
            width, heads = getattr(self, f"{net}_width"), getattr(self, f"{net}_heads")
            if width % heads:
                yield (
                    f"`model_config.{net}_width` must be a multiple of `{net}_heads` ({heads}), "
                    f"but is {width}."
                )
            if not getattr(self, f"{net}_blocks"):
                yield (
                    f"`model_config.{net}_blocks` must have a block at least: without one nothing "
                    "looks back. For nets without a memory take PrunableSimBa."
                )


@dataclass(frozen=True, kw_only=True)
class SimBaConfig(ModelConfig):
    """The residual nets of Lee et al. 2024 (arXiv:2410.09754); the defaults are the paper's."""

    activation: str = _checked("relu", *_IS_ACTIVATION)
    normalise_observations: bool = _checked(True, *_IS_SWITCH)
    """As ``normalise: {observations: true}`` does, which `prune` and the YAML see to."""
    policy_width: int = _width(128)
    """Of the policy net's residual stream."""
    policy_blocks: tuple[int, ...] = _inner_widths(512)
    """Units inside each of its residual blocks; 0 leaves one out, and the others' names stay."""
    value_width: int = _width(512)
    """Likewise of the value net, or of each Q-network."""
    value_blocks: tuple[int, ...] = _inner_widths(2048, 2048)


@dataclass(frozen=True, kw_only=True)
class SimBaSACConfig(SimBaConfig):
    """SimBa's nets where Q-networks take the value net's place."""

    from_rllib: ClassVar[frozenset[str]] = frozenset(
        {"twin_q", "num_actions", "n_quantiles", "n_critics", "top_quantiles_to_drop_per_net"}
    )

    def _conflicts(self) -> Iterator[str]:
        if self.free_log_std:
            yield (
                "`model_config.free_log_std` must be false: the policy bounds its deviation "
                "itself, which depends on the observation. Leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class SimBaDQNConfig(ModelConfig):
    """One net of SimBa's for all Q-values, or for advantages and value."""

    from_rllib: ClassVar[frozenset[str]] = frozenset(
        {"double_q", "dueling", "epsilon", "num_atoms", "std_init", "v_max", "v_min"}
    )

    activation: str = _checked("relu", *_IS_ACTIVATION)
    normalise_observations: bool = _checked(True, *_IS_SWITCH)
    """See :class:`SimBaConfig`."""
    width: int = _width(512)
    """Of the residual stream."""
    blocks: tuple[int, ...] = _inner_widths(2048, 2048)
    """Units inside each residual block; 0 leaves a block out, and the others' names stay."""

    def _conflicts(self) -> Iterator[str]:
        if self.free_log_std:
            yield "`model_config.free_log_std` must be false: DQN has no deviation. Leave it out."


@dataclass(frozen=True, kw_only=True)
class ConvConfig(ModelConfig):
    """What the convolutional modules have in common."""

    default_channels: ClassVar[tuple[int, ...]]

    activation: str = _checked("relu", *_IS_ACTIVATION)
    shared_channels: tuple[int, ...] = _widths()
    """Filters of the first convolutions (stages, in a residual net), which both nets share."""
    policy_channels: tuple[int, ...] | None = _maybe_widths()
    """Filters of those after the shared ones; null for what is left of ``default_channels``."""
    value_channels: tuple[int, ...] | None = _maybe_widths()
    policy_hiddens: tuple[int, ...] = _widths(256)
    value_hiddens: tuple[int, ...] = _widths(256)

    def channels(self, net: str) -> tuple[int, ...]:
        """Return the filters of ``net``'s own convolutions or stages."""
        own: tuple[int, ...] | None = getattr(self, f"{net}_channels")
        return self.default_channels[len(self.shared_channels) :] if own is None else own


@dataclass(frozen=True, kw_only=True)
class NatureCNNConfig(ConvConfig):
    """The three convolutions of Mnih et al. 2015 (doi:10.1038/nature14236), then a hidden layer."""

    default_channels: ClassVar[tuple[int, ...]] = (32, 64, 64)

    kernels: tuple[tuple[int, int], ...] = _checked(
        ((8, 4), (4, 2), (3, 1)), _is_pairs, "a list of [kernel size, stride]"
    )
    """Of all convolutions, the shared ones first."""
    policy_hiddens: tuple[int, ...] = _widths(512)
    value_hiddens: tuple[int, ...] = _widths(512)

    def _conflicts(self) -> Iterator[str]:
        for net in ("policy", "value"):
            count = len(self.shared_channels) + len(self.channels(net))
            if count != len(self.kernels):
                yield (
                    f"`model_config.kernels` must have one entry per convolution ({count} of "
                    f"`shared_channels` and `{net}_channels`), but has {len(self.kernels)}."
                )


@dataclass(frozen=True, kw_only=True)
class ResidualCNNConfig(ConvConfig):
    """The residual net of IMPALA, Espeholt et al. 2018 (arXiv:1802.01561), then a hidden layer."""

    default_channels: ClassVar[tuple[int, ...]] = (16, 32, 32)

    shared_blocks: tuple[tuple[int, ...], ...] | None = _maybe_blocks()
    """Filters inside each residual block of each stage; null for two blocks as wide as the stage.

    0 leaves a block out, and the others keep their names.
    """
    policy_blocks: tuple[tuple[int, ...], ...] | None = _maybe_blocks()
    value_blocks: tuple[tuple[int, ...], ...] | None = _maybe_blocks()

    def blocks(self, net: str) -> tuple[tuple[int, ...], ...]:
        """Return the filters inside each block of each of ``net``'s own stages."""
        own: tuple[tuple[int, ...], ...] | None = getattr(self, f"{net}_blocks")
        return tuple((width, width) for width in self.channels(net)) if own is None else own

    def _conflicts(self) -> Iterator[str]:
        for net in ("shared", "policy", "value"):
            stages, given = len(self.channels(net)), len(self.blocks(net))
            if stages != given:
                yield (
                    f"`model_config.{net}_blocks` must have one list per stage of "
                    f"`{net}_channels` ({stages}), but has {given}."
                )


def _frozen(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(v) for v in value)
    return value


def _thawed(value: Any) -> Any:
    return [_thawed(v) for v in value] if isinstance(value, tuple) else value
