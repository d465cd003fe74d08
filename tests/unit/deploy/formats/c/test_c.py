"""Generated C computes what torch computes, whatever compiles it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.verify import verify
from rayprune.deploy.formats import format_named
from rayprune.deploy.formats.base import Examples
from rayprune.deploy.formats.c import compiler as c_compiler
from rayprune.deploy.formats.c.compiler import CArtifact, compile_c, run_self_test
from rayprune.deploy.formats.c.lowering.lower import lower
from rayprune.deploy.formats.c.registers import ROWS
from rayprune.deploy.formats.c.writer import write_c
from rayprune.deploy.policy.agreement import agreement
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.odd_inputs import Odd, prove_odd
from rayprune.deploy.policy.policy import DeployablePolicy, Flatten, Observe
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import InputError
from rayprune.pruning.layers.partial_norm import shorten
from tests.doubles import policies

needs_compiler = pytest.mark.skipif(c_compiler.find_compiler() is None, reason="needs a C compiler")


def masked(rows: int, columns: int, density: float, seed: int) -> np.ndarray:
    """A matrix with blocks of 16 rows by one column pruned."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(rows, columns)).astype(np.float32)
    keep = draw.random((-(-rows // ROWS), columns)) < density
    return weight * keep.repeat(ROWS, axis=0)[:rows]


class Dueling(nn.Module):
    """What RLlib's DQN does with its two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 20), nn.ReLU())
        self.advantage, self.value = nn.Linear(20, 3), nn.Linear(20, 1)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        advantage = self.advantage(body)
        usable = advantage.nan_to_num(neginf=torch.nan)
        return self.value(body) + advantage - usable.nanmean(dim=-1, keepdim=True)


class Skipping(nn.Module):
    """Additions, concatenation, pieces, norms and every activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 24), nn.LayerNorm(24)
        self.last = nn.Linear(24 * 8 + 4, 3)
        self.each = [nn.Tanh(), nn.ReLU(), nn.ELU(), nn.SiLU(), nn.GELU(), nn.Sigmoid()]
        self.each += [nn.LeakyReLU(), nn.Softplus()]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        low, high = y.chunk(2, dim=-1)
        y = y + torch.cat([high, low.clamp(-0.5, 0.5)], dim=-1) - y[:, :1] / 2.0
        return self.last(torch.cat([*(act(3 * y) for act in self.each), x], dim=-1))


def norms() -> nn.Module:
    """Norms of all kinds, and those that compaction leaves."""
    layers = [
        nn.Linear(4, 24),
        shorten(nn.LayerNorm(24), torch.tensor([0.4, 0.3, 0.2])),
        nn.Linear(24, 24),
        shorten(nn.RMSNorm(24), torch.tensor([0.4, 0.3])),
        nn.Linear(24, 24),
        nn.RMSNorm(24),
        nn.Unflatten(1, (6, 2, 2)),
        nn.GroupNorm(3, 6),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.BatchNorm1d(24),
        nn.Linear(24, 3),
    ]
    for tensor in nn.Sequential(*layers).state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand(tensor.shape))
    return nn.Sequential(*layers)


class Seeing(nn.Module):
    """A padded convolution, a pooling, a strided convolution, channels last at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.convs = nn.Sequential(nn.ZeroPad2d((1, 0, 0, 1)), nn.Conv2d(5, 17, (3, 2), stride=2))
        self.out = nn.Linear(17 * 3 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float().permute(0, 3, 1, 2) / 255.0
        x = self.convs(self.pool(torch.relu(self.conv0(x))))
        return self.out(torch.tanh(x).permute(0, 2, 3, 1).flatten(1))


class Gated(nn.Module):
    """Two layers of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(4, 9, num_layers=2, batch_first=True), nn.Linear(9, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x.unsqueeze(1), h.transpose(0, 1))
        return self.out(y).squeeze(1), h.transpose(0, 1)


class Attending(nn.Module):
    """Two heads over three tokens, and the last token that looks at all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 24), nn.Linear(8, 3)
        self.all = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.MultiheadAttention(8, 4, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).unflatten(1, (3, 8))
        tokens = tokens + self.all(tokens, tokens, tokens, need_weights=False)[0]
        seen = self.last(tokens[:, -1:], tokens, tokens, need_weights=False)[0]
        return self.out(seen.squeeze(1))


class Masked(nn.Module):
    """Attention under masks, of which one masks all keys; and by its products and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 24), nn.Linear(8, 3)
        self.attends = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).unflatten(1, (3, 8))
        later = torch.ones(3, 3).triu(1) > 0
        every = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
        seen = self.attends(tokens, tokens, tokens, attn_mask=later, need_weights=False)[0]
        some = tokens.unflatten(-1, (2, 4)).transpose(1, 2)
        some = functional.scaled_dot_product_attention(some, some, some, every)
        causal = functional.scaled_dot_product_attention(tokens, seen, tokens, is_causal=True)
        weights = torch.softmax(seen @ tokens.mT, -1)
        seen = weights @ causal + torch.baddbmm(tokens, weights, seen)
        return self.out((seen + some.transpose(1, 2).flatten(2))[:, -1])


def seeing() -> DeployablePolicy:
    plain = policies.discrete(Seeing())
    interface = Interface(
        observations=(Port("obs", (11, 15, 2), "uint8"),),
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
    )
    return DeployablePolicy(Observe(), plain.network, plain.decide, interface)


def gated() -> DeployablePolicy:
    plain = policies.discrete(Gated())
    interface = Interface(
        observations=plain.interface.observations,
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
        states=(Port("state.h", (2, 9)),),
    )
    return DeployablePolicy(Observe(), Gated(), plain.decide, interface)


def blocked() -> DeployablePolicy:
    policy = policies.mlp(hidden=50)
    with torch.no_grad():
        weight = policy.network.layers[2].weight
        weight.copy_(torch.from_numpy(masked(3, 50, 0.3, seed=1)))
    return policy


def thinned() -> DeployablePolicy:
    """Blocks that have lost rows, so that they don't line up with 16 any more."""
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 90), nn.Tanh(), nn.Linear(90, 60)))
    rows = np.delete(masked(96, 90, 0.2, seed=2), range(0, 96, 3), axis=0)[:60]
    policy.network.layers.append(nn.Linear(60, 3))
    with torch.no_grad():
        policy.network.layers[2].weight.copy_(torch.from_numpy(rows))
    return policy


def sparse() -> DeployablePolicy:
    """Single weights pruned: few of many inputs, and a third, which vectors take as it is."""
    layers = [nn.Linear(300, 40), nn.Tanh(), nn.Linear(40, 35), nn.ReLU(), nn.Linear(35, 3)]
    policy = policies.discrete(nn.Sequential(*layers), 300)
    draw = np.random.default_rng(5)
    with torch.no_grad():
        for layer, density in zip(layers[::2], (0.05, 0.35, 1.0), strict=True):
            layer.weight.mul_(torch.from_numpy(draw.random(layer.weight.shape) < density))
    return policy


NETWORKS = {
    "dueling": lambda: policies.discrete(Dueling()),
    "skipping": lambda: policies.discrete(Skipping()),
    "norms": lambda: policies.discrete(norms()),
    "attending": lambda: policies.discrete(Attending()),
    "masked": lambda: policies.discrete(Masked()),
    "seeing": seeing,
    "gated": gated,
    "recurrent": policies.recurrent,
    "blocked": blocked,
    "thinned": thinned,
    "sparse": sparse,
}


LAYOUTS = {
    "blocked": ["linear_dense", "linear_blocks"],
    "thinned": ["linear_dense", "linear_blocks", "linear_dense"],
    "sparse": ["linear_rows", "linear_dense", "linear_dense"],
}


def inputs_of(policy: Any, count: int = 30) -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [
        draw.integers(256, size=(count, *port.shape)).astype(port.dtype)
        if port.dtype == "uint8"
        else draw.normal(size=(count, *port.shape)).astype(port.dtype)
        for port in policy.interface.inputs
    ]


def written(
    policy: Any,
    folder: Path,
    lanes: int | None = None,
    examples: Examples | None = None,
    **about: str,
) -> tuple[Path, Any, Any]:
    plain = plain_copy(policy)
    given = inputs_of(plain)
    expected = module_run(plain)(given)
    path = folder / "policy.c"
    metadata = Metadata(plain.interface, about)
    examples = examples or Examples(given, expected)
    _, told = write_c(capture(plain, batch=1), path, metadata, "policy", examples, lanes)
    return path, told, (given, expected)


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_the_compiled_file_computes_what_torch_does(name, tmp_path):
    torch.manual_seed(0)
    policy = NETWORKS[name]()
    path, told, (given, expected) = written(policy, tmp_path, env="a*/b")
    assert told["self_test"]["passed"]
    artifact = CArtifact(path)
    assert artifact.metadata.about["env"] == "a*/b"
    found = agreement(policy.interface, expected, artifact.run(given))
    assert found.holds
    assert found.max_error < 2e-6
    if name in LAYOUTS:
        assert [layout["layout"] for layout in told["layouts"]] == LAYOUTS[name]


@needs_compiler
@pytest.mark.parametrize("name", ["thinned", "seeing"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_other_lane_widths_compute_the_same(lanes, name, tmp_path):
    policy = NETWORKS[name]()
    path, _, (given, expected) = written(policy, tmp_path, lanes)
    assert path.read_text().count(f"#define policy_LANES {lanes}") == 1
    assert agreement(policy.interface, expected, CArtifact(path).run(given)).holds


@needs_compiler
def test_a_machine_without_vectors_gets_lists_where_others_get_all_weights(tmp_path):
    path, told, _ = written(sparse(), tmp_path)
    assert told["layouts"][1]["layout_without_vectors"] == "linear_rows"
    text = path.read_text()
    assert text.count("#if policy_LANES > 1\nstatic const float") == 1
    assert text.count("#if !(policy_LANES > 1)\nstatic const") == 3
    assert told["self_test"]["without_vectors"]["passed"]
    # A number that only the lists hold.
    begin = text.index("#if !(policy_LANES > 1)\nstatic const float")
    first = text.index("{\n", begin) + 2
    path.write_text(f"{text[:first]}9.0f+{text[first:]}")
    found = run_self_test(path)
    assert (found["passed"], found["without_vectors"]["passed"]) == (False, False)
    assert found["said"] == found["without_vectors"]["said"], "what failed is what is told"


COMPILERS = [found for found in ("gcc", "clang") if shutil.which(found)]
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
STRICT += ["-Wdouble-promotion", "-Wfloat-conversion"]


def self_tested(source: Path, compiler: str, *options: str) -> str:
    """What a file's self-test says, compiled by ``compiler``."""
    program = source.with_suffix("")
    subprocess.run(
        [compiler, "-DPOLICY_SELFTEST", *options, source, "-o", program, "-lm"], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


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
@pytest.mark.parametrize("name", NETWORKS)
def test_nan_and_infinity_come_out_as_they_do_of_torch(name, tmp_path):
    torch.manual_seed(0)
    plain = plain_copy(NETWORKS[name]())
    path, _, (given, _) = written(plain, tmp_path)
    told = prove_odd(plain, CArtifact(path).run, given, seed=0)
    if name == "seeing":
        assert told == {"inputs": 0, "nan": 0}, "whole numbers have no NaN"
    else:
        floats = sum(x[0].size for x in given)
        assert told["inputs"] == 3 * floats
        # An infinite observation is a number again behind a tanh.
        assert told["nan"] >= given[0][0].size


class Bounded(nn.Module):
    """Every way to lose a NaN: a pooling, a ReLU, bounds of numbers and of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("high", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(x.reshape(-1, 1, 2, 2), (1, 2)).flatten(1)
        x = torch.relu(torch.cat([x, x[:, :1]], dim=1)).clamp(-0.5, 0.5)
        return torch.minimum(torch.maximum(x, -self.high), self.high)


@pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")
@pytest.mark.parametrize("options", [["-O3", "-march=native"], ["-Os"], ["-O2", "-DPOLICY_PLAIN"]])
def test_each_operator_lets_a_nan_through_whatever_compiles_it(options, tmp_path):
    plain = plain_copy(policies.discrete(Bounded()))
    given = inputs_of(plain)
    path, _, _ = written(plain, tmp_path)
    for compiler in COMPILERS:
        library = tmp_path / f"{compiler}.so"
        command = [compiler, *options, "-shared", "-fPIC", path, "-o", library, "-lm"]
        subprocess.run(command, check=True)
        act = ctypes.CDLL(str(library)).policy_act
        for element in range(4):
            x, action, logits = given[0][0].copy(), np.zeros(1, np.int32), np.zeros(3, np.float32)
            assert act(*(a.ctypes.data_as(ctypes.c_void_p) for a in (x, action, logits))) == 0
            x[element] = np.nan
            assert act(*(a.ctypes.data_as(ctypes.c_void_p) for a in (x, action, logits))) == 1
            wanted = module_run(plain)([x[None]])
            np.testing.assert_array_equal(np.isnan(logits), np.isnan(wanted[1][0]))
            assert action[0] == wanted[0][0], "torch's argmax is the first NaN"


@needs_compiler
@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        ("< 0.0f ? 0.0f : b0[i]", "> 0.0f ? b0[i] : 0.0f"),
        ("(v < low, low, v)", "(v > low, v, low)"),
    ],
)
def test_the_self_test_notices_a_nan_that_is_lost(lost, kept, tmp_path):
    layers = [nn.Linear(4, 16), nn.ReLU() if "0.0f" in lost else nn.ELU(), nn.Linear(16, 3)]
    path, _, (given, expected) = written(policies.discrete(nn.Sequential(*layers)), tmp_path)
    odd = [Odd(0, element, np.nan) for element in range(4)]
    path, told, _ = written(
        policies.discrete(nn.Sequential(*layers)), tmp_path, examples=Examples(given, expected, odd)
    )
    assert told["self_test"]["said"].endswith("; 4 with NaN or infinity, 0 hidden")
    text = path.read_text()
    assert lost in text
    path.write_text(text.replace(lost, kept))
    assert run_self_test(path)["passed"] is False
    assert run_self_test(path)["said"].endswith("; 4 with NaN or infinity, 4 hidden")


@needs_compiler
def test_nan_in_what_pruning_has_left_out_is_nan_all_the_same(tmp_path):
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)))
    with torch.no_grad():
        policy.network.layers[0].weight[:, 2] = 0  # a sensor that can be unplugged
        policy.network.layers[0].weight[16:, :2] = 0
    plain = plain_copy(policy)
    path, told, (given, _) = written(plain, tmp_path)
    assert told["layouts"][0]["layout"] == "linear_blocks"
    assert prove_odd(plain, CArtifact(path).run, given, seed=0) == {"inputs": 12, "nan": 12}


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
def test_negative_padding_cuts_off_and_bounds_may_be_tensors(tmp_path):
    class Cutting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bound", torch.tensor([0.5]))
            self.out = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.clamp(x, -self.bound, self.bound)
            return self.out(nn.functional.pad(x, (-1, 2), value=0.25))

    path, told, (given, expected) = written(policies.discrete(Cutting()), tmp_path)
    assert told["self_test"]["passed"]
    assert agreement(policies.mlp().interface, expected, CArtifact(path).run(given)).holds


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
def test_the_self_test_notices_a_wrong_weight(tmp_path):
    path, _, _ = written(policies.mlp(), tmp_path)
    text = path.read_text()
    begin = text.index("static const float policy_c0")
    first = text.index("{\n", begin) + 2
    end = text.index("f,", first)
    path.write_text(text[:first] + str(float(text[first:end]) + 0.01) + text[end:])
    told = run_self_test(path)
    assert told["passed"] is False
    assert told["said"].startswith("30 observations, 30 wrong")


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


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.erfinv(x[:, :3]), dim=1)


def test_operators_that_c_does_not_have_are_named_with_what_to_do():
    policy = plain_copy(policies.discrete(Strange()))
    with pytest.raises(InputError, match=r"\['cumsum', 'erfinv'\].*--format onnx"):
        lower(capture(policy, batch=1), policy.interface, 8)


@needs_compiler
@pytest.mark.parametrize(("filters", "lanes"), [(3, 8), (9, 8), (24, 4), (24, 16), (5, 16)])
def test_any_number_of_filters_fits_into_any_registers(filters, lanes, tmp_path):
    torch.manual_seed(0)
    policy = seeing()
    policy.network.layers.conv0 = nn.Conv2d(2, filters, 3, padding=1)
    policy.network.layers.convs[1] = nn.Conv2d(filters, 17, (3, 2), stride=2)
    path, told, (given, expected) = written(policy, tmp_path, lanes)
    assert told["self_test"]["passed"]
    first = [layout for layout in told["layouts"] if layout.get("channels") == 2]
    assert [(layout["layout"], layout["filters"]) for layout in first] == [("convolve", filters)]
    assert agreement(policy.interface, expected, CArtifact(path).run(given)).holds
