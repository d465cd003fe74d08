"""A C file as source: its dialect and warnings, its names, its memory, several in one program."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.verify import verify
from rayprune.deploy.formats import format_named
from rayprune.deploy.formats.c import compiler as c_compiler
from rayprune.deploy.formats.c.compiler import CArtifact, compile_c
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.policy import DeployablePolicy, Flatten, Observe
from rayprune.errors import InputError
from tests.doubles import policies
from tests.unit.deploy.formats.c.networks import (
    COMPILERS,
    NETWORKS,
    STRICT,
    inputs_of,
    needs_compiler,
    self_tested,
    written,
)


@pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")
@pytest.mark.parametrize(
    "name", ["blocked", "seeing", "skipping", "gated", "norms", "masked", "sparse"]
)
def test_it_is_c99_without_warnings_and_needs_no_vectors(name, tmp_path):
    path, _, _ = written(NETWORKS[name](), tmp_path)
    for compiler in COMPILERS:
        for options in ([], ["-DPOLICY_PLAIN", "-Os"]):
            assert self_tested(path, compiler, *STRICT, *options).startswith(
                "30 observations, 0 wrong"
            )
    text = path.read_text()
    assert "malloc" not in text
    assert ("math.h" in text) == (name in ("skipping", "norms", "masked"))


@needs_compiler
def test_what_a_file_says_of_itself_opens_no_comment_in_its_comment(tmp_path):
    files = "logs/*.csv and a*/b"
    path, _, _ = written(policies.mlp(), tmp_path, env=files)
    for compiler in COMPILERS:
        self_tested(path, compiler, *STRICT)
    assert CArtifact(path).metadata.about["env"] == files


def several(*names: str) -> DeployablePolicy:
    """A policy of one number from each of several sensors."""
    plain = policies.mlp()
    interface = Interface(
        observations=tuple(Port(f"obs.{name}", (1,)) for name in names),
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
    )
    joined = Flatten([[]] * len(names))
    network = policies.Plain(nn.Linear(len(names), 3))
    return DeployablePolicy(Observe([joined]), network, plain.decide, interface)


@needs_compiler
def test_sensors_may_be_called_what_no_variable_of_c_is(tmp_path):
    path, told, _ = written(several("größe", "a b", "for", "*/ x /*", "7"), tmp_path)
    assert told["self_test"]["passed"]
    assert path.read_bytes().isascii()


@pytest.mark.parametrize("names", [("a_b", "a.b"), ("arm", "ARM"), ("é", "è")])
def test_sensors_that_would_have_one_name_in_c_are_refused(names, tmp_path):
    with pytest.raises(InputError, match=f"`obs.{names[0]}` and `obs.{names[1]}` can't be told"):
        written(several(*names), tmp_path)


def has_x87(compiler: str, folder: Path) -> bool:
    probe = folder / "probe.c"
    probe.write_text('#include <stdio.h>\nint main(void) { return puts("") < 0; }\n')
    command = [compiler, "-m32", "-mfpmath=387", "-mno-sse", probe, "-o", folder / "probe"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif("gcc" not in COMPILERS, reason="needs gcc")
@pytest.mark.parametrize("dialect", ["c99", "gnu99"])
def test_floats_may_be_computed_wider_than_they_are_stored(dialect, tmp_path):
    if not has_x87("gcc", tmp_path):
        pytest.skip("needs gcc for 32 bits (gcc-multilib)")
    path, _, _ = written(NETWORKS["skipping"](), tmp_path)
    x87 = ["-m32", "-mfpmath=387", "-mno-sse", "-O2", *STRICT[1:], f"-std={dialect}"]
    assert self_tested(path, "gcc", *x87).startswith("30 observations, 0 wrong")


@pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")
@pytest.mark.parametrize("option", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
def test_options_that_hide_nans_are_refused_by_the_file(option, tmp_path):
    path, _, _ = written(policies.mlp(), tmp_path)
    for compiler in COMPILERS:
        done = subprocess.run(
            [compiler, option, "-c", path, "-o", tmp_path / "p.o"], capture_output=True, text=True
        )
        assert done.returncode != 0
        assert "hides NaNs: leave it out" in done.stderr


@needs_compiler
def test_two_policies_fit_into_one_program(tmp_path):
    policy = policies.recurrent()
    for name in ("walk", "grip"):
        (tmp_path / name).mkdir()
        export_policy(
            policy,
            tmp_path / name / "policy.c",
            "c",
            recorded=inputs_of(policy),
            about={},
            name=name,
        )
    whole = tmp_path / "both.c"
    # Headers first and again, then both sources in one unit.
    includes = [f'#include "{name}/policy.{end}"' for end in "hc" for name in ("walk", "grip")]
    whole.write_text(
        "\n".join(includes) + "\nint main(void) {\n  float x[WALK_OBS_SIZE] = {0}, h[8] = {0},"
        " c[8] = {0}, a[GRIP_ACTION_SIZE];\n  grip_workspace memory;\n"
        "  return walk_act(x, h, c, a, 0, h, c) || grip_act_in(&memory, x, h, c, a, 0, 0, 0);\n}\n"
    )
    program = tmp_path / "both"
    compile_c(whole, program, *STRICT)
    subprocess.run([program], check=True)
    symbols = (tmp_path / "walk" / "policy.c").read_text()
    assert "policy_" not in symbols.split("*/", 1)[1]


@pytest.mark.parametrize(
    ("kind", "name", "why"), [("c", "7up", "must be a name in C"), ("torch", "walk", "is for")]
)
def test_a_name_that_c_does_not_take_is_refused(kind, name, why, tmp_path):
    policy, path = policies.mlp(), tmp_path / f"a{format_named(kind).suffix}"
    with pytest.raises(InputError, match=f"`--name` {why}"):
        export_policy(policy, path, kind, recorded=inputs_of(policy), about={}, name=name)


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("name", ["sparse", "recurrent"])
def test_nothing_that_changes_is_static(name, tmp_path):
    path, _, _ = written(NETWORKS[name](), tmp_path)
    compile_c(path, tmp_path / "policy.o", "-c")
    told = subprocess.run(["nm", tmp_path / "policy.o"], capture_output=True, text=True, check=True)
    kinds = {line.split()[-2] for line in told.stdout.splitlines()}
    assert kinds & set("TtRr")
    assert not kinds & set("BbDdCcGgSs")


@needs_compiler
@pytest.mark.parametrize("function", ["policy_act", "policy_act_in"])
def test_threads_act_side_by_side(function, tmp_path):
    path, _, (given, expected) = written(policies.mlp(hidden=200), tmp_path)
    library = tmp_path / "policy.so"
    compile_c(path, library, "-shared", "-fPIC")
    act = ctypes.CDLL(str(library))[function]

    def many(row: int) -> bool:
        memory = [ctypes.create_string_buffer(2**14)] if function.endswith("_in") else []
        x, wanted = given[0][row].copy(), expected[1][row]
        action, logits = np.zeros(1, np.int32), np.zeros(3, np.float32)
        arrays = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, action, logits)]
        return all(
            act(*memory, *arrays) == 0 and np.allclose(logits, wanted, atol=1e-5)
            for _ in range(300)
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(many, range(16)))


@needs_compiler
@pytest.mark.parametrize("name", ["seeing", "thinned", "sparse", "recurrent"])
def test_no_array_is_read_or_written_beyond_its_end(name, tmp_path):
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover", "-DPOLICY_SELFTEST"]
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    try:
        compile_c(probe, tmp_path / "probe", checks[0])
    except InputError:
        pytest.skip("needs a compiler with address sanitizers")
    path, _, _ = written(NETWORKS[name](), tmp_path)
    compile_c(path, tmp_path / "test", *checks)
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert done.stdout.startswith("30 observations, 0 wrong")


@needs_compiler
def test_the_header_says_what_the_functions_take(tmp_path):
    policy, path = policies.recurrent(), tmp_path / "walker.c"
    export_policy(policy, path, "c", recorded=inputs_of(policy), about={})
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "walker.h"\n'
        "int main() { float o[WALKER_OBS_SIZE] = {}, a[WALKER_ACTION_SIZE];\n"
        "float h[WALKER_STATE_H_SIZE] = {}, c[WALKER_STATE_C_SIZE] = {};\n"
        "walker_act(o, h, c, a, nullptr, h, c); return h[0] == 0.0f; }\n"
    )
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    subprocess.run(["cc", "-c", path, "-o", tmp_path / "walker.o"], check=True)
    program = tmp_path / "main"
    subprocess.run(["c++", main, tmp_path / "walker.o", "-o", program], check=True)
    subprocess.run([program], check=True)


def test_without_a_compiler_the_file_is_written_and_says_that_it_is_untested(tmp_path, monkeypatch):
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: None)
    policy, path = policies.mlp(), tmp_path / "policy.c"
    told = export_policy(policy, path, "c", recorded=inputs_of(policy), about={})
    assert told["self_test"]["passed"] is None
    assert "not tested" in told["self_test"]["why"]
    assert told["equivalence"] == {}
    assert path.exists()
    assert (tmp_path / "policy.h").exists()
    assert (told["proven"], told["nan_and_infinity"]) == (False, {})
    assert "/* UNPROVEN: there was no C compiler where this file was written" in path.read_text()
    found = verify(path)
    assert (found["whole"], found["proven"]) == (True, False)
    assert "It is UNPROVEN" in found["notes"][0]
