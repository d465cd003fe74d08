from ray.tune.search import Searcher

from rayprune.search.schedulers.listed_points import ListedPoints
from rayprune.search.space import Space

SPACE = Space.from_dict(
    {
        "pruning.sparsity": {"choice": [0.0, 0.5]},
        "rllib.rl_module.model_config.fcnet_hiddens": {"choice": [[8, 8], [4]]},
    }
)
POINTS = [
    {"pruning.sparsity": 0.5, "rllib.rl_module.model_config.fcnet_hiddens": [8, 8]},
    {"pruning.sparsity": 0.0, "rllib.rl_module.model_config.fcnet_hiddens": [4]},
]


def nested(point):
    return SPACE.apply({}, point)


def test_each_point_is_handed_out_once_in_its_order():
    listed = ListedPoints(space=SPACE, points=POINTS)
    given = [listed.suggest(name) for name in ("a", "b", "c")]
    assert given == [nested(POINTS[0]), nested(POINTS[1]), Searcher.FINISHED]


def test_after_a_driver_was_killed_only_points_without_a_trial_are_handed_out(tmp_path):
    killed = ListedPoints(space=SPACE, points=POINTS)
    killed.suggest("a")
    # Asked for, and lost with the driver before Tune had a trial of it on disk.
    killed.suggest("b")
    killed.save(str(tmp_path / "state"))
    again = ListedPoints(space=SPACE, points=POINTS)
    again.restore(str(tmp_path / "state"))
    again.add({"experiment": "...", **nested(POINTS[0])})
    assert again.suggest("c") == nested(POINTS[1])
    assert again.suggest("d") == Searcher.FINISHED
