"""``rayprune bench``."""

import io
import json

import pytest
from rich.console import Console

from rayprune.cli.printing.bench_tables import Stages, bench_tables
from tests.doubles.made_up.bench import made_up_bench


def test_the_options_become_a_bench(rayprune, adaptor, checkpoint):
    answer = rayprune(
        *("bench", checkpoint, "--deadline", 0.5, "--batches", "1, 8", "--threads", "1,all"),
        *("--formats", "onnx", "--rounds", 7, "--no-memory"),
    )
    assert answer.code == 0, answer.stderr
    (_, (paths, options, *_), _), (_, (recorded, *_), _) = adaptor.calls
    assert paths == [checkpoint]
    assert recorded == checkpoint
    assert (options.deadline_ms, options.batches, options.threads) == (0.5, (1, 8), (1, 0))
    assert (options.formats, options.rounds, options.memory) == (("onnx",), 7, False)


def test_both_ratios_stand_beside_each_other_with_their_intervals(rayprune, adaptor, checkpoint):
    answer = rayprune("bench", checkpoint)
    lines = [one for one in answer.stderr.splitlines() if one.startswith("pruned onnx")]
    times, sizes = (" ".join(line.split()) for line in lines)
    assert times == "pruned onnx 8.0 24.0 3.00 [2.70, 3.30] 15.0 2.0 %"
    assert sizes == "pruned onnx 33.2 11.0"
    assert "> 0.1 ms" in answer.stderr
    assert "Parameters     dense 67,586, pruned 4,035" in answer.stderr
    assert "there is no C compiler" in answer.stderr


def test_a_file_is_named_once_beside_others():
    result = made_up_bench()
    (target,), (row, *_) = result["targets"], result["rows"]
    file = {**row, "target": "a.onnx", "policy": "a.onnx", "runtime": "onnx"}
    result |= {"targets": [target, {**target, "target": "a.onnx"}], "rows": [row, file]}
    table = bench_tables(result)[0]
    assert [*table.columns[0].cells] == ["runs/a forward_inference", "a.onnx onnx"]


def test_json_is_the_result_and_nothing_else(rayprune, adaptor, checkpoint):
    assert json.loads(rayprune("bench", checkpoint, "--json").stdout) == made_up_bench()


def test_a_page_is_written_where_it_is_asked_for(rayprune, adaptor, checkpoint, tmp_path):
    answer = rayprune("bench", checkpoint, "--out", tmp_path / "made" / "bench")
    assert "Imaginary 9000" in (tmp_path / "made" / "bench" / "bench.html").read_text()
    assert json.loads((tmp_path / "made" / "bench" / "bench.json").read_text()) == made_up_bench()
    assert "bench.html" in answer.stderr


@pytest.mark.parametrize("option", ["--batches", "--threads"])
def test_a_list_that_is_none_is_told(rayprune, adaptor, checkpoint, option):
    answer = rayprune("bench", checkpoint, option, "1;2")
    assert answer.code == 2
    assert f"`{option}` must be whole numbers" in answer.stderr
    assert adaptor.calls == []


def test_a_missing_target_is_told_before_anything_starts(rayprune, adaptor):
    answer = rayprune("bench", "no/such")
    assert answer.code == 2
    assert adaptor.calls == []


def test_rows_and_stages_are_lines_of_standard_error():
    console = Console(file=io.StringIO(), width=200)
    with Stages(console) as reporter:
        reporter.stage("exports runs/a")
        reporter.row("runs/a dense eager, batch 1: median 30.1 us")
    assert console.file.getvalue().splitlines() == [
        "exports runs/a",
        "runs/a dense eager, batch 1: median 30.1 us",
    ]


def board(folder, said):
    (folder / "policy.c").write_text("/* anything */")
    (folder / "board.sh").write_text(f"echo '{json.dumps(said)}'\n")
    return [folder / "policy.c", "--target", f"command: sh {folder / 'board.sh'}"]


def test_a_file_is_measured_on_a_target(rayprune, adaptor, tmp_path):
    said = board(tmp_path, {"flash_bytes": 9000, "self_test": True, "notes": ["cold"]})
    answer = rayprune("bench", *said)
    assert answer.code == 0, answer.stderr
    assert "9,000" in answer.stderr
    assert "Note           cold" in answer.stderr
    assert adaptor.calls == []
    (told,) = json.loads(rayprune("bench", *said, "--json").stdout)["measurements"]
    assert (told["flash_bytes"], told["ram_bytes"], told["self_test"]) == (9000, None, True)


def test_a_row_with_every_figure_fits_a_terminal(rayprune, adaptor, tmp_path):
    whole = {"flash_bytes": 123_456, "ram_bytes": 65_432, "instructions": 1_234_567}
    said = {**whole, "latency_us": {"p50": 1, "p99": 2}, "energy_uj": 3, "self_test": True}
    told = rayprune("bench", *board(tmp_path, said)).stderr
    assert all(
        figure in told for figure in ("policy.c", "123,456", "65,432", "1,234,567", "passed")
    )
    assert max(map(len, told.splitlines())) <= 80


def test_a_self_test_that_fails_on_a_target_is_exit_code_1(rayprune, adaptor, tmp_path):
    answer = rayprune("bench", *board(tmp_path, {"self_test": False}))
    assert answer.code == 1
    assert "FAILED" in answer.stderr


def test_a_checkpoint_on_a_target_is_told_what_to_do(rayprune, adaptor, checkpoint):
    answer = rayprune("bench", checkpoint, "--target", "cortex-m4")
    assert answer.code == 2
    assert f"rayprune export {checkpoint} --format c --out policy.c" in answer.stderr


def test_options_of_the_timing_are_refused_beside_a_target(rayprune, adaptor, checkpoint):
    answer = rayprune("bench", checkpoint, "--target", "host", "--rounds", 7, "--no-memory")
    assert answer.code == 2
    assert "`--rounds`, `--no-memory` can't be given with `--target`" in answer.stderr
    answer = rayprune("bench", "policy.c", "--target", "host", "--env", "CartPole-v1")
    assert "`--env` can't be given with `--target`" in answer.stderr
