"""Ray's cluster launcher takes our files, and they are safe."""

from __future__ import annotations

import copy
import re

import pytest

from tests.cluster.files import CLUSTER, LAUNCHERS, documents

pytest.importorskip("ray")

from ray.autoscaler._private.util import prepare_config, validate_config

launchers = pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
clouds = pytest.mark.parametrize("path", LAUNCHERS[:2], ids=lambda path: path.stem)


def prepared(path):
    """Return a file as Ray completes it."""
    (config,) = documents(path)
    return prepare_config(copy.deepcopy(config))


@launchers
def test_ray_accepts_a_launcher_file_as_it_stands(path):
    validate_config(prepared(path))


@launchers
def test_ray_refuses_a_typo_in_it(path):
    (config,) = documents(path)
    config["head_setup_comands"] = config.pop("head_setup_commands")
    with pytest.raises(Exception, match="head_setup_comands"):
        validate_config(prepare_config(config))


@launchers
def test_every_ray_is_started_with_a_token_and_the_dashboard_on_the_loopback(path):
    config = prepared(path)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in config[key] if "ray start" in command]
        assert re.search(r"export RAY_AUTH_MODE=token\b.*; ray start", start)
    (head,) = [one for one in config["head_start_ray_commands"] if "ray start" in one]
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in path.read_text(encoding="utf-8")


@launchers
def test_the_token_comes_from_the_users_home(path):
    mounts = prepared(path)["file_mounts"]
    (target,) = [there for there in mounts if there.endswith("/.ray/auth_token")]
    assert mounts[target] == "~/.ray/auth_token"


@launchers
def test_the_head_holds_no_trial(path):
    config = prepared(path)
    (start,) = [one for one in config["head_start_ray_commands"] if "ray start" in one]
    declared = config["available_node_types"][config["head_node_type"]]["resources"]
    assert declared.get("CPU") == 0 or "--num-cpus=0" in start


def is_spot(node_type) -> bool:
    node = node_type["node_config"]
    return (
        node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
    )


@clouds
def test_the_head_stays_and_the_workers_are_spot(path):
    config = prepared(path)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert not is_spot(head)
    assert len(types) == 2
    assert all(is_spot(node_type) for node_type in types.values())
    # A sweep counts what there is when it starts.
    assert sum(node_type["min_workers"] for node_type in types.values()) >= 1


@clouds
def test_results_are_on_a_disk_that_outlives_the_nodes(path):
    config = prepared(path)
    host = next(
        one.split(":")[0].split()[-1]
        for one in config["docker"]["run_options"]
        if one.endswith(":/results")
    )
    mounts = [one for one in config["initialization_commands"] if "mount -t nfs" in one]
    assert len(mounts) == 1
    assert mounts[0].endswith(f":/ {host}") or mounts[0].endswith(f" {host}")
    assert mounts[0].startswith(f"mountpoint -q {host} ||")


def test_own_machines_are_all_used():
    config = prepared(CLUSTER / "onprem.yaml")
    workers = len(config["provider"]["worker_ips"])
    assert config["max_workers"] == workers
    assert sum(one.get("min_workers", 0) for one in config["available_node_types"].values()) == (
        workers
    )
