"""A fit's file: what it makes of an experiment, and what it refuses before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayprune import yaml12
from rayprune.deploy.targets.base import Measurement
from rayprune.errors import ConfigError, InputError
from rayprune.fit.fit import plan_fit, run_fit
from rayprune.fit.fit_spec import Fit, load_fit, space_of
from rayprune.fit.untrained import Networks, measure_untrained
from rayprune.search.config import SearchConfig
from tests.rllib import experiments

FIT = {"parameters": 500, "widths": [1, 0.5], "sparsities": [0.5]}


class Noting:
    """A target that keeps the certificate of what it is to measure."""

    format = "c"

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def measure(self, file: Path) -> Measurement:
        self.told = json.loads(Path(f"{file}.json").read_text())
        return Measurement(target="noting")


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**experiments.PPO, "fit": FIT, **changes}))  # JSON is YAML too
    return path


def test_options_win_over_the_file_and_candidates_are_experiments(tmp_path: Path) -> None:
    fit = load_fit(write(tmp_path / "c.yaml"), options={"parameters": "200", "return": 0.9})
    assert fit.config.budgets.limits == {"parameters": 200.0}
    assert fit.config.return_ == 0.9
    assert fit.interval == experiments.PPO["stop"]["env_steps"] // 8
    halved = next(one for one in fit.candidates if one.name == "8x8-neuron-50")
    experiment = fit.experiment_of(halved)
    assert experiment.rllib["rl_module"]["model_config"]["fcnet_hiddens"] == [8, 8]
    assert experiment.pruning.granularity == "neuron"
    assert experiment.pruning.compact_every == fit.interval
    # What a wave's sweep is asked for.
    points = [one.values for one in fit.candidates]
    SearchConfig.from_raw(
        {
            "method": "listed",
            "space": space_of(fit.candidates),
            "points": points,
            "objectives": {"parameters": "min"},
        }
    )


def test_a_pruning_block_whose_lines_are_commented_out_is_as_none(tmp_path: Path) -> None:
    assert load_fit(write(tmp_path / "c.yaml", pruning=None)).experiment.pruning.sparsity == 0.5


def test_widths_of_a_file_that_has_none_are_refused_and_their_default_is_told_of(
    tmp_path: Path,
) -> None:
    bare = {**experiments.PPO["rllib"], "rl_module": {}}
    with pytest.raises(ConfigError, match=r"`fit\.widths` are of .*fcnet_hiddens`.* Give it"):
        load_fit(write(tmp_path / "c.yaml", rllib=bare))
    fit = load_fit(write(tmp_path / "c.yaml", rllib=bare, fit={"parameters": 1}))
    told: list[str] = []
    plan_fit(fit, SimpleNamespace(message=told.append))  # type: ignore[arg-type]
    assert "The file gives no `rllib.rl_module.model_config.fcnet_hiddens`" in told[0]


def test_what_is_left_of_a_network_is_counted_between_units_that_live(tmp_path: Path) -> None:
    fit, networks = load_fit(write(tmp_path / "c.yaml")), Networks()
    left = {one.name: networks.left(fit.experiment_of(one)) for one in fit.candidates}
    # Four observations, two actions; the critic acts on nothing.
    assert left["16x16-dense"].weights == 4 * 16 + 16 * 16 + 16 * 2
    assert left["16x16-neuron-50"] == left["8x8-dense"]
    assert left["8x8-dense"].parameters == 4 * 8 + 8 * 8 + 8 * 2 + 8 + 8 + 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stop": {"env_steps": 800, "return": 400}}, "`stop.return` can't be used in a fit"),
        ({"fit": {**FIT, "interval": 5000}}, "`fit.interval` must be at most"),
        ({"fit": {**FIT, "target": "command:"}}, "`fit.target command:` must be followed"),
        ({"fit": {**FIT, "energy": "5uJ"}}, "`fit.energy` can't be measured on target 'host'"),
        (
            {"pruning": {"sparsity": 0.5, "schedule": {"kind": "gated", "step": 0.1}}},
            "finds a sparsity itself",
        ),
        ({"quantise": {"weights": 4}}, "`quantise` is for candidates in int8, and"),
        ({"algorithm": "BC", "stop": {"updates": 9}}, "`algorithm` can't be BC in a fit"),
    ],
)
def test_what_no_fit_can_be_made_of_is_refused_with_a_way_out(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_fit(write(tmp_path / "c.yaml", **changes))
    assert any(told in fault for fault in error.value.faults), error.value.faults


def test_what_is_rounded_to_few_bits_is_measured_in_as_many(tmp_path: Path) -> None:
    rounded = {**FIT, "widths": [1], "precisions": ["int8"], "target": "host"}
    bits = {}
    for weights in (8, 4):
        changes = {"fit": rounded, "quantise": {"weights": weights}}
        fit = load_fit(write(tmp_path / f"{weights}.yaml", **changes))
        one = next(one for one in fit.candidates if one.name == "16x16-weight-50-int8")
        target: Any = Noting()
        measure_untrained(fit.experiment_of(one), target, fit.config.budgets, int8=True)
        bits[weights] = {layer["weights"] for layer in target.told["whole_numbers"]["layers"]}
    assert bits == {8: {8}, 4: {4}}


def test_what_can_not_be_exported_is_told_and_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any, int8: bool) -> dict[str, float | None]:
        if int8:
            raise InputError("A file of whole numbers can't hold `silu`.")
        return {"parameters": 400.0}

    monkeypatch.setattr("rayprune.fit.fit.measure_untrained", measured)
    told: list[str] = []
    reporter: Any = SimpleNamespace(message=told.append)
    both = {**FIT, "widths": [1], "precisions": ["int8", "float32"]}
    found = plan_fit(load_fit(write(tmp_path / "c.yaml", fit=both)), reporter)
    assert "16x16-dense-int8 can't be had: A file of whole numbers can't hold `silu`." in told
    assert {one.candidate.precision for one in found.feasible} == {"float32"}
    only = load_fit(write(tmp_path / "d.yaml", fit={**both, "precisions": ["int8"]}))
    with pytest.raises(InputError, match="silu"):
        plan_fit(only, reporter)


def resumed(fit: Fit, out: Path, held: str) -> str:
    """Return what is told where a fit shall go on that was begun with what fit.yaml holds."""
    (out / "fit.yaml").write_text(held)
    reporter: Any = SimpleNamespace(message=print)
    with pytest.raises(InputError) as error:
        run_fit(fit, out, resume=True, address=None, reporter=reporter)
    return str(error.value)


def test_what_can_not_be_resumed_names_the_key_the_file_and_a_way_out(tmp_path: Path) -> None:
    fit, out = load_fit(write(tmp_path / "c.yaml")), tmp_path / "fit"
    out.mkdir()
    own = yaml12.dump(yaml12.plain(dict(fit.raw)))
    told = resumed(fit, out, own.replace("parameters: 500", "parameters: 400"))
    assert told.startswith(f"`fit.parameters` was 400 in {str(out / 'fit.yaml')!r}, but is 500.")
    assert "\n" not in told
    for torn in ("", "fit: {flash: [", own[:20]):
        told = resumed(fit, out, torn)
        assert str(out / "fit.yaml") in told
        assert "another directory with --out" in told
    (out / "fit.json").write_text('{"schema": 1, "na')
    told = resumed(fit, out, own)
    assert "Delete it, and `--resume` writes it anew" in told


def test_a_place_that_can_not_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayprune.fit.fit.plan_fit", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    reporter: Any = SimpleNamespace(message=print)
    with pytest.raises(InputError, match="Give another directory with --out"):
        run_fit(
            load_fit(write(tmp_path / "c.yaml")),
            tmp_path / "file" / "below",
            resume=False,
            address=None,
            reporter=reporter,
        )
