"""``dataset.json`` with a list of its cases: the Medical Segmentation Decathlon and nnU-Net's first version.

``training`` has ``{"image": path, "label": path}`` per case, ``test`` images alone; ``modality`` names the channels and
``labels`` the classes. ``image`` is a path where there is one channel, or a dict of them by channel. nnU-Net v1 lists
``case.nii.gz`` and stores ``case_0000.nii.gz``, ``case_0001.nii.gz``... in the order of the channels: taken where the
listed file is missing. A file that holds several channels as its fourth axis is refused: nnU-Net's
``nnUNetv2_convert_MSD_dataset`` splits it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.layouts.folder import Entry, Folder, Listing
from pipeline.data.layouts.names import before
from pipeline.errors import DataError

FILE = "dataset.json"


def why(folder: Folder) -> str | None:
    """A dataset.json that lists cases; one that can't be read is also taken to be meant so."""
    if not folder.has(FILE):
        return None
    try:
        content = read(folder.root)
    except DataError:
        return f"it has a {FILE}"
    return f"its {FILE} lists the cases" if "training" in content or not folder.has("imagesTr") else None


def read(root: Path) -> dict[str, Any]:
    """The content of ``dataset.json``.

    Raises:
        DataError: not readable, not JSON, or no object.
    """
    file = root / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"a dataset.json that can't be read ({error})", file=file, expected="JSON") from error
    if not isinstance(content, dict):
        raise DataError(f"a dataset.json with a {type(content).__name__}", file=file, expected="an object with names")
    return content


def channels_of(content: Mapping[str, Any], channels: Sequence[str] | None, file: Path) -> tuple[list[str], list[str]]:
    """(all channels of the dataset in the order of their numbers, those asked for), in lower case.

    Raises:
        DataError: others asked for, none named, or two of one name.
    """
    key = "channel_names" if content.get("channel_names") or "modality" not in content else "modality"
    named = content.get(key) or {}
    if isinstance(named, dict):
        numbers = sorted(
            named, key=lambda key: (not str(key).isdecimal(), int(key) if str(key).isdecimal() else 0, key)
        )
        named = [named[number] for number in numbers]
    own = [str(name).lower() for name in named] if isinstance(named, list) else []
    if len(set(own)) < len(own) or (channels is None and not own):
        raise DataError(
            f"a dataset with the channels {', '.join(own) or '(none named)'}",
            file=file,
            expected="a name of its own for each",
            fix=f'correct "{key}"',
        )
    if channels is not None and not set(channels) <= set(own):
        raise DataError(
            f"a dataset with the channels {', '.join(own) or '(none named)'}",
            file=file,
            expected=f"{', '.join(channels)}, which this bundle reads",
            fix=f'correct "{key}" in dataset.json if it is only named otherwise',
        )
    return own, list(channels or own)


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """The entries of ``training`` and ``test``.

    Raises:
        DataError: not JSON, or other channels than asked for.
    """
    root, file = folder.root, folder.root / FILE
    content = read(root)
    own, wanted = channels_of(content, channels, file)
    training, test = (content.get(part) or [] for part in ("training", "test"))
    if not isinstance(training, list) or not isinstance(test, list):
        raise DataError("training or test that is no list", file=file, expected='[{"image": path, "label": path}]')
    entries, problems = [], []
    for number, item in enumerate([*training, *test]):
        item = item if isinstance(item, dict) else {"image": item}
        image, problem = item.get("image"), None
        if isinstance(image, str):
            there = len(own) == 1 and os.path.isfile(root / image)
            image = {own[0]: image} if there else _numbered(root, image, own, folder)
        if not isinstance(image, dict) or not all(isinstance(path, str) for path in image.values()):
            fix = (
                " (one file for all of them? nnUNetv2_convert_MSD_dataset splits it)" if isinstance(image, str) else ""
            )
            problem = f"no path per channel{fix}"
        elif item.get("label") and not isinstance(item["label"], str):
            problem = "a label that is no path"
        if problem is not None or not isinstance(image, dict):
            problems.append(f"entry {number}: {problem}")
            name = next((path for path in (image, item.get("label")) if path and isinstance(path, str)), None)
            case_id = f"entry-{number}" if name is None else _case_id(root / name, wanted[0], folder)
            entries.append(Entry(case_id, {}, test=number >= len(training), problem=f"{FILE} names {problem}"))
            continue
        files = {str(name).lower(): [root / path] for name, path in image.items()}
        labels = [root / item["label"]] if isinstance(item.get("label"), str) and item["label"] else []
        problems += [
            f"{path}: no such file" for path in (*(p for (p,) in files.values()), *labels) if not os.path.isfile(path)
        ]
        first = files.get(wanted[0], next(iter(files.values())))[0]
        below = folder_below(root, first)
        entries.append(Entry(_case_id(first, wanted[0], folder), files, labels, below, test=number >= len(training)))
    classes, label_problem = classes_of(content)
    return Listing(tuple(wanted), entries, classes, label_problem, problems)


def folder_below(root: Path, file: Path) -> Path:
    """The folder of a file below the dataset; a list may point outside it, a result may not."""
    folder = file.parent.resolve()
    return folder.relative_to(root.resolve()) if folder.is_relative_to(root.resolve()) else Path()


def classes_of(content: Mapping[str, Any]) -> tuple[dict[int, str], str | None]:
    """(id -> name of the classes without the background, why they can't be used): of ``{"1": name}`` and
    ``{name: 1}``.

    >>> classes_of({"labels": {"0": "background", "1": "core"}}), classes_of({"labels": {"background": 0, "core": 1}})
    (({1: 'core'}, None), ({1: 'core'}, None))
    >>> classes_of({"labels": {"background": 0, "whole": [1, 2], "core": [2]}})[1]
    'regions, classes that overlap: whole (1, 2), core (2)'
    """
    labels = content.get("labels")
    if isinstance(labels, list):
        labels = {str(number): name for number, name in enumerate(labels)}
    if not isinstance(labels, dict):
        return {}, None
    regions = [f"{name} ({', '.join(map(str, ids))})" for name, ids in labels.items() if isinstance(ids, list)]
    if regions:
        return {}, f"regions, classes that overlap: {', '.join(regions)}"
    if "ignore" in labels:
        return {}, f"a label that says 'not looked at' (ignore: {labels['ignore']})"
    by_id = {}
    for key, value in labels.items():
        number, name = (key, value) if str(key).isdecimal() else (value, key)
        if not str(number).isdecimal():
            return {}, f"a label without a number: {key}: {value}"
        by_id[int(number)] = str(name)
    return {number: name for number, name in sorted(by_id.items()) if number != 0}, None


def _numbered(root: Path, path: str, channels: Sequence[str], folder: Folder) -> dict[str, str] | str:
    """nnU-Net v1's file per channel, where all exist; else the path as it was, where there is one channel."""
    stem = folder.stem(path)
    if stem is not None:
        numbered = {name: f"{stem}_{number:04d}{path[len(stem) :]}" for number, name in enumerate(channels)}
        if all(os.path.isfile(root / file) for file in numbered.values()):
            return numbered
    return {channels[0]: path} if len(channels) == 1 else path


def _case_id(path: Path, channel: str, folder: Folder) -> str:
    stem = folder.stem(path.name) or path.stem
    if stem.endswith("_0000"):
        return stem[:-5]
    prefix = before(stem, channel)
    if prefix == "":  # folder per case: the folder is the id
        return path.parent.name
    return stem if prefix is None else prefix
