"""Whether probabilities mean what they say: of the voxels that are called a lesion with 0.8, 80% are lesion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, DataError

_BLOCK_VOXELS = 1 << 18
# Of the sum of a voxel's probabilities from 1: float16 and a softmax on a GPU are not more exact.
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class CalibrationMeasures:
    """``brier`` score (0 is perfect, 2 the worst), expected calibration error ``ece`` and its largest gap
    ``maximum_calibration_error`` (0 to 1), over ``voxels``."""

    brier: float
    ece: float
    maximum_calibration_error: float
    voxels: int


def calibration_measures(probabilities: Any, reference: Any, bins: int = 15) -> CalibrationMeasures:
    """Brier score and calibration errors of the probabilities of a segmentation.

    ``brier`` is the mean over voxels of the squared differences to the one-hot reference, summed over classes (Brier,
    Monthly Weather Review 78:1, 1950). For ``ece`` (Guo et al., arXiv 1706.04599, equations 3 and 5) voxels are
    sorted into bins of equal width by the probability of the most probable class; it is the mean over voxels of the
    distance between how often a bin's voxels are right and their mean probability. Most voxels of a volume are
    background, and easy: compare figures on the same part of the image alone.

    Args:
        probabilities: numpy array or torch tensor (K, H, W, D) or (K, H, W), class 0 the background, summing to 1 over
            K; with K = 1 the probability of class 1.
        reference: integer label map (H, W, D) or (H, W) with ids below K (below 2 with K = 1).
        bins: number of bins of (0, 1].

    Raises:
        DataError: logits or other values outside 0 to 1, sums that are not 1, other shapes, unknown ids.
        ConfigError: no bin.

    >>> reference = np.array([[1, 1], [1, 0]])
    >>> measures = calibration_measures(np.full((1, 2, 2), 0.75), reference)
    >>> measures.ece, measures.brier
    (0.0, 0.375)
    """
    if bins < 1:
        raise ConfigError(f"{bins} bins", expected="at least 1")
    shares, labels = _array(probabilities), _array(reference)
    if shares.ndim - 1 != labels.ndim or shares.shape[1:] != labels.shape or not labels.size:
        raise DataError(
            f"probabilities of shape {shares.shape} and a reference of shape {labels.shape}",
            expected="(K, H, W, D) and (H, W, D), or (K, H, W) and (H, W)",
        )
    classes = max(2, len(shares))
    if labels.dtype.kind not in "uib" and not np.array_equal(labels, np.rint(labels)):
        raise DataError("a reference of values that are not whole", expected="class ids")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"reference ids from {labels.min()} to {labels.max()}", expected=f"0 to {classes - 1}")
    voxels, confident, correct = (np.zeros(bins) for _ in range(3))
    squares = 0.0
    for share, label in _blocks(shares.reshape(len(shares), -1), labels.reshape(-1)):
        best, chosen = share.max(axis=0), share.argmax(axis=0)
        squares += float((share**2).sum() - 2 * share[label, np.arange(len(label))].sum()) + len(label)
        of_bin = np.clip(np.ceil(best * bins).astype(np.int64) - 1, 0, bins - 1)
        voxels += np.bincount(of_bin, minlength=bins)
        confident += np.bincount(of_bin, best, minlength=bins)
        correct += np.bincount(of_bin, chosen == label, minlength=bins)
    gaps = np.abs(correct - confident)
    return CalibrationMeasures(
        brier=max(0.0, squares / labels.size),
        ece=float(gaps.sum()) / labels.size,
        maximum_calibration_error=float((gaps[voxels > 0] / voxels[voxels > 0]).max()),
        voxels=labels.size,
    )


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a torch tensor, on whatever device
        values = values.detach().cpu().float().numpy()
    return np.asarray(values)


def _blocks(shares: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts of the voxels, so that float64 probabilities of a whole volume never exist; each checked."""
    for start in range(0, len(labels), _BLOCK_VOXELS):
        block = slice(start, start + _BLOCK_VOXELS)
        share = shares[:, block].astype(np.float64)
        if len(share) == 1:
            share = np.concatenate([1 - share, share])
        total = share.sum(axis=0)
        if not (share.min() >= -_SUM_TOLERANCE and np.abs(total - 1).max() <= _SUM_TOLERANCE):  # NaN is neither
            raise DataError(
                f"probabilities from {share.min():.4g} to {share.max():.4g} that sum to {total.min():.4g} at the least",
                expected="probabilities, 0 to 1 with a sum of 1 per voxel",
                fix="take the softmax of logits first",
            )
        yield share, labels[block].astype(np.int64)
