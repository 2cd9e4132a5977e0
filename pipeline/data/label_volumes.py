"""How large the labels are, or how many objects they number: what the folds of a split can be balanced by."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.io.policy import ReadPolicy

logger = logging.getLogger(__name__)

_POLICY = ReadPolicy(assume_orientation="RAS", trust="sform", spacing_limits_mm=(1e-6, 1e6))
"""Whatever a bundle may take on trust of a label: its volume is the same, and who loads the case refuses it or not."""


def label_volumes(
    labels: Mapping[str, Path], jobs: int | None = None, label_holds: str = "classes"
) -> dict[str, dict[int, float]]:
    """Volume of each class in each label, in ml (of sections, in pixels); every file is read once per process.

    Of a label that numbers objects, ``label_holds="instances"``, the number of them takes the place of the volume, as
    class 1: its numbers are no classes.

    A label that can't be read is left out with a warning: its case is refused, with the reason, when it is loaded.

    Args:
        labels: case id -> file.
        jobs: threads; by default one per core, at most 8.
    """
    with ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1)) as pool:
        found = dict(zip(labels, pool.map(_volumes, labels.values()), strict=True))
    unread = sorted(case for case, volumes in found.items() if volumes is None)
    if unread:
        logger.warning("%d labels can't be read, the split takes them for empty: %s", len(unread), ", ".join(unread))
    known = {case: volumes for case, volumes in found.items() if volumes is not None}
    if label_holds == "instances":
        return {case: {1: float(len(volumes))} if volumes else {} for case, volumes in known.items()}
    return known


def _volumes(path: Path) -> dict[int, float] | None:
    file = Path(str(path).partition("#")[0])
    try:
        state = file.stat()
    except OSError:
        return None
    return _volumes_of(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _volumes_of(path: str, size: int, modified_ns: int) -> dict[int, float] | None:
    from pipeline.io import read_image

    try:
        image = read_image(path, policy=_POLICY)
    except PipelineError:
        return None
    values, counts = np.unique(np.rint(image.array), return_counts=True)
    voxel = image.grid.voxel_volume_ml if len(image.grid.shape) == 3 else 1.0
    return {int(value): float(count) * voxel for value, count in zip(values, counts, strict=True) if value != 0}
