"""Pushing files to the coordinator's machine: a manifest first, then what it lacks, piece by piece, and all checked there."""
from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sluice import errors
from sluice.events import time_of
from sluice.v1 import data_pb2

_PIECE_BYTES = 1 << 20
_MAX_FILES = 10_000  # as the coordinator's
# A file that the coordinator dropped, since its bytes were damaged there, is put so often.
_MAX_TRIES = 3


@dataclass(frozen=True)
class PushedData:
    """What one push did. existed: the same files were there already."""

    digest: str
    existed: bool
    bytes: int
    files: int
    folder: str  # as the coordinator's machine names it

    @property
    def address(self) -> str:
        """As specs name it: `data: digest:9f2c...`, `prepare.events: digest:9f2c.../FILE`."""
        return f"digest:{self.digest}"


@dataclass(frozen=True)
class PushedFolder:
    """Data that somebody pushed."""

    digest: str
    name: str
    bytes: int
    files: int
    pushed: datetime
    folder: str

    @property
    def address(self) -> str:
        return f"digest:{self.digest}"


def pushed_folder_of(message: Any) -> PushedFolder:
    """A PushedFolder from the coordinator's message."""
    return PushedFolder(message.digest, message.name, message.bytes, message.files, time_of(message.pushed),
                        message.folder)


def _files_below(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise errors.InvalidRequestError(f"'{entry.path}' is a link; what is pushed must be the files themselves")
        if stat.S_ISDIR(mode):
            yield from _files_below(Path(entry.path))
        elif stat.S_ISREG(mode):
            yield Path(entry.path)


def _file_of(path: Path, name: str) -> Any:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return data_pb2.DataFile(path=name, bytes=size, sha256=digest.hexdigest())


def manifest_of(path: str | os.PathLike[str]) -> tuple[Path, Any]:
    """(the folder that the names are relative to, a BeginPushRequest) of a folder or one file.

    InvalidRequestError: neither is there, a link or too many files are in it, or one cannot be read.
    """
    top = Path(path)
    try:
        if top.is_dir():
            found = [(file, file.relative_to(top).as_posix()) for file in _files_below(top)]
            folder = top
        elif top.is_file():
            folder, found = top.parent, [(top, top.name)]
        else:
            raise errors.InvalidRequestError(f"there is neither a file nor a folder '{top}' (looked in {os.getcwd()})")
        if not 1 <= len(found) <= _MAX_FILES:
            raise errors.InvalidRequestError(f"{top}: want 1 to {_MAX_FILES} files, got {len(found)}")
        files = [_file_of(file, name) for file, name in sorted(found, key=lambda pair: pair[1].encode())]
    except (OSError, ValueError) as error:  # ValueError: a name that is no UTF-8, a zero byte
        reason = getattr(error, "strerror", None) or error
        raise errors.InvalidRequestError(f"{getattr(error, 'filename', None) or top}: cannot be read: {reason}") from None
    return folder, data_pb2.BeginPushRequest(files=files)


def _put(path: Path, file: Any, digest: str, begin: int, call: Callable[[str, Any], Any]) -> Iterator[int]:
    """Puts the bytes of one file from `begin` on; yields how many are there after each piece."""
    have = begin
    try:
        with open(path, "rb") as source:
            while have < file.bytes:
                source.seek(have)
                data = source.read(min(_PIECE_BYTES, file.bytes - have))
                if not data:
                    raise errors.DataError(f"{path}: became shorter while it was pushed; push again")
                answer = call("Put", data_pb2.PutRequest(digest=digest, path=file.path, offset=have, data=data,
                                                         chunk_sha256=hashlib.sha256(data).hexdigest()))
                if answer.have <= have:
                    raise errors.ServerError("the coordinator does not take the bytes", "DATA_LOSS")
                have = answer.have
                yield have
    except OSError as error:
        raise errors.InvalidRequestError(f"{path}: cannot be read: {error.strerror}") from None


def _put_all(folder: Path, manifest: Any, begun: Any, call: Callable[[str, Any], Any],
             on_progress: Callable[[int, int], None]) -> None:
    if len(begun.have) != len(manifest.files):
        raise errors.ServerError("the coordinator counts other files", "DATA_LOSS")
    total = sum(file.bytes for file in manifest.files)
    there = sum(begun.have)
    for file, have in zip(manifest.files, begun.have):
        for now in _put(folder / file.path, file, begun.digest, have, call):
            there, have = there + now - have, now
            on_progress(there, total)


def send_files(folder: Path, manifest: Any, call: Callable[[str, Any], Any],
               on_progress: Callable[[int, int], None]) -> PushedData:
    """The push; call(name, request) is a call of the data service, tried again by itself where that may help."""
    tries = 0
    while True:
        begun = call("Begin", manifest)
        if not begun.complete:
            _put_all(folder, manifest, begun, call, on_progress)
        tries += 1
        try:
            committed = call("Commit", data_pb2.CommitPushRequest(digest=begun.digest))
        except errors.DataError:
            if tries >= _MAX_TRIES:
                raise
            continue
        return PushedData(begun.digest, begun.complete, sum(file.bytes for file in manifest.files),
                          len(manifest.files), committed.folder)
