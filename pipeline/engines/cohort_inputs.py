"""What the files of a case are, by their content."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Mapping
from typing import Any

from pipeline.data.file_digests import file_sha256, file_state
from pipeline.io import section_of


class InputDigests:
    """SHA-256 of the files of cases; a stack of many sections is read once.

    The reader, which comes next, finds the file in the system's memory: it is fetched from its disk once.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, item: Mapping[Hashable, Any]) -> dict[str, str]:
        """Channel -> digest, for the files that can be read: of another the loader says what is wrong with it."""
        image = item.get("image")
        paths = image if isinstance(image, Mapping) else {"image": image} if isinstance(image, str) else {}
        found: dict[str, str] = {}
        for name, path in paths.items():
            with contextlib.suppress(OSError):
                found[str(name)] = self._digest(path)
        return found

    def _digest(self, path: str) -> str:
        file, _ = section_of(path)
        state = file_state(file)
        with self._lock:
            known = self._known.get(state)
        if known is None:
            known = file_sha256(file)
            with self._lock:
                self._known = {**dict(list(self._known.items())[-64:]), state: known}
        return known
