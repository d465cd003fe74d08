import pytest

from rayprune.errors import ConfigError
from rayprune.search.config import METHODS, SearchConfig, search_faults

SPACE = {"pruning.sparsity": {"uniform": [0.5, 0.98]}}


def faults(**values):
    return search_faults({"space": SPACE, **values})[0]


def test_defaults_are_those_of_the_contract():
    config = SearchConfig.from_raw({"space": SPACE})
    assert config.method == "mo_pbt"
    assert config.population == 8
    assert config.objectives == {"return": "max", "sparsity": "max"}
    assert config.resources is None
    assert next(iter(METHODS)) == "mo_pbt"


def test_whole_floats_are_counts_as_elsewhere_in_the_yaml():
    assert SearchConfig.from_raw({"space": SPACE, "interval": 1e4}).interval == 10_000


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"populaton": 3}, "Did you mean 'population'?"),
        ({"population": 0}, "`search.population`"),
        ({"population": 1}, "`search.population` must be at least 2 for `mo_pbt`"),
        ({"method": "nsga"}, "`search.method` must be one of"),
        ({"space": {}}, "`search.space` must be a mapping such as"),
        ({"resources": {"tpu": 1}}, "`search.resources` must be one of ['cpu', 'gpu']"),
        ({"resources": {"cpu": -1}}, "`search.resources.cpu`"),
        ({"reference": [0.0]}, "must have a value for each of ['return', 'sparsity']"),
        ({"method": "pbt"}, "must name one objective for `pbt`"),
        ({"method": "grid"}, "must be a `choice` for `grid`"),
        (
            {
                "method": "asha",
                "objectives": {"sparsity": "max", "subject_to": {"return_at_least": 0.9}},
            },
            "`search.objectives.subject_to` can't be used with `asha`",
        ),
        (
            {
                "method": "pb2",
                "objectives": {"return": "max"},
                "space": {"pruning.criterion": {"choice": ["l1", "l2"]}},
            },
            "must have a range of real numbers for `pb2`",
        ),
    ],
)
def test_a_fault_names_field_and_way_out(values, part):
    assert any(part in fault for fault in faults(**values)), faults(**values)


def test_latency_is_an_objective_where_policies_can_be_exported(monkeypatch):
    assert faults(objectives={"return": "max", "latency": "min"}) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    (told,) = faults(objectives={"return": "max", "latency": "min"})
    assert "`search.objectives.latency`" in told
    assert "rayprune[deploy]" in told
    assert faults() == []


def test_a_missing_block_says_what_to_give():
    with pytest.raises(ConfigError, match="`search` is missing"):
        SearchConfig.from_raw(None)
