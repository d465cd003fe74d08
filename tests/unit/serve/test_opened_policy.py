from __future__ import annotations

import numpy as np
import pytest

from rayprune.deploy import open_artifact
from rayprune.errors import InputError, InvariantError
from rayprune.serve.catalogue import read_catalogue
from rayprune.serve.opened_policy import OpenedPolicy


def test_each_answer_is_what_the_file_gives_for_that_observation_alone(opened, files):
    draw = np.random.default_rng(1)
    for name, path in files.items():
        held, direct = opened[name], open_artifact(path)
        items = [
            [
                draw.normal(size=(1, *port.shape)).astype(port.dtype)
                for port in direct.interface.inputs
            ]
            for _ in range(13)
        ]
        for item, outputs in zip(items, held.act(items), strict=True):
            for output, alone in zip(outputs, direct.run(item), strict=True):
                assert output.tobytes() == alone.tobytes()


def test_batches_that_would_change_an_answer_are_not_run(catalogue, monkeypatch):
    held = catalogue["choose"]
    plain = OpenedPolicy(held, 8)._artifact
    run, sizes = type(plain).run, []

    def rounded_by_the_batch(self, inputs):
        sizes.append(len(inputs[0]))
        action, dist_inputs = run(self, inputs)
        return [action, dist_inputs + np.float32(1e-6 if len(inputs[0]) == 4 else 0.0)]

    monkeypatch.setattr(type(plain), "run", rounded_by_the_batch)
    opened = OpenedPolicy(held, 8)
    assert 4 not in opened.sizes
    assert 4 in OpenedPolicy(held, 8, "always").sizes
    sizes.clear()
    opened.act([[np.zeros((1, 4), np.float32)]] * 7)
    assert 4 not in sizes
    assert sum(sizes) == 7


def test_a_policy_that_acts_otherwise_than_at_first_fails_its_self_test(catalogue, monkeypatch):
    opened = OpenedPolicy(catalogue["choose"], 2)
    opened.self_test()
    run = opened._artifact.run
    monkeypatch.setattr(opened._artifact, "run", lambda inputs: [x + 1 for x in run(inputs)])
    with pytest.raises(InvariantError, match="'choose' doesn't act as it did"):
        opened.self_test()


def test_a_file_that_was_replaced_is_not_opened(files, tmp_path):
    path = tmp_path / "p.pt2"
    path.write_bytes(files["choose"].read_bytes())
    (held,) = read_catalogue([path]).values()
    path.write_bytes(files["draw"].read_bytes())
    with pytest.raises(InputError, match="has changed since policy 'p' was deployed"):
        OpenedPolicy(held, 2)


def test_closing_is_told_once(catalogue):
    closed = []
    opened = OpenedPolicy(catalogue["choose"], 1, closed=lambda: closed.append(1))
    opened.__del__()
    del opened
    assert closed == [1]
