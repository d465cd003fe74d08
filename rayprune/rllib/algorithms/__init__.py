"""What rayprune knows of RLlib's algorithms: one file each, and a default for all others.

An algorithm's line in `rayprune.algorithms` says where its file is.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor

from rayprune.algorithms import ALGORITHMS
from rayprune.rllib.algorithms.family import AlgorithmFamily

_DEFAULT: Final = AlgorithmFamily()
_known: Final[dict[str, AlgorithmFamily]] = {}


def families() -> list[AlgorithmFamily]:
    """Return the families that are registered, in their order."""
    if len(_known) != len(ALGORITHMS):
        _known.update({name: _load(name) for name in ALGORITHMS if name not in _known})
    return list(_known.values())


def family_named(name: str) -> AlgorithmFamily:
    """Return the family of an algorithm by the name that a YAML gives; the default for another."""
    families()
    return _known.get(name, _DEFAULT)


def family_of(config: AlgorithmConfig) -> AlgorithmFamily:
    """Return the family of an algorithm by its config, or by what that was derived from."""
    return _nearest({family: family.known_config for family in families()}, config)


def family_of_module(module: Any) -> AlgorithmFamily:
    """Return the family that knows how an RLModule is run; a user's own may have the default's.

    Args:
        module: not wrapped in DDP.
    """
    return _nearest({family: family.module_class for family in families()}, module)


def learned_attributes() -> tuple[str, ...]:
    """Return what Learners of any family learn and RLlib's checkpoints leave out.

    Of all families, because a Learner of one may serve in another's algorithm.
    """
    return tuple(dict.fromkeys(name for f in families() for name in f.learned_attributes))


def moment_attributes() -> tuple[str, ...]:
    """Return the moments that Learners of any family remember; see `learned_attributes`."""
    return tuple(dict.fromkeys(name for f in families() for name in f.moment_attributes))


def teacher_kl(
    student: Any,
    teacher: Any,
    outputs: Mapping[str, Any],
    batch: dict[str, Any],
    temperature: float,
) -> Tensor | None:
    """Return `AlgorithmFamily.teacher_kl` by the module's own family, or by what knows its outputs.

    A user's own module may put out what RLlib's of another family does.
    """
    for family in (family_of_module(student), *reversed(families())):
        kl = family.teacher_kl(student, teacher, outputs, batch, temperature)
        if kl is not None:
            return kl
    return None


def _nearest(classes: dict[AlgorithmFamily, type | None], instance: object) -> AlgorithmFamily:
    fitting = {
        f: cls for f, cls in classes.items() if cls is not None and isinstance(instance, cls)
    }
    return max(fitting, key=lambda family: len(fitting[family].__mro__), default=_DEFAULT)


def _load(name: str) -> AlgorithmFamily:
    given = ALGORITHMS[name].family
    if isinstance(given, str):
        module, _, attribute = given.partition(":")
        given = getattr(importlib.import_module(module), attribute)
    family: AlgorithmFamily = given(name)
    return family
