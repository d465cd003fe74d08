"""What the golden nets share: comparing with a file, and digests of tensors and of states."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
WRITES = os.environ.get("RAYPRUNE_GOLDEN_WRITE") == "1"
EXACT = os.environ.get("RAYPRUNE_GOLDEN_BITS") == "1"
BITS = "bits"
"""Under this key stands what is only compared with ``RAYPRUNE_GOLDEN_BITS=1``."""
TOLERANCE = 1e-5
SHOWN = 40


def check(name: str, value: Any) -> None:
    """Compare a value with the golden file of that name; write the file if that is asked for.

    Args:
        name: of a file beside this one; of JSON if it ends so, else of text.
        value: what JSON can hold, or a text.
    """
    path = HERE / name
    is_json = name.endswith(".json")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n" if is_json else value
    if WRITES:
        path.write_text(text, encoding="utf-8")
    held = path.read_text(encoding="utf-8")
    lines = _of_json(json.loads(held), json.loads(text)) if is_json else _of_text(held, text)
    if lines:
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        told = "\n".join([*lines[:SHOWN], *more])
        raise AssertionError(f"{len(lines)} differences to tests/golden/{name}:\n{told}")


def _of_text(held: str, found: str) -> list[str]:
    return list(
        difflib.unified_diff(held.splitlines(), found.splitlines(), "golden", "now", lineterm="")
    )


def _of_json(held: Any, found: Any, path: str = "") -> list[str]:
    """Return a line for each place where two values differ."""
    if isinstance(held, dict) and isinstance(found, dict):
        lines = []
        for key in dict.fromkeys([*held, *found]):
            place = f"{path}/{key}"
            if key == BITS and not EXACT:
                continue
            if key not in found:
                lines.append(f"{place}: was {_short(held[key])}, is no more")
            elif key not in held:
                lines.append(f"{place}: is new, {_short(found[key])}")
            else:
                lines += _of_json(held[key], found[key], place)
        if not lines and BITS not in held and list(held) != list(found):
            lines.append(f"{path}: the order was {list(held)}, is {list(found)}")
        return lines
    if isinstance(held, list) and isinstance(found, list):
        return _of_lists(held, found, path)
    return [] if _same(held, found) else [f"{path}: was {_short(held)}, is {_short(found)}"]


def _of_lists(held: list[Any], found: list[Any], path: str) -> list[str]:
    if len(held) == len(found):
        pairs = enumerate(zip(held, found, strict=True))
        return [line for i, pair in pairs for line in _of_json(*pair, f"{path}/{i}")]
    before, after = ([json.dumps(item) for item in items] for items in (held, found))
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    return [f"{path}: {_short(line)}" for line in changes]


def _same(held: Any, found: Any) -> bool:
    numbers = (int, float)
    if isinstance(held, float) and isinstance(found, numbers) and not isinstance(found, bool):
        return math.isclose(held, found, rel_tol=TOLERANCE, abs_tol=1e-12)
    return type(held) is type(found) and bool(held == found)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def digest(*parts: Any) -> str:
    """Return the beginning of the SHA-256 of arrays, tensors or texts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else _array(part).tobytes())
    return found.hexdigest()[:16]


def digest_of_masks(masks: Mapping[str, Any]) -> str:
    """Return one digest of all masks, names included."""
    return digest(*(part for name in sorted(masks) for part in (name, masks[name])))


def described(value: Any) -> Any:
    """Return a state as JSON: whole numbers and masks by digest, floats by their size."""
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = _array(value)
        told = f"{array.dtype}{list(array.shape)}"
        if array.dtype.kind == "f":
            return {told: float(np.abs(array.astype(np.float64)).sum())}
        return f"{told} {digest(array)}"
    if isinstance(value, (bytes, bytearray)):
        return f"bytes {digest(np.frombuffer(value, np.uint8))}"
    if isinstance(value, (set, frozenset)):
        return described(sorted(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [described(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def bits(value: Any) -> str:
    """Return a digest of all bits of a state."""
    return digest(*_leaves(value))


def _leaves(value: Any, path: str = "") -> Iterable[Any]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _leaves(value[key], f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        yield path
        yield value
    else:
        yield f"{path}={value!r}"


def key_paths(value: Any, path: str = "") -> list[str]:
    """Return the paths of all keys, in their order, with the kind of what lies there."""
    if isinstance(value, Mapping):
        if value:
            return [line for k, v in value.items() for line in key_paths(v, f"{path}/{k}")]
        return [f"{path}: {{}}"]
    if isinstance(value, (list, tuple)):
        items = dict.fromkeys(line for item in value for line in key_paths(item, f"{path}[]"))
        return list(items) or [f"{path}: []"]
    kind = type(value).__name__
    return [f"{path}: {'number' if kind in ('int', 'float') else kind}"]


def _array(value: Any) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return np.ascontiguousarray(array)
