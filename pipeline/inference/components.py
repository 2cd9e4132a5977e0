"""Small components of a label map, which are more often noise than lesions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def remove_small_components(labels: np.ndarray, minimum_ml: float, voxel_volume_ml: float) -> np.ndarray:
    """Set to background every connected component of a class that is smaller than ``minimum_ml``.

    Args:
        labels: (H, W, D) integer label map; not changed.
        minimum_ml: smallest volume that stays, 0 keeps all.
        voxel_volume_ml: of one voxel.

    Returns:
        The label map without them, of the same type. Components are 26-connected, each class on its own.

    >>> labels = np.zeros((4, 4, 1), np.uint8)
    >>> labels[0, 0], labels[2:, 2:] = 1, 1
    >>> remove_small_components(labels, minimum_ml=0.002, voxel_volume_ml=0.001)[..., 0].sum()
    np.uint64(4)
    """
    kept = labels.copy()
    if minimum_ml <= 0:
        return kept
    for value in np.unique(labels[labels > 0]):
        box = ndimage.find_objects((labels == value).astype(np.uint8))[0]
        components, _ = ndimage.label(labels[box] == value, structure=np.ones((3,) * labels.ndim))
        # A hair below the limit, so that a component of exactly that volume stays whatever the rounding of the product.
        small = np.bincount(components.ravel()) * voxel_volume_ml < minimum_ml * (1 - 1e-9)
        small[0] = False
        kept[box][small[components]] = 0
    return kept
