import pytest

from rayprune.deploy.targets import target_of
from rayprune.errors import ConfigError
from rayprune.fit.budgets import BUDGETS, Budgets
from rayprune.fit.quantities import COUNT, ENERGY, SIZE, TIME


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (TIME, "1ms", 1000.0),
        (TIME, "20 us", 20.0),
        (TIME, "0.5s", 500_000.0),
        (TIME, "250ns", 0.25),
        (SIZE, "16KB", 16_384.0),
        (SIZE, "16 kib", 16_384.0),
        (SIZE, 500, 500.0),
        (SIZE, "1.5MB", 1_572_864.0),
        (COUNT, "20_000", 20_000.0),
        (COUNT, "2e4", 20_000.0),
        (COUNT, "20k", 20_000.0),
        (ENERGY, "5uJ", 5.0),
    ],
)
def test_a_limit_is_read_with_its_unit(quantity, text, value):
    assert quantity.value_of(text) == pytest.approx(value)
    assert quantity.fault("fit.x", text) is None


@pytest.mark.parametrize(
    ("quantity", "given"),
    [(TIME, 5), (TIME, "5"), (SIZE, "4 KG"), (SIZE, "-1KB"), (SIZE, 0), (COUNT, True), (TIME, "")],
)
def test_what_is_no_limit_is_told_with_an_example(quantity, given):
    fault = quantity.fault("fit.x", given)
    assert fault.startswith("`fit.x` must be a positive")
    assert quantity.example in fault
    assert repr(given) in fault


def test_a_budget_that_a_target_cannot_tell_is_refused_with_those_that_it_can():
    asked = Budgets({"energy": 5.0, "flash": 1024.0})
    with pytest.raises(ConfigError) as error:
        asked.check_reported(target_of("host"))
    (fault,) = error.value.faults
    assert fault.startswith("`fit.energy` can't be measured on target 'host'")
    assert "`flash`" in fault
    assert "`energy`," not in fault


def test_what_is_not_measured_keeps_to_no_limit_and_is_the_tightest():
    asked = Budgets({"flash": 100.0, "ram": 100.0})
    assert not asked.met({"flash_bytes": 50.0, "ram_bytes": None})
    assert asked.tightest({"flash_bytes": 500.0, "ram_bytes": None}).name == "ram"
    assert asked.met({"flash_bytes": 100.0, "ram_bytes": 1.0})


def test_a_deadline_is_held_against_the_tail_of_the_times_not_their_median():
    assert BUDGETS["deadline"].figure == BUDGETS["p99"].figure == "p99_us"
    assert BUDGETS["latency"].figure == "p50_us"
