"""Laws of compaction, over random networks; and oracles for simple ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from rayprune import compact
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.deploy.compaction.proof import error_between
from rayprune.pruning.measures.counting import count_parameters
from tests.doubles.random_nets import Cut, Topology, build, cuts, example, topologies

# Ones that compaction knows how to tell: all else in `left` would be a failure in disguise.
KNOWN = (
    "a norm takes the mean",
    "are constant, but",
    "nothing comes in",
    "meets each of them",
    "joins them",
    "no weight reaches them",
    "the last ones go together",
)


def check(topology: Topology, cut: Cut) -> None:
    net = build(topology, cut)
    small = compact(net, example(topology))
    assert all(any(known in left.reason for known in KNOWN) for left in small.left), small.left
    assert count_parameters(small.module).total <= count_parameters(net).total
    with torch.no_grad():
        unseen = example(topology, batch=4)
        assert error_between(net(unseen), small.module(unseen)) <= 1e-5
        net = net.double()
        again = apply_plan(copy.deepcopy(net), small.plan)
        assert error_between(net(unseen.double()), again(unseen.double())) <= 1e-12


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(topologies, cuts)
def test_the_compacted_network_computes_what_the_masked_one_does(topology, cut):
    check(topology, cut)


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(20))  # each within the suite's time limit for a test
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(topologies, cuts)
def test_thousands_of_compacted_networks_compute_what_the_masked_ones_do(part, topology, cut):
    check(topology, cut)
