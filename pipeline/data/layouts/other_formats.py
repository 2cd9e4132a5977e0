"""Scans in a folder that are of a format which is not read: no case, and somebody has to be told."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

_MOST_FILES = 200
_DICOM = (".dcm", ".ima")
_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".hdr", ".head")
OTHER_FORMATS = {
    3: (*_DICOM, *_VOLUMES),
    2: (".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".czi", ".lif", ".nd2", ".svs"),
}
"""Suffixes of what might be taken for a case and is not read, by the dimensions of a bundle."""


def other_format(root: Path) -> tuple[str, str] | None:
    """What a folder without a readable scan holds instead, by the first of its files.

    Returns:
        What was found, with the name of a file, and what to do; None where no scan of another format is among them.
    """
    paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in sorted(names) if name[:1] != ".")
    for path in islice(paths, _MOST_FILES):
        suffix, name = path.suffix.lower(), path.relative_to(root).as_posix()
        if suffix in _DICOM or _has_dicom_mark(path):
            return f"DICOM files, such as {name}", "convert them first: dcm2niix -z y -o OUTPUT FOLDER"
        if suffix in _VOLUMES:
            return f"files of another format, such as {name}", "convert them to NIfTI (.nii.gz), by 3D Slicer for one"
    return None


def _has_dicom_mark(path: Path) -> bool:
    """``DICM`` after 128 bytes, DICOM PS3.10, section 7.1; a file that can't be read has none."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
