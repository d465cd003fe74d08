"""``rayprune evaluate``."""

import json


def test_evaluate_reproduces_the_summary_by_default(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint)
    assert answer.code == 0
    assert adaptor.calls == [
        ("evaluate", (checkpoint,), {"episodes": None, "seed": None, "address": None})
    ]
    assert "validation" in answer.stderr
    assert "487.1 [470.0, 500.0]" in answer.stderr


def test_evaluate_takes_episodes_and_seed(rayprune, adaptor, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--episodes", 100, "--seed", 7, "--json")
    assert adaptor.calls[0][2] == {"episodes": 100, "seed": 7, "address": None}
    assert json.loads(answer.stdout)["returns"]["test"]["iqm"] == 487.12


def test_a_missing_checkpoint_is_told_before_anything_starts(rayprune, adaptor):
    answer = rayprune("evaluate", "no/such")
    assert answer.code == 2
    assert "There is no checkpoint 'no/such'" in answer.stderr
    assert adaptor.calls == []


def test_no_episodes_are_refused(rayprune, checkpoint):
    answer = rayprune("evaluate", checkpoint, "--episodes", 0)
    assert answer.code == 2
    assert "--episodes" in answer.stderr
