from pathlib import Path
from types import SimpleNamespace

import pytest

from rayprune.deploy.policy.file_hash import file_sha256
from rayprune.errors import InputError
from rayprune.fit import artifact


@pytest.fixture
def judged(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "model_card", lambda fit, result: "# a card\n")
    home = tmp_path / "candidates" / "8x8-dense"
    (home / "certificate").mkdir(parents=True)
    file = home / "policy.c"
    file.write_text("/* rayprune's */\n")
    for name in (artifact.RESULT_FILE, artifact.PAGE_FILE):
        (home / "certificate" / name).write_text("{}")
    chosen = {
        "candidate": "8x8-dense",
        "artifact": "candidates/8x8-dense/policy.c",
        "sha256": file_sha256(file),
    }
    return tmp_path, file, {"chosen": chosen}


def test_what_was_certified_is_handed_over_with_all_that_belongs_to_it(judged):
    out, file, result = judged
    told = artifact.hand_over(SimpleNamespace(), out, result)
    assert (out / told["file"]).read_bytes() == file.read_bytes()
    assert {Path(place).name for place in told.values()} == {
        path.name for path in (out / "artifact").iterdir()
    }


@pytest.mark.parametrize("fault", ["is gone", "has changed"])
def test_another_file_than_the_one_that_was_judged_is_not_handed_over(judged, fault):
    out, file, result = judged
    if fault == "is gone":
        file.unlink()
    else:
        file.write_text("/* rayprune's, exported again by hand */\n")
    with pytest.raises(InputError, match=f"{fault} since it was measured.*judges it anew"):
        artifact.hand_over(SimpleNamespace(), out, result)
    assert not (out / "artifact").exists()
