"""What fits where: on a real Ray with declared GPUs, which are nobody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[3]

# Ray can't be started twice in a process, and the session's own has no GPUs.
SCRIPT = """
import sys
import ray
from ray.cluster_utils import Cluster
from rayprune.errors import ResourceError
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.search.config import SearchConfig
from rayprune.search.planning.placement import place
from tests.rllib import experiments

nodes, cases = eval(sys.argv[1]), eval(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args=nodes[0])
for node in nodes[1:]:
    cluster.add_node(**node)
ray.init(address=cluster.address, log_to_driver=False)
cluster.wait_for_nodes()
for rllib, resources in cases:
    what = experiments.experiment(
        experiments.PPO, rllib={**experiments.PPO["rllib"], **rllib}
    )
    search = SearchConfig(space={}, resources=resources)
    try:
        config = resolve_gpus(build_config(what), learner_gpus(what.rllib))
        found = place(config, search, trials=8)
        print("|".join([found.text, str(found.at_once)]))
    except ResourceError as error:
        print("|".join([str(error), "refused"]))
ray.shutdown()
cluster.shutdown()
"""


def place(nodes: list[dict], *cases: tuple[dict, dict | None]) -> list[list[str]]:
    command = [sys.executable, "-c", SCRIPT, repr(nodes), repr(list(cases))]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return [line.split("|") for line in answer.stdout.splitlines() if "|" in line]


@pytest.mark.slow  # two Ray nodes start; test_plan.py counts the same on nodes that aren't there
def test_trials_are_counted_by_what_they_reserve_and_refused_where_none_fits() -> None:
    two_nodes = [{"num_cpus": 4, "num_gpus": 2}, {"num_cpus": 4, "num_gpus": 0}]
    found = place(
        two_nodes,
        # `auto` takes a GPU where there is one: two trials have one each.
        ({}, None),
        ({"learners": {"num_gpus_per_learner": 0}}, None),
        # Fractions pack: four to a GPU, but a trial's CPUs run out first.
        ({"learners": {"num_gpus_per_learner": 0.25}}, None),
        ({"learners": {"num_learners": 1, "num_gpus_per_learner": 1}}, None),
        ({"env_runners": {"num_env_runners": 3}, "learners": {"num_gpus_per_learner": 0}}, None),
        ({"learners": {"num_gpus_per_learner": 0}}, {"cpu": 3}),
        # A bundle is never split: six CPUs are there, but on no node.
        ({"learners": {"num_gpus_per_learner": 0}}, {"cpu": 6}),
        ({"learners": {"num_gpus_per_learner": 4}}, None),
        (
            {"env_runners": {"num_env_runners": 3}, "learners": {"num_gpus_per_learner": 0}},
            {"cpu": 2},
        ),
    )
    counts = [count for _, count in found]
    assert counts == ["2", "8", "4", "2", "2", "2", "refused", "refused", "refused"]
    texts = [text for text, _ in found]
    assert texts[0] == (
        "A trial needs 1 CPU, 1 GPU; the cluster has 8 CPU, 2 GPU: 2 of 8 run at once."
    )
    assert "A trial needs 6 CPU; the cluster has 8 CPU on 2 node(s), so that none fits." in texts[6]
    assert "asks for 4 GPUs" in texts[7]
    assert "`search.resources.cpu` must be at least 4" in texts[8]
