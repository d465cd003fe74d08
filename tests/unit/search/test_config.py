import pytest

from rayprune.errors import ConfigError
from rayprune.search.config import SearchConfig, search_faults
from rayprune.search.methods import METHODS
from rayprune.search.space import Space

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
        ({"method": "asha"}, "must name one objective for `asha`"),
        ({"method": "mo_asha", "reduction_factor": 1}, "`search.reduction_factor` must be"),
        ({"method": "nsga2", "generation": 8}, "`search.generation` must be at least 2 and less"),
        ({"generation": 4}, "belongs to `nsga2`, and `search.method` is mo_pbt"),
        ({"method": "tpe", "reduction_factor": 4}, "belongs to `mo_asha` and `asha`"),
        ({"method": "grid"}, "must be a `choice` for `grid`"),
        (
            {
                "method": "pb2",
                "objectives": {"sparsity": "max", "subject_to": {"flops_at_most": 9}},
            },
            "`search.objectives.subject_to` can't be used with `pb2`",
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


@pytest.mark.parametrize(
    ("method", "extra"), [("nsga2", "optuna"), ("tpe", "optuna"), ("pb2", "pb2")]
)
def test_an_extra_that_is_missing_is_told_with_its_install_line(monkeypatch, method, extra):
    values = {"method": method, "objectives": {"return": "max"}}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert faults(**values) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    (told,) = faults(**values)
    assert f"`search.method: {method}` needs" in told
    assert f"pip install 'rayprune[{extra}]'" in told


LISTED = {"method": "listed", "space": {"pruning.sparsity": {"choice": [0.5, 0.9]}}}


def test_listed_points_are_trials_in_their_order():
    points = [{"pruning.sparsity": 0.9}, {"pruning.sparsity": 0.5}]
    config = SearchConfig.from_raw({**LISTED, "points": points})
    assert METHODS["listed"].trials(config, Space.from_dict(config.space)) == 2


@pytest.mark.parametrize(
    ("points", "part"),
    [
        (None, "`search.points` is missing"),
        ([{}], "entry 0 has no value for 'pruning.sparsity'"),
        ([{"pruning.sparsity": 0.5, "seed": 1}], "entry 0 names, beside the space, 'seed'"),
        ([{"pruning.sparsity": 0.7}], "which `search.space.pruning.sparsity` does not hold"),
        ([{"pruning.sparsity": 0.5}] * 2, "must not hold an entry twice"),
    ],
)
def test_points_are_of_the_space_and_no_two_the_same(points, part):
    found = search_faults({**LISTED, **({} if points is None else {"points": points})})[0]
    assert any(part in fault for fault in found), found
