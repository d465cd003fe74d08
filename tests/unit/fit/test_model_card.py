from types import SimpleNamespace

from rayprune.fit.model_card import model_card
from tests.doubles.made_up.fit import made_up_fit

EVALUATION = SimpleNamespace(test_seed=20_000, validation_seed=10_000, episodes=60, dense=None)
FIT = SimpleNamespace(
    config=SimpleNamespace(confidence=0.95),
    experiment=SimpleNamespace(
        env="CartPole-v1",
        env_config={},
        algorithm="PPO",
        seed=0,
        evaluation=EVALUATION,
        stop=SimpleNamespace(env_steps=120_000),
    ),
)


def test_a_card_tells_what_it_is_what_it_takes_what_was_shown_and_of_which_file():
    card = model_card(FIT, made_up_fit())
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# pole: a policy for CartPole-v1 on cortex-m4",
        "## Use",
        "## Budgets",
        "## Return",
        "## Data and training",
        "## Versions and hashes (SHA-256)",
        "## Limits",
    ]
    assert "hidden layers of [64, 64], 50.1 % pruned by weight" in card
    assert "| flash | code and constants | 16,384 B | 9,012 B | 55 % |" in card
    assert "140 pairs of episodes on the seeds from 20000 on" in card
    assert "120,000 env steps" in card
    assert "beginning with" not in card
    assert "5" * 64 in card
    assert "7" * 64 in card
    assert "| ray | 2.60.0 |" in card
