"""``rayprune export``."""

import json
import sys
import types
from pathlib import Path

import pytest

from rayprune.deploy.export.export import ExportRequest

CERTIFICATE = {
    "out": "walker.c",
    "bytes": 1234,
    "proven": True,
    "about": {"compacted_in_training": False},
    "parameters": {"given": 900, "given_zero_weights": 600, "total": 300, "zero_weights": 12},
    "compaction": {"removed": [{"layer": "pi.0", "kind": "neuron", "units": 48, "of": 64}]},
    "self_test": {"passed": None, "why": "no C compiler was found: not tested"},
    "int8": {
        "kind": "dynamic",
        "speed_up": {"1": {"ratio": 0.9}, "32": {"ratio": 2.5}},
        "closeness": {"agreement": 0.995, "mean_error": 0.003, "max_error": 0.01},
    },
    "equivalence": {"random": {"observations": 1000, "max_error": 2e-7, "differing_actions": 0}},
}


@pytest.fixture
def calls(monkeypatch, adaptor):
    found = []

    def export_checkpoint(checkpoint, asked):
        found.append((checkpoint, asked))
        return CERTIFICATE

    stand_in = types.ModuleType("rayprune.rllib.commands.export")
    stand_in.export_checkpoint = export_checkpoint
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    return found


def test_export_hands_over_its_options_and_tells_of_the_file(rayprune, calls, checkpoint):
    options = ["--out", "walker.c", "--lanes", 4, "--sample", "--no-compact", "--overwrite"]
    answer = rayprune("export", checkpoint, "--format", "c", *options)
    assert answer.code == 0
    assert calls == [
        (
            checkpoint,
            ExportRequest(
                Path("walker.c"), "c", sample=True, compacted=False, lanes=4, overwrite=True
            ),
        )
    ]
    assert "walker.c (1,234 bytes)" in answer.stderr
    assert "48 of 64 in pi.0" in answer.stderr
    assert "not tested" in answer.stderr
    assert "0.90x at batch 1, 2.50x at batch 32" in answer.stderr
    assert "1,000 observations: largest difference 2.0e-07" in answer.stderr
    assert "No masks" not in answer.stderr


def test_the_file_is_named_by_its_format_and_json_is_the_certificate(rayprune, calls, checkpoint):
    answer = rayprune("export", checkpoint, "--format", "torch", "--json")
    assert calls[0][1].out == Path("policy.pt2")
    assert json.loads(answer.stdout) == {**CERTIFICATE, "exit_code": 0}


def test_the_ending_of_the_file_tells_the_format(rayprune, calls, checkpoint):
    answer = rayprune("export", checkpoint, "--out", "fly.c", "--unproven")
    assert answer.code == 0, answer.stderr
    assert (calls[0][1].format, calls[0][1].out) == ("c", Path("fly.c"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "`--format` is missing: give one of ['c', "),
        (["--out", "policy.bin"], "`--out` 'policy.bin' tells none: its name must end in one of"),
    ],
)
def test_without_format_or_ending_both_ways_out_are_told(rayprune, calls, checkpoint, given, told):
    answer = rayprune("export", checkpoint, *given)
    assert answer.code == 2
    assert told in answer.stderr
    assert not calls


def test_an_unknown_format_is_refused_with_the_nearest(rayprune, calls, checkpoint):
    answer = rayprune("export", checkpoint, "--format", "onxx")
    assert answer.code == 2
    assert "Did you mean 'onnx'?" in answer.stderr
    assert calls == []


def test_a_policy_without_masks_is_called_dense(rayprune, calls, checkpoint, monkeypatch):
    dense = {**CERTIFICATE["parameters"], "given_zero_weights": 0}
    monkeypatch.setitem(CERTIFICATE, "parameters", dense)
    answer = rayprune("export", checkpoint, "--format", "onnx")
    assert "No weight of the checkpoint is zero: this is the dense policy." in answer.stderr


def test_a_policy_that_shrank_in_training_is_not_called_dense(
    rayprune, calls, checkpoint, monkeypatch
):
    whole = {**CERTIFICATE["parameters"], "given_zero_weights": 0}
    monkeypatch.setitem(CERTIFICATE, "parameters", whole)
    monkeypatch.setitem(CERTIFICATE, "about", {"compacted_in_training": True})
    answer = rayprune("export", checkpoint, "--format", "c")
    assert "Its dead units went while it was trained" in answer.stderr
    assert "this is the dense policy" not in answer.stderr


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--unproven"], 0)])
def test_a_file_that_nothing_could_prove_is_told_and_fails_unless_asked_for(
    options, code, rayprune, calls, checkpoint, monkeypatch
):
    monkeypatch.setitem(CERTIFICATE, "proven", False)
    answer = rayprune("export", checkpoint, "--format", "c", *options)
    assert answer.code == code
    assert "UNPROVEN       The file was never run" in answer.stderr
    answer = rayprune("export", checkpoint, "--format", "c", "--json", *options)
    assert (answer.code, json.loads(answer.stdout)["exit_code"]) == (code, code)
