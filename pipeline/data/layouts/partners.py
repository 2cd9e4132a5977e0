"""Labels that lie beside their images in a folder of their own, or are named before or behind the image's name.

``masks/00.png`` beside ``images/00.png`` or ``00.png``, ``mask_00.png`` beside ``img_00.png``, ``00_cp_masks.png``
beside ``00.png``: for a layout whose files say what they are by their names, such a pair is named as one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.layouts.folder import File
from pipeline.data.layouts.names import IMAGE_WORDS, is_label, without

LABEL_FOLDERS = (
    *("label", "labels", "labelstr", "labelsts", "mask", "masks", "msk", "seg", "segmentation", "segmentations"),
    *("annotation", "annotations", "gt", "ground_truth", "groundtruth"),
)
"""Folders of labels, in lower case; not ``lesions``, which is as often a class of images."""
IMAGE_FOLDERS = (*IMAGE_WORDS, "images", "imagestr", "imagests", "imgs", "volumes", "scans")
_ENDINGS = ("cp_masks", "masks", "annotation", "annotations", "instances", "mask", "label", "labels", "seg", "gt")
_BEGINNING = re.compile(r"(?:mask|masks|msk|label|labels|seg|gt)[_\-.](?=.)", re.IGNORECASE)
_IMAGE_BEGINNING = re.compile(r"(?:image|img)[_\-.](?=.)", re.IGNORECASE)


def in_label_folder(file: File) -> bool:
    """Whether a file is a label by its folder."""
    return any(part.lower() in LABEL_FOLDERS for part in file.folders)


def with_partners_named(files: Sequence[File]) -> tuple[list[File], list[str]]:
    """The files with each such label named ``<image>_mask`` and placed beside its image, and what is to be said.

    A label that has no image of its name, or several, keeps its name and folder.
    """
    images: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    candidates: dict[File, list[str]] = {}
    for file in files:
        bases = _bases_of_label(file)
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
    folders = {image.folders for image in image_of.values()}
    named = []
    for file in files:
        if file in image_of:
            named.append(File(file.path, _plain(file), f"{image_of[file].stem}_mask"))
        else:
            of_images = file.folders in folders and not in_label_folder(file)
            named.append(replace(file, folders=_plain(file)) if of_images else file)
    notes = _note("labels by their folder or name", list(image_of))
    alone = [file for file in candidates if file not in image_of and in_label_folder(file)]
    return named, notes + _note("labels without an image of their name, left out", alone)


def _plain(file: File) -> tuple[str, ...]:
    """Its folders without those that only say what is in them."""
    return tuple(part for part in file.folders if part.lower() not in (*LABEL_FOLDERS, *IMAGE_FOLDERS))


def _bases_of_label(file: File) -> list[str]:
    """What its image may be called; empty where nothing says that it is a label, or its name alone does."""
    inside = in_label_folder(file)
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
