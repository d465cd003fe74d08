"""TensorBoard's files, read back record by record."""

import struct

import pytest

from rayprune.tracking.tensorboard import TensorBoardTracker

pytest.importorskip("tensorboardX")


def events(directory):
    """Return the events of all files, the oldest file first: TFRecord frames of protobuf."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    found = []
    for path in sorted((directory / "tensorboard").glob("events.out.tfevents.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            header = content[position : position + 8]
            (length,) = struct.unpack("<Q", header)
            data = content[position + 12 : position + 12 + length]
            sums = content[position + 8 : position + 12] + content[position + 12 + length :][:4]
            assert struct.unpack("<II", sums) == (masked(header), masked(data))
            found.append(Event.FromString(data))
            position += 16 + length
    return found


def scalars(directory, tag):
    return [
        (event.step, value.simple_value)
        for event in events(directory)
        for value in event.summary.value
        if value.tag == tag
    ]


def write(directory, rows):
    tracker = TensorBoardTracker(directory)
    tracker.start({"pruning": {"sparsity": 0.9}})
    for row in rows:
        tracker.row(row)
    tracker.finish(None)


def test_every_row_is_in_the_files(tmp_path):
    write(tmp_path, [{"env_steps": n, "groups": {"policy": n / 1000}} for n in (100, 200, 300)])
    assert scalars(tmp_path, "sparsity/group/policy") == [
        (100, pytest.approx(0.1)),
        (200, pytest.approx(0.2)),
        (300, pytest.approx(0.3)),
    ]


def test_a_histogram_keeps_its_counts_and_edges(tmp_path):
    scores = {"pi": {"counts": [3, 1], "edges": [0.0, 0.5, 1.0]}}
    write(tmp_path, [{"env_steps": 1, "scores": scores}])
    values = [v for e in events(tmp_path) for v in e.summary.value if v.tag == "scores/pi"]
    assert list(values[0].histo.bucket) == [3, 1]
    assert list(values[0].histo.bucket_limit) == [0.5, 1.0]
    assert (values[0].histo.min, values[0].histo.max, values[0].histo.num) == (0, 1, 4)


def test_a_resumed_run_supersedes_the_steps_that_it_does_again(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    write(tmp_path, [{"env_steps": n, "sparsity": 0.5} for n in (100, 200, 300)])
    first = next((tmp_path / "tensorboard").iterdir())
    # Two files of one second would have one name.
    first.rename(first.with_name("events.out.tfevents.0000000001.first"))
    write(tmp_path, [{"env_steps": n, "sparsity": 0.5} for n in (200, 300)])
    restarts = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert restarts == [200]
    assert [step for step, _ in scalars(tmp_path, "sparsity")] == [100, 200, 300, 200, 300]


def test_config_and_exploits_can_be_read_there(tmp_path):
    write(tmp_path, [{"env_steps": 5, "exploit": {"donor": "t3"}}])
    texts = {
        value.tag.partition("/")[0]: value.tensor.string_val[0].decode()
        for event in events(tmp_path)
        for value in event.summary.value
        if value.tensor.string_val
    }
    assert '"sparsity": 0.9' in texts["config"]
    assert '"donor": "t3"' in texts["exploit"]
