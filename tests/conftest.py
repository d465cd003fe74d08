"""One local Ray for the tests that need one; the others never import it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: each Ray worker inherits it, and two cores are soon oversubscribed.
os.environ["OMP_NUM_THREADS"] = "1"

_ROOT = Path(__file__).parent.parent
# Workers import rayprune and the tests' own modules, where pickles refer to their classes. They
# inherit it too: with a `runtime_env` none of the workers that Ray starts ahead could be used.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


LONGEST = ("tests/search/", "tests/system/", "tests/golden/", "tests/rllib/")
"""Where the files lie that take a minute: begun last, one of them would be waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first (the Makefile keeps xdist from another order)."""
    ranks = {folder: rank for rank, folder in enumerate(LONGEST)}
    items.sort(
        key=lambda item: next(
            (ranks[folder] for folder in LONGEST if item.nodeid.startswith(folder)), len(ranks)
        )
    )


def pytest_collection_finish() -> None:
    """Spare the tests what each start of a training would cost."""
    from tests.doubles.quick_starts import ask_about_exports_once, look_up_one_frame

    look_up_one_frame()
    ask_about_exports_once()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start a Ray of our own, whatever cluster may be discoverable, and stop it at the end."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False)
    yield
    # Iterators of Ray Data that outlive Ray fail in whatever the collector interrupts.
    gc.collect()
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_session: None) -> str:
    """Where processes of their own join that Ray."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="module")
def store_server() -> Iterator[Any]:
    """Serve a bucket for S3's clients, and set the environment that finds it."""
    from tests.doubles.buckets import serving

    with pytest.MonkeyPatch.context() as patch, serving(patch) as store:
        yield store


@pytest.fixture
def bucket(store_server: Any) -> Iterator[Any]:
    """Give that bucket, a `tests.doubles.buckets.Store`; it is empty again after the test."""
    yield store_server
    store_server.empty()
