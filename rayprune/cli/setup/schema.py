"""``rayprune schema``: the JSON Schema of the YAML, by which editors complete and check it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rayprune.cli.options import Debug, load_rllib, person
from rayprune.errors import InputError, StorageError
from rayprune.presets import FOLDER
from rayprune.tracking.record import write_atomic

FILE: Final = "schema.json"


def schema(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there; default: to standard output."),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Make it anew, of what is installed here; needs RLlib."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; it always is one.")
    ] = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Print the JSON Schema of the YAML: every key with its type, default and meaning.

    Editors that read YAML (VS Code with its extension, Neovim, JetBrains) complete and check a file
    whose first lines have `# yaml-language-server: $schema=FILE`, as all presets do.

    Example: rayprune schema --out rayprune.schema.json
    """
    text = fresh_text() if fresh else _shipped()
    if out is None:
        if not as_json:
            typer.echo(text, nl=False)
        held: dict[str, Any] = json.loads(text)
        return held
    if out.is_dir() or not out.parent.is_dir():
        raise StorageError(f"{str(out)!r} can't be a file: give `--out` in a folder that exists.")
    write_atomic(out, text)
    if not as_json:
        person().print(
            f"Schema         {out}\nNext           put this into your YAML's first lines:\n"
            f"               # yaml-language-server: $schema={out}",
            markup=False,
        )
    return {"out": str(out)}


def schema_file() -> Path | None:
    """Return where the schema lies that is shipped beside the presets; None if it isn't there."""
    package = Path(__file__).parents[2]
    places = (package.parent / FOLDER / FILE, package / FOLDER / FILE)
    return next((place for place in places if place.is_file()), None)


def fresh_text() -> str:
    """Return the schema's JSON, made of what is installed here."""
    load_rllib()
    from rayprune.cli.setup.yaml_schema import yaml_schema

    return json.dumps(yaml_schema(_rllib_keywords()), indent=1) + "\n"


def _rllib_keywords() -> Mapping[str, set[str]]:
    """Return the keywords of each method of RLlib's configs that a YAML may call."""
    from rayprune.rllib.experiment.rllib_checks import keywords_of_all

    return keywords_of_all()


def _shipped() -> str:
    place = schema_file()
    if place is None:
        raise InputError("The schema isn't among rayprune's files: make it with `--fresh`.")
    return place.read_text(encoding="utf-8")
