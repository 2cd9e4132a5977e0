"""Lines that are on the disk before the work goes on: what a process leaves that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.io.stream import cannot


class Journal:
    """A file that is only ever appended to, a JSON object a line, synced after each.

    A line is there whole or not at all: what a full disk did not take is cut off again, and what a killed process has
    left of its last line is no line to `read_journal`.

    Args:
        path: made at the first line; its folder is there.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._handle: int | None = None
        self._lock = threading.Lock()

    def append(self, line: Mapping[str, Any]) -> None:
        """Raises:
        DataError: the line can't be written. The lines before it stay.
        """
        content = f"{json.dumps(line)}\n".encode("ascii")
        with self._lock:
            try:
                if self._handle is None:
                    self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                size = os.fstat(self._handle).st_size
                if size:
                    os.lseek(self._handle, -1, os.SEEK_END)
                    if os.read(self._handle, 1) != b"\n":  # a killed process has left a part of a line
                        content = b"\n" + content
                try:
                    while content:
                        content = content[os.write(self._handle, content) :]
                    os.fsync(self._handle)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._handle, size)
                    raise
            except OSError as error:
                raise cannot(error, self.path, "written") from error

    def close(self) -> None:
        """Close the file, which goes if there is no line in it."""
        with self._lock:
            if self._handle is not None:
                if not os.fstat(self._handle).st_size:
                    self.path.unlink(missing_ok=True)
                os.close(self._handle)
                self._handle = None


def read_journal(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """The whole lines of a journal, in their order; none where there is no file.

    Raises:
        DataError: the file can't be read.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot(error, Path(path), "read") from error
    lines = []
    for line in text.split(b"\n"):
        try:
            found = json.loads(line)
        except ValueError:  # the last one of a killed process, or an empty one
            continue
        if isinstance(found, dict):
            lines.append(found)
    return lines
