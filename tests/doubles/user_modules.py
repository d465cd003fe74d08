"""Networks as users of RLlib write them, none of them with rayprune in mind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

WIDTH = 16


class Own(TorchRLModule, ValueFunctionAPI):
    """A body, an action head and a value head by names that rayprune doesn't know.

    ``model_config["body"]`` names an entry of `BODIES`.
    """

    def setup(self) -> None:
        size = self.observation_space.shape[0]
        self.net = BODIES[self.model_config["body"]](size)
        self.action_head = nn.Linear(WIDTH, self.action_space.n)
        self.worth = nn.Linear(WIDTH, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.action_head(self.net(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        return self.worth(self.net(batch[Columns.OBS])).squeeze(-1)


class Separate(TorchRLModule, ValueFunctionAPI):
    """Two nets in a ModuleDict, whose keys say nothing."""

    def setup(self) -> None:
        size, actions = self.observation_space.shape[0], self.action_space.n
        self.parts = nn.ModuleDict({"a": _mlp(size, actions), "b": _mlp(size, 1)})

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.parts["a"](batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        return self.parts["b"](batch[Columns.OBS]).squeeze(-1)


class OneNet(TorchRLModule, ValueFunctionAPI):
    """Logits and value are slices of one layer's output."""

    def setup(self) -> None:
        self.everything = _mlp(self.observation_space.shape[0], self.action_space.n + 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.everything(batch[Columns.OBS])[..., :-1]}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        return self.everything(batch[Columns.OBS])[..., -1]


class ScaledLogits(Own):
    """Logits leave through a norm, a clamp and a temperature."""

    def setup(self) -> None:
        super().setup()
        self.tidy = nn.LayerNorm(self.action_space.n)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        logits = super()._forward(batch)[Columns.ACTION_DIST_INPUTS]
        return {Columns.ACTION_DIST_INPUTS: torch.tanh(self.tidy(logits)) * 3.0}


class OnlyTrainHead(Own):
    """An auxiliary head that only the training forward uses."""

    def setup(self) -> None:
        super().setup()
        self.next_state = nn.Linear(WIDTH, self.observation_space.shape[0])

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        out = super()._forward(batch)
        return {**out, "guess": self.next_state(self.net(batch[Columns.OBS]))}


class FrozenBody(Own):
    """A pretrained body that must stay as it is."""

    def setup(self) -> None:
        super().setup()
        self.net.requires_grad_(False)


class FrozenValue(Separate):
    """A net that is frozen as a whole."""

    def setup(self) -> None:
        super().setup()
        self.parts["b"].requires_grad_(False)


class LowRank(Own):
    """LoRA by hand: a frozen layer and a small correction that learns."""

    def setup(self) -> None:
        super().setup()
        self.net.requires_grad_(False)
        self.down = nn.Linear(self.observation_space.shape[0], 2, bias=False)
        self.up = nn.Linear(2, WIDTH, bias=False)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observations = batch[Columns.OBS]
        features = self.net(observations) + self.up(self.down(observations))
        return {Columns.ACTION_DIST_INPUTS: self.action_head(features)}


class Deterministic(TorchRLModule):
    """A policy without a value function, as BC or a policy gradient has it."""

    def setup(self) -> None:
        self.layers = _mlp(self.observation_space.shape[0], self.action_space.n)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.layers(batch[Columns.OBS])}


class _Attending(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(1, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x[..., None])
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return torch.relu(self.after(mixed.mean(1)))


class _Transformer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(1, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.embed(x[..., None])).mean(1)


class _Mixture(nn.Module):
    """A hard mixture of experts: most batches leave one of them out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(size, WIDTH) for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        chosen = (x.sum(-1) * 1e3).long().remainder(8)
        out = x.new_zeros(len(x), WIDTH)
        for i, expert in enumerate(self.experts):
            here = chosen == i
            if here.any():
                out = out.index_put((here.nonzero()[:, 0],), torch.relu(expert(x[here])))
        return out


class _Sometimes(nn.Module):
    """A branch that two forwards of three use."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.main, self.extra, self.calls = nn.Linear(size, WIDTH), nn.Linear(size, WIDTH), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out = self.main(x)
        return torch.relu(out + self.extra(x) if self.calls % 3 else out)


class _Twice(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(size, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.again(torch.relu(self.first(x)))))


class _Unused(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.used, self.never = nn.Linear(size, WIDTH), nn.Linear(size, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.used(x))


class _Noisy(nn.Linear):
    """A Linear subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias) * 1.0


class _Bare(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(size, WIDTH) * 0.3)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(torch.relu(x @ self.matrix)))


class _Cell(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell, self.layer = nn.GRUCell(size, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(self.cell(x)))


class _Bins(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(16, 4), nn.Linear(4 * size, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        bins = ((x + 2.0) * 4.0).long().clamp(0, 15)
        return torch.relu(self.layer(self.table(bins).flatten(1)))


class _Pairs(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.both, self.layer = nn.Bilinear(size, size, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.tanh(self.both(x, x))))


class _Residual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(size, WIDTH)
        self.norm, self.one, self.two = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 32),
            nn.Linear(32, WIDTH),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.inlet(x)
        return x + self.two(torch.relu(self.one(self.norm(x))))


class _Gated(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return functional.glu(self.layer(x))


class _Series(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv1d(1, 4, 2), nn.Linear(4 * (size - 1), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(torch.relu(self.conv(x[:, None])).flatten(1)))


class _Volume(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv3d(1, 4, 1), nn.Linear(4 * size, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.tanh(self.conv(x[:, None, None, None])).flatten(1)))


class _Decoder(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.up, self.layer = nn.ConvTranspose1d(1, 4, 2), nn.Linear(4 * (size + 1), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.tanh(self.up(x[:, None])).flatten(1)))


class _Sequence(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.rnn, self.cell = nn.RNN(1, 8, batch_first=True), nn.LSTMCell(8, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.rnn(x[..., None])[0][:, -1])[0]


class _Tied(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.inlet, self.one, self.two = (
            nn.Linear(size, WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.two(torch.relu(self.one(torch.relu(self.inlet(x))))))


class _Scripted(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, WIDTH)
        self.shrink = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(torch.relu(self.layer(x)))


class _Compiled(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = _mlp(size, WIDTH)
        self.run = torch.compile(self.layers, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


class _Recurrent(nn.Module):
    """An LSTM over the observation's numbers, its state inside."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x[..., None])[0][:, -1]


class _Checkpointed(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = _mlp(size, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.layers, x, use_reentrant=False)


def _mlp(size: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, WIDTH), nn.Tanh(), nn.Linear(WIDTH, out))


def _wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda size: nn.Sequential(
        wrap(nn.Linear(size, WIDTH)), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
    )


def _with(*between: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda size: nn.Sequential(
        nn.Linear(size, WIDTH), *(make() for make in between), nn.Linear(WIDTH, WIDTH), nn.ReLU()
    )


BODIES: Mapping[str, Callable[[int], nn.Module]] = {
    "mlp": lambda size: _mlp(size, WIDTH),
    "layer_norm": _with(lambda: nn.LayerNorm(WIDTH), nn.SiLU),
    "batch_norm": _with(lambda: nn.BatchNorm1d(WIDTH), nn.ReLU),
    "rms_norm": _with(lambda: nn.RMSNorm(WIDTH), nn.GELU),
    "dropout": _with(nn.ReLU, lambda: nn.Dropout(0.1)),
    "prelu": _with(lambda: nn.PReLU(WIDTH)),
    "attention": _Attending,
    "transformer": _Transformer,
    "mixture": _Mixture,
    "sometimes": _Sometimes,
    "twice": _Twice,
    "unused": _Unused,
    "subclass": lambda size: nn.Sequential(_Noisy(size, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)),
    "bare": _Bare,
    "gru_cell": _Cell,
    "embedding": _Bins,
    "bilinear": _Pairs,
    "residual": _Residual,
    "gated": _Gated,
    "conv1d": _Series,
    "conv3d": _Volume,
    "transposed": _Decoder,
    "sequence": _Sequence,
    "tied": _Tied,
    "scripted": _Scripted,
    "compiled": _Compiled,
    "lstm": _Recurrent,
    "checkpointed": _Checkpointed,
    "weight_norm": _wrapped(parametrizations.weight_norm),
    "old_weight_norm": _wrapped(weight_norm),
    "spectral_norm": _wrapped(parametrizations.spectral_norm),
    "old_spectral_norm": _wrapped(spectral_norm),
    "orthogonal": _wrapped(parametrizations.orthogonal),
    "double": lambda size: _Cast(size, torch.float64),
}


class _Cast(nn.Module):
    """Computes in another precision than what it is given."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = _mlp(size, WIDTH).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(self.layers[0].weight.dtype)).to(x.dtype)
