"""What is cleaned up in a label map: small components, all but the largest, holes.

By ``scipy.ndimage.label`` within each class's own box: SimpleITK's components take as long, its and scipy's own filling
of holes several times longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    if minimum_ml <= 0:
        return labels.copy()
    # A hair below the limit, so that a component of exactly that volume stays whatever the rounding of the product.
    return _without(labels, None, lambda voxels: voxels * voxel_volume_ml < minimum_ml * (1 - 1e-9))


def keep_largest_component(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Set to background what is not the largest connected component of its class.

    Args:
        labels: (H, W, D), of a section (H, W), integer label map; not changed.
        classes: ids of the classes to treat so; others stay as they are.

    Returns:
        The label map without the rest, of the same type. Components are 26-connected (8-connected); of two of the same
        size the first in the order of the array stays.

    >>> keep_largest_component(np.array([[1, 0, 1, 1], [2, 0, 0, 0], [2, 0, 2, 0]]), [1])
    array([[0, 0, 1, 1],
           [2, 0, 0, 0],
           [2, 0, 2, 0]])
    """
    return _without(labels, classes, lambda voxels: np.arange(len(voxels)) != voxels[1:].argmax() + 1)


def fill_holes(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Fill the holes of a class: background that no way over background or other classes leads out of.

    Args:
        labels: (H, W, D), of a section (H, W), integer label map; not changed.
        classes: ids of the classes whose holes are filled, in this order.

    Returns:
        The filled label map, of the same type. Ways are 6-connected (4-connected) and end at the border of the array.
        Voxels of other classes within a hole stay what they are.

    >>> fill_holes(np.array([[1, 1, 1, 1], [1, 0, 2, 1], [1, 1, 1, 1]]), [1])
    array([[1, 1, 1, 1],
           [1, 1, 2, 1],
           [1, 1, 1, 1]])
    """
    filled = labels.copy()
    for value, box in _boxes(labels, classes):
        # Background around the box joins what is open to its outside.
        components, _ = ndimage.label(np.pad(labels[box] != value, 1, constant_values=True))
        inner = components[(slice(1, -1),) * labels.ndim]
        filled[box][(inner > 1) & (labels[box] == 0)] = value  # the first component begins in the corner: the outside
    return filled


def _boxes(labels: np.ndarray, classes: Sequence[int] | None) -> list[tuple[int, tuple[slice, ...]]]:
    """The box of each class, or of those named, that occurs."""
    if classes is not None and not classes:
        return []
    found = enumerate(ndimage.find_objects(labels), start=1)
    boxes = {value: box for value, box in found if box is not None and (classes is None or value in classes)}
    return [(value, boxes[value]) for value in (boxes if classes is None else classes) if value in boxes]


def _without(
    labels: np.ndarray, classes: Sequence[int] | None, dropped: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The label map without the components of each class that are ``dropped``, by their numbers of voxels."""
    kept = labels.copy()
    for value, box in _boxes(labels, classes):
        components, _ = ndimage.label(labels[box] == value, structure=np.ones((3,) * labels.ndim))
        drop = dropped(np.bincount(components.ravel()))
        drop[0] = False
        kept[box][drop[components]] = 0
    return kept
