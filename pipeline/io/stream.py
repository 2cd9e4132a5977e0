"""Files as verified byte streams: gzip or plain, with every way in which reading can fail said in words.

What a name promises must be what the file holds. Decompression is ISA-L's (several times faster than zlib, and it works
outside Python's lock); a stream's checksum and length are verified when its end is reached: whoever reads the voxels is
to read to the end. Several gzip members in a row are one stream (bgzip); other bytes behind the last are refused.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from isal import igzip
from isal.igzip_lib import IsalError

from pipeline.errors import DataError

_FIXES = {
    errno.ENOSPC: "make room on the disk",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder for which you have the rights",
    errno.EPERM: "choose a folder for which you have the rights",
    errno.EEXIST: "choose a folder: one part of this path is a file",
    errno.ENOTDIR: "choose a folder: one part of this path is a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "choose a disk that takes larger files, or raise the limit of the file size",
    **({errno.EDQUOT: "delete what you no longer need, or ask for a larger quota"} if hasattr(errno, "EDQUOT") else {}),
}
_DAMAGE = (EOFError, zlib.error, cast(type[Exception], IsalError), gzip.BadGzipFile)
_FIRST_BYTES = 4096  # a page: what a disk reads anyway


def is_compressed(file: Path) -> bool:
    """Whether the name says gzip.

    Raises:
        DataError: neither ``.nii`` nor ``.nii.gz``, in upper or lower case.
    """
    name = file.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise DataError(f"a file named {file.name}", file=file, expected=".nii or .nii.gz", fix="convert it to NIfTI")
    return name.endswith(".gz")


def cannot(error: OSError, file: Path, done: str) -> DataError:
    """The operating system's refusal as an error that names the file; ``done`` is "read" or "written"."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    fix = _FIXES.get(error.errno or 0)
    if done == "read" and error.errno in (errno.EACCES, errno.EPERM):
        fix = "ask its owner for the right to read it"
    return DataError(f"a file that can't be {done} ({reason})", file=file, fix=fix)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The decompressed stream; what goes wrong while it is read comes out as a DataError that names the file."""
    with _raw(file) as raw:
        if is_compressed(file):
            with igzip.IGzipFile(fileobj=raw) as stream:
                yield stream  # type: ignore[misc]
        else:
            yield raw


def first_bytes(file: Path, count: int) -> tuple[bytes, int]:
    """The first ``count`` bytes of the decompressed stream, fewer where it ends before, and the size of the file.

    Little more than these is read and decompressed, and nothing verified.

    Raises:
        DataError: as `opened`.
    """
    with _raw(file) as raw:
        size = os.fstat(raw.fileno()).st_size
        if not is_compressed(file):
            return raw.read(count), size
        # zlib's, because ISA-L's refuses a gzip header that does not fit into the first bytes it is given
        found, block, member = b"", b"", zlib.decompressobj(wbits=31)
        while len(found) < count:
            block = block or raw.read(_FIRST_BYTES)
            if not block:
                break
            found += member.decompress(block, count - len(found))
            block = member.unconsumed_tail
            if member.eof:
                block, member = member.unused_data, zlib.decompressobj(wbits=31)
        return found, size


@contextlib.contextmanager
def _raw(file: Path) -> Iterator[BinaryIO]:
    """The file as it is stored, if its name says what it begins with."""
    compressed = is_compressed(file)
    try:
        if not file.exists():
            raise DataError("no such file", file=file, expected="a NIfTI image", fix="check the path")
        if file.is_dir():
            raise DataError("a folder", file=file, expected="a NIfTI image", fix="give the file inside it")
        if not file.is_file():  # a pipe or a device: opening one may wait for ever
            raise DataError("something that is no file", file=file, expected="a NIfTI image", fix="check the path")
        with open(file, "rb", buffering=_FIRST_BYTES) as raw:
            start = raw.read(2)
            raw.seek(0)
            if not start:
                raise DataError(
                    "an empty file (0 bytes)", file=file, expected="a NIfTI image", fix="copy the file again"
                )
            if compressed != (start == b"\x1f\x8b"):
                found, name = ("a file that is not compressed", ".nii") if compressed else ("a gzip file", ".nii.gz")
                raise DataError(
                    found,
                    file=file,
                    expected=f"what its name says ({'.nii.gz' if compressed else '.nii'})",
                    fix=f"if it is a NIfTI image, name it {name}",
                )
            yield raw
    except _DAMAGE as error:
        raise DataError(
            f"a damaged gzip stream ({str(error).lower().rstrip('.')})",
            file=file,
            expected="a whole file with a matching checksum",
            fix="copy the file again from where it came",
        ) from error
    except OSError as error:
        raise cannot(error, file, "read") from error
