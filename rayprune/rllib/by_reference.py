"""Subclasses made on demand that pickle by reference to their name.

A mixin is made concrete for each class of RLlib's or of a user's. Pickled by value, such a class
would freeze its code in every checkpoint; its name says what to make it of in a fresh process.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, Generic, TypeVar, cast

_SEPARATOR: Final = "__of__"
_DOT: Final = "__dot__"

Mixin = TypeVar("Mixin")


class Subclasses(Generic[Mixin]):
    """The subclasses of one mixin. Its module hands `named` out as its ``__getattr__``.

    Args:
        mixin: goes before the base.
        prefix: of their names.
        module: the module that a pickle names, ``__name__`` there.
    """

    def __init__(self, mixin: type[Mixin], prefix: str, module: str) -> None:
        self._mixin = mixin
        self._prefix = prefix
        self._module = module
        self._made: dict[str, type[Mixin]] = {}

    def of(self, base: type) -> type[Mixin]:
        """Return the subclass of a base; a class that has the mixin is returned as it is.

        Bases that can't be imported by name (defined in ``__main__`` or in a function) are left
        for cloudpickle to carry by value.
        """
        if issubclass(base, self._mixin):
            return base
        if importable(base):
            return self.named(_name_of(self._prefix, base))
        return self._subclass(f"{self._prefix}{base.__name__}", base, base.__module__)

    def named(self, name: str) -> type[Mixin]:
        """Return the subclass of a name, made where there is none yet.

        Raises:
            AttributeError: it is no name of theirs.
        """
        if _SEPARATOR not in name:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
        if name not in self._made:
            self._made[name] = self._subclass(name, _base_of(self._prefix, name), self._module)
        return self._made[name]

    def _subclass(self, name: str, base: type, module: str) -> type[Mixin]:
        made = type(name, (self._mixin, base), {"__module__": module})
        return cast("type[Mixin]", made)


def importable(cls: type) -> bool:
    """Return whether a fresh process finds a class by its module and name.

    >>> importable(int), importable(type("Local", (), {"__module__": "__main__"}))
    (True, False)
    """
    if cls.__module__ == "__main__" or cls.__qualname__ != cls.__name__:
        return False
    try:
        return getattr(importlib.import_module(cls.__module__), cls.__name__, None) is cls
    except ImportError:
        return False


def _name_of(prefix: str, base: type) -> str:
    return f"{prefix}{base.__name__}{_SEPARATOR}{base.__module__.replace('.', _DOT)}"


def _base_of(prefix: str, name: str) -> Any:
    # The base may be such a class itself.
    class_name, _, module_name = name.removeprefix(prefix).rpartition(_SEPARATOR)
    return getattr(importlib.import_module(module_name.replace(_DOT, ".")), class_name)
