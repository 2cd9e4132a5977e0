"""Pictures of a case: slices of its image with the contours of reference and prediction.

Colours keep apart for all common kinds of colour blindness: the reference is drawn in blues and greens, the
prediction in oranges and yellows, one shade per class. Lines lie inside what they outline, the prediction's on the
outer edge and the reference's within: where both agree, a double line is seen and none hides the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pipeline.errors import DataError

REFERENCE_COLOURS = ((60, 170, 255), (0, 205, 170), (150, 150, 255), (120, 225, 255))
PREDICTION_COLOURS = ((255, 150, 0), (255, 235, 70), (255, 100, 90), (255, 190, 150))
_SIDE_PX = 384
_TEXT_PX = 14
_GAP_PX = 6
_INK = (225, 225, 225)
_BLACK = (0, 0, 0)
# A picture has the patient's right at its left, the front at the top, the head at the top: indices rise towards these.
_RISING = "LPI"


def robust_window(image: np.ndarray) -> tuple[float, float]:
    """Grey values to show as black and as white: the 1st and 99.5th percentile of what is not exactly zero."""
    inside = image[np.isfinite(image) & (image != 0)]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(inside, [1, 99.5]))
    return low, high if high > low else low + 1


def pick_slices(reference: np.ndarray, prediction: np.ndarray | None, count: int, axis: int = -1) -> list[int]:
    """The slices that tell most, in rising order.

    All but one are spread evenly over the reference's voxels (so they stay the same from epoch to epoch), and one is
    the slice with the most wrong voxels. Where the reference is empty the prediction stands in, and the whole volume
    where that is empty too.

    Args:
        reference: label map, (H, W, D).
        prediction: same shape, or None.
        count: how many; fewer are returned where the volume has fewer slices.
        axis: across which.

    >>> label = np.zeros((4, 4, 9)); label[1:3, 1:3, 2:7] = 1
    >>> wrong = label.copy(); wrong[0, 0, 8] = 1
    >>> pick_slices(label, wrong, 3)
    [3, 5, 8]
    """
    axis %= reference.ndim
    size = reference.shape[axis]
    others = tuple(other for other in range(reference.ndim) if other != axis)
    maps = [reference] if prediction is None else [reference, prediction]
    areas = next((m for m in ((label_map != 0).sum(others) for label_map in maps) if m.any()), np.ones(size))
    wrong = (reference != maps[-1]).sum(others)
    worst = {int(wrong.argmax())} if wrong.any() else set()

    spread = min(count, size) - len(worst)
    share = np.cumsum(areas) / areas.sum()
    chosen = worst | {int(np.searchsorted(share, (i + 0.5) / spread)) for i in range(spread)}
    for index in sorted(range(size), key=lambda i: -areas[i]):  # where two of them met: the largest slices left
        if len(chosen) >= min(count, size):
            break
        chosen.add(index)
    return sorted(chosen)


def overlay_rgb(
    image: np.ndarray,
    reference: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    pixel_aspect: float = 1.0,
    scale: float | None = None,
    window: tuple[float, float] | None = None,
) -> np.ndarray:
    """One slice in grey, with contours.

    Args:
        image: (H, W), any numbers.
        reference: (H, W) label map, outlined in blues and greens.
        prediction: (H, W) label map, outlined in oranges and yellows.
        pixel_aspect: height of a pixel over its width, in mm.
        scale: picture pixels per image column; by default the longer side of the picture gets about 384 pixels, and
            never fewer than the image has.
        window: values shown as black and as white; by default ``robust_window`` of the slice.

    Returns:
        uint8, (H', W', 3), of the slice's physical proportions.
    """
    low, high = window or robust_window(image)
    grey = np.clip((np.nan_to_num(image.astype(np.float32)) - low) / (high - low), 0, 1)
    if scale is None:
        scale = max(1.0, _SIDE_PX / max(image.shape[0] * pixel_aspect, image.shape[1]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale * pixel_aspect)))
    enlarged = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    picture = np.repeat(np.rint(enlarged * 255).astype(np.uint8)[..., None], 3, axis=2)
    line_px = 2 if scale >= 4 else 1
    layers = ((reference, REFERENCE_COLOURS, 2 * line_px), (prediction, PREDICTION_COLOURS, line_px))
    for label_map, colours, width_px in layers:
        if label_map is None:
            continue
        labels = np.asarray(Image.fromarray(label_map.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        # Where another id is that near; hundreds of instances take no longer than one class. Beyond the picture an
        # outline goes on: a structure that is cut off there has no edge there.
        near = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), width_px)
        lowest = ndimage.minimum_filter(labels, footprint=near, mode="nearest")
        outline = (labels > 0) & (lowest != ndimage.maximum_filter(labels, footprint=near, mode="nearest"))
        picture[outline] = np.array(colours, np.uint8)[(labels[outline] - 1) % len(colours)]
    return picture


def case_panel(
    image: np.ndarray,
    reference: np.ndarray,
    prediction: np.ndarray | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    orientation: str = "RAS",
    slices: int = 4,
    classes: Mapping[int, str] | None = None,
    window: tuple[float, float] | None = None,
    letters: bool = True,
) -> np.ndarray:
    """A case at a glance: a column per slice, the plain image above, with contours below, and a legend.

    Slices lie across the thick axis (1.5 times any other) or else across the body's long axis (axial); they are shown
    as radiologists hang them, the patient's right at the left.

    Args:
        image: (H, W, D), any numbers.
        reference: (H, W, D) label map.
        prediction: (H, W, D) label map, or None.
        spacing_mm: distance between voxel centres along each axis.
        orientation: axis codes, as ``Grid.orientation`` gives them.
        slices: how many at most; see ``pick_slices``.
        classes: id -> name, for the legend.
        window: as in ``overlay_rgb``; by default ``robust_window`` of the whole image.
        letters: whether the sides of the patient are named in the pictures.

    Returns:
        uint8, (H', W', 3).

    Raises:
        DataError: shapes that differ, or are not 3D.
    """
    shapes = {image.shape, reference.shape, *(() if prediction is None else (prediction.shape,))}
    if len(shapes) > 1 or image.ndim != 3:
        raise DataError(f"volumes of shape {sorted(shapes)} for a picture", expected="one shape (H, W, D)")
    second, thickest = sorted(spacing_mm)[1:]
    long_axis = next(axis for axis in range(3) if orientation[axis] in "SI")
    axis = int(np.argmax(spacing_mm)) if thickest >= 1.5 * second else long_axis
    across, down = _picture_axes(axis, orientation)
    aspect = spacing_mm[down] / spacing_mm[across]
    window = window or robust_window(image)

    indices = pick_slices(reference, prediction, slices, axis)
    grey, *labels = (_hang(v, axis, indices, orientation) for v in (image, reference, prediction) if v is not None)
    box = _field(grey, labels, window)
    columns = []
    for i, index in enumerate(indices):
        plain = overlay_rgb(grey[i][box], pixel_aspect=aspect, window=window)
        outlined = overlay_rgb(grey[i][box], *(stack[i][box] for stack in labels), pixel_aspect=aspect, window=window)
        heading = _text_line([(f"slice {index + 1} of {image.shape[axis]}", _INK)], plain.shape[1])
        if letters:
            plain = _with_letters(plain, orientation[across], orientation[down])
        columns.append(np.concatenate([heading, plain, _gap(plain), outlined]))
    gap = np.zeros((columns[0].shape[0], _GAP_PX, 3), dtype=np.uint8)
    montage = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)
    return np.concatenate([montage, *_legend(reference, prediction, classes or {}, montage.shape[1])])


def _picture_axes(axis: int, orientation: str) -> tuple[int, int]:
    """Which array axes run across and down a picture of slices across ``axis``."""
    first, second = (other for other in range(3) if other != axis)
    for codes in ("LR", "AP"):
        if orientation[first] in codes:
            return first, second
        if orientation[second] in codes:
            return second, first
    raise AssertionError(f"no axis across in {orientation}")


def _hang(volume: np.ndarray, axis: int, indices: Sequence[int], orientation: str) -> np.ndarray:
    """Slices as pictures, (slice, row, column), rows and columns in the directions of ``_RISING``."""
    across, down = _picture_axes(axis, orientation)
    stack = np.take(volume, indices, axis).transpose(axis, down, across)
    steps = [1 if orientation[a] in _RISING else -1 for a in (down, across)]
    return stack[:, :: steps[0], :: steps[1]]


def _field(grey: np.ndarray, labels: Sequence[np.ndarray], window: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of what there is to see: labels, and what is brighter than a twentieth of the window."""
    seen = np.any(grey > window[0] + 0.05 * (window[1] - window[0]), axis=0)
    for label_map in labels:
        seen |= np.any(label_map, axis=0)
    sides = []
    for hits in (seen.any(1), seen.any(0)):
        where = np.flatnonzero(hits) if hits.any() else np.array([0, hits.size - 1])
        margin = 1 + hits.size // 50
        sides.append(slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin))
    return sides[0], sides[1]


def _with_letters(picture: np.ndarray, across: str, down: str) -> np.ndarray:
    """The sides of the patient that lie at the left and at the top."""
    canvas = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_PX)
    left, top = ("R" if across in "LR" else "A"), ("A" if down in "AP" else "S")
    for place, letter, anchor in (((4, canvas.height // 2), left, "lm"), ((canvas.width // 2, 4), top, "mt")):
        draw.text(place, letter, fill=_INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=_BLACK)
    return np.asarray(canvas)


def _legend(
    reference: np.ndarray, prediction: np.ndarray | None, classes: Mapping[int, str], width: int
) -> list[np.ndarray]:
    """A line for the reference and one for the prediction, their classes in their colours."""
    maps = [label_map for label_map in (reference, prediction) if label_map is not None]
    ids = sorted(classes or {int(i) for label_map in maps for i in np.unique(label_map) if i > 0})
    lines = []
    for role, colours in (("reference", REFERENCE_COLOURS), ("prediction", PREDICTION_COLOURS)):
        names = [(classes.get(i, f"class {i}"), colours[(i - 1) % len(colours)]) for i in ids]
        lines.append(_text_line([(f"{role}:", _INK), *names], width))
    return lines if prediction is not None else lines[:1]


def _text_line(words: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> np.ndarray:
    canvas = Image.new("RGB", (width, _TEXT_PX + _GAP_PX + 2))
    draw, font, x = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_PX), 4.0
    for word, colour in words:
        draw.text((x, canvas.height / 2), word, fill=colour, font=font, anchor="lm")
        x += draw.textlength(word + "  ", font=font)
    return np.asarray(canvas)


def _gap(picture: np.ndarray) -> np.ndarray:
    return np.zeros((_GAP_PX, picture.shape[1], 3), dtype=np.uint8)
