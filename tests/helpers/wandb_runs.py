"""Reads an offline W&B run back: nothing in wandb 0.31 does (`wandb sync --view` is gone)."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as pb

_HEADER_BYTES = 7  # ":W&B", magic (2), version (1)
_BLOCK_BYTES = 32 * 1024
_RECORD_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What a run would send when synced."""

    run: pb.RunRecord | None = None
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)  # artifacts logged and used: digest by name
    used: dict[str, str] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)  # where a sync finds the bytes of artifacts
    stats: set[str] = field(default_factory=set)
    records: list[pb.Record] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """The record of the exit is there."""
        return bool(self.records) and self.records[-1].WhichOneof("record_type") == "exit"

    @property
    def everything(self) -> str:
        """All that a sync would send as text, to search for what must not be there."""
        return "\n".join(str(record) for record in self.records)


def find_runs(folder: Path) -> list[Path]:
    """The logs of all offline runs below a folder."""
    return sorted(folder.rglob("offline-run-*/run-*.wandb"))


def read_run(path: Path, patience_s: float = 60) -> OfflineRun:
    """Read one `run-<id>.wandb` (LevelDB's log format around protobuf records).

    W&B's own process may still be writing when `finish()` has returned: the record of the exit is the last to come.
    """
    given_up = time.monotonic() + patience_s
    while not (found := _read(path)).ended and time.monotonic() < given_up:
        time.sleep(0.2)
    assert found.records, f"{path} holds no record"
    return found


def _read(path: Path) -> OfflineRun:
    found = OfflineRun()
    for data in _chunks(path.read_bytes()):
        record = pb.Record()
        record.ParseFromString(data)
        found.records.append(record)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "artifact":
            (found.used if record.artifact.use_after_commit else found.made)[record.artifact.name] = (
                record.artifact.digest
            )
            for entry in record.artifact.manifest.contents:
                found.staged.add(entry.local_path)
                entry.ClearField("local_path")  # it stays on this machine
        elif kind == "stats":
            found.stats |= {item.key for item in record.stats.item}
        elif kind == "files":
            found.files += [file.path for file in record.files.files]
    return found


def _items(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _chunks(content: bytes):
    position, parts = _HEADER_BYTES, []
    while position + _RECORD_HEADER.size <= len(content):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _RECORD_HEADER.size:  # a block's last bytes are padding
            position += left
            continue
        _, length, kind = _RECORD_HEADER.unpack_from(content, position)
        position += _RECORD_HEADER.size
        if position + length > len(content):
            return  # still being written
        parts.append(content[position : position + length])
        position += length
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
        elif kind not in (_FIRST, _MIDDLE):
            return
