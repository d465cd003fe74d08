"""A command line that calls stand-ins for the adaptor, so that these tests need no Ray."""

import io
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

from rayprune.cli.app import run
from rayprune.config import load_experiment
from tests.doubles.made_up.bench import made_up_bench
from tests.doubles.made_up.certificate import made_up_certificate
from tests.doubles.made_up.scan import made_up_scan

RETURNS = {"episodes": 20, "mean": 480.0, "iqm": 487.12, "ci95": [470.0, 500.0]}
SUMMARY = {
    "schema": 1,
    "name": "tiny",
    "seed": 3,
    "sparsity": {"prunable": 0.9, "all": 0.883},
    "parameters": {"total": 134_659, "nonzero": 14_012},
    "flops": {"dense": 267_000, "sparse": 27_000},
    "returns": {"validation": RETURNS, "test": RETURNS, "dense_test": {**RETURNS, "iqm": 499.5}},
    "checkpoint": "checkpoints/000200000",
}


class Answer(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Adaptor:
    """Notes what the command line asked for; answers, or raises ``error``."""

    def __init__(self):
        self.calls = []
        self.error = None

    def answer(self, name, result):
        def function(*arguments, **keywords):
            self.calls.append((name, arguments, keywords))
            if self.error is not None:
                raise self.error
            return result

        return function


def made_options(formats=("onnx", "torch"), **others):
    return types.SimpleNamespace(formats=formats, **others)


@pytest.fixture
def adaptor(monkeypatch):
    stand_in = Adaptor()
    functions = {
        "experiment.experiment_checks": {"load_checked": load_experiment},
        "training.train": {"run_training": stand_in.answer("train", SUMMARY)},
        "commands.evaluate": {
            "evaluate_checkpoint": stand_in.answer(
                "evaluate",
                {
                    "returns": SUMMARY["returns"],
                    "closeness": {"agreement": 0.98, "kl": 0.01, "states": 9000},
                },
            )
        },
        "commands.sensitivity": {
            "ScanOptions": types.SimpleNamespace,
            "scan_sensitivity": stand_in.answer("sensitivity", made_up_scan()),
        },
        "commands.bench": {
            "BenchOptions": made_options,
            "bench": stand_in.answer("bench", made_up_bench()),
        },
        "commands.bench_record": {"record_latency": stand_in.answer("record_latency", None)},
        "commands.certify": {
            "PAGE_FILE": "certificate.html",
            "CertifyOptions": types.SimpleNamespace,
            "certify": stand_in.answer("certify", made_up_certificate()),
        },
        "commands.prune": {"prune_checkpoint": stand_in.answer("prune", SUMMARY)},
    }
    for room in ("", ".commands", ".experiment", ".training"):
        name = f"rayprune.rllib{room}"
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, members in functions.items():
        module = types.ModuleType(f"rayprune.rllib.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_in


@pytest.fixture
def rayprune(adaptor, capsys):
    """Run a command line; return its exit code and what it printed where."""

    def command(*arguments):
        stdout = io.StringIO()
        code = run([str(argument) for argument in arguments], stdout)
        captured = capsys.readouterr()
        return Answer(code, stdout.getvalue() + captured.out, captured.err)

    return command


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("algorithm: PPO\nenv: CartPole-v1\npruning: {sparsity: 0.9}\n")
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    return path
