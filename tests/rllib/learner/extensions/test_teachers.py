"""A teacher is a copy whatever the module holds, or there is one sentence when it is built."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.learner.extensions.distillation import KL_KEY
from rayprune.rllib.learner.extensions.teachers import frozen_copy
from tests.doubles.envs import OwnModule
from tests.rllib import configs
from tests.rllib.learner.test_final_masks import spaces_only, update

pytestmark = pytest.mark.timeout(300)


class WeightNormed(OwnModule):
    """The old `weight_norm`: its weight is computed, by a hook."""

    def setup(self) -> None:
        super().setup()
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(self.policy_body[2])


class Parametrised(OwnModule):
    def setup(self) -> None:
        super().setup()
        nn.utils.parametrizations.weight_norm(self.policy_body[2])
        nn.utils.parametrizations.spectral_norm(self.critic[0])


class Remembering(OwnModule):
    """Keeps what its forward computed, in places that only it knows."""

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        outputs = super()._forward(batch, **kwargs)
        self.last = {"steps": [outputs[Columns.ACTION_DIST_INPUTS]]}
        return outputs


class Hooked(OwnModule):
    def setup(self) -> None:
        super().setup()
        self.seen: list[Any] = []
        self.policy_body[0].register_forward_hook(self._see)

    def _see(self, layer: Any, inputs: Any, output: Any) -> None:
        self.seen = [output]


class Compiled(OwnModule):
    """As RLlib's `TorchRLModule.compile` leaves a module, and with a compiled part."""

    def setup(self) -> None:
        super().setup()
        self._forward_train = torch.compile(self._forward_train, backend="eager")
        self._forward_inference = torch.compile(self._forward_inference, backend="eager")
        self.critic = torch.compile(self.critic, backend="eager")


class Locked(OwnModule):
    def setup(self) -> None:
        super().setup()
        self.lock = threading.Lock()


class HoldingOn(OwnModule):
    """Its forward is a function that knows the module it was made in, and no copy."""

    def setup(self) -> None:
        super().setup()
        body = self.policy_body
        self.run = lambda obs: body(obs)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_head(torch.tanh(self.run(batch["obs"])))}


def learner_of(cls: type) -> Any:
    config = spaces_only().rl_module(rl_module_spec=RLModuleSpec(module_class=cls))
    late = {"kind": "one_shot", "begin": 150, "every": 1}
    pruning = configs.pruning(schedule=late, distillation={"weight": 1.0})
    return prune(config, pruning).build_learner()


@pytest.mark.parametrize("cls", [WeightNormed, Parametrised, Remembering, Hooked, Compiled])
def test_a_teacher_computes_what_the_dense_policy_did_and_goes_on_to(cls: type) -> None:
    learner = learner_of(cls)
    update(learner, step=100)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    batch = {"obs": torch.randn(7, 5)}
    teacher = frozen_copy(module)
    before = module.forward_inference(dict(batch))[Columns.ACTION_DIST_INPUTS]
    for step in (200, 300):
        result = update(learner, step=step, seed=step)
    after = teacher.forward_inference(dict(batch))[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(after, before)
    assert not any(p.requires_grad for p in teacher.parameters())
    now = module.forward_inference(dict(batch))[Columns.ACTION_DIST_INPUTS]
    assert not torch.allclose(now, before)
    assert float(result[DEFAULT_MODULE_ID][KL_KEY].peek()) > 0


def test_a_module_that_cannot_be_copied_is_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match=r"needs a copy of Locked, which can't be copied: .*lock"):
        learner_of(Locked)


def test_a_copy_that_computes_with_the_originals_weights_is_refused_by_the_first_update() -> None:
    learner = learner_of(HoldingOn)
    with pytest.raises(ConfigError, match="still computes with the original's weights"):
        update(learner, step=100)
