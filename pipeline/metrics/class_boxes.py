"""Where the classes of two label maps lie: what is measured is a box around each, not the image."""

from __future__ import annotations

from threading import Lock

import numpy as np
from scipy import ndimage

from pipeline.metrics.loops import compiled_loops, in_shares


def class_boxes(maps: list[np.ndarray], ids: list[int]) -> list[tuple[slice, ...] | None]:
    """For each class the box around it in either map; None where it is in neither."""
    loops = compiled_loops()
    if loops is None:
        box = _bounding_box(maps)
        found = [ndimage.find_objects(label_map[box], max_label=max(ids)) for label_map in maps]
        within = [_union(found[0][class_id - 1], found[1][class_id - 1]) for class_id in ids]
        return [
            own and tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, own, strict=True))
            for own in within
        ]
    ends = np.zeros((len(ids), 3, 2), np.int64)
    ends[..., 0] = np.iinfo(np.int64).max
    lock = Lock()
    for label_map in maps:
        voxels = _unsigned(label_map)
        # An id that the type does not hold is nowhere; 0 is no class.
        wanted = np.array([i if i <= np.iinfo(label_map.dtype).max else 0 for i in ids]).astype(voxels.dtype)

        def widen(first: int, last: int, voxels: np.ndarray = voxels, wanted: np.ndarray = wanted) -> None:
            own = ends.copy()
            loops.class_boxes(voxels, wanted, first, last, own)
            with lock:
                np.minimum(ends[..., 0], own[..., 0], out=ends[..., 0])
                np.maximum(ends[..., 1], own[..., 1], out=ends[..., 1])

        in_shares(widen, voxels)
    dims = maps[0].ndim
    return [tuple(slice(*axis) for axis in box[-dims:].tolist()) if box[0, 1] else None for box in ends]


def _unsigned(label_map: np.ndarray) -> np.ndarray:
    """(H, W, D), contiguous, in this machine's byte order; of negative values, which are no class, the same bits."""
    native = np.ascontiguousarray(label_map, label_map.dtype.newbyteorder("="))
    return native.view(f"u{native.itemsize}").reshape((1,) * (3 - native.ndim) + native.shape)


def _bounding_box(maps: list[np.ndarray]) -> tuple[slice, ...]:
    """The box around everything that is not background in either map; one voxel where there is nothing."""
    box: list[slice] = []
    for axis in range(maps[0].ndim):
        others = tuple(other for other in range(maps[0].ndim) if other != axis)
        hit = np.flatnonzero(maps[0][tuple(box)].any(axis=others) | maps[1][tuple(box)].any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 1))
    return tuple(box)


def _union(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> tuple[slice, ...] | None:
    """The box around two boxes."""
    if first is None or second is None:
        return first or second
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
