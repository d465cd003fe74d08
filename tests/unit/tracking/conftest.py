"""No W&B of the machine's owner, and a loopback stand-in for its server."""

import pytest

from tests.doubles import wandb_server


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No key, no settings and no caches of whoever runs the tests."""
    wandb_server.without_account(monkeypatch, tmp_path)
    monkeypatch.setattr("rayprune.tracking.tracker._told", set())


@pytest.fixture
def stand_in():
    """A loopback stand-in for W&B's server."""
    with wandb_server.StandIn() as server:
        yield server
