"""The one way in which a file is written, of voxels or of text: its final name exists only when the file is whole."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.io.stream import cannot

_ESCAPED = "backslashreplace"
_UNFINISHED = ".unfinished-"
_SUFFIX = re.compile(r"(\.nii)?\.[a-z]+$")


def write_whole(
    path: str | PathLike[str], write: Callable[[BinaryIO], object], verify: Callable[[Path], object] | None = None
) -> None:
    """Write a file beside its place, sync it, read it back, and only then give it its name.

    The folder is made. A process that is killed leaves at most a hidden ``.unfinished-...`` beside the place, which
    nothing here takes for an image; whatever else goes wrong leaves nothing, and an older file stays as it was.

    Args:
        path: the final name.
        write: fills the open file.
        verify: reads the file of the given, temporary name; raises OSError where it isn't as it was written. None where
            nothing is to be read back.

    Raises:
        DataError: a folder that can't be made or written to, a full disk, a name that is too long or that this system
            can't store, a file that does not read back; whatever ``write`` and ``verify`` raise.
    """
    file = Path(path)
    suffix = _SUFFIX.search(file.name.lower())
    # The temporary name holds nothing of the final one, which may have no room left for an addition.
    temporary = file.with_name(f"{_UNFINISHED}{uuid.uuid4().hex[:12]}{suffix[0] if suffix else ''}")
    try:
        _require_possible(file)  # before the work, not after it
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as raw:
                write(raw)
                raw.flush()
                os.fsync(raw.fileno())
            if verify is not None:
                verify(temporary)
            os.replace(temporary, file)
        finally:
            with contextlib.suppress(OSError):  # gone after the rename; the first error is the one that counts
                temporary.unlink()
        _sync_folder(file.parent)
    except OSError as error:
        raise cannot(error, file, "written") from error


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write a text in UTF-8, as `write_whole` writes.

    Names of files may hold bytes that are no text (Latin-1 from a USB stick); they are written as `printable` has them,
    which is also how JSON writes such a letter: who reads the JSON gets the very name.

    Raises:
        DataError: as `write_whole`.
    """
    content = text.encode("utf-8", _ESCAPED)
    write_whole(path, lambda raw: raw.write(content))


def remove_unfinished(folder: str | PathLike[str]) -> int:
    """Delete what killed processes have left of files in ``folder``; the number of files.

    Only for who knows that nobody else is writing there: see `pipeline.io.sole_writer`.
    """
    removed = 0
    for path in Path(folder).glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):  # it takes room, and is in nobody's way
            path.unlink()
            removed += 1
    return removed


def printable(text: str) -> str:
    """The text with an escape in the place of each byte of a name that is no letter.

    >>> print(printable("B\\udcfccher"))
    B\\udcfccher
    """
    return text.encode("utf-8", _ESCAPED).decode("utf-8")


def _require_possible(file: Path) -> None:
    """Ask the file system whether it takes the name at all."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:  # letters that the file system's encoding lacks, or the character 0
        raise DataError(
            f"a name that this system can't store ({file.name!r})", fix="choose a name of ordinary letters"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a power cut too, where the system lets a folder be synced: Windows does not."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # the file is whole and has its name; some network disks sync no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
