"""Reads W&B's `.wandb` files: the protobuf records of wandb.proto in LevelDB's log format."""

import json
import struct
import zlib

BLOCK = 32 * 1024


def wandb_records(path):
    """Return the protobuf records of a `.wandb` file: LevelDB's log format after W&B's header."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    records, parts, position = [], [], 7
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + 7])
        data = content[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(bytes([kind]) + data)
        position += 7 + length
        parts.append(data)
        if kind in (1, 4):  # whole, or the last part of several
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            records.append(record)
            parts = []
    return records


def wandb_files(directory):
    """Return the `.wandb` files of a run's directory, the oldest first."""
    import wandb

    # W&B's service writes on after a run's end, until it is told to stop.
    wandb.teardown()
    found = (directory / "wandb").glob("*run-*/run-*.wandb")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def history(path):
    """Return the logged rows of a `.wandb` file; a nested key is joined by dots."""
    rows = []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in items
                }
            )
    return rows


def summary(path):
    """Return what a `.wandb` file's run ends with; a nested key is joined by dots."""
    held = {}
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                held[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return held


def run_id(path):
    """Return the id of a `.wandb` file's run."""
    records = wandb_records(path)
    return next(r.run.run_id for r in records if r.WhichOneof("record_type") == "run")
