"""What packing 2:4 weights gives on this machine's GPU: torch's semi-structured sparse tensors.

    python benchmarks/semi_structured.py [--batch 1 256 4096] [--json] [FILE.pt2 ...]
    python benchmarks/semi_structured.py --multiplications

Prunes two MLPs to 2:4, packs their weights in half precision, and compares outputs and times with
the dense weights in half precision. Files are policies that `rayprune export --format torch` wrote.
Without a GPU of compute capability 8.0 it says `nothing measured` and why, and exits 0; it exits 1
where packed weights compute something else. `--multiplications` times single ones, called from
Python and replayed from a CUDA graph, which leaves the kernels alone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from rayprune import Pruner, PruningConfig, unmask
from rayprune.deploy.formats.semi_structured import missing_gpu, report

MLPS = {"mlp1024": (384, 1024, 1024, 32), "mlp4096": (1024, 4096, 4096, 1024)}
TOLERANCE = 5e-2
"""In half precision, of outputs of the order of one."""


def pruned(widths: tuple[int, ...]) -> nn.Module:
    """Return an MLP with every layer pruned to 2:4."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    module = nn.Sequential(*layers)
    Pruner(module, PruningConfig(granularity="2:4", criterion="l1")).prune_to()
    unmask(module)
    return module


def measure(files: list[Path], batches: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a report for each network and batch."""
    for name, widths in MLPS.items():
        module = pruned(widths)
        for batch in batches:
            yield {"net": name, **report(module, [torch.randn(batch, widths[0])])}
    for path in files:
        program = torch.export.load(str(path))
        shapes = [node.meta["val"].shape for node in _inputs(program)]
        for batch in batches:
            inputs = [torch.randn(batch, *map(int, shape[1:])) for shape in shapes]
            yield {"net": path.name, **report(program.module(), inputs)}


def _inputs(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    wanted = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.name in wanted]


SQUARES = ((1024, 256), (1024, 4096), (4096, 256), (4096, 4096), (8192, 8192))
"""Width of the weight, and batch."""


@torch.inference_mode()
def multiplications() -> Iterator[str]:
    """Yield a line for each size: one multiplication in half precision, dense and packed."""
    for width, batch in SQUARES:
        weight = torch.randn(width, width, device="cuda").half()
        kept = torch.tensor([True, True, False, False], device="cuda").repeat(width, width // 4)
        weight, x = weight * kept, torch.randn(batch, width, device="cuda").half()
        packed = to_sparse_semi_structured(weight)
        found = [f"{width} x {width}, batch {batch}:"]
        for name, held in (("dense", weight), ("packed", packed)):
            call = functools.partial(nn.functional.linear, x, held)
            found.append(f"{name} {_milliseconds(call):.4f} ms, {_milliseconds(_graph(call)):.4f}")
        yield " ".join(found) + " in a graph"


def _milliseconds(call: Callable[[], object], calls: int = 20, rounds: int = 20) -> float:
    for _ in range(5):
        call()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) / calls)
    return statistics.median(times)


def _graph(call: Callable[[], object]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def main() -> int:
    """Measure what there is; print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="exported policies (.pt2)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 256, 4096])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--multiplications", action="store_true", help="single ones, no networks")
    args = parser.parse_args()
    if args.multiplications:
        reason = missing_gpu()
        for line in multiplications() if reason is None else [f"nothing measured: {reason}"]:
            print(line)
        return 0
    rows = list(measure(args.files, args.batch))
    wrong = [row for row in rows if row["measured"] and row["measured"]["max_error"] > TOLERANCE]
    if args.json:
        print(json.dumps({"rows": rows, "wrong": len(wrong)}))
        return 1 if wrong else 0
    for row in rows:
        packed = f"{row['net']}: {len(row['packed'])} weights can be packed"
        if row["measured"] is None:
            print(f"{packed}; nothing measured: {row['why']}")
            continue
        found = row["measured"]
        print(
            f"{packed}; batch {found['batch']}: dense {found['dense_ms']:.4f} ms, packed "
            f"{found['packed_ms']:.4f} ms, ratio {found['dense_ms'] / found['packed_ms']:.2f}, "
            f"largest difference {found['max_error']:.1e} on {found['device']}"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
