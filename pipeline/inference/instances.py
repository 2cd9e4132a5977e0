"""Numbers for the objects of a label map: what a network that was taught to keep objects apart has found of each.

Ronneberger, Fischer & Brox, U-Net, MICCAI 2015 (arXiv 1505.04597), section 3: a network that learns a border of
background between touching objects leaves each of them as a component of its own.
"""

from __future__ import annotations

import numpy as np

from pipeline.transforms.separate_objects import find_objects

INSTANCES = ("components",)
"""How objects are found, by the names of a config."""


def number_instances(labels: np.ndarray, minimum_voxels: int = 0) -> np.ndarray:
    """The face-connected components of each class, numbered 1, 2, ...

    The border that was cut into the objects of the training labels, one voxel wide, is left out of them. Growing the
    objects over it made them no better on real nuclei, and worse where close objects do not touch.

    Args:
        labels: class ids, (H, W) or (H, W, D), 0 is background.
        minimum_voxels: smaller components are left out.

    Returns:
        int32, the shape of ``labels``.

    >>> number_instances(np.array([[1, 1, 0, 1, 0, 1, 1, 1]]), minimum_voxels=2).tolist()
    [[1, 1, 0, 0, 0, 2, 2, 2]]
    """
    objects = find_objects(labels)
    kept = np.bincount(objects.ravel()) >= minimum_voxels
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[objects]
