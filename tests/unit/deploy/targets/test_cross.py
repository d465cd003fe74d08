"""Other machines: counted exactly, sized from linked programs, tested where they run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayprune.deploy import export_policy
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.targets import TARGETS, target_of
from rayprune.deploy.targets.base import Measurement
from rayprune.deploy.targets.case import usual_inputs
from rayprune.deploy.targets.cortex_m import CortexMTarget
from rayprune.deploy.targets.cross import Counts, CrossTarget, Sizes
from rayprune.errors import InputError, RunError
from tests.doubles import policies

CROSS = [name for name in TARGETS if name not in ("host", "command")]
QUICK = ["cortex-m4"]
FLOATS = Interface(
    observations=(Port("obs", (2,)),),
    action=Port("action", (), "int64"),
    dist_inputs=Port("dist_inputs", (2,)),
)
NOPS = """#include <stdint.h>
int policy_act(const float *obs, int32_t *action, float *dist_inputs) {{
  (void)obs, (void)action, (void)dist_inputs;
  __asm volatile(".rept {count}\\n nop\\n .endr");
  return 0;
}}
const char table[{table}] = {{1}};
"""


def needing(name: str) -> CrossTarget:
    target = target_of(name)
    assert isinstance(target, CrossTarget)
    if target.missing():
        pytest.skip(f"needs {' '.join(target.missing())}")
    return target


def cases(names: list[str]) -> list[object]:
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in QUICK else slow) for name in names]


def made(name: str, folder: Path, nops: int, target: CrossTarget | None = None) -> Measurement:
    """Return what is measured of a policy that runs so many instructions and a return."""
    target = target or needing(name)
    source = folder / f"made{nops}.c"
    held = Metadata(FLOATS, {"c_name": "policy"}).to_json()
    source.write_text(f"/* rayprune: {held} */\n{NOPS.format(count=nops, table=64)}")
    target.passes = lambda *_: None  # type: ignore[method-assign]  # it has no test
    return target._built(source, folder)


@pytest.mark.parametrize("name", cases(CROSS))
def test_instructions_are_counted_exactly(name, tmp_path):
    few, many = (made(name, tmp_path, count) for count in (100, 1100))
    assert (few.instructions, many.instructions) == (100, 1100)
    grown = many.flash_bytes - few.flash_bytes
    assert min(abs(grown - 1000 * nop) for nop in (1, 2, 4)) < 64  # functions are aligned


@pytest.mark.parametrize("name", cases(CROSS))
def test_a_policy_is_sized_counted_and_tested_where_it_shall_act(name, tmp_path):
    target, file = needing(name), tmp_path / "policy.c"
    recorded = [np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)]
    export_policy(policies.mlp(8), file, "c", recorded=recorded, about={})
    found = target.measure(file)
    assert found.self_test is True
    assert found.flash_bytes > 4 * (4 * 8 + 8 + 8 * 3 + 3)  # its weights
    assert 4 * (8 + 3) < found.ram_bytes < 4096
    assert 100 < found.instructions < 100_000
    assert len(found.tools) >= 2


def test_the_most_of_all_inputs_is_the_figure_and_the_stack_is_the_policys(tmp_path):
    target = needing("cortex-m4")
    counts = iter([Counts(104, tuple(range(10, 26))), Counts(64, (5.0,) * 16)])
    target.count = lambda *_: next(counts)  # type: ignore[method-assign]
    found = made("cortex-m4", tmp_path, 1, target)
    assert (found.instructions, found.ram_bytes) == (20, 40)
    assert "the most of 16 observations" in found.notes[-1]
    assert "on average 12" in found.notes[-1]


def test_a_self_test_that_fails_there_is_a_figure_and_not_silence(tmp_path):
    target = needing("cortex-m4")
    source = tmp_path / "wrong.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("3 wrong"); return 1; }\n')
    target.compile(target.sources()[0], tmp_path / "start.o")
    notes: list[str] = []
    assert target.passes(source, tmp_path, notes) is False
    assert notes == ["Its self-test fails on mps2-an386: 3 wrong."]


def test_what_no_board_holds_is_not_run():
    target = target_of("cortex-m0")
    assert isinstance(target, CortexMTarget)
    notes: list[str] = []
    assert target._board(Sizes(20_000, 2000), "it", notes).machine == "microbit"
    assert target._board(Sizes(300_000, 100), "it", notes).machine == "mps2-an385"
    assert target._board(Sizes(5_000_000, 100), "it", notes) is None
    assert len(notes) == 2
    assert "It wasn't run: with 5,000,000 bytes of flash" in notes[1]


def test_a_compilers_own_words_are_told(tmp_path):
    with pytest.raises(InputError, match=r"with -O2 -mno-such: .*no-such"):
        needing("cortex-m4 -mno-such").compile(Path(__file__), tmp_path / "x.o", "-O2", "-mno-such")


def test_options_are_for_compilers_alone():
    assert target_of("cortex-m4 -Os -fno-math-errno").options == ("-Os", "-fno-math-errno")
    assert target_of("aarch64 -g").options == ("-O2", "-g")
    with pytest.raises(InputError, match="takes no compiler options"):
        target_of("host -Os")
    with pytest.raises(InputError, match="only options of its compiler may follow"):
        target_of("cortex-m4 Os")


def test_a_counting_program_that_broke_off_is_told():
    from rayprune.deploy.targets.cortex_m import _read

    with pytest.raises(RunError, match="didn't begin as it should"):
        _read("fault\n")
    with pytest.raises(RunError, match="didn't end as it should"):
        _read("stack 8\nloop 2000 50\ncalls 4 10\n")


def test_measured_inputs_are_like_the_recorded_ones_and_within_bounds():
    told = {"obs": {"mean": [100.0, 0.0], "std": [1.0, 5.0], "low": [None, -1.0], "high": None}}
    (values,) = usual_inputs(Metadata(FLOATS, {"inputs": told}), 64)
    assert values.shape == (64, 2)
    assert abs(values[:, 0].mean() - 100.0) < 1.0
    assert values[:, 1].min() == -1.0
