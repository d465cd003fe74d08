"""What is handed over: the policy's file with all that belongs to it, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.policy.file_hash import file_sha256
from rayprune.errors import InputError
from rayprune.fit.choice import CERTIFICATE
from rayprune.fit.fit_spec import Fit
from rayprune.fit.model_card import model_card
from rayprune.rllib.commands.certify import PAGE_FILE, RESULT_FILE
from rayprune.tracking.record import write_atomic

ARTIFACT: Final = "artifact"
CARD_FILE: Final = "model_card.md"


def hand_over(fit: Fit, out: Path, result: Mapping[str, Any]) -> dict[str, str]:
    """Put the chosen candidate's files into ``out/artifact``; each whole or not at all.

    Args:
        fit: what was asked for.
        out: the fit's directory.
        result: the content of fit.json.

    Returns:
        What is there: ``file``, ``certificate``, ``certificate_page`` and ``model_card``, relative
        to ``out``.

    Raises:
        InputError: what lies there isn't what was measured and certified.
    """
    chosen = result["chosen"]
    _require_same(out, chosen)
    source, place = (out / chosen["artifact"]).parent, out / ARTIFACT
    place.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file():
            write_atomic(place / path.name, path.read_bytes())
    for name in (RESULT_FILE, PAGE_FILE):
        write_atomic(place / name, (source / CERTIFICATE / name).read_bytes())
    write_atomic(place / CARD_FILE, model_card(fit, result))
    return {
        "file": f"{ARTIFACT}/{Path(chosen['artifact']).name}",
        "certificate": f"{ARTIFACT}/{RESULT_FILE}",
        "certificate_page": f"{ARTIFACT}/{PAGE_FILE}",
        "model_card": f"{ARTIFACT}/{CARD_FILE}",
    }


def _require_same(out: Path, chosen: Mapping[str, Any]) -> None:
    """Refuse to hand over another file than the one that was judged, perhaps days ago."""
    file = out / chosen["artifact"]
    fault = None if file.is_file() else "is gone"
    if fault is None and file_sha256(file) != chosen["sha256"]:
        fault = "has changed"
    if fault is not None:
        raise InputError(
            f"{str(file)!r} {fault} since it was measured and certified. Put it back (SHA-256 "
            f"{chosen['sha256']}); or delete the line of {chosen['candidate']!r} with the event "
            f"'judged' from {str(out / 'fit.jsonl')!r}, and `--resume` judges it anew."
        )
