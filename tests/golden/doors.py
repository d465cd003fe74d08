"""What these tests need and no public name gives: after a move this file alone changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rayprune.pruning.granularity.sensors import find_sensors


def sensors_of(net: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return which inputs of which layers read an observation of that shape."""
    kinds = (nn.Linear, nn.Conv2d, nn.LSTM)
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, kinds)}
    return find_sensors(layers, [torch.zeros(1, *shape)], lambda leaves: net(*leaves))


def export(policy: Any, path: Any, kind: str, **more: Any) -> dict[str, Any]:
    """Export a policy to a file; return its certificate."""
    from rayprune.deploy.export.export import export_policy

    return export_policy(policy, path, kind, **more)


def metadata_of(path: Any) -> str:
    """Return an exported file's metadata as JSON."""
    from rayprune.deploy.formats import open_artifact

    return open_artifact(path).metadata.to_json()


def certify(dense: Any, pruned: Any, out: Any) -> dict[str, Any]:
    """Certify one run against another, by margins so wide that it is soon decided."""
    from rayprune.rllib.commands.certify import CertifyOptions, certify

    options = CertifyOptions(margin=150, tail_margin=150, absolute=True, return_range=(0.0, 200.0))
    return certify(dense, pruned, options, out, _Silent())


class _Silent:
    def start(self, most: int) -> None:
        """Nothing is told."""

    def round(self, pairs: int, result: dict[str, Any]) -> None:
        """Nothing is told."""
