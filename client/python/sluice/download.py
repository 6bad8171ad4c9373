"""Fetching a file piece by piece, so that it goes on where it stopped."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from sluice import errors

# A file that changes while it is fetched is begun again so often.
_MAX_RESTARTS = 5


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def download_file(path: str, folder: Path, read: Callable[[str, int, str], Any]) -> Path:
    """Fetches `path` into `folder` and returns where it is; read(path, offset, identity) gives a ReadArtifactResponse.

    RunFolderError: the server names a path outside of `folder`, bytes were damaged, or they cannot be written.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise errors.RunFolderError(f"the server names the file '{path}', which leads out of '{folder}'")
    target = folder / parts
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.identity")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        identity = note.read_text(encoding="utf-8") if note.exists() and part.exists() else ""
        restarts = 0
        while True:
            if not identity:
                part.unlink(missing_ok=True)
            offset = part.stat().st_size if identity else 0
            try:
                piece = read(path, offset, identity)
            except (errors.JobStateError, errors.InvalidRequestError) as error:
                if not identity or restarts >= _MAX_RESTARTS or isinstance(error, errors.UnknownJobError):
                    raise
                identity, restarts = "", restarts + 1  # another file stands there now
                continue
            if hashlib.sha256(piece.data).hexdigest() != piece.chunk_sha256:
                raise errors.RunFolderError(f"{path}: bytes were damaged on their way; try again")
            with open(part, "ab") as file:
                file.write(piece.data)
            if not identity:
                identity = piece.identity
                note.write_text(identity, encoding="utf-8")
            if offset + len(piece.data) >= piece.total_bytes:
                break
        if _sha256(part) != piece.sha256:
            part.unlink()
            raise errors.RunFolderError(f"{path}: what was fetched is not what the server has; try again")
        os.replace(part, target)
        note.unlink(missing_ok=True)
    except OSError as error:
        raise errors.RunFolderError(f"{target}: cannot be written: {error.strerror}; the same call goes on from here") \
            from None
    return target
