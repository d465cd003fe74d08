"""What generated C takes: on a Cortex-M4, and on this machine with and without -march=native.

    python benchmarks/c_kernels.py [--policy 4-64-64-2] [--file demo.c] [--layouts] [--json]

Policies of tanh layers that nobody has trained, whole and with 90 % of their weights pruned, and
files that `rayprune export --format c` wrote. Beside each stands the same network as people write
it by hand: matrices row by row, one loop in another, `tanhf`; and the same with ReLU, which is the
dense loop alone. Cortex-M4: flash, RAM with the stack, and instructions of one action, from target
`cortex-m4` (QEMU), at -O2 and -Os. This machine: nanoseconds of CPU time of an action, the least of
many rounds, without options and with -march=native.

`--layouts` measures what `rayprune.deploy.formats.c.layouts.costs` holds: one matrix in each
layout, dense and at several densities.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats import metadata_of
from rayprune.deploy.formats.c import matrices
from rayprune.deploy.formats.c.compiler import find_compiler
from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.layouts.choice import LAYOUTS
from rayprune.deploy.formats.c.program import C_TYPES
from rayprune.deploy.formats.c.source_file import MARK, parameters
from rayprune.deploy.policy.actions import Choose, Decide
from rayprune.deploy.policy.file_hash import BLANK, seal
from rayprune.deploy.policy.interface import Array, Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.policy import DeployablePolicy, Observe
from rayprune.deploy.targets import target_of

CORES = ("cortex-m4 -O2", "cortex-m4 -Os")
FLAGS = {"-O2": ("-O2",), "-O2 -march=native": ("-O2", "-march=native")}
ROUNDS, CALLS = 30, 2000


class Chain(nn.Module):
    """A network without a state, its outputs in a tuple."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the last layer's outputs."""
        return (self.layers(x),)


def policy_of(weights: Sequence[Array]) -> DeployablePolicy:
    """Return a policy of one choice, with tanh between its layers."""
    layers: list[nn.Module] = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
        layers += [layer, nn.Tanh()]
    interface = Interface(
        observations=(Port("obs", (weights[0].shape[1],)),),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (len(weights[-1]),)),
    )
    network = Chain(nn.Sequential(*layers[:-1]))
    decide = Decide(Choose([len(weights[-1])], several=False))
    return DeployablePolicy(Observe(), network, decide, interface)


def weights_of(sizes: Sequence[int], sparsity: float) -> list[Array]:
    """Draw weights, so many of which are zero."""
    draw = np.random.default_rng(0)
    shapes = [(rows, columns) for columns, rows in itertools.pairwise(sizes)]
    drawn = [draw.normal(size=shape) / shape[1] ** 0.5 for shape in shapes]
    return [(w * (draw.random(w.shape) >= sparsity)).astype(np.float32) for w in drawn]


def export(weights: Sequence[Array], path: Path) -> Path:
    """Export a policy as `rayprune export` does."""
    given = np.random.default_rng(1).normal(size=(64, weights[0].shape[1])).astype(np.float32)
    export_policy(policy_of(weights), path, "c", recorded=[given], about={}, name="policy")
    return path


def by_hand(like: Path, weights: Sequence[Array], activation: str, path: Path) -> Path:
    """Write the network of an exported file as people do, with the same function and header."""
    metadata = metadata_of(like)
    widest = max(map(len, weights))
    tables = "".join(
        f"static const float w{k}[] = {{{','.join(map(literal, w.reshape(-1).tolist()))}}};\n"
        f"static const float b{k}[{len(w)}] = {{0.5f}};\n"
        for k, w in enumerate(weights)
    )
    calls, last = "", len(weights) - 1
    for k, w in enumerate(weights):
        source = "obs" if k == 0 else f"h{(k - 1) % 2}"
        made = "d" if k == last else f"h{k % 2}"
        calls += (
            f"  layer(w{k}, b{k}, {w.shape[0]}, {w.shape[1]}, {source}, {made}, {k < last:d});\n"
        )
    path.write_text(
        f"{MARK}{metadata.to_json()} */\n/* {BLANK} */\n#include <math.h>\n#include <stdint.h>\n"
        f"{tables}static void layer(const float *w, const float *b, int rows, int columns,\n"
        "                  const float *x, float *y, int hidden) {\n  int i, k;\n"
        "  for (i = 0; i < rows; i++) {\n    float s = b[i];\n"
        "    for (k = 0; k < columns; k++) s += w[i * columns + k] * x[k];\n"
        f"    y[i] = hidden ? {activation} : s;\n  }}\n}}\n"
        f"int policy_act({parameters(metadata.interface)}) {{\n"
        f"  float h0[{widest}], h1[{widest}], d[{len(weights[-1])}];\n  int i, best = 0;\n{calls}"
        f"  for (i = 0; i < {len(weights[-1])}; i++) {{\n    if (d[i] > d[best]) best = i;\n"
        "    if (dist_inputs) dist_inputs[i] = d[i];\n  }\n  *action = best;\n  return 0;\n}\n"
        "#ifdef POLICY_SELFTEST\nint main(void) { return 0; }\n#endif\n",
        encoding="utf-8",
    )
    seal(path)
    return path


def on_cortex(path: Path) -> dict[str, Any]:
    """Measure a file on a Cortex-M4, by its compiler's level."""
    rows = {}
    for name in CORES:
        found = target_of(name).measure(path)
        kept = ("flash_bytes", "ram_bytes", "instructions", "self_test")
        rows[name] = {key: getattr(found, key) for key in kept}
    return rows


def here(path: Path) -> dict[str, float]:
    """Return the nanoseconds of an action on this machine, by the compiler's flags."""
    metadata, compiler = metadata_of(path), find_compiler()
    assert compiler is not None
    many = metadata.interface
    calls = "".join(f"{C_TYPES[p.dtype]} *{p.name}, " for p in (*many.inputs, *many.outputs))
    given = ", ".join(port.name for port in (*many.inputs, *many.outputs))
    name = metadata.about["c_name"]
    found = {}
    for label, flags in FLAGS.items():
        with tempfile.TemporaryDirectory() as folder:
            loop, library = Path(folder) / "loop.c", Path(folder) / "policy.so"
            loop.write_text(
                f'#include "{path.resolve()}"\nvoid loop({calls}int n) {{\n'
                f"  while (n--) {name}_act({given});\n}}\n"
            )
            shared = ("-shared", "-fPIC", str(loop), "-o", str(library), "-lm")
            subprocess.run([compiler, *flags, *shared], check=True)
            found[label] = _least(ctypes.CDLL(str(library)).loop, metadata)
    return found


def _least(loop: Any, metadata: Metadata) -> float:
    """Return the least nanoseconds of a call over some rounds."""
    ports = metadata.interface
    arrays = [port.zeros(1) + 0.3 for port in ports.inputs]
    arrays = [x.astype(p.dtype) for x, p in zip(arrays, ports.inputs, strict=True)]
    arrays += [port.zeros(1) for port in ports.outputs]
    pointers, least = [ctypes.c_void_p(x.ctypes.data) for x in arrays], float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        loop(*pointers, CALLS)
        least = min(least, (time.process_time_ns() - begin) / CALLS)
    return least


def cases(sizes: Sequence[str], files: Sequence[Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file that is measured, with what it is."""
    for text in sizes:
        numbers = [int(size) for size in text.split("-")]
        for sparsity in (0.0, 0.9):
            weights = weights_of(numbers, sparsity)
            label = f"{text}{', 90 % of weights pruned' if sparsity else ''}"
            own = folder / f"{text}-{sparsity}".replace(".", "_")
            own.mkdir()
            yield label, export(weights, own / "policy.c")
            if not sparsity:
                for name, text_of in (("tanhf", "tanhf(s)"), ("ReLU", "(s < 0 ? 0 : s)")):
                    path = by_hand(own / "policy.c", weights, text_of, own / f"{name}.c")
                    yield f"{text}, by hand, {name}", path
    for path in files:
        yield path.name, path


def layouts(folder: Path) -> list[dict[str, Any]]:
    """Measure one matrix of 64 by 64 in each layout, at several densities."""
    rows, draw = [], np.random.default_rng(0)
    chosen = matrices.cheapest
    for density, height in ((1.0, 1), (0.3, 1), (0.1, 1), (0.3, 16), (0.1, 16)):
        keep = (draw.random((64 // height, 64)) < density).repeat(height, axis=0)
        weight = (draw.normal(size=(64, 64)) * keep).astype(np.float32)
        for name, layout in LAYOUTS.items():
            matrices.cheapest = lambda w, _, kind=layout: {"scalar": kind(w), "vector": kind(w)}
            own = folder / f"{density}-{height}-{name}".replace(".", "_")
            own.mkdir()
            path = export([weight], own / "policy.c")
            kind = "blocks" if height > 1 else "weights"
            rows.append({"case": f"64x64, {density:.0%} of {kind}, {name}", **_row(path)})
    matrices.cheapest = chosen
    return rows


def _row(path: Path) -> dict[str, Any]:
    return {"cortex": on_cortex(path), "ns": here(path)}


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    print(f"\n{row['case']}")
    for name, found in row["cortex"].items():
        print(
            f"  {name:<20} {found['instructions']:9,} instructions {found['flash_bytes']:9,} bytes "
            f"of flash {found['ram_bytes']:6,} of RAM  self-test {found['self_test']}"
        )
    plain, native = row["ns"].values()
    print(
        f"  {'here':<20} {plain:9.0f} ns at -O2, {native:.0f} with -march=native: "
        f"{plain / native:.2f}"
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append", help="sizes, as in 4-64-64-2")
    parser.add_argument("--file", action="append", type=Path, default=[])
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = layouts(Path(folder)) if given.layouts else []
        sizes = given.policy or ([] if given.file or given.layouts else ["4-64-64-2"])
        for label, path in cases(sizes, given.file, Path(folder)):
            rows.append({"case": label, **_row(path)})
        for row in rows:
            show(row)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
