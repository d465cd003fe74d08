"""Which family an algorithm or a module is of, and what a user's own family decides."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.iql.torch.default_iql_torch_rl_module import DefaultIQLTorchRLModule
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule

import rayprune.algorithms
from rayprune.algorithms import ALGORITHMS, KnownAlgorithm, register_algorithm
from rayprune.config import experiment_faults
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.registry import Registry
from rayprune.rllib import algorithms
from rayprune.rllib.algorithms import (
    families,
    family_named,
    family_of,
    family_of_module,
    learned_attributes,
    moment_attributes,
)
from rayprune.rllib.algorithms.family import AlgorithmFamily, Unread
from rayprune.rllib.experiment.algorithm_config import build_module
from rayprune.rllib.experiment.unread_settings import unread
from rayprune.rllib.settings.registered import own_parts, register_missing


class OwnConfig(MARWILConfig):
    """A user's algorithm."""


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_an_algorithm_is_known_by_its_name_its_config_and_its_module(name: str) -> None:
    family = family_named(name)
    assert (family.name, family_of(family.config())) == (name, family)
    continuous = "Pendulum-v1" if name in {"SAC", "TQC", "CQL", "IQL"} else "CartPole-v1"
    module = build_module(family.config().environment(continuous))
    found = family_of_module(module)
    assert found is (family if family.module_class else family_named(""))


def test_what_is_derived_from_an_algorithm_is_of_its_family_and_all_else_of_the_default() -> None:
    assert [family_of(kind()).name for kind in (TQCConfig, SACConfig)] == ["TQC", "SAC"]
    assert [family_of(kind()).name for kind in (BCConfig, IQLConfig)] == ["BC", "IQL"]
    assert family_of(OwnConfig()).name == "MARWIL"
    assert family_of(AlgorithmConfig()).name == ""
    # TQC's modules stand beside SAC's, IQL's are SAC's.
    for kind, name in ((DefaultTQCTorchRLModule, "TQC"), (DefaultIQLTorchRLModule, "IQL")):
        assert family_of_module(kind.__new__(kind)).name == name


def test_attributes_that_rllib_leaves_out_are_those_of_all_families() -> None:
    assert learned_attributes() == (
        "curr_kl_coeffs_per_module",
        "curr_log_alpha",
        "moving_avg_sqd_adv_norms_per_module",
    )
    assert set(moment_attributes()) == {"last_update_ts_by_mid", "_last_update_ts_by_mid"}


class OwnFamily(AlgorithmFamily):
    """A user's own: replays, in words of its own, and learns an attribute."""

    config_class = OwnConfig
    replays = True
    learned_attributes = ("moving_average",)
    unread = (Unread("training", ("bc_logstd_coeff",), "Leave it out."),)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS))
    monkeypatch.setattr(algorithms, "_known", {})
    register_algorithm("Own", OwnFamily, line="advantages re-weighted", offline=True)


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_obeys_the_rules_of_the_built_in_ones() -> None:
    family = family_of(OwnConfig())
    assert (family.name, family.offline, family.replays) == ("Own", True, True)
    assert [known.name for known in families()][-1] == "Own"
    assert learned_attributes()[-1] == "moving_average"
    assert unread("training", "bc_logstd_coeff", "Own") == "Leave it out."
    assert "samples none" in str(unread("env_runners", "explore", "Own"))
    assert any("`rllib.offline_data.input_` is missing: Own" in x for x in family.faults({}))
    raw: dict[str, Any] = {"algorithm": "Own", "env": "CartPole-v1", "name": "m"}
    faults, _ = experiment_faults({**raw, "pruning": {"sparsity": 0.5}, "stop": {"env_steps": 9}})
    assert faults == [
        "`stop.updates` is missing: Own learns offline, so a run's length is updates."
    ]
    with pytest.raises(ConfigError, match="named 'PPO' exists already"):
        register_algorithm("PPO", OwnFamily, line="")


@pytest.mark.usefixtures("registered")
def test_a_family_that_a_user_registers_travels_to_learners_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = own_parts({})
    assert parts == {"algorithm": {"Own": ALGORITHMS["Own"]}}
    elsewhere: Registry[KnownAlgorithm] = Registry("algorithm", {"PPO": ALGORITHMS["PPO"]})
    monkeypatch.setattr(ALGORITHMS, "_entries", elsewhere._entries)
    register_missing(parts)
    assert list(ALGORITHMS) == ["PPO", "Own"]
    assert rayprune.algorithms.is_offline("Own")


def test_dreamers_pictures_are_asked_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.rllib.algorithms.dreamerv3", None)  # fails to import
    monkeypatch.delitem(sys.modules, "rayprune.rllib.algorithms.dreamerv3", raising=False)
    ours = importlib.import_module("rayprune.rllib.algorithms.dreamerv3")
    family = ours.DreamerV3Family("DreamerV3")
    assert family.known_config is None
    with pytest.raises(InputError, match=r"needs PIL: pip install 'rayprune\[dreamerv3\]'"):
        family.config()


@pytest.mark.parametrize(("quantiles", "dropped", "refused"), [(2, 0, False), (2, 2, True)])
def test_quantiles_may_all_be_kept_and_not_all_be_dropped(
    quantiles: int, dropped: int, refused: bool
) -> None:
    training = {"n_quantiles": quantiles, "top_quantiles_to_drop_per_net": dropped}
    faults = list(family_named("TQC").faults({"training": training}))
    assert any("top_quantiles_to_drop_per_net" in fault for fault in faults) == refused
