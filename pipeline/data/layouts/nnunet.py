"""nnU-Net's second version: ``imagesTr/<case>_0000.nii.gz``, a number per channel, and ``labelsTr/<case>.nii.gz``.

``dataset.json`` says what the numbers mean (``channel_names``), what the ids mean (``labels``) and what files end in
(``file_ending``); where it has ``dataset``, it lists the files of each case itself. ``imagesTs`` are cases too, with
labels where ``labelsTs`` has them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.layouts.decathlon import FILE, channels_of, classes_of, folder_below, read
from pipeline.data.layouts.folder import Entry, Folder, Listing
from pipeline.errors import DataError

PARTS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}


def why(folder: Folder) -> str | None:
    """A dataset.json beside imagesTr, that lists no ``training``."""
    if not folder.has(FILE, "imagesTr"):
        return None
    try:
        content = read(folder.root)
    except DataError:
        return None  # the Decathlon's layout says what is wrong with it
    return "its dataset.json names channels, and imagesTr holds numbered files" if "training" not in content else None


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """The cases of ``imagesTr`` and ``imagesTs``.

    Raises:
        DataError: files of a kind that is not read, or other channels than asked for.
    """
    file = folder.root / FILE
    content = read(folder.root)
    own, wanted = channels_of(content, channels, file)
    ending = str(content.get("file_ending") or folder.suffixes[0])
    if ending.lower() not in folder.suffixes:
        raise DataError(
            f"files that end in {ending}",
            file=file,
            expected=" or ".join(folder.suffixes),
            fix="convert them to NIfTI" if folder.spatial_dims == 3 else "use a 3D bundle, or convert them",
        )
    entries, problems = (
        _listed(folder.root, content["dataset"], own)
        if isinstance(content.get("dataset"), dict)
        else _found(folder, own)
    )
    classes, label_problem = classes_of(content)
    return Listing(tuple(wanted), entries, classes, label_problem, problems)


def _found(folder: Folder, own: Sequence[str]) -> tuple[list[Entry], list[str]]:
    labels = {(file.folders[0], file.stem): file.path for file in folder.files if len(file.folders) == 1}
    cases: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    problems, odd = [], []
    for file in folder.files:
        if len(file.folders) != 1 or file.folders[0] not in PARTS:
            continue
        match = re.fullmatch(r"(?P<case>.+)_(?P<number>\d{4})", file.stem)
        if match is None or int(match["number"]) >= len(own):
            problem = f"no number of one of the {len(own)} channels at its end"
            problems.append(f"{file.path}: {problem}")
            odd.append(Entry(file.stem, {}, folder=Path(file.folders[0]), problem=f"a file with {problem}"))
            continue
        cases[file.folders[0], match["case"]][own[int(match["number"])]].append(file.path)
    entries = []
    for (part, case), image in cases.items():
        label = labels.get((PARTS[part], case))
        entries.append(Entry(case, dict(image), [label] if label else [], Path(part), test=part == "imagesTs"))
    return [*entries, *odd], problems


def _listed(root: Path, cases: Mapping[str, Any], own: Sequence[str]) -> tuple[list[Entry], list[str]]:
    entries, problems = [], []
    for case, item in cases.items():
        images = item.get("images") if isinstance(item, dict) else None
        label = item.get("label") if isinstance(item, dict) else None
        paths = [*images, *([label] if label else [])] if isinstance(images, list) else []
        if not isinstance(images, list) or len(images) != len(own) or not all(isinstance(one, str) for one in paths):
            problem = f"not {len(own)} images, as there are channels, and at most one label"
            problems.append(f"{case}: {problem}")
            entries.append(Entry(case, {}, problem=f"{FILE} names {problem}"))
            continue
        image = {name: [root / path] for name, path in zip(own, images, strict=True)}
        labels = [root / label] if label else []
        problems += [
            f"{path}: no such file" for path in (*(p for (p,) in image.values()), *labels) if not os.path.isfile(path)
        ]
        entries.append(Entry(case, image, labels, folder_below(root, image[own[0]][0])))
    return entries, problems
