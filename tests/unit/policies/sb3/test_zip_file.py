"""A zip of Stable-Baselines3 is read without running what it holds."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from contextlib import suppress

import cloudpickle
import pytest
import torch

from rayprune.errors import CheckpointError, InputError
from rayprune.policies import load_sb3
from rayprune.policies.sb3.normalisation import load_normalisation
from rayprune.policies.sb3.unpickling import class_of, load_inert, stands_for


class Touch:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class OwnActivation(torch.nn.Tanh):
    """Code of a user's own."""


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "policy.zip"
    model("PPO", "CartPole-v1").save(path)
    return path


def with_parts(path, change):
    """Rewrite a zip's parts, bytes by name."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    change(held)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)


def with_raw_setting(path, key, value):
    """Replace one of a zip's settings."""

    def change(held):
        data = json.loads(held["data"])
        held["data"] = json.dumps({**data, key: value}).encode()

    with_parts(path, change)


def with_setting(path, key, value):
    """Replace one of a zip's pickled settings."""
    text = base64.b64encode(cloudpickle.dumps(value)).decode()
    with_raw_setting(path, key, {":serialized:": text})


@pytest.mark.parametrize("key", ["policy_kwargs", "observation_space", "lr_schedule"])
def test_no_code_that_a_zip_names_is_run(saved, tmp_path, key):
    with_setting(saved, key, {"net_arch": Touch(tmp_path / "touched")})
    with suppress(InputError):
        load_sb3(saved)
    assert not (tmp_path / "touched").exists()


def test_a_class_of_ones_own_is_refused_unless_it_is_trusted(saved):
    with_setting(saved, "policy_kwargs", {"activation_fn": OwnActivation})
    with pytest.raises(InputError, match=r"activation_fn` in .*code of its author's own.*--trust"):
        load_sb3(saved)
    policy = load_sb3(saved, trust=True)
    assert any(type(module).__name__ == "OwnActivation" for module in policy.modules())


def test_statistics_that_name_code_are_not_run(tmp_path):
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    with pytest.raises(CheckpointError, match=r"isn't what `VecNormalize\.save` writes"):
        load_normalisation(path)
    assert not (tmp_path / "touched").exists()


def test_a_name_within_an_allowed_module_leads_nowhere_else():
    """Protocol 4 follows dots: ``policies.th.hub.load`` must not be found."""
    module, name = "stable_baselines3.common.policies", "th.hub.load"
    content = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)
    )
    found = load_inert(content + b"\x93.", "data")
    assert stands_for(found) == f"{module}.{name}"
    assert class_of(found) is None


def test_weights_that_name_code_are_not_run(saved, tmp_path):
    content = pickle.dumps(Touch(tmp_path / "touched"), protocol=2)
    with_parts(saved, lambda held: held.update({"policy.pth": content}))
    with pytest.raises(CheckpointError, match=r"`policy\.pth` in .* Nothing of it was run"):
        load_sb3(saved)
    assert not (tmp_path / "touched").exists()


def test_a_class_of_ones_own_is_found_however_deep(saved):
    kwargs = {"features_extractor_kwargs": {"of": [OwnActivation]}}
    with_setting(saved, "policy_kwargs", kwargs)
    with pytest.raises(InputError, match=r"features_extractor_kwargs\.of` in .*--trust"):
        load_sb3(saved)


def test_code_that_is_trusted_and_not_here_is_told(saved, monkeypatch):
    with_setting(saved, "policy_kwargs", {"activation_fn": OwnActivation})
    monkeypatch.setattr(f"{__name__}.OwnActivation", None)
    monkeypatch.delattr(f"{__name__}.OwnActivation")
    with pytest.raises(CheckpointError, match=r"can't be loaded with `--trust`: .*PYTHONPATH"):
        load_sb3(saved, trust=True)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("policy_kwargs", [1], r"`policy_kwargs` in .* must be a dict, but is \[1\]"),
        ("policy_class", "MlpPolicy", r"`policy_class` in .* must be a class, but is 'MlpPolicy'"),
        ("policy_kwargs", {":serialized:": "AAA"}, r"`policy_kwargs` in .* can't be read"),
        ("observation_space", {":serialized:": 5}, r"`observation_space` in .* can't be read"),
    ],
)
def test_settings_of_another_kind_are_told_by_name(saved, key, value, told):
    with_raw_setting(saved, key, value)
    with pytest.raises(CheckpointError, match=told):
        load_sb3(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.update({"policy.pth": held["policy.pth"][:-500]}),
        lambda held: held.update({"policy.pth": b""}),
        lambda held: held.update({"data": b"[]"}),
        lambda held: held.pop("policy.pth"),
    ],
)
def test_a_broken_zip_is_told(saved, change):
    with_parts(saved, change)
    with pytest.raises(CheckpointError, match=r"Save the model once\s+more"):
        load_sb3(saved)
    saved.write_bytes(saved.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="isn't what Stable-Baselines3's"):
        load_sb3(saved)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"no zip", "isn't what Stable-Baselines3's `model.save` writes"), (None, "data")],
)
def test_what_is_no_such_zip_is_told(tmp_path, content, told):
    pytest.importorskip("stable_baselines3")
    path = tmp_path / "policy.zip"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", "")
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        load_sb3(path)
