"""An image in the label's place: told from its voxels, because any id may number an object.

Objects (cells, parcels), however many there are and even where they fill the volume, are made of neighbours that share
an id. An image's neighbours differ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.data.fingerprint import LabelFingerprint
from pipeline.errors import LabelError

LEAST_IDS = 32
"""Fewer may be classes, however finely they are mixed."""

LEAST_EQUAL = 0.3
"""Of neighbours that are both above the background, share with one id: 0.5 for objects two voxels wide in a row."""

LEAST_SPREAD = 0.05
"""Of all neighbours, share of which both are above the background: fewer are specks, and say nothing."""

FEW_VALUES = 16
"""Of whole numbers: an image with no more looks like a label."""

_MOST_SAMPLES = 1_000_000


def require_no_image(label: LabelFingerprint, ids: np.ndarray, images: Mapping[str, np.ndarray]) -> None:
    """Refuse a label that is an image.

    Args:
        ids: its voxels, (H, W, D) or (H, W).
        images: channel -> its voxels: where they are few whole numbers and the label's are many, both are exchanged.

    Raises:
        LabelError: hundreds of values, of which neighbours do not share one; or more values than any object has room
            for, beside an image that has a few.
    """
    number = sum(count > 0 for value, count in label.voxels.items() if value != 0)
    if number < LEAST_IDS:
        return
    equal, spread = _equal_neighbours(ids)
    if spread < LEAST_SPREAD:
        return
    few = [name for name, array in images.items() if _is_like_a_label(array)]
    if equal < LEAST_EQUAL or (few and equal < 2 * LEAST_EQUAL):
        exchanged = f"; and channel {few[0]} holds a few whole numbers, as a label does" if few else ""
        raise LabelError(
            f"an image in the label's place: {number} different values, {equal:.0%} of its neighbouring voxels are "
            f"equal{exchanged}",
            file=label.file,
            expected="a label, in which neighbours share an id",
            fix="are image and label exchanged, in their names or in the list?",
        )


def _equal_neighbours(ids: np.ndarray) -> tuple[float, float]:
    """(Share of neighbours with one id among those that are both not 0, share of those among all neighbours).

    Along the first two axes: along the third the slices of a thick volume have little to do with each other.
    """
    equal = both = pairs = 0
    for one, other in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        inside = (one != 0) & (other != 0)
        both += int(np.count_nonzero(inside))
        equal += int(np.count_nonzero(inside & (one == other)))
        pairs += inside.size
    return equal / max(1, both), both / max(1, pairs)


def _is_like_a_label(array: np.ndarray) -> bool:
    drawn = array.ravel(order="K")[:: max(1, array.size // _MOST_SAMPLES)]
    values = np.unique(drawn)
    return len(values) <= FEW_VALUES and bool((values == np.rint(values)).all())
