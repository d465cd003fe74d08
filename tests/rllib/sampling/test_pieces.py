"""Pieces are RLlib's chunks to the bit, wherever chunks are wanted, and are made where none are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback

from rayprune.rllib.normalisation import normalise
from rayprune.rllib.replay.pieces import Piece, whole_episodes
from rayprune.rllib.sampling import fragment, pieces
from rayprune.rllib.sampling.env_runner import LeanEnvRunner
from tests.rllib import configs
from tests.rllib.replay.oracles import Pair, assert_same_metrics, assert_same_state
from tests.rllib.sampling.runners import same
from tests.rllib.sampling.test_env_runner import Ends, of


class OnSample(RLlibCallback):
    """A user's that looks at samples."""

    def on_sample_end(self, *, samples: Any, **_: Any) -> None:
        assert not any(type(one) is Piece for one in samples)


def ask(runner: Any) -> None:
    runner.hands_pieces = True


def runner_of(make: Any = configs.ppo, **settings: Any) -> LeanEnvRunner:
    config = of(make(Ends), **{"rollout_fragment_length": 1, **settings})
    runner = LeanEnvRunner(config=config, worker_index=0)
    ask(runner)
    return runner


def count(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """Return a list of the pieces that are made from now on."""
    made: list[Piece] = []

    def piece_of(*args: Any) -> Piece | None:
        piece = pieces.piece_of(*args)
        made.extend([piece] if piece else [])
        return piece

    monkeypatch.setattr(fragment, "piece_of", piece_of)
    return made


@pytest.mark.parametrize("lookback", [0, 1, 4])
@pytest.mark.parametrize(("envs", "length"), [(1, 1), (3, 2)])
def test_whole_ones_are_rllibs_chunks(
    monkeypatch: pytest.MonkeyPatch, lookback: int, envs: int, length: int
) -> None:
    made = count(monkeypatch)
    settings = {"num_envs_per_env_runner": envs, "episode_lookback_horizon": lookback}
    settings["rollout_fragment_length"] = length
    same(lambda: of(configs.ppo(Ends), **settings), [ask, *[{}] * 12])
    assert made


def test_a_piece_is_whole_still_when_its_episode_has_ended() -> None:
    runner = runner_of()
    handed = [one for _ in range(14) for one in runner.sample()]
    early = [one.whole() for one in handed if type(one) is Piece]
    assert all(len(one) == one.t - one.t_started == 1 for one in early)
    assert all(one._start_time == one._last_step_time and not one.is_done for one in early)


@pytest.mark.parametrize(
    "make",
    [
        lambda env: configs.ppo(env).callbacks(OnSample),
        lambda env: normalise(configs.ppo(env)),
        lambda env: configs.ppo(env, use_lstm=True, lstm_cell_size=8, max_seq_len=5),
        lambda env: configs.ppo(env).env_runners(episodes_to_numpy=False),
    ],
    ids=["callback", "statistics", "recurrent", "lists"],
)
def test_where_chunks_are_wanted_there_are_no_pieces(make: Any) -> None:
    runner = runner_of(make)
    assert not any(type(one) is Piece for _ in range(8) for one in runner.sample())


def test_without_being_asked_an_env_runner_makes_none() -> None:
    runner = runner_of()
    runner.hands_pieces = False
    assert not any(type(one) is Piece for _ in range(8) for one in runner.sample())


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_buffers_hold_what_rllibs_hold_of_chunks(kind: str) -> None:
    pair, runner = Pair(kind, capacity=20), runner_of(num_envs_per_env_runner=3)
    found = 0
    for turn in range(30):
        handed = runner.sample()
        found += sum(type(one) is Piece for one in handed)
        pair.theirs.add(copy.deepcopy(whole_episodes(handed)))
        pair.ours.add(handed)
        pair.sample(4)
        if kind == "prioritised":
            pair.update()
        if turn == 20:
            assert pair.in_arrays
            assert_same_state(pair.ours, pair.theirs)
            pair.ours.leave_arrays("of the test")
    assert found
    assert_same_state(pair.ours, pair.theirs)
    assert_same_metrics(pair.ours.get_metrics(), pair.theirs.get_metrics())


def test_a_buffer_that_lacks_an_episode_takes_its_pieces_as_chunks() -> None:
    pair, runner = Pair("uniform"), runner_of()
    handed: list[Any] = []
    while not any(type(one) is Piece for one in handed):
        handed = runner.sample()
    pair.theirs.add(copy.deepcopy(whole_episodes(handed)))
    pair.ours.add(handed)
    assert pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)
