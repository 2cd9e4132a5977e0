"""`resample`: a patch by the compiled loop (compiled_loop.py), in threads; `compiled_loop`: whether that runs here.

Threads are Python's, over rows of the patch, the loop running without the interpreter's lock: numba's own thread pools
end the process when two threads use them at once, or when a data loader forks after one has been used. There are as
many as torch uses: one in a data loader's worker. No voxel depends on their number.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from types import ModuleType

import numpy as np
import torch

from pipeline.transforms.patch_map import PatchMap
from pipeline.transforms.patch_window import Window

logger = logging.getLogger(__name__)

_VOXELS_PER_THREAD = 20_000  # about 0.3 ms of work; handing it to a thread takes a tenth of that
_SHARES_PER_THREAD = 4  # so that a thread that is held up does not hold up all
_LAST_PLACE = 2**31 - 1  # the compiled loop counts the places of a channel in 32 bits
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NO_TABLE = np.zeros(0, np.int32)
_NO_WEIGHTS = np.zeros((1, 0), np.float32)
_NOWHERE = PatchMap(np.zeros((3, 4)), np.zeros((3, 0, 0, 0), np.float32), (_NO_WEIGHTS,) * 3, (0, 0, 0), (0, 0, 0))
_POINT = Window((0, 0, 0), (1, 1, 1), (1, 1, 1), "edge")
_lock = Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _begin_anew() -> None:
    """In a forked process: threads do not survive a fork, and what they held stays held."""
    global _lock
    _lock = Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_begin_anew)


@lru_cache(maxsize=1)
def _loaded() -> ModuleType | None:
    began = time.perf_counter()
    try:
        from pipeline.transforms import compiled_loop as loop
    except (ImportError, SystemError) as error:  # numba raises either where it does not support the installed NumPy
        logger.warning("Patches are resampled by torch, several times slower than by the compiled loop: %s", error)
        return None
    if not loop.is_kept():
        logger.info("Compiling the loop that resamples patches, once per machine; it takes about half a minute")
    for function in (loop.linear, loop.nearest, loop.majority):
        _run_once(function, torch.float32 if function is loop.linear else torch.uint8)
    logger.info("Patches are resampled by the compiled loop, ready after %.1f s", time.perf_counter() - began)
    return loop


def _run_once(function: Callable, dtype: torch.dtype) -> None:
    """On one voxel: numba compiles it for the type, or loads what it has kept."""
    _run(function, torch.zeros(1, 1, 1, 1, dtype=dtype), _POINT, _NOWHERE, (1, 1, 1))


def compiled_loop() -> ModuleType | None:
    """The compiled loop, ready to run; None where numba is missing or does not run. The first call logs which it is."""
    with _lock:
        return _loaded()


def compile_loop() -> float:
    """Makes the compiled loop ready for what a training hands to it.

    Returns:
        The seconds that compiling took; 0 where its code was on the disk.
    """
    began = time.perf_counter()
    loop = compiled_loop()
    if loop is None:
        return 0.0
    for function in (loop.nearest, loop.majority):
        _run_once(function, torch.int32)  # as prepared labels are
    return time.perf_counter() - began if loop.was_compiled() else 0.0


def resample(
    loop: ModuleType,
    box: torch.Tensor,
    window: Window,
    patch_map: PatchMap,
    patch_size: Sequence[int],
    interpolation: str,
) -> torch.Tensor:
    """The patch (C, *patch_size) of a volume, out of a window of it.

    Voxels are read where they lie, whatever the order of axes in memory: of a mapped file, those alone that are needed.

    Args:
        loop: what `compiled_loop` gave.
        box: (C, H, W[, D]), what lies in the window; a view of the volume or a copy.
        patch_map: of the volume.
        interpolation: ``"linear"``, ``"nearest"`` or ``"majority"``.
    """
    if interpolation == "linear":
        box = box.float()
    if sum((n - 1) * step for n, step in zip(box.shape[1:], box.stride()[1:], strict=True)) > _LAST_PLACE:
        box = box.contiguous()
    dtype = box.dtype
    if interpolation != "linear":
        box = box.view(_SAME_SIZE[dtype.itemsize])  # labels are compared and copied, whatever their type
    patch = _run(getattr(loop, interpolation), box, window, window.seen_from(patch_map), tuple(patch_size))
    return patch.view(dtype).reshape(len(box), *patch_size)


def _run(
    function: Callable, box: torch.Tensor, window: Window, patch_map: PatchMap, patch_size: tuple[int, ...]
) -> torch.Tensor:
    if box.ndim == 3:
        box = box[:, None]
    channels, *size = box.shape
    # An axis of one voxel is not walked along, and a stride of 0 says so.
    between, *strides = (step if n > 1 else 0 for n, step in zip(box.shape, box.stride(), strict=True))
    memory = 1 + sum((n - 1) * step for n, step in zip(box.shape, box.stride(), strict=True))
    flat = box.as_strided((memory,), (1,)).numpy()
    tables = _border_tables(window, patch_map, size, strides)
    grid = np.array([channels, between, *strides, *size, *patch_map.low], dtype=np.int64)
    first, second, third = patch_map.weights
    moved = third.T != 0
    support = np.stack([moved.argmax(1), moved.shape[1] - moved[:, ::-1].argmax(1)], axis=1) * moved.any(1)[:, None]
    *_, height, width = (1, *patch_size)
    rows = math.prod(patch_size) // width
    patch = torch.empty(channels, rows * width, dtype=box.dtype)
    arguments = (
        flat, grid, *tables, patch_map.affine, patch_map.control, first, second, np.ascontiguousarray(third.T),
        support.astype(np.int64), height, width, patch.numpy(),
    )  # fmt: skip
    try:
        _in_threads(lambda begin, end: function(*arguments, begin, end), rows, channels * rows * width)
    except OSError as error:  # at the first call for a type: compiled, but the disk is full
        logger.warning("Compiled code could not be kept for the next time: %s", error)
        _in_threads(lambda begin, end: function(*arguments, begin, end), rows, channels * rows * width)
    return patch


def _border_tables(
    window: Window, patch_map: PatchMap, size: Sequence[int], strides: Sequence[int]
) -> list[np.ndarray]:
    """Per axis where in memory each voxel stands from ``patch_map.low`` on; empty where all lie in the window."""
    if all(low >= 0 and high < n for low, high, n in zip(patch_map.low, patch_map.high, size, strict=True)):
        return [_NO_TABLE] * 3
    flat = 3 - len(window.first)  # axes that a section has not
    tables = [np.zeros(3, np.int32)] * flat
    for axis, first in enumerate(window.first):
        low, high = patch_map.low[flat + axis], patch_map.high[flat + axis]
        tables.append((window.index(axis, low + first, high - low + 2) * strides[flat + axis]).astype(np.int32))
    return tables


def _in_threads(work: Callable[[int, int], None], rows: int, voxels: int) -> None:
    """``work(begin, end)`` over all rows, in this thread and as many others as torch would use."""
    threads = min(torch.get_num_threads(), voxels // _VOXELS_PER_THREAD, rows)
    if threads <= 1:
        work(0, rows)
        return
    edges = np.linspace(0, rows, min(rows, threads * _SHARES_PER_THREAD) + 1).astype(int).tolist()
    shares = iter(list(itertools.pairwise(edges)))

    def take() -> None:
        for begin, end in shares:  # the next of a list iterator is one step under the interpreter's lock
            work(begin, end)

    with _lock:
        pool = _pools.get(threads)
        if pool is None:
            pool = _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="resample")
    others = [pool.submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()
