"""What a report shows, from directories whose numbers are made up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.errors import InputError
from rayprune.tracking.record import read_rows
from rayprune.tracking.report import report_data
from rayprune.tracking.report.entries import thin
from rayprune.tracking.report.fronts import non_dominated
from tests.doubles.made_up.sweep import write_made_up_run, write_made_up_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_made_up_sweep(tmp_path_factory.mktemp("sweeps") / "sweep")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [
        write_made_up_run(place / f"run{seed}", name="ppo", seed=seed, dense=490.0)
        for seed in range(3)
    ]


def value_of(data, name):
    return next(tile["value"] for tile in data["tiles"] if tile["name"].startswith(name))


def test_a_run_has_its_curves_its_returns_and_its_layers(seeds):
    (run,) = report_data(seeds[:1])["runs"]
    assert (run["label"], run["algorithm"], run["env"]) == ("ppo", "PPO", "CartPole-v1")
    assert run["sparsity"] == 0.9
    assert len(run["curves"]["return"]) == 50
    assert run["curves"]["sparsity"][-1] == [100_000, 0.9]
    assert run["curves"]["validation"][0][0] == 10_000
    assert run["protected"] == ["vf"]
    assert run["config"]["pruning.criterion"] == "l1"


def test_runs_of_one_name_are_told_apart_by_seed_or_by_directory(seeds, tmp_path):
    assert [run["label"] for run in report_data(seeds)["runs"]] == [
        "ppo, seed 0",
        "ppo, seed 1",
        "ppo, seed 2",
    ]
    again = write_made_up_run(tmp_path / "again", name="ppo", seed=0)
    labels = [run["label"] for run in report_data([seeds[0], again])["runs"]]
    assert labels == ["ppo, seed 0 (run0)", "ppo, seed 0 (again)"]


def test_a_directory_given_twice_is_read_once(seeds):
    assert len(report_data([seeds[0], seeds[0] / ".." / "run0"])["runs"]) == 1


def test_three_seeds_are_compared_over_runs_as_well(seeds):
    rows = report_data(seeds)["comparison"]
    assert [row["pruned"]["ci95_over"] for row in rows] == ["episodes"] * 3 + ["runs"]
    assert rows[-1]["label"] == "ppo: 3 seeds"
    assert rows[-1]["pruned"]["runs"] == 3
    assert rows[-1]["dense"]["iqm"] == 490.0


def test_a_sweep_has_its_front_its_lineage_and_its_choices(sweep):
    data = report_data([sweep])
    written = json.loads((sweep / "front.json").read_text())["points"]
    (front,) = data["fronts"]
    on_front = [point for point in front["points"] if point["on_front"]]
    assert {point["label"] for point in on_front} == {point["trial"] for point in written}
    assert on_front[-1]["config"]["pruning.criterion"] in ("l1", "taylor", "random")
    assert on_front[-1]["test_return"] == pytest.approx(0.98 * on_front[-1]["return"])
    (choices,) = data["choices"]
    keys = ["pruning.sparsity", "pruning.criterion", "rllib.training.lr"]
    assert [axis["key"] for axis in choices["axes"]] == [
        *keys,
        "sparsity reached",
        "validation return",
    ]
    assert len(data["sweeps"][0]["lineage"]) == value_of(data, "Exploits") == 6
    assert value_of(data, "Hypervolume") == 412.5


def test_a_failed_trial_is_named_and_is_no_result(sweep):
    data = report_data([sweep])
    failed = [run for run in data["runs"] if run["status"] == "failed"]
    assert [run["error"] for run in failed] == ["The loss became nan at env step 40000."]
    assert failed[0]["label"] not in {p["label"] for p in data["fronts"][0]["points"]}
    assert data["tiles"][0]["note"] == "1 failed"


def test_the_sparsest_run_that_holds_the_return_is_found(tmp_path):
    runs = [write_made_up_run(tmp_path / str(s), sparsity=s, dense=500.0) for s in (0.5, 0.9, 0.99)]
    assert value_of(report_data(runs), "Sparsest with 95 %") == 0.9
    assert value_of(report_data(runs[2:]), "Sparsest with 95 %") is None


def test_a_sweep_that_still_goes_on_is_shown_as_it_is(tmp_path):
    sweep = write_made_up_sweep(tmp_path / "sweep", finished=False)
    for name in ("front.json", "lineage.jsonl"):
        (sweep / name).unlink()
    (sweep / "trials" / "t999").mkdir()
    data = report_data([sweep])
    assert data["sweeps"][0]["status"] == "unfinished"
    assert data["sweeps"][0]["method"] == "mo_pbt"
    assert len(data["runs"]) == 8


def test_a_run_that_has_only_begun_has_no_numbers_yet(seeds, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text((seeds[0] / "config.yaml").read_text())
    data = report_data([begun])
    assert data["runs"][0]["status"] == "unfinished"
    assert [data[key] for key in ("fronts", "comparison", "heat", "choices")] == [[]] * 4


def test_layers_in_the_rows_make_a_map_over_time(seeds, tmp_path):
    run = write_made_up_run(tmp_path / "run")
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    with (run / "results.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps({**row, "layers": {"pi": row["sparsity"]}}) + "\n")
    (heat,) = report_data([run])["heat"]
    assert heat["over"] == "env steps"
    assert len(heat["columns"]) <= 40
    assert heat["columns"][-1]["layers"] == {"pi": 0.9}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "There is no directory"),
        (".", "Did you mean the runs in it, such as .*inner"),
        ("empty", "is neither a run's directory .* nor a sweep's"),
    ],
)
def test_a_directory_that_is_no_run_is_named(tmp_path, name, told):
    (tmp_path / "empty").mkdir()
    write_made_up_run(tmp_path / "inner")
    with pytest.raises(InputError, match=told) as caught:
        report_data([tmp_path / name])
    assert str((tmp_path / name).resolve()) in str(caught.value)


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "results.jsonl"])
def test_a_damaged_file_is_named(tmp_path, name):
    run = write_made_up_run(tmp_path / "run")
    (run / name).write_text("{[}\n{}\n")
    with pytest.raises(InputError, match=name):
        report_data([run])


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_beats_it(points):
    for point, kept in zip(points, non_dominated(points), strict=True):
        beaten = any(o != point and o[0] >= point[0] and o[1] >= point[1] for o in points)
        assert kept is not beaten


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.integers(2, 20))
def test_a_thinned_line_keeps_its_extremes_and_its_order(values, most):
    line = [[n, value] for n, value in enumerate(values)]
    kept = thin(line, most)
    assert len(kept) <= max(most, 1)
    assert [n for n, _ in kept] == sorted({n for n, _ in kept})
    assert {min(values), max(values)} <= {value for _, value in kept}


def test_learning_has_a_row_per_run_and_one_over_seeds(tmp_path):
    runs = [write_made_up_run(tmp_path / f"r{n}", name="ppo", seed=n, dense=490.0) for n in (0, 1)]
    data = report_data(runs)
    cells = [row["cells"] for row in data["learning"]]
    assert len(cells) == 3
    assert cells[-1][0] == "ppo: 2 seeds, mean ± sd"
    steps = [int(cells[n][2].replace(",", "")) for n in (0, 1)]
    assert cells[-1][2].startswith(f"{sum(steps) / 2:,.0f} ± ")
    assert all("490.0 (dense)" in row[1] for row in cells[:2])
    updates = [row["mask_churn"] for row in read_rows(runs[0] / "results.jsonl")]
    assert cells[0][6] == str(sum(churn > 0 for churn in updates))
    assert len(data["runs"][0]["dips"]) == sum(churn > 0 for churn in updates)
