"""The one reader and the one writer of NIfTI files.

>>> import numpy as np, tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "map.nii.gz"
>>> write_volume(path, np.arange(24.0).reshape(2, 3, 4), Grid((2, 3, 4), np.diag([1, 1, 5, 1])))
>>> volume = read_volume(path)
>>> volume.array.dtype, str(volume.grid), volume.repairs
(dtype('float32'), '2x3x4 voxels of 1x1x5 mm, RAS', ())
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import math
import os
import uuid
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid
from pipeline.io.header import VolumeHeader, parse_header
from pipeline.io.policy import STRICT, ReadPolicy
from pipeline.io.space import QFORM_SFORM_LIMIT_VOXELS
from pipeline.io.stream import cannot, is_compressed, opened

_HEADER_BYTES = 540  # the longer of the two header kinds
_CHUNK_BYTES = 1 << 20
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


def read_volume(path: str | PathLike[str], dtype: type | np.dtype = np.float32, policy: ReadPolicy = STRICT) -> Volume:
    """Read one volume, whole and verified.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file. Of a compressed one, checksum and length are verified.
        dtype: floating type of the result; the stored values are converted to it directly.

    Raises:
        DataError: no file, not NIfTI, truncated or corrupt, not one volume of real numbers, NaN or infinite voxels.
        GeometryError: a header that describes no space, or two.
    """
    file, dtype = Path(path), np.dtype(dtype)
    with opened(file) as stream:
        header = _read_header(stream, file, policy)
        if dtype.kind != "f" and header.dtype.newbyteorder("=") != dtype:
            raise TypeError(f"read_volume gives floating types; asked for {dtype}")
        stored = _read_stored(stream, header, file)
    with np.errstate(over="ignore"):  # a float64 beyond the range becomes infinite and is refused below
        array = stored.astype(dtype)
        if header.slope != 1 or header.intercept != 0:
            array *= dtype.type(header.slope)
            array += dtype.type(header.intercept)
    finite = np.isfinite(array)
    if not finite.all() and policy.non_finite == "zero":
        array[~finite] = 0
        bad = int(finite.size - np.count_nonzero(finite))
        return Volume(array, header.grid, (*header.repairs, f"{bad} voxels that are NaN or infinite: taken as 0"))
    if not finite.all():
        raise DataError(
            f"{int(finite.size - np.count_nonzero(finite))} voxels that are NaN or infinite",
            file=file,
            expected="finite values",
            fix="find out where they come from, and export the file again without them",
        )
    return Volume(array, header.grid, header.repairs)


def read_grid(path: str | PathLike[str]) -> Grid:
    """Where a volume lies, from its header alone; the voxels are neither decompressed nor verified.

    Raises:
        DataError, GeometryError: as `read_volume`, as far as the header shows it.
    """
    return read_header(path).grid


def read_header(path: str | PathLike[str], policy: ReadPolicy = STRICT) -> VolumeHeader:
    """The header alone."""
    file = Path(path)
    with opened(file) as stream:
        return _read_header(stream, file, policy)


def write_volume(
    path: str | PathLike[str], array: np.ndarray, grid: Grid, dtype: type | np.dtype | None = None
) -> None:
    """Write one volume so that the final name exists only when the file is whole.

    It goes to a temporary file beside it, is synced, read back (grid, type, checksum of the voxels) and renamed. The
    header is new: millimetres, qform and sform alike, no text of any input. The folder is made.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        array: (H, W, D).
        grid: of the same shape.
        dtype: stored type; by default the smallest that holds the labels of an integer array, and float32 otherwise.

    Raises:
        DataError: values that are not finite or do not fit, a grid of another shape, a folder that can't be written to,
            a full disk, a name that is too long, a file that does not read back as it was written.
    """
    file, array = Path(path), np.asarray(array)
    compressed = is_compressed(file)
    if array.shape != grid.shape or array.ndim != 3:
        raise DataError(f"an array of shape {array.shape}", file=file, expected=f"the grid's {grid.shape}")
    stored = _as_stored(array, dtype, file)
    voxels = stored.tobytes(order="F")
    temporary = file.with_name(f".{uuid.uuid4().hex[:12]}{'.nii.gz' if compressed else '.nii'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as raw:
                _write_stream(raw, _new_header(stored, grid), voxels, compressed)
                raw.flush()
                os.fsync(raw.fileno())
            _verify(temporary, grid, stored.dtype, zlib.crc32(voxels))
            os.replace(temporary, file)
        finally:
            with contextlib.suppress(OSError):  # gone after the rename; the first error is the one that counts
                temporary.unlink()
    except OSError as error:
        raise cannot(error, file, "written") from error


def _read_header(stream: BinaryIO, file: Path, policy: ReadPolicy = STRICT) -> VolumeHeader:
    header = parse_header(stream.read(_HEADER_BYTES), file, policy)
    promised, size = header.end, file.stat().st_size
    if promised > size * (_HIGHEST_GZIP_RATIO if is_compressed(file) else 1):
        raise DataError(
            f"{size} bytes where the header promises {promised}, {'x'.join(map(str, header.grid.shape))} voxels",
            file=file,
            expected="a whole file",
            fix="copy the file again from where it came",
        )
    return header


def _read_stored(stream: BinaryIO, header: VolumeHeader, file: Path) -> np.ndarray:
    stream.seek(header.offset)
    array = np.empty(math.prod(header.grid.shape), dtype=header.dtype)
    view, done = array.view(np.uint8).data, 0
    while done < len(view):
        count = stream.readinto(view[done : done + 16 * _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"{done} of {len(view)} bytes of voxels",
                file=file,
                expected="a whole file",
                fix="copy the file again from where it came",
            )
        done += count
    while stream.read(_CHUNK_BYTES):  # gzip's checksum and length stand at the end and are verified when it is reached
        pass
    return array.reshape(header.grid.shape, order="F")


def _as_stored(array: np.ndarray, dtype, file: Path) -> np.ndarray:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise DataError(
            f"{array.dtype} values that are not all finite real numbers", file=file, expected="finite values"
        )
    if dtype is None:
        dtype = np.float32
        if array.dtype.kind in "ui":
            low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
            kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
            dtype = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    stored = array.astype(np.dtype(dtype).newbyteorder("="))  # the header is written in this machine's order
    if stored.dtype.kind in "ui" and not np.array_equal(stored, array):
        raise DataError(f"values that {stored.dtype} can't hold", file=file, expected="integers in its range")
    return stored


def _new_header(stored: np.ndarray, grid: Grid) -> Nifti1Header:
    header = (Nifti1Header if max(grid.shape) < 2**15 else Nifti2Header)()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(grid.shape)
    header.set_xyzt_units("mm")
    header.set_qform(grid.affine, code=1)
    header.set_sform(grid.affine, code=1)
    if Grid(grid.shape, header.get_qform()).distance_mm(grid) > QFORM_SFORM_LIMIT_VOXELS * min(grid.spacing_mm):
        header.set_qform(None, code=0)  # a quaternion holds no shear; readers must not find two different spaces
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    header["magic"] = type(header).single_magic
    return header


def _write_stream(raw: BinaryIO, header: Nifti1Header, voxels: bytes, compressed: bool) -> None:
    start = header.binaryblock + b"\0\0\0\0"  # four zeros: no header extension follows
    if not compressed:
        raw.write(start)
        raw.write(voxels)
        return
    # No name and no time in the stream: the same volume gives the same bytes, and nothing of the machine.
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=3, mtime=0) as stream:
        stream.write(start)
        stream.write(voxels)


def _verify(file: Path, grid: Grid, dtype: np.dtype, checksum: int) -> None:
    try:
        with opened(file) as stream:
            header = _read_header(stream, file)
            stored = _read_stored(stream, header, file)
    except PipelineError as error:
        raise OSError(errno.EIO, f"it does not read back: {error.found}") from error
    whole = header.dtype == dtype and header.grid.same_grid(grid) and zlib.crc32(stored.tobytes(order="F")) == checksum
    if not whole:
        raise OSError(errno.EIO, "it reads back with other voxels or another grid")
