"""How much memory a cache may take."""

from __future__ import annotations

import os
from pathlib import Path

UNKNOWN_SYSTEM_BYTES = 4 << 30
"""Assumed available where the system does not tell (Windows, macOS): what a laptop has left beside a browser."""


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping; inside a container, no more than its limit leaves."""
    available = UNKNOWN_SYSTEM_BYTES
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) << 10
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():  # "max" where there is no limit
        available = min(available, max(0, int(limit[0]) - int(used[0])))
    return available


def cache_budget_bytes(share: float) -> int:
    """``share`` (0..1) of the available memory, divided among this machine's ``torchrun`` processes."""
    return int(share * available_memory_bytes() / max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:  # another operating system: the file does not exist there
        return []
