"""What a sweep's front is made of."""

from rayprune.search.objectives import Objectives
from rayprune.search.outcome import front_members


def point(trial, earned, sparsity, env_steps):
    return {"trial": trial, "return": earned, "sparsity": sparsity, "env_steps": env_steps}


def test_of_equal_points_the_front_has_the_one_that_was_trained_longest():
    both = Objectives(directions={"return": "max", "sparsity": "max"})
    points = [
        point("a", 500.0, 0.8, 8000),
        point("b", 500.0, 0.8, 6000),  # whose clone a is
        point("c", 500.0, 0.7, 9000),
        point("d", 70.0, 0.9, 4000),
    ]
    assert [one["trial"] for one in front_members(both, points)] == ["d", "a"]
