import pytest

from rayprune.fit.choice import best_of, confidence_of, nearest_of


def row(name, *, met=True, certified=True, share=0.5, **more):
    return {
        "candidate": name,
        "met": met,
        "certified": certified,
        "worst_share": share,
        "figures": {"flash_bytes": 1},
        **more,
    }


def test_the_best_is_the_certified_one_that_uses_least_of_its_tightest_budget():
    rows = [row("a", share=0.9), row("b", share=0.4), row("c", share=0.1, certified=False)]
    assert best_of(rows)["candidate"] == "b"
    assert best_of(rows[2:]) is None


def test_the_nearest_misses_the_certificate_then_a_budget_then_the_return():
    rows = [
        {"candidate": "failed", "met": False, "return": None},
        {"candidate": "poor", "met": False, "return": 10.0},
        {"candidate": "weak", "met": False, "return": 90.0},
        row("large", met=False, certified=False, share=3.0),
        row("larger", met=False, certified=False, share=4.0),
        row("undecided", certified=False),
    ]
    found = [one["candidate"] for one in nearest_of(rows, 95.0)]
    assert found == ["undecided", "large", "larger", "weak", "poor", "failed"]


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_certificates_share_one_chance_of_error(confidence):
    spent = sum(1 - confidence_of(number, confidence) for number in range(1, 2000))
    assert spent == pytest.approx(1 - confidence, rel=1e-3)
    assert spent <= 1 - confidence
