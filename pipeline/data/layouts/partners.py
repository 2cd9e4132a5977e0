"""Labels that lie beside their images in a folder of their own, or are named before or behind the image's name.

``masks/00.png`` beside ``images/00.png`` or ``00.png``, ``mask_00.png`` beside ``img_00.png``, ``00_cp_masks.png``
beside ``00.png``: for a layout whose files say what they are by their names, such a pair is named as one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.layouts.folder import File
from pipeline.data.layouts.names import (
    IMAGE_FOLDERS,
    IMAGE_WORDS,
    LABEL_FOLDERS,
    MASK_WORDS,
    endings,
    is_label,
    role,
    without,
)

_ENDINGS = ("cp_masks", "masks", "annotation", "annotations", "instances", "mask", "label", "labels", "seg", "gt")
_BEGINNING = re.compile(r"(?:mask|masks|msk|label|labels|seg|gt)[_\-.](?=.)", re.IGNORECASE)
_IMAGE_BEGINNING = re.compile(r"(?:image|img)[_\-.](?=.)", re.IGNORECASE)


def with_partners_named(files: Sequence[File]) -> tuple[list[File], set[Path], list[str]]:
    """The files with each such label named ``<image>_mask`` and placed beside its image; the paths of these labels; and
    what is to be said.

    A label that has no image of its name, or several, is left out: by its folder always, by its name where others of
    its folder have theirs.
    """
    inside = _in_label_folders(files)
    images: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    candidates: dict[File, list[str]] = {}
    for file in files:
        bases = _bases_of_label(file, file in inside)
        if bases:
            candidates[file] = bases
        elif not is_label(file.stem):
            for base in _bases_of_image(file.stem):
                images[_plain(file), base].append(file)
    image_of: dict[File, File] = {}
    for file, bases in candidates.items():
        fitting = next((found for base in bases if (found := images.get((_plain(file), base)))), [])
        if len(fitting) == 1:
            image_of[file] = fitting[0]
    of_labels = {file.folders for file in image_of if file not in inside}
    alone = {
        file: None for file in candidates if file not in image_of and (file in inside or file.folders in of_labels)
    }
    of_images = {image.folders for image in image_of.values()}
    named = []
    for file in files:
        if file in image_of:
            named.append(File(file.path, _plain(file), f"{image_of[file].stem}_mask"))
        elif file not in alone:
            named.append(replace(file, folders=_plain(file)) if file.folders in of_images else file)
    notes = _note("labels by their folder or name", list(image_of))
    notes += _note("labels without an image of their name, left out", list(alone))
    return named, {file.path for file in image_of}, notes


def _in_label_folders(files: Sequence[File]) -> set[File]:
    """The files that are labels by their folder.

    Where no image lies outside such folders, one that holds images and their labels by name, as ``gt/p1_mri`` and
    ``gt/p1_label``, is a folder like any other.
    """
    tops = {file: top for file in files if (top := _label_folder(file)) is not None}
    if any(file not in tops and not is_label(file.stem) for file in files):
        return set(tops)
    bases = {file: _bases_by_name(file.stem) for file in tops}
    begin_so = {
        (file.folders, start.lower())
        for file, of_label in bases.items()
        if not of_label
        for start in (*_bases_of_image(file.stem), *(start for start, _ in endings(file.stem)))
    }
    ordinary = {tops[file] for file in tops if any((file.folders, base.lower()) in begin_so for base in bases[file])}
    return {file for file, top in tops.items() if top not in ordinary}


def _label_folder(file: File) -> tuple[str, ...] | None:
    """The folders down to the first that is one of labels by its name."""
    depth = next((depth for depth, part in enumerate(file.folders, 1) if part.lower() in LABEL_FOLDERS), None)
    return None if depth is None else file.folders[:depth]


def _bases_by_name(stem: str) -> list[str]:
    """What stands before or behind the words that say that it is a label; empty where none does."""
    label = role(stem, ())
    rests = [label.prefix if label else None, without(stem, MASK_WORDS), without(stem, _ENDINGS)]
    rests.append(_BEGINNING.sub("", stem, count=1) if _BEGINNING.match(stem) else None)
    return [rest for rest in rests if rest is not None]


def _plain(file: File) -> tuple[str, ...]:
    """Its folders without those that only say what is in them."""
    return tuple(part for part in file.folders if part.lower() not in (*LABEL_FOLDERS, *IMAGE_FOLDERS))


def _bases_of_label(file: File, inside: bool) -> list[str]:
    """What its image may be called; empty where nothing says that it is a label, or a name that `is_label` knows."""
    if is_label(file.stem) and not inside:
        return []
    bases = [file.stem] if inside else []
    bases.append(without(file.stem, _ENDINGS) or "")
    if _BEGINNING.match(file.stem):
        bases.append(_BEGINNING.sub("", file.stem, count=1))
    return [base for base in bases if base]


def _bases_of_image(stem: str) -> list[str]:
    return list(dict.fromkeys([stem, without(stem, IMAGE_WORDS) or stem, _IMAGE_BEGINNING.sub("", stem, count=1)]))


def _note(words: str, files: Sequence[File]) -> list[str]:
    if not files:
        return []
    first = files[0]
    return [f"{words}: {len(files)}, such as {'/'.join((*first.folders, first.path.name))}"]
