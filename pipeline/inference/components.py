"""Components of a label map that are more often noise than lesions: the small ones, and those of little certainty."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def remove_components(
    labels: np.ndarray,
    voxel_volume_ml: float,
    *,
    minimum_ml: float = 0.0,
    probabilities: np.ndarray | None = None,
    minimum_probability: float = 0.0,
) -> np.ndarray:
    """Set to background every connected component of a class that is too small or too uncertain.

    What a network mistakes for a lesion is as certain in its middle as a lesion is, but has less of a middle: the mean
    over a component tells the two apart where the maximum does not.

    Args:
        labels: (H, W, D) integer label map; not changed.
        voxel_volume_ml: of one voxel.
        minimum_ml: smallest volume that stays, 0 keeps all.
        probabilities: (K, H, W, D), of each class; needed for ``minimum_probability``.
        minimum_probability: smallest mean, over a component's voxels, of its class's probability that stays.

    Returns:
        The label map without them, of the same type. Components are 26-connected, each class on its own.

    >>> labels = np.zeros((4, 4, 1), np.uint8)
    >>> labels[0, 0], labels[2:, 2:] = 1, 1
    >>> remove_components(labels, voxel_volume_ml=0.001, minimum_ml=0.002)[..., 0].sum()
    np.uint64(4)
    """
    kept = labels.copy()
    if minimum_ml <= 0 and minimum_probability <= 0:
        return kept
    for value in np.unique(labels[labels > 0]):
        box = ndimage.find_objects((labels == value).astype(np.uint8))[0]
        components, _ = ndimage.label(labels[box] == value, structure=np.ones((3,) * labels.ndim))
        voxels = np.bincount(components.ravel())
        # A hair below the limit, so that a component of exactly that volume stays whatever the rounding of the product.
        dropped = voxels * voxel_volume_ml < minimum_ml * (1 - 1e-9)
        if minimum_probability > 0 and probabilities is not None:
            total = np.bincount(components.ravel(), weights=probabilities[value][box].ravel())
            dropped |= total < minimum_probability * voxels
        dropped[0] = False
        kept[box][dropped[components]] = 0
    return kept
