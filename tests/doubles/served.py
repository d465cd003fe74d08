"""Exported policies to serve, and replicas that need no Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rayprune.deploy.formats import format_named
from rayprune.deploy.formats.base import Examples, ExportJob, ExportOptions
from rayprune.deploy.policy.file_hash import seal
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import module_run
from rayprune.serve.opened_policy import OpenedPolicy
from tests.doubles import policies


def write(path: Path, policy: DeployablePolicy, about: dict[str, Any] | None = None) -> Path:
    """Write a policy that nobody has trained, without proofs; its name says in which format."""
    ports, draw = policy.interface, np.random.default_rng(0)
    recorded = [draw.normal(size=(2, *p.shape)).astype(p.dtype) for p in ports.inputs]
    job = ExportJob(
        policy,
        Metadata(ports, about or {}),
        path.stem,
        Examples(recorded, module_run(policy)(recorded)),
        ExportOptions(),
    )
    format_named({".pt2": "torch", ".c": "c", ".onnx": "onnx"}[path.suffix]).write(job, path)
    seal(path)
    return path


def write_all(folder: Path, suffix: str = ".pt2") -> dict[str, Path]:
    """Export a choice of three over four numbers, a policy that remembers, and one that draws."""
    made = {"choose": policies.mlp(), "remember": policies.recurrent()}
    made["draw"] = policies.mlp(sample=True)
    return {name: write(folder / f"{name}{suffix}", policy) for name, policy in made.items()}


class Replicas:
    """Acts as Serve's handle of the replicas; the first calls may fail."""

    def __init__(self, opened: dict[str, OpenedPolicy]) -> None:
        self.opened = opened
        self.faults: list[Exception] = []
        self.calls: list[str] = []
        self.act = self

    def options(self, *, multiplexed_model_id: str) -> Replicas:
        return self

    @property
    def act_many(self) -> Any:
        return SimpleNamespace(remote=self._many)

    async def remote(self, name: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
        self.calls.append(name)
        if self.faults:
            raise self.faults.pop(0)
        return self.opened[name].act([inputs])[0]

    async def _many(self, names: list[str], inputs: list[Any]) -> list[Any]:
        return [await self.remote(*both) for both in zip(names, inputs, strict=True)]
