"""What the pixels of an opened image mean as grey values, as they are stored.

Pillow spreads values of few bits, cuts others and hands some over with another sign: what it changes is undone here, or
refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import DataError

GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
COLOUR_MODES = ("RGB", "RGBA", "LA")
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601, section 2.5.1
# TIFF 6.0, sections 3, 4 and 19: tags, and two values of SampleFormat.
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
UNSIGNED, SIGNED = 1, 2


def _depth(image: Image.Image, file: Path) -> tuple[int, int]:
    """(bits of a value, SampleFormat), from the header.

    Raises:
        DataError: a kind that Pillow would hand over with other values than those that are stored.
    """
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        every = tags.get(BITS, (1,))
        bits, sample = int(every[0]), int(tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0])
        if sample == SIGNED and bits <= 8:
            raise DataError(f"signed values of {bits} bits", file=file, expected="unsigned ones", fix="save as float32")
        if tags.get(PHOTOMETRIC) == 0 and bits > 8:
            raise DataError(
                f"values of {bits} bits that count from white (WhiteIsZero)",
                file=file,
                expected="0 for black",
                fix="save it with black as zero (BlackIsZero)",
            )
        if len(every) > len(image.getbands()):
            raise DataError(
                f"{len(every)} values per pixel", file=file, expected="one", fix="save each as a channel of its own"
            )
    else:
        tiles = getattr(image, "tile", ())
        raw_mode = tiles[0].args if tiles else image.mode
        _, _, depth = str(raw_mode).partition(";")  # "L;4", "RGB;16B"
        bits, sample = int(depth.rstrip("B") or 8), UNSIGNED
    if image.mode in COLOUR_MODES and bits > 8:
        raise DataError(
            f"colours of {bits} bits", file=file, expected="grey values", fix="save it in grey, of 8 or 16 bits"
        )
    if "transparency" in image.info and image.mode != "P":
        raise DataError(
            "an image with transparent pixels", file=file, expected="grey values", fix="save it without transparency"
        )
    return bits, sample


def grey_values(image: Image.Image, file: Path, colour: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values of an image as they are stored, and what was put right.

    Args:
        image: an opened PNG or TIFF file, at the section that is meant.
        file: its name, for errors.
        colour: ``refuse`` or ``grey``: an opaque image in colour of 8 bits gives its brightness.

    Returns:
        Array (H, W) of whole numbers or floats, not scaled; and one sentence for each repair.

    Raises:
        DataError: colours, transparent pixels, a palette; values that would come out otherwise than they are stored.
    """
    bits, sample = _depth(image, file)
    if image.mode in GREY_MODES:
        array = np.asarray(image)
        if image.mode == "1":
            array = array.astype(np.uint8) * 255
        elif image.mode == "L" and bits < 8:
            array = array // (255 // (2**bits - 1))  # Pillow has spread them from 0 to 255
        elif image.mode == "I" and (bits, sample) == (32, UNSIGNED) and image.format == "TIFF":
            array = array.view(np.uint32)  # Pillow's are signed
        return array, ()
    if image.mode in COLOUR_MODES:
        array = np.asarray(image)
        colours = array[..., : 1 if image.mode == "LA" else 3]
        opaque = image.mode == "RGB" or bool((array[..., -1] == 255).all())
        if opaque and bool((colours == colours[..., :1]).all()):
            return np.ascontiguousarray(colours[..., 0]), (f"{image.mode} with equal channels taken as grey",)
        if opaque and colour == "grey":
            return (colours @ _BRIGHTNESS).astype(np.float32), (f"{image.mode} in colour taken as its brightness",)
        if opaque:
            raise DataError(
                "an image in colour",
                file=file,
                expected="grey values",
                fix="save it in grey, or each colour as a channel; or take an image's brightness: colour=grey",
            )
        raise DataError(
            "an image with transparent pixels", file=file, expected="grey values", fix="save it in grey, opaque"
        )
    found = "an image with a palette" if image.mode == "P" else f"an image of the kind {image.mode}"
    raise DataError(found, file=file, expected="grey values", fix="save it in grey")
