"""Digests of files, each read once as long as it stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
import zlib
from pathlib import Path

DIGITS = 40
"""Of a SHA-256, in hexadecimal: what is kept of it."""

_LATEST_S = 3.0  # a file changed within it may change again without its time stamp telling
_MOST_LINES = 200_000


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as they are stored, as ``sha256sum`` gives it."""
    with open(path, "rb") as file:
        state = hashlib.sha256()
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """The first `DIGITS` hexadecimal digits of `file_sha256`."""
    return file_sha256(path)[:DIGITS]


def file_state(path: Path) -> str:
    """What changes when a file's content does, at the price of a ``stat``: path, size, inode and both times."""
    stat = path.stat()
    text = f"{os.path.abspath(path)}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:40]


class FileDigests:
    """Digests by `file_state`.

    Kept as lines that are only ever appended, each with its own check: several processes may write, and a line that
    came to be mixed up is no line. They hold no path, only its digest.

    Args:
        memory: the file that keeps them.
    """

    def __init__(self, memory: Path) -> None:
        self.memory = memory
        lines = memory.read_text(encoding="ascii", errors="replace").splitlines() if memory.is_file() else []
        if len(lines) > _MOST_LINES:  # of data that come from another folder every time, say
            lines = lines[-_MOST_LINES // 2 :]
            temporary = memory.with_name(f"{uuid.uuid4().hex}.tmp")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in lines)
            os.replace(temporary, memory)
        self._lines = {line[:40]: line for line in lines}

    def __call__(self, path: Path) -> str:
        """The digest of a file.

        Raises:
            OSError: the file can't be read.
        """
        state = file_state(path)
        line = self._lines.get(state, "")
        found = line[41:81]
        if line == _line(state, found):
            return found
        found = file_digest(path)
        stat = path.stat()
        if file_state(path) == state and time.time() - max(stat.st_mtime, stat.st_ctime) > _LATEST_S:
            self._lines[state] = _line(state, found)
            with contextlib.suppress(OSError):  # a full disk: read again next time
                handle = os.open(self.memory, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(handle, f"{_line(state, found)}\n".encode())
                finally:
                    os.close(handle)
        return found


def _line(state: str, found: str) -> str:
    text = f"{state} {found}"
    return f"{text} {zlib.crc32(text.encode('ascii', 'replace')):08x}"
