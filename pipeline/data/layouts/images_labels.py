"""Two folders that hold files of the same names: ``images`` and ``labels``, or ``imagesTr`` and ``labelsTr``.

``images/00.png`` and ``labels/00.png`` are case ``00``. A bundle of several channels looks for
``images/00_<channel>.png`` each, and ``labels/00.png``. Folders below ``images`` are kept: ``images/fish/00.png``
belongs to ``labels/fish/00.png`` and is case ``fish_00``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.layouts.discover import channel_names
from pipeline.data.layouts.folder import Entry, File, Folder, Listing
from pipeline.data.layouts.names import before
from pipeline.data.layouts.other_names import refuse_named_otherwise
from pipeline.errors import DataError

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))


def why(folder: Folder) -> str | None:
    """Both folders of a pair."""
    pair = _pair(folder)
    return f"folders {pair[0]} and {pair[1]}" if pair else None


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """A case per image, or per beginning of a name where there are several channels.

    Raises:
        DataError: nnU-Net's numbered channels, whose names nothing says.
    """
    pair = _pair(folder)
    if pair is None:
        raise DataError("no folders images and labels", file=folder.root, expected="both, for this layout")
    files = folder.below(pair[0])
    labels = {(file.folders, file.stem): file.path for file in folder.below(pair[1])}
    numbered = [file for file in files if re.search(r"_\d{4}$", file.stem) and (file.folders, file.stem) not in labels]
    if numbered and all((file.folders, file.stem[:-5]) in labels for file in numbered):
        raise DataError(
            f"files with numbered channels, such as {numbered[0].path.name}, but no dataset.json",
            file=folder.root,
            expected="the names of the channels",
            fix='add a dataset.json with "channel_names" and "labels", as nnU-Net has it',
        )
    notes: list[str] = []
    if channels is None:
        channels, notes = channel_names(files)
    elif len(channels) == 1 and not any(before(file.stem, channels[0]) is not None for file in files):
        beside = [File(path, folders, f"{stem}_label") for (folders, stem), path in labels.items()]
        refuse_named_otherwise([*files, *beside], channels[0], folder.root)
    found: dict[tuple[tuple[str, ...], str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        stem = file.stem
        channel = next((name for name in channels if stem.lower().endswith((f"_{name}", f"-{name}"))), None)
        if channel is not None and (file.folders, stem) not in labels:  # `00_em` with `labels/00_em` is case 00_em
            stem = stem[: -len(channel) - 1]
        elif len(channels) > 1:
            continue
        found[file.folders, stem][channel or channels[0]].append(file.path)
    entries = [
        Entry("_".join((*own, stem)), dict(image), [labels[own, stem]] if (own, stem) in labels else [], Path(*own))
        for (own, stem), image in found.items()
    ]
    alone = sorted(path.name for key, path in labels.items() if key not in found)
    if alone:
        notes.append(f"labels without an image of their name: {len(alone)}, such as {alone[0]}")
    others = [file for file in folder.files if file.folders[:1] not in ((pair[0],), (pair[1],))]
    if others:
        first = "/".join((*others[0].folders, others[0].path.name))
        notes.append(f"in neither of these folders, and not read: {len(others)}, such as {first}")
    return Listing(tuple(channels), entries, notes=notes)


def _pair(folder: Folder) -> tuple[str, str] | None:
    return next((pair for pair in PAIRS if folder.has(*pair)), None)
