"""`compiled_loops`: the compiled loops of this room, ready to run, and `in_shares`: planes of an array for threads.

Threads are Python's, the loops running without the interpreter's lock: numba's own thread pools end the process when
two threads use them at once, or when a data loader forks after one has been used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from types import ModuleType

import numpy as np

logger = logging.getLogger(__name__)

_VOXELS_FOR_THREADS = 500_000  # below, threads cost more than they save
_SHARES_PER_THREAD = 4  # so that a thread that is held up does not hold up all
_lock = Lock()


def compiled_loops() -> ModuleType | None:
    """The compiled loops; None where numba is missing or does not run, which the first call says in the log."""
    with _lock:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> ModuleType | None:
    try:
        from pipeline.metrics import compiled_loops as loops
    except (ImportError, SystemError) as error:  # numba raises either where it does not support the installed NumPy
        logger.warning("Cases are measured by SciPy, several times slower than by compiled loops: %s", error)
        return None
    if not loops.is_kept():
        logger.info("Compiling the loops that measure cases, once per machine; it takes several seconds")
    return loops


def num_threads() -> int:
    """How many threads may work: the cores that this process may use, and no more than OMP_NUM_THREADS says."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(said) if said.isdecimal() else cores))


def in_shares(work: Callable[[int, int], None], array: np.ndarray) -> None:
    """Calls ``work(first, last)`` for all planes of an array's first axis, in threads where it is large."""
    threads, planes = num_threads(), len(array)
    if threads == 1 or array.size < _VOXELS_FOR_THREADS or planes == 1:
        work(0, planes)
        return
    shares = min(planes, threads * _SHARES_PER_THREAD)
    ends = [planes * share // shares for share in range(shares + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, ends[:-1], ends[1:]))
