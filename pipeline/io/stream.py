"""Files as verified byte streams: gzip or plain, with every way in which reading can fail said in words.

What a name promises must be what the file holds. Python's gzip checks the stream's checksum and length when its end is
reached; whoever reads is to read to the end.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DataError

_FIXES = {
    errno.ENOSPC: "make room on the disk",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder for which you have the rights",
    errno.EPERM: "choose a folder for which you have the rights",
    errno.ENAMETOOLONG: "choose a shorter name",
}


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
    return DataError(f"a file that can't be {done} ({reason})", file=file, fix=_FIXES.get(error.errno or 0))


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The decompressed stream; what goes wrong while it is read comes out as a DataError that names the file."""
    compressed = is_compressed(file)
    if not file.exists():
        raise DataError("no such file", file=file, expected="a NIfTI image", fix="check the path")
    if file.is_dir():
        raise DataError("a folder", file=file, expected="a NIfTI image", fix="give the file inside it")
    try:
        with open(file, "rb") as raw:
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
            if compressed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"a damaged gzip stream ({str(error).lower().rstrip('.')})",
            file=file,
            expected="a whole file with a matching checksum",
            fix="copy the file again from where it came",
        ) from error
    except OSError as error:
        raise cannot(error, file, "read") from error
