"""The one reader and the one writer of NIfTI files.

>>> import numpy as np, tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "map.nii.gz"
>>> write_volume(path, np.arange(24.0).reshape(2, 3, 4), Grid((2, 3, 4), np.diag([1, 1, 5, 1])))
>>> volume = read_volume(path)
>>> volume.array.dtype, str(volume.grid), volume.repairs
(dtype('float32'), '2x3x4 voxels of 1x1x5 mm, RAS', ())
>>> read_header(path).grid.same_grid(volume.grid)
True
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from pipeline.errors import DataError, GeometryError, PipelineError
from pipeline.geometry import Grid
from pipeline.io.atomic import write_whole
from pipeline.io.deflate import Piece, write_pieces
from pipeline.io.header import HEADER_BYTES, VolumeHeader, parse_header
from pipeline.io.policy import STRICT, ReadPolicy
from pipeline.io.space import QFORM_SFORM_LIMIT_VOXELS, require_volume
from pipeline.io.stream import first_bytes, is_compressed, opened
from pipeline.io.values import Conversion, as_stored, stored_type

_CHUNK_BYTES = 1 << 20
_SLAB_VOXELS = 1 << 18  # stays in the processor's cache from decompression to conversion
_PIECE_BYTES = 16 << 20  # compressed at a time by each thread
_HIGHEST_GZIP_RATIO = 1100  # deflate can't shrink by more than 1032: a header that promises more is wrong


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as it was read.

    Args:
        array: (H, W, D), scaled (scl_slope applied), finite.
        grid: where it lies, mm RAS+.
        repairs: what was put right or assumed, one sentence each; empty for a clean file.
    """

    array: np.ndarray
    grid: Grid
    repairs: tuple[str, ...] = ()


def read_volume(
    path: str | PathLike[str], dtype: type | np.dtype | str = np.float32, policy: ReadPolicy = STRICT
) -> Volume:
    """Read one volume, whole and verified.

    The memory that is needed is the result's and little more. Threads may read at the same time: decompression and
    conversion work outside Python's lock.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file. Of a compressed one, checksum and length are verified.
        dtype: type of the result, to which the stored values are converted directly. Floating types round; integer
            types are given only where every value is a whole number that they hold.
        policy: what is taken on trust; by default nothing.

    Returns:
        The array is in Fortran order, as the file stores it: the first axis runs fastest.

    Raises:
        DataError: no file, not NIfTI, truncated or corrupt, more than its header promises, not one volume of real
            numbers, NaN or infinite voxels, values that ``dtype`` can't hold, a volume that the memory can't hold.
        GeometryError: a header that describes no space, or two.
    """
    file, dtype = Path(path), np.dtype(dtype)
    if dtype.kind not in "fiu":
        raise TypeError(f"read_volume gives floating and integer types; asked for {dtype}")
    with opened(file) as stream:
        # Of the stream that is verified, so that header and voxels are of one file whoever replaces it meanwhile.
        header = _header(stream.read(HEADER_BYTES), file.stat().st_size, file, policy)
        conversion = Conversion(header, dtype)
        stream.seek(header.offset)
        array = _read_voxels(stream, header, conversion, file)
        missing = header.end - stream.seek(header.end)  # a compressed stream can't be left behind its end
        if missing > 0:
            raise _cut_short(f"a file that ends {missing} bytes too early", file)
        _require_end(stream, file)
    repairs = conversion.repairs(file, policy.non_finite == "zero")
    return Volume(array.reshape(header.grid.shape, order="F"), header.grid, header.repairs + repairs)


def read_header(path: str | PathLike[str], policy: ReadPolicy = STRICT) -> VolumeHeader:
    """What a volume's header says, from the file's first kilobytes; the voxels are neither read nor verified.

    Raises:
        DataError, GeometryError: as `read_volume`, as far as the header shows it.
    """
    file = Path(path)
    return _header(*first_bytes(file, HEADER_BYTES), file, policy)


def read_grid(path: str | PathLike[str], policy: ReadPolicy = STRICT) -> Grid:
    """Where a volume lies, from its header alone: see `read_header`."""
    return read_header(path, policy).grid


def write_volume(
    path: str | PathLike[str], array: np.ndarray, grid: Grid, dtype: type | np.dtype | str | None = None
) -> None:
    """Write one volume so that the final name exists only when the file is whole.

    It goes to a temporary file beside it, is synced, read back (checksum of all bytes) and renamed. The header is new:
    millimetres, qform and sform alike, no text of any input, no name, no time. Any grid is written that a header can
    hold: the limits of `ReadPolicy` are for headers of unknown origin. The folder is made.

    Args:
        path: ``.nii`` or ``.nii.gz``, which is compressed by as many threads as there are cores.
        array: (H, W, D).
        grid: of the same shape.
        dtype: stored type; by default the smallest that holds the labels of an integer array, and float32 otherwise.

    Raises:
        DataError: values that are not finite or do not fit, a grid of another shape, a folder that can't be written to,
            a full disk, a name that is too long, a file that does not read back as it was written.
        GeometryError: a grid that describes no volume, or that a header can't hold.
    """
    file, array = Path(path), np.asarray(array)
    compressed = is_compressed(file)
    if array.shape != grid.shape or array.ndim != 3:
        raise DataError(f"an array of shape {array.shape}", file=file, expected=f"the grid's {grid.shape}")
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif" or not array.size:
        raise DataError(f"{array.size} voxels of type {array.dtype}", file=file, expected="real numbers")
    # the header is written in this machine's byte order
    stored = stored_type(array, None if dtype is None else np.dtype(dtype).newbyteorder("="), file)
    require_volume(grid.affine, "a grid", file)
    start = _start_of_file(stored, grid, file)
    slices = max(1, min(64, _PIECE_BYTES // (grid.shape[0] * grid.shape[1] * stored.itemsize)))
    slabs = [array[:, :, first : first + slices] for first in range(0, grid.shape[2], slices)]
    written: list[tuple[int, int]] = []

    def write(raw: BinaryIO) -> None:
        pieces: list[Piece] = [lambda: start, *(partial(as_stored, slab, stored, file) for slab in slabs)]
        written.append(write_pieces(raw, pieces, compressed))

    write_whole(file, write, lambda temporary: _verify(temporary, *written[0]))


def _header(block: bytes, size: int, file: Path, policy: ReadPolicy) -> VolumeHeader:
    header = parse_header(block, file, policy)
    if header.end > size * (_HIGHEST_GZIP_RATIO if is_compressed(file) else 1):
        shape = "x".join(map(str, header.grid.shape))
        raise _cut_short(f"{size} bytes where the header promises {header.end}, {shape} voxels", file)
    return header


def _read_voxels(stream: BinaryIO, header: VolumeHeader, conversion: Conversion, file: Path) -> np.ndarray:
    count = math.prod(header.grid.shape)
    try:
        array = np.empty(count, conversion.dtype)
    except MemoryError as error:
        raise DataError(
            f"{'x'.join(map(str, header.grid.shape))} voxels, {count * conversion.dtype.itemsize / 2**30:.1f} GiB",
            file=file,
            expected="a volume that fits into the memory that is free",
            fix="crop or resample it, or close other programs",
        ) from error
    size = header.dtype.itemsize
    for first in range(0, count, _SLAB_VOXELS):
        voxels = min(_SLAB_VOXELS, count - first)
        block = stream.read(voxels * size)
        if len(block) < voxels * size:
            raise _cut_short(f"{first * size + len(block)} of {header.voxel_bytes} bytes of voxels", file)
        conversion.convert(np.frombuffer(block, header.dtype), array[first : first + voxels])
    return array


def _require_end(stream: BinaryIO, file: Path) -> None:
    """Read on to the end, where gzip's checksum and length are verified.

    Zeros are no exception: air that a header with one row too few leaves over looks like the padding of a disk's block,
    and every voxel before it would lie in another place. The length is also what shows that the type is the right one.
    """
    surplus = 0
    while block := stream.read(_CHUNK_BYTES):
        surplus += len(block)
    if surplus:
        raise DataError(
            f"{surplus} bytes behind the last voxel",
            file=file,
            expected="the voxels that the header promises, and no more",
            fix="export it again: its header and its voxels do not belong together",
        )


def _cut_short(found: str, file: Path) -> DataError:
    return DataError(found, file=file, expected="a whole file", fix="copy the file again from where it came")


def _start_of_file(stored: np.dtype, grid: Grid, file: Path) -> bytes:
    header = (Nifti1Header if max(grid.shape) < 2**15 else Nifti2Header)()
    try:
        header.set_data_dtype(stored)
    except HeaderDataError as error:
        raise DataError(f"voxels to be stored as {stored}", file=file, expected="a type that NIfTI knows") from error
    header.set_data_shape(grid.shape)
    header.set_xyzt_units("mm")
    with np.errstate(over="ignore"):  # looked for below
        header.set_qform(grid.affine, code=1)
        header.set_sform(grid.affine, code=1)
    rounded = header.get_sform()
    if not (np.isfinite(rounded).all() and Grid(grid.shape, rounded).same_grid(grid)):
        raise GeometryError(
            f"a grid that lies elsewhere once it is rounded to a header's {header['srow_x'].dtype} ({grid})",
            file=file,
            expected="voxels and a distance from the origin of a size that the header holds",
        )
    if Grid(grid.shape, header.get_qform()).distance_mm(grid) > QFORM_SFORM_LIMIT_VOXELS * min(grid.spacing_mm):
        header.set_qform(None, code=0)  # a quaternion holds no shear; readers must not find two different spaces
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    header["magic"] = type(header).single_magic
    return header.binaryblock + b"\0\0\0\0"  # four zeros: no header extension follows


def _verify(file: Path, checksum: int, length: int) -> None:
    """That every byte is there, the header's too; what it says was looked at before it was written."""
    try:
        found, count = 0, 0
        with opened(file) as stream:
            while block := stream.read(_CHUNK_BYTES):
                found, count = isal_zlib.crc32(block, found), count + len(block)
    except PipelineError as error:
        raise OSError(errno.EIO, f"it does not read back: {error.found}") from error
    if (found, count) != (checksum, length):
        raise OSError(errno.EIO, "it reads back with other bytes")
