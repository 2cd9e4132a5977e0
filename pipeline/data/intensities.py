"""Statistics of a volume's intensities, and a miniature of it: what a fingerprint keeps in the place of the voxels.

Counts, extremes, mean and standard deviation are those of every voxel. Percentiles are those of a regular sample of at
most a million voxels: exact ones would have to sort the volume, for a difference that no decision here could see.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.data.fingerprint import MINIATURE_SIDE, PERCENTILES, IntensityFingerprint

LEAST_BACKGROUND_SHARE = 0.05
"""From this share of voxels on, one lowest value is taken for what lies outside the body (air, or a brain mask)."""

FAR = 1000.0
"""A voxel is absurd from this many times the distance between percentiles 0.5 and 99.5 beyond them."""

_MOST_SAMPLES = 1_000_000
_CHUNK = 1 << 20


def sample(values: np.ndarray) -> np.ndarray:
    """At most about a million of the values, at regular distances, in memory order.

    The distance shares no factor with any side: else it would visit the same few slices again and again.
    """
    step = max(1, -(-values.size // _MOST_SAMPLES))
    while any(math.gcd(step, side) != 1 for side in values.shape):
        step += 1
    return values.ravel(order="K")[::step]


def background_value(array: np.ndarray) -> float | None:
    """The value that stands for "outside the body": 0, or else the lowest, where many voxels have it; else None."""
    least = LEAST_BACKGROUND_SHARE * array.size
    if array.size - np.count_nonzero(array) >= least:
        return 0.0
    lowest = array.min()
    return float(lowest) if np.count_nonzero(array == lowest) >= least else None


def intensities(
    array: np.ndarray, background: float | None = None
) -> tuple[IntensityFingerprint, IntensityFingerprint | None]:
    """Statistics of all voxels, and of those that do not have the ``background`` value (None where there are none).

    The second come from the same sums, less what the background contributed: the volume is not copied.
    """
    drawn = np.sort(sample(array))  # ten times as fast as the partitioning of np.percentile
    mean, squares = _mean_and_squares(array)
    count = array.size
    everything = _described(count, float(array.min()), float(array.max()), mean, squares, drawn)
    if background is None:
        return everything, None
    inside = array != array.dtype.type(background)
    body = int(np.count_nonzero(inside))
    if not body:
        return everything, None
    outside = count - body
    body_mean = (mean * count - background * outside) / body
    body_squares = squares + count * (mean - body_mean) ** 2 - outside * (background - body_mean) ** 2
    low = float(array.min(where=inside, initial=np.inf))
    high = float(array.max(where=inside, initial=-np.inf))
    drawn = drawn[drawn != background]
    if not drawn.size:  # so few that the sample missed them all
        drawn = np.sort(array[inside])
    return everything, _described(body, low, high, body_mean, max(0.0, body_squares), drawn)


def of_values(values: np.ndarray) -> IntensityFingerprint | None:
    """Statistics of a few values, such as those under a label; None where there is none."""
    return intensities(values)[0] if values.size else None


def absurd_voxels(array: np.ndarray, body: IntensityFingerprint) -> int:
    """How many voxels lie so far from all others that they are damage, not anatomy."""
    low, high = body.percentiles[0], body.percentiles[-1]
    reach = FAR * max(high - low, 1e-6 * max(abs(low), abs(high), 1e-30))
    if body.minimum >= low - reach and body.maximum <= high + reach:
        return 0
    return int(np.count_nonzero((array < low - reach) | (array > high + reach)))


def body_shape(array: np.ndarray, background: float | None) -> tuple[int, ...]:
    """Voxels per side of the box around all that does not have the background value; 0 where nothing is."""
    if background is None:
        return array.shape
    inside, sides = array != array.dtype.type(background), []
    for axis in range(array.ndim):
        occupied = np.flatnonzero(inside.any(axis=tuple(other for other in range(array.ndim) if other != axis)))
        sides.append(int(occupied[-1] - occupied[0] + 1) if occupied.size else 0)
    return tuple(sides)


def miniature(array: np.ndarray, affine: np.ndarray) -> bytes:
    """A volume (H, W, D) at `MINIATURE_SIDE` voxels per side, axes to the right, front and top, a byte each.

    0 to 255 stands for percentile 1 to 99 of its own values: two scans of one kind look alike whatever their units.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    thin = array[tuple(slice(None, None, max(1, side // (4 * MINIATURE_SIDE))) for side in array.shape)]
    small = apply_orientation(thin, io_orientation(affine)).astype(np.float64)
    for _ in range(3):
        side = small.shape[0]
        edges = np.linspace(0, side, MINIATURE_SIDE + 1)
        begin = np.minimum(edges[:-1].astype(int), side - 1)
        end = np.maximum(begin + 1, np.ceil(edges[1:]).astype(int))
        sums = np.concatenate([np.zeros((1, *small.shape[1:])), small.cumsum(axis=0)])
        # the axis that is done goes to the back: after three rounds they are in order again
        small = np.moveaxis((sums[end] - sums[begin]) / (end - begin)[:, None, None], 0, -1)
    low, high = np.percentile(small, (1, 99))
    scaled = (small - low) / (high - low) if high > low else np.zeros_like(small)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8).tobytes()


def _described(count, low, high, mean, squares, drawn) -> IntensityFingerprint:
    place = np.array(PERCENTILES) / 100 * (drawn.size - 1)
    below = place.astype(int)
    above = np.minimum(below + 1, drawn.size - 1)
    first, second = drawn[below].astype(np.float64), drawn[above].astype(np.float64)
    percentiles = tuple((first + (second - first) * (place - below)).tolist())
    return IntensityFingerprint(count, low, high, float(mean), math.sqrt(squares / count), percentiles)


def _mean_and_squares(array: np.ndarray) -> tuple[float, float]:
    """Mean, and sum of the squared distances from it, both in float64."""
    flat = array.ravel(order="K")
    mean = float(flat.sum(dtype=np.float64)) / flat.size
    squares = 0.0
    for start in range(0, flat.size, _CHUNK):  # no second volume in memory
        distance = flat[start : start + _CHUNK].astype(np.float64)
        distance -= mean
        squares += float(distance @ distance)
    return mean, squares
