"""Small policies of plain torch, as an adaptor would build them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayprune.deploy.policy.actions import Aim, Choose, Decide, Unsquash
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.policy import DeployablePolicy, Normalise, Observe


class Plain(nn.Module):
    """A network without a state, as a policy wants it: its outputs in a tuple."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layers(x),)


class Remembering(nn.Module):
    """An LSTM beside a critic's, whose memory the action doesn't depend on."""

    def __init__(self, size: int, cell: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, cell, batch_first=True)
        self.critic = nn.LSTM(size, cell, batch_first=True)
        self.out = nn.Linear(cell, outputs)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.unsqueeze(1)
        self.critic(x)
        y, (h, c) = self.lstm(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return self.out(y).squeeze(1), h.transpose(0, 1), c.transpose(0, 1)


def discrete(
    network: nn.Module, size: int = 4, choices: int = 3, *, sample: bool = False
) -> DeployablePolicy:
    """A policy of one choice over ``size`` numbers."""
    interface = Interface(
        observations=(Port("obs", (size,)),),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (choices,)),
        noise=Port("noise", (choices,)) if sample else None,
        noise_kind="gumbel" if sample else None,
    )
    decide = Decide(Choose([choices], several=False))
    return DeployablePolicy(Observe(), Plain(network), decide, interface)


def mlp(hidden: int = 16, *, sample: bool = False) -> DeployablePolicy:
    """A tanh MLP of one choice among three."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)]
    return discrete(nn.Sequential(*layers), sample=sample)


def recurrent() -> DeployablePolicy:
    """A filtered observation, an LSTM, and an action within bounds."""
    torch.manual_seed(0)
    interface = Interface(
        observations=(Port("obs", (4,)),),
        action=Port("action", (2,)),
        dist_inputs=Port("dist_inputs", (4,)),
        states=(Port("state.h", (1, 8)), Port("state.c", (1, 8))),
    )
    observe = Observe([Normalise([(torch.full((4,), 0.5), torch.full((4,), 2.0))], clip=10.0)])
    decide = Decide(Aim(), Unsquash(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])))
    return DeployablePolicy(observe, Remembering(4, 8, 4), decide, interface)


class Seeing(nn.Module):
    """What is left of an Atari network: few filters over an image, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(4, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 11, 4, 2))
        self.out = nn.Linear(11 * 9 * 9, 3)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.out(torch.relu(self.convs(image.permute(0, 3, 1, 2))).flatten(1)),)


def image() -> DeployablePolicy:
    """A convolutional network of one choice among three."""
    torch.manual_seed(0)
    interface = Interface(
        observations=(Port("obs", (84, 84, 4)),),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (3,)),
    )
    return DeployablePolicy(Observe(), Seeing(), Decide(Choose([3], several=False)), interface)
