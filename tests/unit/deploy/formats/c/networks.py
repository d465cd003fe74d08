"""Policies whose C is tested, one for each kind of operator and layout, and their files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.deploy.formats.base import Examples
from rayprune.deploy.formats.c import compiler as c_compiler
from rayprune.deploy.formats.c.registers import ROWS
from rayprune.deploy.formats.c.writer import write_c
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.policy import DeployablePolicy, Observe
from rayprune.deploy.policy.runs import module_run
from rayprune.pruning.layers.partial_norm import shorten
from tests.doubles import policies

needs_compiler = pytest.mark.skipif(c_compiler.find_compiler() is None, reason="needs a C compiler")


def masked(rows: int, columns: int, density: float, seed: int) -> np.ndarray:
    """A matrix with blocks of 16 rows by one column pruned."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(rows, columns)).astype(np.float32)
    keep = draw.random((-(-rows // ROWS), columns)) < density
    return weight * keep.repeat(ROWS, axis=0)[:rows]


class Dueling(nn.Module):
    """What RLlib's DQN does with its two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 20), nn.ReLU())
        self.advantage, self.value = nn.Linear(20, 3), nn.Linear(20, 1)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        advantage = self.advantage(body)
        usable = advantage.nan_to_num(neginf=torch.nan)
        return self.value(body) + advantage - usable.nanmean(dim=-1, keepdim=True)


class Skipping(nn.Module):
    """Additions, concatenation, pieces, norms and every activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 24), nn.LayerNorm(24)
        self.last = nn.Linear(24 * 8 + 4, 3)
        self.each = [nn.Tanh(), nn.ReLU(), nn.ELU(), nn.SiLU(), nn.GELU(), nn.Sigmoid()]
        self.each += [nn.LeakyReLU(), nn.Softplus()]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        low, high = y.chunk(2, dim=-1)
        y = y + torch.cat([high, low.clamp(-0.5, 0.5)], dim=-1) - y[:, :1] / 2.0
        return self.last(torch.cat([*(act(3 * y) for act in self.each), x], dim=-1))


def norms() -> nn.Module:
    """Norms of all kinds, and those that compaction leaves."""
    layers = [
        nn.Linear(4, 24),
        shorten(nn.LayerNorm(24), torch.tensor([0.4, 0.3, 0.2])),
        nn.Linear(24, 24),
        shorten(nn.RMSNorm(24), torch.tensor([0.4, 0.3])),
        nn.Linear(24, 24),
        nn.RMSNorm(24),
        nn.Unflatten(1, (6, 2, 2)),
        nn.GroupNorm(3, 6),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.BatchNorm1d(24),
        nn.Linear(24, 3),
    ]
    for tensor in nn.Sequential(*layers).state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand(tensor.shape))
    return nn.Sequential(*layers)


class Seeing(nn.Module):
    """A padded convolution, a pooling, a strided convolution, channels last at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.convs = nn.Sequential(nn.ZeroPad2d((1, 0, 0, 1)), nn.Conv2d(5, 17, (3, 2), stride=2))
        self.out = nn.Linear(17 * 3 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float().permute(0, 3, 1, 2) / 255.0
        x = self.convs(self.pool(torch.relu(self.conv0(x))))
        return self.out(torch.tanh(x).permute(0, 2, 3, 1).flatten(1))


class Gated(nn.Module):
    """Two layers of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(4, 9, num_layers=2, batch_first=True), nn.Linear(9, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x.unsqueeze(1), h.transpose(0, 1))
        return self.out(y).squeeze(1), h.transpose(0, 1)


class Attending(nn.Module):
    """Two heads over three tokens, and the last token that looks at all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 24), nn.Linear(8, 3)
        self.all = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.MultiheadAttention(8, 4, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).unflatten(1, (3, 8))
        tokens = tokens + self.all(tokens, tokens, tokens, need_weights=False)[0]
        seen = self.last(tokens[:, -1:], tokens, tokens, need_weights=False)[0]
        return self.out(seen.squeeze(1))


class Masked(nn.Module):
    """Attention under masks, of which one masks all keys; and by its products and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 24), nn.Linear(8, 3)
        self.attends = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).unflatten(1, (3, 8))
        later = torch.ones(3, 3).triu(1) > 0
        every = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
        seen = self.attends(tokens, tokens, tokens, attn_mask=later, need_weights=False)[0]
        some = tokens.unflatten(-1, (2, 4)).transpose(1, 2)
        some = functional.scaled_dot_product_attention(some, some, some, every)
        causal = functional.scaled_dot_product_attention(tokens, seen, tokens, is_causal=True)
        weights = torch.softmax(seen @ tokens.mT, -1)
        seen = weights @ causal + torch.baddbmm(tokens, weights, seen)
        return self.out((seen + some.transpose(1, 2).flatten(2))[:, -1])


def seeing() -> DeployablePolicy:
    plain = policies.discrete(Seeing())
    interface = Interface(
        observations=(Port("obs", (11, 15, 2), "uint8"),),
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
    )
    return DeployablePolicy(Observe(), plain.network, plain.decide, interface)


def gated() -> DeployablePolicy:
    plain = policies.discrete(Gated())
    interface = Interface(
        observations=plain.interface.observations,
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
        states=(Port("state.h", (2, 9)),),
    )
    return DeployablePolicy(Observe(), Gated(), plain.decide, interface)


def blocked() -> DeployablePolicy:
    policy = policies.mlp(hidden=50)
    with torch.no_grad():
        weight = policy.network.layers[2].weight
        weight.copy_(torch.from_numpy(masked(3, 50, 0.3, seed=1)))
    return policy


def thinned() -> DeployablePolicy:
    """Blocks that have lost rows, so that they don't line up with 16 any more."""
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 90), nn.Tanh(), nn.Linear(90, 60)))
    rows = np.delete(masked(96, 90, 0.2, seed=2), range(0, 96, 3), axis=0)[:60]
    policy.network.layers.append(nn.Linear(60, 3))
    with torch.no_grad():
        policy.network.layers[2].weight.copy_(torch.from_numpy(rows))
    return policy


def sparse() -> DeployablePolicy:
    """Single weights pruned: few of many inputs, and a third, which vectors take as it is."""
    layers = [nn.Linear(300, 40), nn.Tanh(), nn.Linear(40, 35), nn.ReLU(), nn.Linear(35, 3)]
    policy = policies.discrete(nn.Sequential(*layers), 300)
    draw = np.random.default_rng(5)
    with torch.no_grad():
        for layer, density in zip(layers[::2], (0.05, 0.35, 1.0), strict=True):
            layer.weight.mul_(torch.from_numpy(draw.random(layer.weight.shape) < density))
    return policy


NETWORKS = {
    "dueling": lambda: policies.discrete(Dueling()),
    "skipping": lambda: policies.discrete(Skipping()),
    "norms": lambda: policies.discrete(norms()),
    "attending": lambda: policies.discrete(Attending()),
    "masked": lambda: policies.discrete(Masked()),
    "seeing": seeing,
    "gated": gated,
    "recurrent": policies.recurrent,
    "blocked": blocked,
    "thinned": thinned,
    "sparse": sparse,
}


LAYOUTS = {
    "blocked": ["linear_dense", "linear_blocks"],
    "thinned": ["linear_dense", "linear_blocks", "linear_dense"],
    "sparse": ["linear_rows", "linear_dense", "linear_dense"],
}


def inputs_of(policy: Any, count: int = 30) -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [
        draw.integers(256, size=(count, *port.shape)).astype(port.dtype)
        if port.dtype == "uint8"
        else draw.normal(size=(count, *port.shape)).astype(port.dtype)
        for port in policy.interface.inputs
    ]


def written(
    policy: Any,
    folder: Path,
    lanes: int | None = None,
    examples: Examples | None = None,
    **about: str,
) -> tuple[Path, Any, Any]:
    plain = plain_copy(policy)
    given = inputs_of(plain)
    expected = module_run(plain)(given)
    path = folder / "policy.c"
    metadata = Metadata(plain.interface, about)
    examples = examples or Examples(given, expected)
    _, told = write_c(capture(plain, batch=1), path, metadata, "policy", examples, lanes)
    return path, told, (given, expected)


COMPILERS = [found for found in ("gcc", "clang") if shutil.which(found)]


STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]


STRICT += ["-Wdouble-promotion", "-Wfloat-conversion"]


def self_tested(source: Path, compiler: str, *options: str) -> str:
    """What a file's self-test says, compiled by ``compiler``."""
    program = source.with_suffix("")
    subprocess.run(
        [compiler, "-DPOLICY_SELFTEST", *options, source, "-o", program, "-lm"], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout
