"""Distances between the surfaces of two masks, in millimetres.

The surface of a mask is the set of its voxels that have a background neighbour (6-connected in 3D, 4-connected in 2D);
what lies beyond the image border counts as background. Distances are exact and Euclidean, between voxel centres.

MONAI (``compute_hausdorff_distance``) uses the same surface and gives the same Hausdorff distances where both masks
hold something. DeepMind's ``surface-distance`` weights surface elements between the voxels by their area, so its
percentiles, average distances and surface Dice differ slightly from those here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

# A thread costs more than it saves below about this many look-ups.
_PARALLEL_FROM = 20_000
# Products of spacings such as 10 x 0.1 mm must not fall out of a tolerance of 1 mm by the last bit.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SurfaceMeasures:
    """Distances in mm and the normalised surface Dice (0 to 1) of two masks."""

    hausdorff_mm: float
    hausdorff_95_mm: float
    assd_mm: float
    nsd: float


def surface_of(mask: np.ndarray) -> np.ndarray:
    """The surface voxels of a mask.

    Args:
        mask: bool, (H, W) or (H, W, D).

    Returns:
        bool, same shape.

    >>> surface_of(np.ones((3, 4), dtype=bool)).astype(int)
    array([[1, 1, 1, 1],
           [1, 0, 0, 1],
           [1, 1, 1, 1]])
    """
    inside = mask.copy()
    for axis in range(mask.ndim):
        within, neighbours = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        within[1:] &= neighbours[:-1]
        within[:-1] &= neighbours[1:]
        within[[0, -1]] = False
    return mask ^ inside


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """For every surface voxel of one mask the distance to the nearest surface voxel of the other.

    Args:
        prediction: bool, (H, W) or (H, W, D), not empty.
        reference: bool, same shape, not empty.
        spacing_mm: distance between voxel centres along each axis.

    Returns:
        Distances in mm from the prediction's surface to the reference's, and from the reference's to the prediction's;
        float64, one per surface voxel, in no particular order.
    """
    surface_p, surface_r = surface_of(prediction), surface_of(reference)
    shared = surface_p & surface_r
    num_shared = int(np.count_nonzero(shared))
    points = [np.argwhere(surface) * np.asarray(spacing_mm, dtype=np.float64) for surface in (surface_p, surface_r)]
    # Voxels on both surfaces are at distance 0: in a good prediction most of them, and none needs a look-up.
    apart = [(surface ^ shared)[surface] for surface in (surface_p, surface_r)]
    zeros = np.zeros(num_shared)
    distances = []
    for own, other, is_apart in ((points[0], points[1], apart[0]), (points[1], points[0], apart[1])):
        wanted = own[is_apart]
        if not len(wanted):
            distances.append(zeros)
            continue
        tree = cKDTree(other, balanced_tree=False, compact_nodes=False)
        found, _ = tree.query(wanted, workers=-1 if len(wanted) > _PARALLEL_FROM else 1)
        distances.append(np.concatenate([zeros, found]))
    return distances[0], distances[1]


def surface_measures(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float = 1.0
) -> SurfaceMeasures:
    """The Hausdorff family, from one pass over the two surfaces.

    Args:
        prediction: bool, (H, W) or (H, W, D), not empty.
        reference: bool, same shape, not empty.
        spacing_mm: distance between voxel centres along each axis.
        tolerance_mm: distance up to which a surface counts as found in ``nsd``.

    Returns:
        ``hausdorff_mm``, the larger of the two directed maxima; ``hausdorff_95_mm``, the larger of the two directed
        95th percentiles (linear interpolation); ``assd_mm``, the mean over both surfaces pooled; ``nsd``, the share
        of both surfaces that lies within the tolerance (Nikolov et al., 2018, arXiv 1809.04430, counted in voxels).

    >>> prediction, reference = np.zeros((2, 5, 5), dtype=bool)
    >>> prediction[1, 1] = reference[1, 3] = True
    >>> surface_measures(prediction, reference, spacing_mm=(5.0, 0.5))
    SurfaceMeasures(hausdorff_mm=1.0, hausdorff_95_mm=1.0, assd_mm=1.0, nsd=1.0)
    """
    to_reference, to_prediction = surface_distances(prediction, reference, spacing_mm)
    pooled = np.concatenate([to_reference, to_prediction])
    return SurfaceMeasures(
        hausdorff_mm=float(pooled.max()),
        hausdorff_95_mm=float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95))),
        assd_mm=float(pooled.mean()),
        nsd=float(np.mean(pooled <= tolerance_mm * (1 + _ROUNDING))),
    )
