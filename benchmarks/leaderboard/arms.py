"""Arms: what a task's policy is made small by, all at the same env steps and hyperparameters.

What a sparsity is of: the weights, without biases, of the layers that act (the *deployed actor*).
`pruning.sparsity` is theirs, for the critic has a budget of its own in `groups.value`. Arms that
train dense nets are given the width whose parameters, biases included, are those that a sparse
actor keeps, rounded up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.leaderboard.sizes import (
    WIDE,
    hiddens,
    small_width,
    unit_sparsity,
    wide_sparsity,
)
from benchmarks.leaderboard.tasks import Task

SPARSITIES: Final = (0.5, 0.8, 0.9, 0.95, 0.98)
CLONING: Final = 20_000
"""Updates of behaviour cloning, of 256 steps each."""
_SIMBA: Final = "rayprune.rllib.models:PrunableSimBa"

Settings = Callable[[Task, float], Sequence[str]]
"""(task, sparsity) -> overrides, as ``--set`` takes them."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to a small policy."""

    name: str
    line: str
    settings: Settings
    sparse: bool = True
    """Whether it is run at each sparsity; else once."""
    core: bool = False
    """Whether it is run first, at the core sparsities and with the first seeds."""
    cuts: str | None = None
    """The arm whose trained policy it prunes with `rayprune prune`; None: it trains one."""
    clones: str | None = None
    """The arm whose trained policy's episodes it learns from, in place of the environment."""
    mlp_only: bool = False
    """Whether it needs a fully connected actor."""
    sized: bool = False
    """Whether it needs an actor whose widths can be set, fully connected or of convolutions."""
    of_deviation: bool = False
    """Whether it needs a policy with a deviation; without one it would be another arm again."""

    def applies(self, task: Task) -> bool:
        """Return whether the task can have it."""
        if self.clones and task.data:
            return False
        if self.of_deviation and not task.free_deviation:
            return False
        if self.sized and task.conv_net is not None:
            return True
        return bool(task.layers) or not (self.mlp_only or self.sized)


def pruning(task: Task, sparsity: float, critic: float | None = None, **changes: Any) -> str:
    """Return the override of the pruning block.

    Args:
        task: whose file has the rest.
        sparsity: of the deployed actor.
        critic: of the layers that only the Learner needs; None: as the actor.
        changes: fields in place of the file's.
    """
    given: dict[str, Any] = {**task.raw["pruning"], "sparsity": sparsity, **changes}
    if critic is not None:
        given["groups"] = {"value": {"sparsity": critic}}
    return f"pruning={json.dumps(given)}"


def _scheduled(critic: float | None = None, **schedule: Any) -> Settings:
    """Return settings of another schedule."""

    def settings(task: Task, sparsity: float) -> Sequence[str]:
        block = {"every": task.every, **schedule}
        given = {key: value for key, value in block.items() if value is not None}
        return [pruning(task, sparsity, critic, schedule=given)]

    return settings


def _model(**changes: Any) -> list[str]:
    return [
        f"rllib.rl_module.model_config.{key}={json.dumps(value)}" for key, value in changes.items()
    ]


def _dense(task: Task, _: float) -> Sequence[str]:
    return [pruning(task, 0)]


def _linear(task: Task, _: float) -> Sequence[str]:
    return [*_dense(task, 0), *_model(policy_hiddens=[])]


def _small(task: Task, sparsity: float) -> Sequence[str]:
    if task.conv_net is not None:
        # RLlib's own net: its critic shares the convolutions, and has heads of the actor's width.
        net = task.conv_net.small(sparsity)
        changed = _model(conv_filters=net.filters, head_fcnet_hiddens=[net.hidden])
        return [*_dense(task, 0), *changed]
    width = small_width(task.layers, sparsity)
    return [*_dense(task, 0), *_model(policy_hiddens=hiddens(task.layers, width)[1:-1])]


def _distilled(task: Task, sparsity: float) -> Sequence[str]:
    """Behaviour cloning by a narrow net; the data's folder is added when it is known."""
    width = small_width(task.layers, sparsity)
    rllib = {
        "training": {"lr": 0.001, "train_batch_size_per_learner": 256},
        "offline_data": {"dataset_num_iters_per_learner": 100},
        "learners": {"num_learners": 0},
        "rl_module": {"model_config": {"fcnet_hiddens": [width for _ in task.layers[1:-1]]}},
    }
    return [
        "algorithm=BC",
        f"env={json.dumps(task.plain)}",
        f"rllib={json.dumps(rllib)}",
        "normalise={observations: false, rewards: false}",
        f"stop={json.dumps({'updates': CLONING})}",
        f"evaluation.every={CLONING // 20}",
        pruning(task, 0),
    ]


_UNBOUNDED: Final[Mapping[str, Any]] = {"max_kl": None}
_HELD: Final = {**_UNBOUNDED, "remedies": {"hold_deviation": True}}
_FREE: Final = {**_UNBOUNDED, "remedies": {"hold_deviation": False}}


def _recipe(name: str = "recommended", **changes: Any) -> Settings:
    """Return settings of a recipe, with some of its fields changed."""

    def settings(task: Task, sparsity: float) -> Sequence[str]:
        target = _unit_share(task, sparsity) if name == "units" else sparsity
        return [f"pruning={json.dumps({'recipe': name, 'sparsity': target, **changes})}"]

    return settings


def _ramp(begin: float, end: float) -> Settings:
    """Return settings of the recipe without its remedies, with another ramp."""
    return _recipe(schedule={"kind": "cubic", "begin": begin, "end": end}, **_FREE)


def _unit_share(task: Task, sparsity: float) -> float:
    net = task.conv_net
    return net.unit_sparsity(sparsity) if net else unit_sparsity(task.layers, sparsity)


def _with(*more: str, **changes: Any) -> Settings:
    """Return settings of the recipe with some of its fields changed, and other overrides."""
    recipe = _recipe(**changes)
    return lambda task, sparsity: [*recipe(task, sparsity), *more]


def _wide(task: Task, sparsity: float) -> Sequence[str]:
    wide = hiddens(task.layers, WIDE)[1:-1]
    recipe = _recipe()(task, wide_sparsity(task.layers, sparsity))
    return [*recipe, *_model(policy_hiddens=wide, value_hiddens=wide)]


def _with_layer_norms(task: Task) -> list[str]:
    """Return a SimBa net that has the weights of the task's own, in one block.

    Two layers of width and half the width have as many as one of width and width.
    """
    width = task.layers[1]
    own = task.raw["rllib"]["rl_module"]["model_config"]
    kept = {key: own[key] for key in ("free_log_std",) if key in own}
    nets = {"policy_width": width, "value_width": width}
    blocks = {"policy_blocks": [width // 2], "value_blocks": [width // 2]}
    module = {"module_class": _SIMBA, "model_config": {**nets, **blocks, **kept}}
    return [f"rllib.rl_module={json.dumps(module)}"]


def _normed(task: Task, sparsity: float) -> Sequence[str]:
    return [*_recipe()(task, sparsity), *_with_layer_norms(task)]


def _normed_dense(task: Task, _: float) -> Sequence[str]:
    return [*_dense(task, 0), *_with_layer_norms(task)]


def _narrow(task: Task, sparsity: float) -> Sequence[str]:
    left = round((1 - unit_sparsity(task.layers, sparsity)) * task.layers[1])
    return [*_dense(task, 0), *_model(policy_hiddens=hiddens(task.layers, left)[1:-1])]


def _cut(task: Task, sparsity: float) -> Sequence[str]:
    """What `torch.nn.utils.prune.global_unstructured` with `L1Unstructured` does to the actor."""
    del task
    block = {"sparsity": sparsity, "criterion": "l1", "distribution": "global"}
    return [f"pruning={json.dumps({**block, 'groups': {'value': {'sparsity': 0}}})}"]


_DECAY: Final = 0.005
"""Of L1's proximal step: with a learning rate of 0.0003 and 60,000 updates a weight loses 0.09."""


def _cut_made_up_for(task: Task, sparsity: float) -> Sequence[str]:
    """A cut by the recipe's criterion and distribution, which what is left makes up for."""
    del task
    block = {"recipe": "recommended", "sparsity": sparsity, "groups": {"value": {"sparsity": 0}}}
    return [f"pruning={json.dumps(block)}"]


_END: Final = 0.75
"""Of the run: when sparse training stops changing its masks (Evci et al. 2020)."""

_ALL: Final = (
    Arm(
        name="dense",
        line="the task's own net, nothing pruned",
        settings=_dense,
        sparse=False,
        core=True,
    ),
    Arm(
        name="linear",
        line="no hidden layer in the actor; the critic as dense's",
        settings=_linear,
        sparse=False,
        core=True,
        mlp_only=True,
    ),
    Arm(
        name="post-hoc",
        line="dense, its actor cut once at the end: global magnitude, torch.nn.utils.prune's rule",
        settings=_cut,
        cuts="dense",
        core=True,
    ),
    Arm(
        name="post-hoc, reconstructed",
        line="dense, cut at the end by `rayprune prune`: ERK, made up for by what is left",
        settings=_cut_made_up_for,
        cuts="dense",
        core=True,
    ),
    Arm(
        name="small dense",
        line="a narrow actor with as many parameters; the critic as dense's (of images as narrow)",
        settings=_small,
        core=True,
        sized=True,
    ),
    Arm(
        name="cubic",
        line="magnitude, ERK, a cubic ramp from 20 to 80 % of the run; the critic as sparse",
        settings=_scheduled(kind="cubic", begin=0.2, end=0.8),
        core=True,
    ),
    Arm(
        name="recommended",
        line="`pruning: {recipe: recommended}`",
        settings=_recipe(),
        core=True,
    ),
    Arm(
        name="units, live",
        line="`pruning: {recipe: units}`: whole units, which leave the net while it trains",
        settings=_recipe("units"),
        core=True,
        sized=True,
    ),
    Arm(
        name="unbounded",
        line="the recipe without `max_kl`",
        settings=_recipe(**_UNBOUNDED),
    ),
    Arm(
        name="not reconstructed",
        line="the recipe without `max_kl`, with nothing that makes up for a cut",
        settings=_recipe(**_HELD),
    ),
    Arm(
        name="units, reconstructed",
        line="recipe units, whose cuts what is left makes up for",
        settings=_recipe("units", remedies={"hold_deviation": True, "reconstruct": True}),
        sized=True,
    ),
    Arm(
        name="reconstructed, free deviation",
        line="unbounded, whose deviation may shrink while masks change",
        settings=_recipe(**_UNBOUNDED, remedies={"reconstruct": True}),
        of_deviation=True,
    ),
    Arm(
        name="free deviation",
        line="the recipe without its two remedies",
        settings=_recipe(**_FREE),
        of_deviation=True,
    ),
    Arm(
        name="units, free deviation",
        line="recipe units without its remedy",
        settings=_recipe("units", **_FREE),
        sized=True,
        of_deviation=True,
    ),
    Arm(
        name="early ramp",
        line="without remedies, with a ramp from 10 to 50 % of the run in place of 20 to 80 %",
        settings=_ramp(0.1, 0.5),
    ),
    Arm(
        name="first ramp",
        line="without remedies, with a ramp over the first 20 % of the run",
        settings=_ramp(0.0, 0.2),
    ),
    Arm(
        name="every iteration",
        line="without remedies, with a mask update at each iteration in place of 60 in all",
        settings=_recipe(schedule={"every": 1}, **_FREE),
    ),
    Arm(
        name="held, every iteration",
        line="not reconstructed, with a mask update at each iteration in place of 60 in all",
        settings=_recipe(schedule={"every": 1}, **_HELD),
        of_deviation=True,
    ),
    Arm(
        name="trust region",
        line="every iteration, none of which moves the policy by more than 0.01 nats (`max_kl`)",
        settings=_recipe(schedule={"every": 1}, **{**_FREE, "max_kl": 0.01}),
    ),
    Arm(
        name="uniform",
        line="the recipe, as sparse in every layer in place of ERK",
        settings=_recipe(distribution="uniform"),
    ),
    Arm(
        name="global",
        line="the recipe, with all weights of the actor ranked together in place of ERK",
        settings=_recipe(distribution="global"),
    ),
    Arm(
        name="raw observations",
        line="the recipe, on observations as they come",
        settings=_with('normalise={"observations": false}'),
    ),
    Arm(
        name="l1 decay",
        line="the recipe, with weights that shrink by a proximal step of L1 until the ramp ends",
        settings=_recipe(penalty={"kind": "l1", "strength": _DECAY}),
    ),
    Arm(
        name="lottery",
        line="four rounds from 10 to 80 % of the run, each back from the weights at 10 %",
        settings=_recipe(schedule={"kind": "lottery", "rounds": 4, "rewind_to": 0.1}),
    ),
    Arm(
        name="wide",
        line="the recipe, in a net of 256 x 256 that keeps as many weights in all",
        settings=_wide,
        mlp_only=True,
    ),
    Arm(
        name="layer norm",
        line="the recipe, in a residual net with layer norms (SimBa) of as many weights",
        settings=_normed,
        mlp_only=True,
    ),
    Arm(
        name="layer norm, dense",
        line="that net, nothing pruned",
        settings=_normed_dense,
        sparse=False,
        mlp_only=True,
    ),
    Arm(
        name="static",
        line="a random ERK mask from before the first step to the end; the critic as sparse",
        settings=_scheduled(kind="static", every=None),
    ),
    Arm(
        name="SET",
        line="the smallest dropped, random ones regrown; the critic as sparse",
        settings=_scheduled(kind="set", begin=0.0, end=_END),
    ),
    Arm(
        name="RigL",
        line="the smallest dropped, those of the largest gradient regrown; the critic as sparse",
        settings=_scheduled(kind="rigl", begin=0.0, end=_END, minibatches=64),
    ),
    Arm(
        name="RigL, dense critic",
        line="RigL in the policy; the critic dense",
        settings=_scheduled(critic=0, kind="rigl", begin=0.0, end=_END, minibatches=64),
    ),
    Arm(
        name="revive",
        line="a static mask and one random revival of a tenth at 20 %; the critic as sparse",
        settings=_scheduled(kind="revive", begin=0.2, reserve=0.1, every=None),
    ),
    Arm(
        name="gated",
        line="as far as the return holds, rolled back where not; the sparsity is a bound",
        settings=_scheduled(
            critic=0, kind="gated", begin=0.2, step=0.4, least_step=0.1, patience=0.1, every=None
        ),
    ),
    Arm(
        name="distilled",
        line="small dense, cloned from 200 episodes of dense's policy; no other step is taken",
        settings=_distilled,
        clones="dense",
        mlp_only=True,
    ),
    Arm(
        name="narrow",
        line="a dense actor of the width that units leave; the critic as dense's",
        settings=_narrow,
        mlp_only=True,
    ),
)
ARMS: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _ALL}
"""Name -> arm, in the order in which they are run and shown."""
CORE_SPARSITIES: Final = (0.9, 0.95)
CORE_SEEDS: Final = 3
