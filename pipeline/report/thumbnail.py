"""A case as a small picture: the slice with the most label, grey, the label's outline over it."""

from __future__ import annotations

import io

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image
from scipy import ndimage

from pipeline.io import Volume

OUTLINE = (255, 176, 0)
_LONGER_SIDE = 240
_THICK = 1.5
"""Voxels so much longer along one axis than along the others: slices were taken across it, and look best so."""


def thumbnail(image: Volume, label: np.ndarray | None = None) -> bytes:
    """A PNG of one slice, at the true proportions of its sides.

    Axial slices are seen from the feet, the patient's right on the left of the picture; coronal ones from the front;
    sagittal ones from the left, the front on the left. Grey runs from percentile 1 to 99 of the slice.

    Args:
        image: (H, W, D), or (H, W) of a section.
        label: on the same grid; what is above 0 is outlined.
    """
    array, mask = image.array, None if label is None else label > 0
    spacing = np.array(image.grid.spacing_mm)
    if array.ndim == 3:
        to_ras = io_orientation(image.grid.affine)
        spacing = spacing[np.argsort(to_ras[:, 0])]
        array = apply_orientation(array, to_ras)
        mask = None if mask is None else apply_orientation(mask, to_ras)
        array, mask, spacing = _slice(array, mask, spacing)
    else:
        spacing = spacing[::-1]  # of a picture: columns first
    low, high = np.percentile(array, (1, 99))
    grey = np.clip((array - low) / (high - low), 0, 1) if high > low else np.zeros(array.shape)
    extent = np.array(array.shape[::-1]) * spacing
    width, height = (max(8, int(side)) for side in np.rint(extent * _LONGER_SIDE / extent.max()))
    shown = Image.fromarray(np.rint(255 * grey).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    picture = np.array(shown.convert("RGB"))
    if mask is not None and mask.any():
        drawn = np.array(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)) > 0
        picture[ndimage.binary_dilation(drawn) & ~drawn] = OUTLINE
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _slice(
    array: np.ndarray, mask: np.ndarray | None, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows and columns of the slice worth looking at, of RAS+ volumes, and the spacing along columns and rows."""
    thickest = int(np.argmax(spacing))
    axis = thickest if spacing[thickest] > _THICK * np.median(spacing) else 2
    index = array.shape[axis] // 2
    if mask is not None and mask.any():
        index = int(np.argmax(np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))))
    across, up = [other for other in range(3) if other != axis]

    def as_picture(volume: np.ndarray) -> np.ndarray:
        # Rows run downwards; the patient's right (and in sagittal slices the front) belongs on the left.
        return volume.take(index, axis)[::-1, ::-1].T

    return as_picture(array), None if mask is None else as_picture(mask), spacing[[across, up]]
