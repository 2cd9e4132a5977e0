"""Where results are to be written: refused before the work, not after it, where that can't be."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from tempfile import TemporaryFile

from pipeline.errors import DataError
from pipeline.io.stream import cannot


def require_folder(path: str | PathLike[str]) -> None:
    """Nothing is made: a folder that is missing is tried for in the nearest one above it that is there.

    Raises:
        DataError: a file in the folder's place or above it, or a place that takes no file.
    """
    folder = Path(path).absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise DataError("a file", file=there, expected="a folder for results", fix="choose another name for the folder")
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise cannot(error, folder, "written") from error


def require_file(path: str | PathLike[str]) -> None:
    """Likewise for a file, whose folder will be made.

    Raises:
        DataError: a folder in the file's place, or as `require_folder`.
    """
    file = Path(path)
    if file.is_dir():
        raise DataError("a folder", file=file, expected="a file to write", fix="add the file's name")
    require_folder(file.parent)
