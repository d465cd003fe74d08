"""Files that know what they are: hashes, schemas, versions, certificates beside them."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.verify import verify
from rayprune.deploy.formats import FORMATS, format_named, open_artifact
from rayprune.deploy.policy import metadata
from rayprune.deploy.policy.file_hash import seal
from rayprune.deploy.policy.metadata import OtherVersionWarning
from rayprune.errors import InputError, StorageError
from tests.doubles import policies
from tests.unit.deploy.export.test_export import seen

KINDS = sorted(FORMATS)


def export(kind: str, folder: Path, **options: object) -> Path:
    policy, path = policies.mlp(), folder / f"policy{format_named(kind).suffix}"
    export_policy(policy, path, kind, recorded=seen(policy), about={"env": "x"}, **options)
    return path


@functools.cache
def contents(kind: str) -> dict[str, bytes]:
    """Return the files of one export: most tests only read them, or change what they have read."""
    with tempfile.TemporaryDirectory() as folder:
        export(kind, Path(folder))
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def exported(kind: str, folder: Path) -> Path:
    for name, content in contents(kind).items():
        (folder / name).write_bytes(content)
    return folder / f"policy{format_named(kind).suffix}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_of_a_weight_is_noticed_on_opening(kind, tmp_path):
    path = exported(kind, tmp_path)
    assert verify(path)["whole"]
    open_artifact(path)
    content = bytearray(path.read_bytes())
    weight = policies.mlp().network.layers[2].weight[0, 0].detach().numpy()
    text = f"{float(weight):.9g}".encode()
    place = content.find(text if kind == "c" else weight.tobytes())
    assert place > 0
    content[place + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="isn't what was exported: its content doesn't have"):
        open_artifact(path)
    told = verify(path)
    assert (told["whole"], told["about"], len(told["faults"])) == (False, None, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_a_file_counts(kind, tmp_path):
    path = exported(kind, tmp_path)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=50).tolist():
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(changed)
        assert not verify(path)["whole"]
    path.write_bytes(whole[: len(whole) // 2])
    assert not verify(path)["whole"]
    with pytest.raises(InputError):
        open_artifact(path)


@pytest.mark.parametrize("kind", KINDS)
def test_another_schema_is_refused_and_another_version_is_told(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "rayprune_version", lambda: "0.0.7")
    path = export(kind, tmp_path)
    monkeypatch.undo()
    with pytest.warns(OtherVersionWarning, match=r"exported by rayprune 0\.0\.7, and this is"):
        open_artifact(path)
    told = verify(path)
    assert (told["whole"], told["exported_by"]) == (True, "0.0.7")
    assert "0.0.7" in told["notes"][0]
    monkeypatch.setattr(metadata, "SCHEMA", 3)
    with pytest.raises(
        InputError, match=r"metadata of schema 1, which rayprune 0\.0\.7 wrote; this"
    ):
        open_artifact(path)


def test_a_file_without_a_hash_is_refused(tmp_path):
    path = exported("c", tmp_path)
    path.write_text(re.sub(r"rayprune-sha256:\w+", "", path.read_text()))
    with pytest.raises(InputError, match="holds no hash of its content"):
        open_artifact(path)


def test_a_certificate_of_another_file_and_a_changed_header_are_noticed(tmp_path):
    path = exported("c", tmp_path)
    assert verify(path)["certificate"] == "policy.c.json"
    header = path.with_suffix(".h")
    header.write_text(header.read_text() + "\n")
    assert verify(path)["faults"] == [
        "'policy.h', which belongs to it, has changed since it was exported."
    ]
    header.unlink()
    assert "isn't there" in verify(path)["faults"][0]
    certificate = tmp_path / "policy.c.json"
    certificate.write_text(json.dumps({"sha256": 64 * "0"}))
    assert verify(path)["faults"] == [
        "The certificate 'policy.c.json' is of another file: it names another SHA-256."
    ]
    certificate.write_text("[]")
    assert verify(path)["faults"] == ["The certificate 'policy.c.json' can't be read."]
    certificate.unlink()
    told = verify(path)
    assert told["whole"]
    assert "isn't beside it" in told["notes"][0]


def test_what_is_no_exported_file_cannot_be_verified(tmp_path):
    other, foreign = tmp_path / "a.txt", tmp_path / "a.c"
    other.write_text("")
    foreign.write_text("int main(void) { return 0; }\n")
    for path, why in (
        (other, "must end in one of"),
        (foreign, "wasn't exported by rayprune"),
        (tmp_path / "none.c", "There is no file"),
    ):
        with pytest.raises(InputError, match=why):
            verify(path)


def test_a_file_is_sealed_anew_after_it_was_changed_on_purpose(tmp_path):
    path = exported("onnx", tmp_path)
    before = verify(path)["sha256"]
    model = onnx.load(path)
    model.producer_name = "somebody"
    onnx.save(model, path)
    assert not verify(path)["whole"]
    seal(path)
    open_artifact(path)
    told = verify(path)
    assert told["sha256"] != before
    assert told["faults"] == [
        "The certificate 'policy.onnx.json' is of another file: it names another SHA-256."
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_and_no_certificate_tells_where_it_was_made(kind, tmp_path):
    policy, path = policies.recurrent(), tmp_path / f"policy{format_named(kind).suffix}"
    export_policy(policy, path, kind, recorded=seen(policy), about={})
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for place in (str(tmp_path), str(Path(torch.__file__).parent), str(Path.cwd()), "/home/"):
            assert place.encode() not in content, file.name


def test_an_onnx_file_names_its_inputs_elements_and_its_batch_and_little_else(tmp_path):
    policy, path = policies.mlp(), tmp_path / "policy.onnx"
    known = {"obs": {"names": ["x", "v", "angle", "w"], "low": -1.0, "high": [1.0, 2.0, None, 3.0]}}
    about = {"inputs": known}
    export_policy(policy, path, "onnx", recorded=seen(policy), about=about)
    model = onnx.load(path)
    (given,) = model.graph.input
    told = {prop.key: json.loads(prop.value) for prop in given.metadata_props}
    assert told["rayprune.names"] == ["x", "v", "angle", "w"]
    assert (told["rayprune.low"], told["rayprune.high"]) == (-1.0, [1.0, 2.0, None, 3.0])
    np.testing.assert_allclose(told["rayprune.mean"], seen(policy)[0].mean(axis=0), rtol=1e-5)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    weights = sum(x.numel() for x in policy.parameters()) * 4
    assert path.stat().st_size < weights + 3000
    assert open_artifact(path).metadata.about["inputs"]["obs"]["names"] == told["rayprune.names"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(kind, tmp_path):
    policy, name = policies.mlp(), f"policy{format_named(kind).suffix}"
    (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    for place, why in (
        (tmp_path / name, "is a folder"),
        (tmp_path / "none" / name, "it isn't there. Make it"),
        (tmp_path / "file" / name, "it is a file, no folder"),
        (Path("/proc") / name, "can't be written: "),
    ):
        with pytest.raises(StorageError, match=why):
            export_policy(policy, place, kind, recorded=seen(policy), about={}, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_what_was_there(kind, tmp_path, monkeypatch):
    path = exported(kind, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name.endswith(".json"):
            write(self, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="can't be written: No space left on device"):
        export(kind, tmp_path, overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert verify(path)["whole"]
