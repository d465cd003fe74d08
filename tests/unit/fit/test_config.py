import pytest

from rayprune.fit.config import FitConfig, fit_faults


def test_limits_are_in_base_units_whatever_they_were_written_in():
    config = FitConfig.from_raw({"deadline": "1ms", "flash": "16KB", "instructions": 20000})
    assert config.budgets.limits == {"deadline": 1000.0, "flash": 16384.0, "instructions": 20000.0}


@pytest.mark.parametrize("written", ["20us", "20 µs", "20 \u03bcs", ".02ms", "2e1 us"])
def test_microseconds_may_be_written_with_either_sign(written):
    assert FitConfig.from_raw({"deadline": written}).budgets.limits == {"deadline": 20.0}


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({}, "`fit` sets no budget: give at least one of `fit.deadline`"),
        ({"flash": "16KB", "return": 95}, "For 95 % give 0.95."),
        ({"flash": "16KB", "return": 1.0}, "`fit.return` must be less than 1"),
        ({"deadline": 1}, "`fit.deadline` must be a positive time with its unit"),
        ({"flahs": "16KB", "ram": "1KB"}, "Did you mean 'flash'?"),
        ({"flash": "1KB", "target": "hots"}, "Did you mean 'host'?"),
        ({"flash": "1KB", "granularities": ["nueron"]}, "Did you mean 'neuron'?"),
        ({"flash": "1KB", "sparsities": [0.5, 0.5]}, "`fit.sparsities` must not hold a value"),
        ({"flash": "1KB", "sparsities": [0.5, 0.50000001]}, "must not hold a value twice"),
        ({"flash": "1KB", "widths": [0]}, "`fit.widths.0` must be a share of the widths, above 0"),
        ({"flash": "1KB", "widths": [[64, 0]]}, "such as [64, 32], but is [64, 0]."),
        ({"flash": "1e999"}, "`fit.flash` must be a positive size"),
        ({"flash": "1KB", "granularities": [["neuron"]]}, "`fit.granularities.0` must be"),
        ({"flash": "1KB", "precisions": [{}]}, "`fit.precisions.0` must be"),
    ],
)
def test_faults_name_field_value_and_way_out(block, told):
    faults, config = fit_faults(block)
    assert config is None
    assert any(told in fault for fault in faults), faults


@pytest.mark.parametrize(
    "block", [{"flash": True}, {"flash": [1]}, {"flash": "1KB", "widths": [[0.5]]}]
)
def test_a_fault_is_told_once(block):
    faults, _ = fit_faults(block)
    assert len(faults) == 1, faults


def test_all_faults_are_told_at_once():
    faults, _ = fit_faults({"return": 0, "deadline": 1, "flash": "x", "trials": 0})
    assert len(faults) == 4
