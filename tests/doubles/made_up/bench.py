"""A bench whose numbers are MADE UP: nothing was timed."""


def made_up_bench(deadline_ms=0.1):
    rows = [
        _row("dense", "forward_inference", 120.0, None, None, None),
        _row("dense", "eager", 60.0, None, None, 2.0),
        _row("pruned", "eager", 40.0, None, 1.5, 3.0),
        _row("dense", "onnx", 24.0, 288_000, None, 5.0),
        _row("pruned", "onnx", 8.0, 34_000, 3.0, 15.0),
    ]
    rows = [{**row, "missed": row["missed"] if deadline_ms else None} for row in rows]
    return {
        "schema": 1,
        "machine": {"cpu": "Imaginary 9000", "cores": 2, "load": [0.1, 0.2, 0.3], "versions": {}},
        "settings": {"deadline_ms": deadline_ms, "batches": [1], "threads": [1], "rounds": 20},
        "targets": [
            {
                "target": "runs/a",
                "parameters": {"dense": 67586, "pruned": 4035},
                "notes": ["dense, c: there is no C compiler."],
            }
        ],
        "rows": rows,
        "controls": [
            {"threads": 1, "batch": 1, "of": "dense", "ratio": 1.01, "ci95": [0.98, 1.04]}
        ],
    }


def _row(policy, runtime, median, size, same, inference):
    return {
        "target": "runs/a",
        "policy": policy,
        "runtime": runtime,
        "threads": 1,
        "batch": 1,
        "median_us": median,
        "ci95_us": [median - 1, median + 1],
        "p99_us": 3 * median,
        "calls": 4000,
        "missed": 0.02,
        "file_bytes": size,
        "peak_memory_bytes": None if size is None else 11 * 2**20,
        "speed_up": {
            "same_runtime": None if same is None else _ratio(same),
            "forward_inference": None if inference is None else _ratio(inference),
        },
    }


def _ratio(ratio):
    return {"ratio": ratio, "ci95": [0.9 * ratio, 1.1 * ratio]}
