from __future__ import annotations

from pathlib import Path

import pytest

from rayprune.serve.catalogue import PolicyFile, read_catalogue
from rayprune.serve.opened_policy import OpenedPolicy
from tests.doubles.served import write_all


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def catalogue(files: dict[str, Path]) -> dict[str, PolicyFile]:
    return read_catalogue([*files.values()])


@pytest.fixture(scope="session")
def opened(catalogue: dict[str, PolicyFile]) -> dict[str, OpenedPolicy]:
    return {name: OpenedPolicy(held, 8) for name, held in catalogue.items()}
