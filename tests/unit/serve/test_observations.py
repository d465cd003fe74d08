from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.serve.catalogue import PolicyFile
from rayprune.serve.example import example_body
from rayprune.serve.observations import noise_input, observation_inputs
from rayprune.serve.request_error import RequestError

ACTION, LOGITS = Port("action", (), "int64"), Port("dist_inputs", (3,))


def policy(*ports, about=None, **parts):
    interface = Interface(observations=ports, action=ACTION, dist_inputs=LOGITS, **parts)
    return PolicyFile("p", "p.onnx", "", "onnx", Metadata(interface, about or {}))


PLAIN = policy(Port("obs", (2,)))
NESTED = policy(Port("obs.camera", (1, 2), "uint8"), Port("obs.place.0", (), "int64"))


def test_an_observation_becomes_a_batch_of_one_of_the_ports_types():
    (array,) = observation_inputs(PLAIN, [1, 2.5])
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[1, 2.5]])
    camera, place = observation_inputs(NESTED, {"camera": [[0, 255]], "place": [3]})
    assert (camera.dtype, camera.shape, place.dtype, place.shape) == (
        np.uint8,
        (1, 1, 2),
        np.int64,
        (1,),
    )


@pytest.mark.parametrize(
    ("held", "given", "told"),
    [
        (PLAIN, [1.0], "`observation` must have the shape [2], but has [1]"),
        (PLAIN, [[1.0, 2.0]], "without an axis for a batch"),
        (PLAIN, [1.0, float("nan")], "finite numbers of float64, but is nan at [1]"),
        (PLAIN, [1.0, float("-inf")], "but is -inf at [1]"),
        (PLAIN, [1.0, 1e300], "finite numbers of float32, but is 1e+300 at [1]"),
        (PLAIN, [1.0, None], "holds something else: [1.0, None]"),
        (PLAIN, [[1.0], 2.0], "rows of one length"),
        (PLAIN, "12", "holds something else: '12'"),
        (NESTED, {"place": [3]}, "`observation.camera` must be given"),
        (NESTED, [1, 2], "`observation.camera` must be given"),
        (NESTED, {"camera": [[0, 256]], "place": [3]}, "from 0 to 255, but is 256 at [0, 1]"),
        (NESTED, {"camera": [[0, 0.5]], "place": [3]}, "whole numbers"),
        (NESTED, {"camera": [[0, 5]], "place": [3], "x": 1}, "but has 'x', too"),
        (NESTED, {"camera": [[0, 5]], "place": [3, 4]}, "`observation.place` must have the parts"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(held, given, told):
    with pytest.raises(RequestError, match=re.escape(told)) as caught:
        observation_inputs(held, given)
    assert caught.value.status == 400
    assert caught.value.field.startswith("observation")


def test_parts_may_be_named_by_numbers():
    held = policy(Port("obs.0", (1,)), Port("obs.1", (1,)))
    for given in ({"0": [1.0], "1": [2.0]}, ([1.0], [2.0])):
        assert [array.item() for array in observation_inputs(held, given)] == [1.0, 2.0]


def test_choices_beyond_the_space_are_refused():
    about = {"inputs": {"obs": {"low": [2, 0], "high": [4, 9]}}}
    held = policy(Port("obs", (2,), "int64"), about=about)
    observation_inputs(held, [4, 9])
    with pytest.raises(RequestError, match=r"from 2 to 4, but is 1 at \[0\]"):
        observation_inputs(held, [1, 0])


def test_noise_is_for_policies_that_draw():
    with pytest.raises(RequestError, match="acts greedily"):
        noise_input(PLAIN, [0.0])
    held = policy(Port("obs", (2,)), noise=Port("noise", (3,)), noise_kind="gumbel")
    assert noise_input(held, [0.0, 1.0, 2.0]).shape == (1, 3)


def test_an_example_is_an_observation_that_is_taken():
    about = {"inputs": {"obs": {"mean": [0.25, None]}}}
    assert example_body(policy(Port("obs", (2,)), about=about)) == {"observation": [0.25, 0.0]}
    for held in (PLAIN, NESTED, dataclasses.replace(NESTED, metadata=PLAIN.metadata)):
        observation_inputs(held, example_body(held)["observation"])
