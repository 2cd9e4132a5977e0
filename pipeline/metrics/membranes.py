"""Scores of a segmentation whose objects are separated by membranes, as the ISBI 2012 challenge ranks them.

Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for connectomics, Frontiers in
Neuroanatomy 9:142, 2015. The pixel error says little about neurons: a gap of one pixel in a membrane merges two of
them. So segmentations are compared as partitions of the pixels into cells, by pairs of pixels (V^Rand) and by
information (V^Info), over the pixels that the reference calls cell (foreground-restricted), and after the predicted
membranes are thinned to lines, so that their width, on which no two annotators agree, does not count.

The challenge takes the best of several thresholds on a probability map; here the label map stands as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.errors import DataError

_NAN = float("nan")


@dataclass(frozen=True)
class MembraneScores:
    """Scores of one section; all but ``pixel_error`` and the counts are between 0 and 1, 1 is perfect.

    ``pixel_error`` is the share of pixels on which the two label maps differ. ``v_rand`` and ``v_info`` are the
    F-scores of ``..._split`` (1: no cell of the reference is split) and ``..._merge`` (1: none are merged). Without a
    cell in the reference all six are NaN. ``cells_...`` count 4-connected components, the prediction's after thinning.
    """

    pixel_error: float
    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float
    cells_prediction: int
    cells_reference: int


MEMBRANE_SCORES = tuple(field.name for field in fields(MembraneScores))


def membrane_scores(prediction: Any, reference: Any, cell: int = 1) -> MembraneScores:
    """Scores a predicted label map against the reference.

    Args:
        prediction: integer label map (H, W), numpy array or torch tensor.
        reference: same shape.
        cell: id of what is inside the membranes; everything else is membrane.

    Raises:
        DataError: other shapes, or values that are not whole numbers.

    >>> reference = np.ones((5, 9), dtype=int)
    >>> reference[:, 4] = 0  # a membrane between two cells
    >>> membrane_scores(reference, reference).v_rand
    1.0
    >>> gap = reference.copy()
    >>> gap[2, 4] = 1  # both cells become one
    >>> scores = membrane_scores(gap, reference)
    >>> round(scores.pixel_error, 3), scores.v_rand_split, scores.v_rand_merge, scores.v_info
    (0.022, 1.0, 0.5, 0.0)
    """
    maps = [_label_map(values, role) for values, role in ((prediction, "prediction"), (reference, "reference"))]
    if maps[0].shape != maps[1].shape:
        raise DataError(
            f"a prediction of shape {maps[0].shape} and a reference of shape {maps[1].shape}", expected="one shape"
        )
    inside = [label_map == cell for label_map in maps]
    segments, num_segments = ndimage.label(~thin_membranes(~inside[0]))
    cells, num_cells = ndimage.label(inside[1])
    foreground = cells > 0
    return MembraneScores(
        float(np.mean(inside[0] != inside[1])),
        *partition_scores(segments[foreground], cells[foreground]),
        num_segments,
        num_cells,
    )


def partition_scores(segments: np.ndarray, cells: np.ndarray) -> tuple[float, float, float, float, float, float]:
    """V^Rand, its split and merge score, V^Info, its split and merge score, of two partitions of the same pixels.

    With p_ij the share of the pixels in segment i and cell j, s_i and t_j its sums over j and over i (the paper's
    equations 3 and 5, F-scores at alpha = 1/2):

        V^Rand = sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2)        split: / sum t_j^2      merge: / sum s_i^2
        V^Info = I(S; T) / (H(S) / 2 + H(T) / 2)                     split: / H(S)           merge: / H(T)

    Where an entropy is 0 there is nothing to split, or to merge: its score is 1; and V^Info is 1 where both are.

    Args:
        segments: (N,) ids of the prediction; pixels of id 0 (membrane) are segments of one pixel each.
        cells: (N,) ids of the reference, from 1.

    Returns:
        Six numbers from 0 to 1; NaN where N is 0.
    """
    n = len(cells)
    if n == 0:
        return (_NAN,) * 6
    alone = segments == 0
    _, joint = np.unique(np.stack([segments[~alone], cells[~alone]]), axis=1, return_counts=True)
    singles = np.ones(int(alone.sum()))
    p = np.concatenate([joint, singles]) / n
    s = np.concatenate([np.unique(segments[~alone], return_counts=True)[1], singles]) / n
    t = np.unique(cells, return_counts=True)[1] / n
    both, of_s, of_t = (float(np.sum(share**2)) for share in (p, s, t))
    entropy_p, entropy_s, entropy_t = (_entropy(share) for share in (p, s, t))
    information = max(0.0, entropy_s + entropy_t - entropy_p)
    return (
        2 * both / (of_s + of_t),
        both / of_t,
        both / of_s,
        _share(2 * information, entropy_s + entropy_t),
        _share(information, entropy_s),
        _share(information, entropy_t),
    )


def thin_membranes(membrane: np.ndarray) -> np.ndarray:
    """Membranes thinned to lines of one pixel, without opening or closing a cell.

    Pixels are taken off from all sides alike, layer by layer, as long as they are simple: removing one neither joins,
    splits nor makes a cell (4-connected) or a membrane (8-connected). What ends within a cell shrinks back, since it
    separates nothing. Beyond the image there is membrane, so that lines stay tied to its border.

    A pixel is simple where its neighbourhood's crossing number (Yokoi, Toriwaki & Fukumura, 1975) is 1. A layer is
    taken off in four turns, of pixels that do not touch each other (Bertrand & Aktouf's subfields): so they can go at
    once.

    Args:
        membrane: bool, (H, W).

    Returns:
        bool, same shape.

    >>> wide = np.zeros((4, 7), dtype=bool)
    >>> wide[:, 2:5] = True
    >>> thin_membranes(wide).astype(int)
    array([[0, 0, 0, 1, 0, 0, 0],
           [0, 0, 0, 1, 0, 0, 0],
           [0, 0, 0, 1, 0, 0, 0],
           [0, 0, 0, 1, 0, 0, 0]])
    """
    padded = np.pad(np.asarray(membrane, dtype=bool), 1, constant_values=True)
    width = padded.shape[1]
    inner = np.zeros_like(padded)
    inner[1:-1, 1:-1] = True
    pixels, may_go = padded.reshape(-1), inner.reshape(-1)
    turn = (np.indices(padded.shape) % 2 * [[[2]], [[1]]]).sum(0).reshape(-1)
    # Round the pixel: right, upper right, up... A line of pixels is contiguous in memory.
    around = np.array([1, 1 - width, -width, -width - 1, -1, width - 1, width, width + 1])
    candidates = np.flatnonzero(pixels & may_go)
    while candidates.size:
        layer = candidates[~pixels[candidates[:, None] + around[::2]].all(axis=1)]
        gone = 0
        for field in range(4):
            now = layer[turn[layer] == field]
            codes = (pixels[now[:, None] + around] << np.arange(8)).sum(axis=1)
            now = now[_SIMPLE[codes]]
            pixels[now] = False
            gone += len(now)
        if not gone:
            break
        candidates = candidates[pixels[candidates]]
    return padded[1:-1, 1:-1].copy()


def _crossing_numbers() -> np.ndarray:
    """For each of the 256 neighbourhoods (bit k: the neighbour at k times 45 degrees is set) of a set pixel."""
    empty = 1 - (np.arange(256)[:, None] >> np.arange(9) % 8 & 1)
    return sum(empty[:, k] - empty[:, k] * empty[:, k + 1] * empty[:, k + 2] for k in (0, 2, 4, 6))


def _entropy(shares: np.ndarray) -> float:
    return float(-np.sum(shares * np.log(shares)))


def _share(part: float, whole: float) -> float:
    # Entropies that are 0 but for rounding: both partitions have one part.
    return 1.0 if whole < 1e-12 else min(1.0, part / whole)


def _label_map(values: Any, role: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu().numpy()
    label_map = np.asarray(values)
    if label_map.ndim != 2 or not label_map.size:
        raise DataError(f"a {role} of shape {label_map.shape}", expected="a label map (H, W) of a section")
    if label_map.dtype.kind not in "uib" and not (
        label_map.dtype.kind == "f" and np.array_equal(label_map, np.rint(label_map))
    ):
        raise DataError(f"a {role} of values that are not whole", expected="class ids", fix="take the argmax first")
    return label_map


_SIMPLE = _crossing_numbers() == 1
