"""`ForegroundIndicesd`: where the classes of a label lie, found once per case, to centre patches on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import MapTransform

from pipeline.errors import DataError


def foreground_voxels(label: np.ndarray, limit: int = 10_000) -> dict[int, np.ndarray]:
    """Voxels of every class that is present, background left out.

    Args:
        label: (H, W, D) or (H, W) integer ids.
        limit: where a class has more voxels, this many of them, drawn once and alike for the same label.

    Returns:
        class id -> (N, 3), or (N, 2), int32; empty for an empty label.
    """
    flat = np.flatnonzero(label)
    values = label.reshape(-1)[flat].astype(np.int64)
    found = {}
    for value in np.unique(values).tolist():
        voxels = flat[values == value]
        if len(voxels) > limit:
            # A fixed seed: this stands before the random transforms, and must give the same at every preparation.
            voxels = voxels[np.random.default_rng(0).choice(len(voxels), limit, replace=False)]
        found[value] = np.stack(np.unravel_index(voxels, label.shape), axis=1).astype(np.int32)
    return found


class ForegroundIndicesd(MapTransform):
    """Put the voxels of each class under ``item[foreground_key]``; `RandSpatialPatchd` uses and removes it.

    It belongs at the end of the deterministic part of a chain, where `pipeline.data.CaseDataset` keeps its result.

    Args:
        label_key: a label (1, H, W, D) or (1, H, W); an item without one is passed on as it is.
        foreground_key: where the result goes.
        limit: voxels kept per class.
    """

    def __init__(self, label_key: str = "label", foreground_key: str = "foreground", limit: int = 10_000) -> None:
        super().__init__(label_key, allow_missing_keys=True)
        self.foreground_key, self.limit = foreground_key, limit

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            label = np.asarray(item[key])
            if label.ndim not in (3, 4) or len(label) != 1:
                raise DataError(f"a label of shape {label.shape}", expected="(1, H, W[, D])", case=item.get("case_id"))
            item[self.foreground_key] = foreground_voxels(label[0], self.limit)
        return item
