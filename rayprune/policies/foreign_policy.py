"""`open_policy`: a policy from elsewhere by its file or its code, with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError, shown
from rayprune.policies.adapt import policy_of
from rayprune.policies.episodes import made
from rayprune.policies.identity import portable, weights_sha256
from rayprune.policies.module_factory import make_module
from rayprune.policies.places import ModuleSpec, is_code
from rayprune.policies.sb3.normalisation import Normalisation, beside, load_normalisation
from rayprune.policies.sb3.zip_file import is_zip, load_sb3
from rayprune.policies.space_text import space_of
from rayprune.policies.spaces import Space

NONE: Final = "none"
"""What `normalise` says where statistics beside a policy are not its own."""
_SB3: Final = "Stable-Baselines3"
_TORCH: Final = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignOptions:
    """What a policy's file doesn't say of itself."""

    env: str | None = None
    """A gymnasium id, ``module:Id`` for one that a module registers."""
    env_config: Mapping[str, Any] = field(default_factory=dict)
    observation_space: str | None = None
    """As `space_of` reads it, where there is no environment."""
    action_space: str | None = None
    normalise: str | None = None
    """VecNormalize's file; ``none`` for no normalisation, None for what lies beside the zip."""
    trust: bool = False
    """Run code that a zip's pickles name."""


@dataclass(frozen=True, slots=True)
class ForeignPolicy:
    """A policy from elsewhere."""

    name: str
    """Its place, as a file may tell it."""
    library: str
    policy: DeployablePolicy
    """Greedy; its layers are those of ``module``."""
    module: Any
    """What was loaded."""
    spaces: tuple[Space, Space]
    """Of observations and of actions, the environment's where it is known."""
    options: ForeignOptions
    normalisation: Normalisation | None = None
    normalised_by: str | None = None
    """The file that those statistics are from."""
    file: Path | None = None
    """What holds its weights, or else its code; None where that is an installed module."""

    def sampling(self) -> DeployablePolicy:
        """Return the policy that draws its actions.

        Raises:
            InputError: it has nothing to draw from.
        """
        if self.library == _TORCH:
            raise InputError(
                "`--sample` isn't for modules of your own: write `policy_of(..., sample=True)` "
                "from Python, by `rayprune.deploy.export_policy`."
            )
        return policy_of(
            self.module,
            self.spaces[0],
            sample=True,
            normalise=_statistics(self.normalisation),
            clip=self.normalisation.clip if self.normalisation else None,
        )

    def sha256(self) -> str:
        """Return the SHA-256 of what it computes with."""
        weights = plain_copy(self.policy).state_dict()
        return weights_sha256({name: values.numpy() for name, values in weights.items()})

    def parameters(self) -> dict[str, int | None]:
        """Return how many parameters act, and how many of them aren't zero."""
        held = [*plain_copy(self.policy).parameters()]
        nonzero = sum(int(parameter.count_nonzero()) for parameter in held)
        return {"total": sum(parameter.numel() for parameter in held), "nonzero": nonzero}


def open_policy(place: Path | str, options: ForeignOptions | None = None) -> ForeignPolicy:
    """Open a policy of Stable-Baselines3 or a module of one's own.

    Args:
        place: a zip, or ``nets.py:make`` and ``package.nets:make``, behind which ``@weights.pt``
            may follow.
        options: what it doesn't say of itself.

    Raises:
        InputError: no such policy, or one that can't be read, run or exported; says why.
    """
    options = options or ForeignOptions()
    path, spec = Path(place), ModuleSpec.parse(str(place))
    if spec is not None:
        return _of_module(spec, options)
    if path.suffix == ".zip":
        if not is_zip(path):
            raise InputError(f"There is no file {str(path)!r}.")
        return _of_zip(path, options)
    if is_code(place):
        raise InputError(
            f"{str(place)!r} doesn't say what of the file makes the module: name a function or the "
            "class, such as `nets.py:make`, and its weights: `nets.py:make@weights.pt`."
        )
    raise InputError(
        f"{str(place)!r} may hold a whole module, which torch only loads by running code of "
        "the file, and whose layers it may not show. Give the code and the weights: "
        "`nets.py:make@weights.pt`, the weights by `torch.save(module.state_dict(), FILE)`."
    )


def _of_zip(path: Path, options: ForeignOptions) -> ForeignPolicy:
    module = load_sb3(path, trust=options.trust)
    place = _statistics_of(path, options.normalise)
    normalisation = None if place is None else load_normalisation(place)
    spaces = _spaces(options) or (module.observation_space, module.action_space)
    if spaces[1] != module.action_space:
        given = f"`--env` {options.env!r} takes" if options.env else "`--action-space` says"
        raise InputError(
            f"{given} actions of {spaces[1]}, but those of {str(path)!r} are "
            f"{module.action_space}. Give the environment that it was trained in, or leave the "
            "spaces out: a zip says its own."
        )
    policy = policy_of(
        module,
        spaces[0],
        normalise=_statistics(normalisation),
        clip=normalisation.clip if normalisation else None,
    )
    # A file may be of rewards alone: then nothing of the policy is by it.
    _check_finite(policy, str(path))
    normalised_by = None if place is None or normalisation is None else portable(place)
    return ForeignPolicy(
        portable(path), _SB3, policy, module, spaces, options, normalisation, normalised_by, path
    )


def _of_module(spec: ModuleSpec, options: ForeignOptions) -> ForeignPolicy:
    spaces = _spaces(options)
    module = make_module(spec, *(spaces or (None, None)))
    if spaces is None:
        raise InputError(
            f"Of {str(spec)!r} the spaces aren't known: give `--env`, or `--observation-space` and "
            "`--action-space`."
        )
    if options.normalise not in (None, NONE):
        raise InputError(
            "`--normalise` is for zips of Stable-Baselines3. Let the factory return "
            "`policy_of(module, ..., normalise=(mean, std))`."
        )
    policy = module if isinstance(module, DeployablePolicy) else policy_of(module, *spaces)
    _check_finite(policy, str(spec))
    if policy.interface.noise is not None:
        raise InputError(
            f"{str(spec)!r} makes a policy that draws its actions: return the greedy one, and "
            "write this one from Python, by `rayprune.deploy.export_policy`."
        )
    source = Path(spec.source)
    return ForeignPolicy(
        _told(spec),
        _TORCH,
        policy.eval(),
        module,
        spaces,
        options,
        file=spec.weights or (source if source.is_file() else None),
    )


def _check_finite(policy: DeployablePolicy, place: str) -> None:
    """Refuse a policy whose training has diverged: nothing could be proven of it.

    Raises:
        InputError: says which weights.
    """
    network = policy.network
    odd = [name for name, held in network.named_parameters() if not bool(held.isfinite().all())]
    # A buffer may be infinite on purpose, such as what masks attention.
    odd += [name for name, held in network.named_buffers() if bool(held.isnan().any())]
    if odd:
        raise InputError(
            f"{place!r} has weights that are NaN or infinite, in {shown(odd)}: its training "
            "diverged. Give an earlier one."
        )


def _told(spec: ModuleSpec) -> str:
    """Return what a file may call a module's place: no folder of this machine is in it."""
    weights = None if spec.weights is None else Path(portable(spec.weights))
    return str(spec._replace(source=portable(Path(spec.source)), weights=weights))


def _statistics_of(path: Path, given: str | None) -> Path | None:
    if given == NONE:
        return None
    return beside(path) if given is None else Path(given)


def _statistics(held: Normalisation | None) -> Any:
    return None if held is None else held.statistics


def _spaces(options: ForeignOptions) -> tuple[Space, Space] | None:
    """Return the spaces that are given; of an environment its own."""
    given = {
        "--observation-space": options.observation_space,
        "--action-space": options.action_space,
    }
    if options.env is not None:
        if any(given.values()):
            raise InputError(
                "`--env` has its own spaces: leave `--observation-space` and `--action-space` out."
            )
        with made(options.env, options.env_config) as env:
            return env.observation_space, env.action_space
    if not any(given.values()):
        return None
    if not all(given.values()):
        raise InputError("Give both `--observation-space` and `--action-space`, or `--env`.")
    observation, action = (space_of(str(text), option) for option, text in given.items())
    return observation, action
