from pathlib import Path
from types import SimpleNamespace

import pytest

from rayprune.deploy.targets.base import Latency, Measurement
from rayprune.fit.budgets import Budgets
from rayprune.fit.measurement import measure

FILE = Path("policy.c")


def target(*p99, flash=100):
    found = iter(
        Measurement(target="host", flash_bytes=flash, latency_us=Latency(1.0, us)) for us in p99
    )
    return SimpleNamespace(measure=lambda _: next(found))


@pytest.mark.parametrize(
    ("p99", "best", "attempts"),
    [((10.0,), 10.0, 1), ((30.0, 15.0), 15.0, 2), ((30.0, 25.0, 40.0), 25.0, 3)],
)
def test_a_time_that_is_exceeded_is_measured_again_and_all_of_them_are_told(p99, best, attempts):
    found = measure(target(*p99), FILE, Budgets({"p99": 20.0, "flash": 200.0}), 5)
    assert found.figures["p99_us"] == found.measurement.latency_us.p99 == best
    assert found.figures["parameters"] == 5
    assert [one["p99_us"] for one in found.attempts] == list(p99)
    assert len(found.attempts) == attempts
    assert ("attempts" in found.to_dict()) is (attempts > 1)


def test_what_no_quiet_machine_would_mend_is_measured_once():
    found = measure(target(30.0, flash=300), FILE, Budgets({"p99": 20.0, "flash": 200.0}), 5)
    assert len(found.attempts) == 1
