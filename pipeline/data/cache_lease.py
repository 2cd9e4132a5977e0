"""Which entries of a cache running processes use, so that none of them is evicted."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LASTS_S = 86_400.0  # where nothing can be locked


class Lease:
    """The keys that this process uses, in a file that it keeps locked: the lock ends with the process and its workers,
    however they end."""

    def __init__(self, folder: Path) -> None:
        self._path, self._owner = folder / f"{uuid.uuid4().hex}.lease", os.getpid()
        temporary = self._path.with_suffix(".tmp")
        self._file: BinaryIO = open(  # noqa: SIM115 - held as long as this object
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0
        )
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks, see `_has_ended`
                fcntl.flock(self._file, fcntl.LOCK_EX)
        os.replace(temporary, self._path)  # under its own name only once it is locked

    def add(self, key: str) -> None:
        with contextlib.suppress(
            OSError
        ):  # a full disk: then this entry is not protected, and prepared again if evicted
            self._file.write(f"{key}\n".encode())

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None and os.getpid() == self._owner:
            self._file.close()
            with contextlib.suppress(OSError):  # the folder was removed
                self._path.unlink()


def leased_keys(folder: Path) -> set[str]:
    """Keys in use. Leases whose process has ended are removed."""
    keys: set[str] = set()
    for path in folder.glob("*.lease"):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            if _has_ended(file):
                path.unlink()
            else:
                keys.update(file.read().decode("ascii").split())
    return keys


def _has_ended(file: BinaryIO) -> bool:
    """Whether no process holds the lock; where nothing can be locked, a day after the last key came in."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return time.time() - os.fstat(file.fileno()).st_mtime > _LASTS_S
