"""A case in three planes: grey slices at the true proportions, the outlines as a layer of their own over each."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image
from scipy import ndimage

from pipeline.data.case_volumes import CaseVolumes
from pipeline.handlers.panel import overlay_rgb, robust_window

_PLANES = ("sagittal", "coronal", "axial")
_MARGIN_MM = 10.0
_CLOSE_UP = 0.6
"""What is outlined is shown enlarged where it takes up less than this share of the field's longer side."""
_PART = 0.25
"""Of a section's sides: what else is shown enlarged."""


@dataclass(frozen=True)
class Plane:
    """A slice.

    Args:
        name: axial, coronal, sagittal, or section.
        words: which slice, for a caption; empty of a section.
        size_mm: (width, height) of what is shown.
        size: of the picture, (width, height) px.
        grey: the image, PNG.
        outlines: the label maps' outlines, transparent elsewhere, PNG.
        close_up: whether it is the part around what is outlined, enlarged.
    """

    name: str
    words: str
    size_mm: tuple[float, float]
    size: tuple[int, int]
    grey: bytes
    outlines: bytes
    close_up: bool = False


def montage(volumes: CaseVolumes) -> list[Plane]:
    """Axial, coronal and sagittal, each the slice with the most wrong voxels (or else with the most that is outlined).

    Shown as radiologists hang them: the patient's right on the left of the picture, the front up in axial slices and to
    the left in sagittal ones. A section is shown as it is stored.
    """
    window = robust_window(volumes.image)
    if volumes.image.ndim == 2:
        spacing = volumes.grid.spacing_mm
        pictures = [volumes.image, volumes.reference, volumes.prediction]
        drawn = _drawn("section", "", pictures, (spacing[0], spacing[1]), window)
        return drawn if len(drawn) > 1 else [*drawn, *_most_wrong(pictures, (spacing[0], spacing[1]), window)]
    to_ras = io_orientation(volumes.grid.affine)
    spacing = tuple(np.array(volumes.grid.spacing_mm)[np.argsort(to_ras[:, 0])])
    image = apply_orientation(volumes.image, to_ras)
    reference, prediction = (
        None if ids is None else apply_orientation(ids, to_ras) for ids in (volumes.reference, volumes.prediction)
    )
    maps = [ids for ids in (reference, prediction) if ids is not None]
    outlined = np.asarray(np.any([ids > 0 for ids in maps], axis=0)) if maps else image > 0
    wrong = np.asarray(maps[0] != maps[1]) if len(maps) == 2 else outlined
    seen = wrong if wrong.any() else outlined
    planes = []
    for axis in (2, 1, 0):
        others = tuple(other for other in range(3) if other != axis)
        areas = np.count_nonzero(seen, axis=others)
        index = int(areas.argmax()) if areas.any() else image.shape[axis] // 2
        pictures = [None if a is None else a.take(index, axis)[::-1, ::-1].T for a in (image, reference, prediction)]
        across, down = others
        words = f"slice {index + 1} of {image.shape[axis]}"
        planes += _drawn(_PLANES[axis], words, pictures, (spacing[down], spacing[across]), window)
    return sorted(planes, key=lambda plane: plane.close_up)


def _most_wrong(
    pictures: list[np.ndarray | None], spacing_mm: tuple[float, float], window: tuple[float, float]
) -> list[Plane]:
    """The part of a section that is full of outlines in which most is wrong, in the section's own proportions."""
    image, reference, prediction = pictures
    assert image is not None
    if reference is None or prediction is None or not (reference != prediction).any():
        return []
    size = [max(1, round(n * _PART)) for n in image.shape]
    share = ndimage.uniform_filter((reference != prediction).astype(float), size, mode="constant")
    middle = np.argwhere(share > share.max() - 0.5 / np.prod(size)).mean(axis=0)
    starts = [min(max(0, round(m - s / 2)), n - s) for m, s, n in zip(middle, size, image.shape, strict=True)]
    box = tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))
    return [_plane("section", "", (image[box], reference[box], prediction[box]), spacing_mm, window, True)]


def _drawn(
    name: str,
    words: str,
    pictures: list[np.ndarray | None],
    spacing_mm: tuple[float, float],
    window: tuple[float, float],
) -> list[Plane]:
    """A slice, and the part of it that matters; spacing between rows and between columns."""
    image, reference, prediction = pictures
    assert image is not None
    planes = [_plane(name, words, (image, reference, prediction), spacing_mm, window, False)]
    outlined = np.zeros(image.shape, bool)
    for ids in (reference, prediction):
        outlined |= False if ids is None else ids > 0
    if outlined.any():
        box = []
        for axis in (0, 1):
            where = np.flatnonzero(outlined.any(axis=1 - axis))
            margin = round(_MARGIN_MM / spacing_mm[axis])
            box.append(slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin))
        part = [None if array is None else array[tuple(box)] for array in pictures]
        assert part[0] is not None
        sides = [max(n * s for n, s in zip(a.shape, spacing_mm, strict=True)) for a in (image, part[0])]
        if sides[1] < _CLOSE_UP * sides[0]:
            planes.append(_plane(name, words, (part[0], part[1], part[2]), spacing_mm, window, True))
    return planes


def _plane(
    name: str,
    words: str,
    pictures: tuple[np.ndarray, np.ndarray | None, np.ndarray | None],
    spacing_mm: tuple[float, float],
    window: tuple[float, float],
    close_up: bool,
) -> Plane:
    image, reference, prediction = pictures
    aspect = spacing_mm[0] / spacing_mm[1]
    plain = overlay_rgb(image, pixel_aspect=aspect, window=window)
    over = overlay_rgb(image, reference, prediction, pixel_aspect=aspect, window=window)
    changed = (over != plain).any(axis=2)
    layer = np.dstack([over * changed[..., None], np.uint8(255) * changed])
    size = plain.shape[1], plain.shape[0]
    size_mm = image.shape[1] * spacing_mm[1], image.shape[0] * spacing_mm[0]
    return Plane(name, words, size_mm, size, _png(plain[..., 0]), _png(layer.astype(np.uint8)), close_up)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
