"""TensorBoard's event files, written by hand: no TensorFlow, no TensorBoard, no protobuf needed.

A file is records `uint64 length | masked CRC32C of it | Event | masked CRC32C of that`, little-endian; an Event is
protobuf: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary {1 value {1 tag, 2 simple_value float}},
7 session_log {1 status}. Source: tensorflow/core/lib/io/record_writer.cc, tensorflow/core/util/event.proto.
"""
from __future__ import annotations

import os
import struct
from pathlib import Path

from sluice.errors import TrackerError
from sluice.mirror.cursor import Cursor
from sluice.mirror.target import Row, Target

_FILE_VERSION = b"brain.Event:2"


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum (RFC 3720, B.4)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(event: bytes) -> bytes:
    """The event framed."""
    length = struct.pack("<Q", len(event))
    return length + _masked(length) + event + _masked(event)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _event(time: float, step: int, what: bytes) -> bytes:
    return struct.pack("<Bd", 1 << 3 | 1, time) + _varint(2 << 3) + _varint(step) + what


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # beyond float32, as TensorFlow would round it
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def scalars(row: Row) -> bytes:
    """The event of one row."""
    summary = b"".join(
        _bytes_field(1, _bytes_field(1, name.encode()) + struct.pack("<B", 2 << 3 | 5) + _float32(value))
        for name, value in row.values.items())
    return _event(row.time, row.step, _bytes_field(5, summary))


class TensorBoardTarget(Target):
    """FOLDER/NAME with one event file, which grows. The cursor knows its size: what was written behind that by a
    process that died is cut off. state: `file`, `size`, `restart` (repeated steps come next)."""

    max_points = 20_000
    replaces = True

    def __init__(self, folder: str, name: str) -> None:
        self.folder = Path(folder).absolute() / name
        self.place = str(self.folder)
        self.identity = f"tensorboard:{self.folder}"
        self.state_folder = self.folder.parent / ".sluice-mirror"

    def open(self, cursor: Cursor) -> None:
        """Finds its file as long as the cursor says, or begins one."""
        state = cursor.state
        if not state:
            name = f"events.out.tfevents.{int(cursor.started):010d}.sluice"
            if any(self.folder.glob("*tfevents*")):
                raise TrackerError(f"{self.folder}: holds the events of another run; name this one by --name, or remove "
                                   "the folder")
            state.update(file=name, size=0, restart=False)
            return
        path = self.folder / state["file"]
        size = path.stat().st_size if path.exists() else -1
        if 0 < state["size"] and size < state["size"]:
            raise TrackerError(f"{path}: was {state['size']} bytes long and is {max(size, 0)} now; remove {cursor.path} "
                               "and the file, and mirror the run again", 3)

    def restart(self, cursor: Cursor) -> None:
        """Readers drop what they have once the next session begins at step 0."""
        cursor.state["restart"] = True

    def send(self, rows: list[Row], in_doubt: bool, cursor: Cursor) -> None:
        """Appends; whether it was there before is a matter of the file's size alone."""
        state = cursor.state
        events = []
        if state["size"] == 0:
            events.append(_event(rows[0].time, 0, _bytes_field(3, _FILE_VERSION)))
        elif state["restart"]:
            events.append(_event(rows[0].time, 0, _bytes_field(7, b"\x08\x01")))
        data = b"".join(map(record, [*events, *map(scalars, rows)]))
        path = self.folder / state["file"]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                file.truncate(state["size"])
                file.seek(state["size"])
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TrackerError(f"{path}: cannot be written: {error.strerror}; make room, or name another folder, then "
                               "mirror again", 14) from None
        state["size"] += len(data)
        state["restart"] = False
