"""The archive of the leaderboard's policies: whole, honest about what is missing, reproducible."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.cells import cell_of, cells
from rayprune.tracking.record import to_json
from tests.system.test_leaderboard import row


@pytest.fixture
def known(tmp_path: Path) -> list[dict[str, Any]]:
    """Rows of two policies whose files are there, and of a random one, which has none."""
    found = []
    for cell in cells(["hopper"], ["dense", "cubic"], [0.9], [0]):
        made = row(cell, 200.0)
        made["score"]["episodes"] = 50
        if cell.arm != "random":
            folder = tmp_path / "runs" / cell.name
            folder.mkdir(parents=True)
            source = f"/* {cell.name} */\n"
            (folder / "policy.c").write_text(source, encoding="utf-8")
            (folder / "policy.h").write_text("#pragma once\n", encoding="utf-8")
            digest = hashlib.sha256(source.encode()).hexdigest()
            made["file"] = {"sha256": digest, "weights_sha256": "w"}
        found.append(made)
    return found


def release(known: list[dict[str, Any]], place: Path) -> int:
    (place / "results").mkdir(exist_ok=True)
    (place / "results" / "hopper.jsonl").write_text("".join(to_json(x) + "\n" for x in known))
    folders = ["--results", str(place / "results"), "--runs", str(place / "runs")]
    return main(["release", *folders, "--out", str(place / "out" / "policies.zip")])


def test_the_archive_holds_each_policy_and_what_its_row_says(known, tmp_path, capsys):
    assert release(known, tmp_path) == 0
    archive = zipfile.ZipFile(tmp_path / "out" / "policies.zip")
    told = json.loads(archive.read("policies.json"))
    scored = [x for x in known if "file" in x]
    assert [x["file"] for x in told] == [f"{cell_of(x).name}/policy.c" for x in scored]
    for entry in told:
        assert hashlib.sha256(archive.read(entry["file"])).hexdigest() == entry["sha256"]
        assert entry["file"].replace(".c", ".h") in archive.namelist()
    assert "2 policies" in capsys.readouterr().out


def test_a_file_that_is_not_the_rows_own_is_left_out_and_told(known, tmp_path, capsys):
    dense = next(x for x in known if x["arm"] == "dense")
    (tmp_path / "runs" / cell_of(dense).name / "policy.c").write_text("other")
    assert release(known, tmp_path) == 0
    told = zipfile.ZipFile(tmp_path / "out" / "policies.zip").read("policies.json")
    assert [x["arm"] for x in json.loads(told)] == ["cubic"]
    assert "1 rows have no file in this folder, or another one" in capsys.readouterr().err


def test_the_same_policies_are_the_same_bytes(known, tmp_path):
    release(known, tmp_path)
    first = (tmp_path / "out" / "policies.zip").read_bytes()
    for file in (tmp_path / "runs").rglob("policy.c"):
        file.touch()
    release(known, tmp_path)
    assert (tmp_path / "out" / "policies.zip").read_bytes() == first


def test_where_no_file_is_a_rows_the_way_out_is_told(known, tmp_path, capsys):
    for file in (tmp_path / "runs").rglob("policy.c"):
        file.unlink()
    assert release(known, tmp_path) == 1
    assert "nothing to release. Run cells first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
