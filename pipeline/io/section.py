"""The one reader and the one writer of sections: grey 2D images, PNG or TIFF, as microscopes and their tools make them.

A section is stored as rows from top to bottom and columns from left to right: its array is (H, W), row first. The
pixel sizes that such files may hold are those of printers and screens as often as of specimens, so they are not read:
the grid counts one per pixel, and every length of a section, also one under a name in ``_mm``, is in pixels.

A TIFF file may hold a stack of sections. Each is named by its number behind a hash, counted from 0: ``stack.tif#12``;
``stack.tif#12of30`` is refused where the file holds another number of sections than 30.

>>> import numpy as np, tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "section.png"
>>> write_section(path, np.array([[0, 255, 7], [1, 2, 3]], np.uint8))
>>> section = read_section(path)
>>> section.array.tolist(), str(section.grid)
([[0.0, 255.0, 7.0], [1.0, 2.0, 3.0]], '2x3 pixels')
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid
from pipeline.io.atomic import write_whole
from pipeline.io.grey import BITS, SAMPLE_FORMAT, SIGNED, UNSIGNED, grey_values
from pipeline.io.nifti import Volume
from pipeline.io.policy import STRICT, ReadPolicy
from pipeline.io.stream import cannot

SECTION_SUFFIXES = (".png", ".tif", ".tiff")

_FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
_NUMBERED = re.compile(r"(.*\.(?:tiff?|png(?=#\d+of)))#(\d+)(?:of(\d+))?", flags=re.IGNORECASE | re.DOTALL)
_NUMBERS = {UNSIGNED: "whole", SIGNED: "signed whole", 3: "floating point", 5: "complex", 6: "complex"}
_ORIENTATION = 274  # TIFF 6.0, section 8
_LARGEST_EXACT = 2**24  # the whole numbers that float32 holds
# What Pillow's decoders raise on files that are damaged.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def is_section(path: str | PathLike[str]) -> bool:
    """Whether the name says that a file holds sections.

    >>> is_section("a/00.PNG"), is_section("stack.tif#3"), is_section("cbf.nii.gz")
    (True, True, False)
    """
    return section_of(path)[0].suffix.lower() in SECTION_SUFFIXES


def section_of(path: str | PathLike[str]) -> tuple[Path, int | None]:
    """The file, and the number of the section in its stack; None where the path names none.

    >>> section_of("stack.tif#3")[1], section_of("stack.tif#3of30")[1], section_of("stack.tif")[1]
    (3, 3, None)
    """
    match = _NUMBERED.fullmatch(os.fspath(path))
    return (Path(match[1]), int(match[2])) if match else (Path(path), None)


def count_sections(path: str | PathLike[str]) -> int:
    """How many sections a file holds; a PNG file holds one.

    Raises:
        DataError: as `read_section`, as far as the header shows it.
    """
    with _opened(Path(path)) as image:
        return int(getattr(image, "n_frames", 1))


def read_section(path: str | PathLike[str], policy: ReadPolicy = STRICT) -> Volume:
    """Read one section, whole.

    Args:
        path: a ``.png``, ``.tif`` or ``.tiff`` file of grey values of 1, 8, 16 or 32 bits; of a stack with the
            section's number, ``stack.tif#12``. One bit gives 0 and 255; 2 and 4 bits (a PNG's or TIFF's) give 0 to 3
            and 0 to 15.
        policy: with ``colour="grey"`` an image in colour of 8 bits gives its brightness, 0.299 R + 0.587 G + 0.114 B
            (ITU-R BT.601), and ``repairs`` says so.

    Returns:
        Array (H, W) float32 of the stored values, not scaled, of a TIFF file up to 8 bits that counts from white
        (WhiteIsZero) turned to count from black; a grid of one millimetre per pixel. Three equal colour channels of 8
        bits are taken as grey, and ``repairs`` says so; it also says where a TIFF file's Orientation tag has turned the
        rows and columns.

    Raises:
        DataError: no file, one that is not what its name says, damaged, in colour, with a palette or transparent; of a
            kind whose values would not come out as they are stored, such as colours of 16 bits; an animation; a stack
            without a section's number, with a number that it lacks, or of another size than the name says; NaN or
            infinite pixels.
    """
    file, _ = section_of(path)
    with _opened(file) as image:
        _turn_to_section(image, path)
        turned = int(getattr(image, "tag_v2", {}).get(_ORIENTATION, 1))  # Pillow obeys it, and forgets it then
        array, repairs = grey_values(image, file, policy.colour)
        if turned in range(2, 9):
            repairs += (f"turned as its Orientation tag says ({turned}), which not every program does",)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(array))} pixels that are NaN or infinite",
            file=file,
            expected="finite values",
        )
    if array.dtype.kind in "iu" and np.abs(array, dtype=np.int64).max(initial=0) > _LARGEST_EXACT:
        raise DataError(
            f"values from {array.min()} to {array.max()}",
            file=file,
            expected=f"at most {_LARGEST_EXACT} without their sign",
            fix="save it in 16 bits",
        )
    return Volume(array.astype(np.float32), section_grid(array.shape), repairs)


def read_section_grid(path: str | PathLike[str]) -> Grid:
    """The grid of a section, from its file's header alone."""
    with _opened(section_of(path)[0]) as image:
        _turn_to_section(image, path)
        return section_grid((image.height, image.width))


def section_grid(shape: tuple[int, ...]) -> Grid:
    """The grid of a section (H, W): one millimetre per pixel."""
    return Grid(shape, np.eye(4))


def write_section(path: str | PathLike[str], array: np.ndarray) -> None:
    """Write one section so that the final name exists only when the file is whole; its folder is made.

    Args:
        path: ``.png`` for whole numbers up to 65535 (8 bits where they fit, otherwise 16); ``.tif`` or ``.tiff`` also
            for float32.
        array: (H, W).

    Raises:
        DataError: another shape, values that the file can't hold, a folder that can't be written to, a full disk, a
            file that does not read back as it was written.
    """
    file, array = Path(path), np.asarray(array)
    kind = _FORMATS.get(file.suffix.lower())
    if kind is None:
        raise DataError(f"a file named {file.name}", file=file, expected=" or ".join(SECTION_SUFFIXES))
    stored = _as_stored(array, file, kind)
    write_whole(
        file,
        lambda raw: Image.fromarray(stored).save(raw, format=kind),
        lambda temporary: _verify(temporary, stored),
    )


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The image, its header read; what goes wrong while it is read comes out as a DataError that names the file."""
    kind = _FORMATS.get(file.suffix.lower())
    if kind is None:
        raise DataError(
            f"a file named {file.name}",
            file=file,
            expected=" or ".join(SECTION_SUFFIXES),
            fix="save it as PNG or TIFF without loss",
        )
    if not file.exists():
        raise DataError("no such file", file=file, expected="a PNG or TIFF image", fix="check the path")
    if file.is_dir():
        raise DataError("a folder", file=file, expected="a PNG or TIFF image", fix="give the file inside it")
    if file.stat().st_size == 0:
        raise DataError("an empty file (0 bytes)", file=file, expected=f"a {kind} image", fix="copy the file again")
    try:
        with open(file, "rb") as raw:
            if kind == "PNG":
                with Image.open(raw, formats=[kind]) as image:
                    image.verify()  # every chunk's checksum, which reading the pixels skips
            else:
                _require_whole_directories(raw)
            raw.seek(0)
            with Image.open(raw, formats=[kind]) as image:
                frames = int(getattr(image, "n_frames", 1))
                if kind == "PNG" and frames > 1:
                    raise DataError(
                        f"an animation of {frames} pictures",
                        file=file,
                        expected="one section",
                        fix="save each as a file, or all as a TIFF stack",
                    )
                yield image
    except PipelineError:
        raise
    except Image.UnidentifiedImageError as error:
        numbers = _tiff_numbers(file) if kind == "TIFF" else None
        if numbers:
            raise DataError(
                f"a TIFF image of {numbers}",
                file=file,
                expected="grey values of 1, 8 or 16 bits, or float32",
                fix="save it as float32 or in 16 bits",
            ) from error
        raise DataError(
            f"a file that is no {kind} image", file=file, expected="what its name says", fix=f"save it as {kind}"
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"a header that promises too many pixels ({error})", file=file, expected="a section", fix="cut it in parts"
        ) from error
    except PermissionError as error:
        raise cannot(error, file, "read") from error
    except _DAMAGE as error:
        raise DataError(
            f"a damaged {kind} image ({str(error).lower().rstrip('.') or type(error).__name__})",
            file=file,
            expected="a whole file",
            fix="copy the file again from where it came",
        ) from error


def _require_whole_directories(raw: BinaryIO) -> None:
    """Follow a TIFF's chain of directories, one per section, to its end (TIFF 6.0, section 2; BigTIFF).

    Pillow takes the first directory that was cut off for the last, so that a file cut short would be a shorter stack.

    Raises:
        EOFError: a directory that the file does not hold whole.
    """
    head = raw.read(4)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 4:
        return  # no TIFF file: Pillow says so
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    count_kind, entry_size, offset_kind = ("Q", 20, "Q") if big else ("H", 12, "I")

    def number(kind: str) -> int:
        content = raw.read(struct.calcsize(order + kind))
        return int(struct.unpack(order + kind, content)[0])

    seen: set[int] = set()
    raw.seek(8 if big else 4)
    try:
        offset = number(offset_kind)
        while offset and offset not in seen:
            seen.add(offset)
            raw.seek(offset)
            raw.seek(entry_size * number(count_kind), os.SEEK_CUR)
            offset = number(offset_kind)
    except (struct.error, OverflowError) as error:
        raise EOFError(f"it ends before section {max(len(seen) - 1, 0)}") from error


def _turn_to_section(image: Image.Image, path: str | PathLike[str]) -> None:
    """Go to the section that the path names; refuse a path that names none of the file's."""
    file, number = section_of(path)
    match, frames = _NUMBERED.fullmatch(os.fspath(path)), int(getattr(image, "n_frames", 1))
    if match and match[3] and int(match[3]) != frames:
        raise DataError(
            f"{frames} section(s)",
            file=file,
            expected=f"{match[3]}, as many as the other files of this case hold",
            fix="check that the files belong together, and that none was cut short",
        )
    if number is None and frames > 1:
        raise DataError(
            f"a stack of {frames} sections",
            file=file,
            expected="one section",
            fix=f"name the section, {file.name}#0 to #{frames - 1}, or save each as a file",
        )
    if number is not None and number >= frames:
        raise DataError(f"section {number} of a file of {frames}", file=file, expected=f"0 to {frames - 1}")
    if number:
        image.seek(number)


def _tiff_numbers(file: Path) -> str | None:
    """What numbers a TIFF file holds that Pillow can't open, in words, from its first directory.

    None where there is none to be read, or where the numbers are not what stands in the way.
    """
    try:
        with open(file, "rb") as raw:
            head = raw.read(8)
            if head[2:4] in (b"+\0", b"\0+"):  # 43: BigTIFF, with a longer header
                head += raw.read(8)
            directory = ImageFileDirectory_v2(head)
            raw.seek(directory.next)
            directory.load(raw)
        bits, kind = directory[BITS], directory.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    except _DAMAGE:
        return None
    if kind == UNSIGNED and tuple(bits) in ((1,), (2,), (4,), (8,), (16,)):
        return None
    order = ", the most significant byte first" if head[:2] == b"MM" else ""
    per_pixel = f", {len(bits)} per pixel" if len(bits) > 1 else ""
    return f"{_NUMBERS.get(kind, 'other')} numbers of {bits[0]} bits{per_pixel}{order}"


def _as_stored(array: np.ndarray, file: Path, kind: str) -> np.ndarray:
    if array.ndim != 2 or not array.size:
        raise DataError(f"an array of shape {array.shape}", file=file, expected="(H, W)")
    if array.dtype.kind == "f" and kind == "TIFF":
        if not np.isfinite(array).all():
            raise DataError("values that are not all finite", file=file, expected="finite values")
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind not in "uib" or int(array.min()) < 0 or int(array.max()) > 65535:
        raise DataError(
            f"{array.dtype} values from {array.min()} to {array.max()}",
            file=file,
            expected="whole numbers from 0 to 65535" + (" or float32" if kind == "TIFF" else ""),
        )
    return np.ascontiguousarray(array, dtype=np.uint8 if int(array.max()) <= 255 else np.uint16)


def _verify(file: Path, stored: np.ndarray) -> None:
    try:
        whole = np.array_equal(read_section(file).array, stored.astype(np.float32))
    except PipelineError as error:
        raise OSError(errno.EIO, f"it does not read back: {error.found}") from error
    if not whole:
        raise OSError(errno.EIO, "it reads back with other pixels")
