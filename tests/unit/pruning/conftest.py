import pytest
import torch
from hypothesis import settings

from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions import DISTRIBUTIONS
from rayprune.pruning.granularity import GRANULARITIES
from rayprune.pruning.penalties import PENALTIES
from rayprune.pruning.schedules import SCHEDULES

# A shared machine is no stopwatch.
settings.register_profile("pruning", deadline=None, max_examples=60)
settings.load_profile("pruning")


@pytest.fixture(autouse=True)
def _alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    registries = [CRITERIA, DISTRIBUTIONS, GRANULARITIES, PENALTIES, SCHEDULES]
    entries = [dict(registry) for registry in registries]
    yield
    for registry, before in zip(registries, entries, strict=True):
        registry._entries = before
    torch.set_num_threads(threads)
