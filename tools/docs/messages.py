"""The page of all messages that refuse something or end a run, gathered from the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tools.docs.markdown import GENERATED, table

PACKAGE: Final = Path(__file__).parents[2] / "rayprune"

INTRODUCTION = """\
Every message of rayprune's own errors, gathered from the code: search this page for a few words
of yours. `…` stands for what differs: a name, a value, a path. Each names the field, what it must
be, what it is, and the way out; so the message is the cause. Where no error is named it is a
fault, told with all others in one `ConfigError`, or a note. [When a run
fails](../how-to/when-a-run-fails.md) tells the commonest at more length.

| error | what it means | exit code |
| --- | --- | --- |
| `ConfigError` | one or more faults of a file or a config, all told together | 2 |
| `InputError` | anything else that you can mend | 2 |
| `CheckpointError` | a checkpoint that is missing, broken or of another network | 2 |
| `ResourceError` | more CPUs or GPUs asked for than there are | 2 |
| `StorageError` | a folder or bucket that can't be written, or holds something already | 2 |
| `RunError` | the run went wrong although its input was right | 1 |
| `NonFiniteError` | a loss, a weight or a score became NaN or infinite | 1 |
| `EnvError` | the environment raised, or gave a reward that is no number | 1 |
| `InvariantError` | a promise was broken, such as a pruned weight that is not zero | 1 |
| `RequestError` | a request to `rayprune serve` that is answered with an error | |
"""

AREAS: Final[Mapping[str, str]] = {
    "config.py": "The file",
    "validation.py": "The file",
    "yaml12.py": "The file",
    "errors.py": "The file",
    "presets.py": "The file",
    "algorithms.py": "The file",
    "pruning/quantisation": "Quantisation",
    "pruning": "Pruning",
    "rllib/experiment": "RLlib's side of a file",
    "rllib/settings": "RLlib's side of a file",
    "rllib/algorithms": "RLlib's side of a file",
    "rllib/offline": "Offline data",
    "rllib/environments": "Environments",
    "rllib/connectors": "Environments",
    "rllib/sampling": "Environments",
    "envs": "Environments",
    "rllib/checkpoints": "Checkpoints",
    "rllib/evaluation": "Evaluating and comparing",
    "statistics": "Evaluating and comparing",
    "rllib/commands": "Commands on a policy",
    "rllib/export": "Exporting",
    "deploy/compaction": "Compaction",
    "deploy/targets": "Targets",
    "deploy": "Exporting",
    "rllib": "Training",
    "search": "Sweeps",
    "fit": "Fits",
    "serve": "Serving",
    "jobs": "Jobs and clusters",
    "storage": "Results and buckets",
    "tracking": "Tracking and reports",
    "cli": "The command line",
}
"""The longest that a file's path begins with -> its heading; the headings are in this order."""

OTHERS: Final = "Elsewhere"
ERRORS: Final = re.compile(
    r"(Config|Input|Checkpoint|Resource|Storage|Run|NonFinite|Env|Invariant|Request)Error"
)


def messages_page() -> str:
    """Return docs/reference/messages.md."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        area = _area(path.relative_to(PACKAGE).as_posix())
        for message, kind in messages_of(path.read_text(encoding="utf-8")):
            found.setdefault(area, {}).setdefault(message, kind)
    parts = [GENERATED, "", "# Messages", "", INTRODUCTION]
    for area in [*dict.fromkeys(AREAS.values()), OTHERS]:
        rows = [
            [message, f"`{kind}`" if kind else ""]
            for message, kind in sorted(found.get(area, {}).items())
        ]
        if rows:
            parts += [f"## {area}", "", table(["message", "error"], rows), ""]
    return "\n".join(parts)


def _area(path: str) -> str:
    fitting = [start for start in AREAS if path == start or path.startswith(f"{start}/")]
    return AREAS[max(fitting, key=len)] if fitting else OTHERS


def messages_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield the messages of a module, with the names of their errors.

    >>> list(messages_of('raise InputError(f"There is no {path!r}: give a checkpoint.")'))
    [('There is no …: give a checkpoint.', 'InputError')]
    >>> list(messages_of('def f(): yield f"`{field}` must be finite, but is {x}."'))
    [('`…` must be finite, but is ….', '')]
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if ERRORS.fullmatch(name) and node.args:
                for text in _texts(node.args[0]):
                    if _tells(text):
                        yield text, name
    for text in _strings(tree):
        if _is_fault(text):
            yield text, ""


def _strings(node: ast.AST) -> Iterator[str]:
    """Yield the strings in a tree, each as a whole; no docstrings, and nothing of an error's."""
    if isinstance(node, ast.Call) and ERRORS.fullmatch(getattr(node.func, "id", "")):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    text = _text(node) if isinstance(node, ast.expr) else None
    if text is not None:
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from _strings(child)


_REFUSES: Final = re.compile(
    r"\b(must|can't|cannot|can be given|is not|isn't|needs?|is missing|matches no|belongs|doesn't|"
    r"does nothing|asks for|there is no|fails|leaves)\b"
)


def _is_fault(text: str) -> bool:
    """Whether a string tells a fault of a config, which is raised with the others."""
    return "`" in text and _tells(text) and text[-1] in ".…" and bool(_REFUSES.search(text))


def _tells(text: str) -> bool:
    """Whether a text is a sentence of its own, not a piece of one."""
    return len(re.sub(r"[…`\W]", "", text)) > 12 and text.rstrip()[-1:] in ".:…"


def _texts(node: ast.expr) -> list[str]:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [text for element in node.elts for text in _texts(element)]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.ListComp):
        return _texts(node.elt)
    text = _text(node)
    return [] if text is None else [text]


def _text(node: ast.expr) -> str | None:
    """Return a string with ``…`` for what is put in; None for what is no string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        held = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
        return re.sub(r"…+", "…", "".join(held))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None and right is None else f"{left or '…'}{right or '…'}"
    return None
