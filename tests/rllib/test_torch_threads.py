import pytest
import torch
from torch import nn

from rayprune.rllib.torch_threads import SMALL, fitting_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("width", "threads"), [(SMALL // 100, 1), (SMALL // 10, 2)])
def test_a_small_network_gets_one_thread_and_a_large_one_keeps_them(width, threads):
    with fitting_threads(nn.Linear(10, width)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_the_threads_come_back_after_a_fault():
    with pytest.raises(ZeroDivisionError), fitting_threads(nn.Linear(1, 1)):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
