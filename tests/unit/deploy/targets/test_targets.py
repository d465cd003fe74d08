"""Targets by name, what they refuse, and the host's own figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rayprune.deploy import export_policy
from rayprune.deploy.targets import TARGETS, target_of
from rayprune.deploy.targets.base import Latency, Measurement, Target
from rayprune.errors import InputError
from tests.doubles import policies


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "policy.c"
    recorded = [np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)]
    export_policy(policies.mlp(8), file, "c", recorded=recorded, about={})
    return file


class Bare(Target):
    """A target that measures nothing."""

    reports, line = frozenset(), "nothing"

    def missing(self, kind=None):
        return ("gcc-of-nowhere", "qemu-of-nowhere")

    def _measured(self, artifact):
        return Measurement(target=self.name)


def test_an_unknown_target_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"but is 'hots'\. Did you mean 'host'\?"):
        target_of("hots")


def test_each_target_says_what_it_is_and_takes_a_format():
    for name in TARGETS:
        target = target_of("command: true" if name == "command" else name)
        assert target.core.rstrip(":") == name
        assert target.format == "c"
        assert target.line
        assert target.reports <= set(Measurement.__dataclass_fields__)


def test_missing_tools_are_named_with_their_packages(exported):
    with pytest.raises(InputError, match="apt-get install gcc-of-nowhere qemu-of-nowhere"):
        Bare("bare").measure(exported)


def test_a_file_of_another_format_is_refused_with_what_to_export(tmp_path):
    (tmp_path / "policy.onnx").write_bytes(b"rayprune")
    with pytest.raises(InputError, match="Export the policy with `--format c`"):
        Bare("bare").measure(tmp_path / "policy.onnx")


def test_a_measurement_becomes_json():
    told = Measurement(target="host", latency_us=Latency(1.5, 2.0), tools={"cc": "12"}).to_dict()
    assert json.loads(json.dumps(told))["latency_us"] == {"p50": 1.5, "p99": 2.0}
    assert told["instructions"] is None


def test_the_host_measures_time_memory_and_the_file(exported):
    found = target_of("host").measure(exported)
    # The compiled file, not its text, where a tool tells its sections.
    if shutil.which("size"):
        assert 0 < found.flash_bytes < exported.stat().st_size
        assert "compiled" in found.notes[0]
    assert found.self_test is True
    assert found.latency_us is not None
    assert 0 < found.latency_us.p50 <= found.latency_us.p99
    assert found.ram_bytes is None or found.ram_bytes > 0
    assert {"cpu"} < set(found.tools)
