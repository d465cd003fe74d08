import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from rayprune import Pruner, PruningConfig, unmask
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats.semi_structured import Fit, fitting, missing_gpu, pack, report
from rayprune.errors import InputError
from tests.doubles import policies

NO_GPU = missing_gpu()


def net(granularity="2:4"):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 96), nn.Linear(96, 4))
    config = PruningConfig(granularity=granularity, criterion="l1", protect=["0", "3"])
    Pruner(module, config).prune_to()
    unmask(module)
    return module


def test_weights_of_two_in_four_fit_and_the_others_say_why_not():
    found = fitting(net())
    assert found.packed == ("2.weight",)
    assert found.left == {
        "0.weight": "its size 64x8 is no multiple of 32x64",
        "3.weight": "its size 4x96 is no multiple of 32x64",
    }


def test_one_of_four_fits_as_well_and_one_of_eight_does():
    assert fitting(net("1:4")).packed == fitting(net("1:8")).packed == ("2.weight",)


def test_three_of_four_don_t_fit():
    module = net()
    with torch.no_grad():
        module[2].weight[5, 8:12] = torch.tensor([1.0, 2.0, 3.0, 0.0])
    assert "more than two of four" in fitting(module).left["2.weight"]


def test_an_exported_graph_names_its_weights():
    graph = torch.export.export(net(), (torch.randn(2, 8),)).module()
    assert fitting(graph).packed == ("2.weight",)
    assert set(fitting(graph).left) == {"0.weight", "3.weight"}


def test_torchs_packed_layout_gives_the_same_weights_back():
    weight = net()[2].weight.detach().half()
    packed, meta = sparse_semi_structured_from_dense_cutlass(weight)
    assert packed.shape == (96, 32)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, meta), weight)


@pytest.mark.skipif(NO_GPU is None, reason="there is a GPU that can")
def test_without_a_gpu_nothing_is_packed_or_claimed():
    module = net()
    with pytest.raises(InputError, match=r"there is no CUDA GPU here\. The dense weights compute"):
        pack(module)
    told = report(module, [torch.randn(4, 8)])
    assert told["packed"] == ["2.weight"]
    assert (told["measured"], told["why"]) == (None, NO_GPU)


def test_a_module_without_such_weights_says_so_on_any_machine():
    module = nn.Sequential(nn.Linear(64, 64))
    assert fitting(module) == Fit((), {"0.weight": fitting(module).left["0.weight"]})
    assert "no weight of a Linear layer is 2:4" in report(module, [torch.randn(4, 64)])["why"]


@pytest.mark.skipif(NO_GPU is not None, reason=f"{NO_GPU}")
def test_on_a_gpu_packed_weights_compute_what_dense_ones_do():
    told = report(net(), [torch.randn(64, 8)])
    assert told["measured"]["max_error"] < 1e-2


def test_the_script_says_of_every_network_what_it_measured_or_why_not(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["semi_structured.py", "--batch", "2", "--json"])
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "benchmarks"))
    script = importlib.import_module("semi_structured")
    monkeypatch.setattr(script, "MLPS", {"small": (64, 64, 96, 32)})
    assert script.main() == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["packed"] == ["0.weight", "2.weight"]  # 32x96 is no multiple of 32x64
    assert (row["measured"] is None) == (NO_GPU is not None)


def test_a_torch_file_of_a_2_4_policy_says_which_weights_can_be_packed(tmp_path):
    policy = policies.discrete(nn.Sequential(*list(net())[1:3], nn.Tanh()), size=64, choices=96)
    draw = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    certificate = export_policy(
        policy, tmp_path / "policy.pt2", "torch", recorded=[draw], about={}, compacted=False
    )
    told = certificate["semi_structured"]
    assert len(told["packed"]) == 1
    assert (told["measured"] is None) == (NO_GPU is not None)
    plain = policies.mlp()
    certificate = export_policy(
        plain, tmp_path / "plain.pt2", "torch", recorded=[draw[:, :4]], about={}
    )
    assert "semi_structured" not in certificate
