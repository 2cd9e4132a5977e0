"""What every layout starts from, the image files below a dataset's folder, listed once; and what it makes of them."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.data.layouts.names import LABEL_FOLDERS
from pipeline.data.layouts.other_formats import OTHER_FORMATS
from pipeline.data.said import say_once
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

SUFFIXES = {3: (".nii.gz", ".nii"), 2: (".png", ".tiff", ".tif")}
"""Of the files of volumes and of sections, by spatial dimensions; the longest first where one ends in another."""

_RESULTS = re.compile(r"predictions\.(json|\d+\.jsonl)")
"""Of `pipeline predict`: a folder that holds such a file is one of results."""

FOUND = "; found "
"""In the problem of a case, before the names of its files: under a pseudonym they are left out."""


@dataclass(frozen=True)
class File:
    """An image file: ``folders`` are those between the dataset and the file, ``stem`` its name without the suffix."""

    path: Path
    folders: tuple[str, ...]
    stem: str


@dataclass
class Entry:
    """What a layout found of one case; whether it is complete is not its business.

    Args:
        case_id: unique in the dataset, if the layout is right.
        image: channel -> its files; more than one means that it isn't clear which is meant.
        labels: files of the reference segmentation, at most one where it is clear.
        folder: below the dataset: results keep it.
        patient: where the layout knows it; None leaves it to the id's text (`pipeline.data.patient_of`).
        test: of a part that has no labels by design: no case is missing where labels are needed.
        problem: why nothing of the case can be used, whatever files it names; without its paths, but for the names
            of files behind `FOUND`.
    """

    case_id: str
    image: dict[str, list[Path]]
    labels: list[Path] = field(default_factory=list)
    folder: Path = field(default=Path())
    patient: str | None = None
    test: bool = False
    problem: str | None = None


@dataclass
class Listing:
    """What a layout makes of a dataset.

    Args:
        channel_names: those asked for, or those that it found, in order: the first is the reference channel.
        entries: the cases.
        classes: id -> name, without the background; empty where nothing says what the ids mean.
        label_problem: why the labels can't be used, whoever needs them.
        problems: entries that name what does not exist; refused, or said where the other cases go on.
        notes: what was decided or left out, to be said with the layout.
    """

    channel_names: tuple[str, ...]
    entries: list[Entry]
    classes: dict[int, str] = field(default_factory=dict)
    label_problem: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def other_channels(root: Path, found: Sequence[str], wanted: Sequence[str]) -> DataError:
    """The error for a dataset whose files say what they are, and none of them is what was asked for."""
    return DataError(
        f"a dataset with the channels {', '.join(found) or '(none)'}",
        file=root,
        expected=", ".join(wanted),
        fix="take the bundle for these channels; or say in a cases.csv which file is which channel",
    )


class Folder:
    """A dataset's folder.

    Hidden files and folders count as absent: ``.git``, ``.DS_Store``, and the ``._name`` twins that macOS leaves on
    foreign disks and in archives. Links are followed, a linked folder once. Whatever has an image's name is listed, so
    that its case is refused by name when it is read, and not missing in silence: a link that leads nowhere (a file that
    datalad or git-annex has not fetched) or to itself, a pipe, a folder without an image in it.

    What predictions have left in a folder below it is no image of it, but for a folder of labels by its name: somebody
    has made labels of them.

    Args:
        root: an existing folder.
        spatial_dims: 3 for NIfTI, 2 for PNG and TIFF.
    """

    def __init__(self, root: Path, spatial_dims: int = 3) -> None:
        self.root, self.spatial_dims, self.suffixes = root, spatial_dims, SUFFIXES[spatial_dims]
        self.unread: dict[tuple[str, ...], str] = {}
        """Folders below it that can't be read, and why; known once `files` are listed."""
        self._not_read: Counter[str] = Counter()
        self._results: list[str] = []

    def stem(self, name: str) -> str | None:
        """A file's name without its suffix; None for another kind of file."""
        lower = name.lower()
        return next((name[: -len(suffix)] for suffix in self.suffixes if lower.endswith(suffix)), None)

    def has(self, *names: str) -> bool:
        """Whether a file or folder of each name lies in the dataset's folder itself."""
        return all(os.path.exists(self.root / name) for name in names)

    @cached_property
    def files(self) -> tuple[File, ...]:
        """All image files, sorted by folder and name."""
        found: list[File] = []
        named: list[File] = []
        dangling: list[str] = []
        followed: set[str] = set()
        waiting: list[tuple[str, tuple[str, ...]]] = [(os.fspath(self.root), ())]
        while waiting:
            path, folders = waiting.pop()
            try:
                with os.scandir(path) as scan:
                    entries = [entry for entry in scan if not entry.name.startswith(".")]
            except OSError as error:
                text = f"{path} can't be read ({error.strerror}): nothing in it is taken"
                say_once(logger, logging.WARNING, text, self.root)
                self.unread[folders] = (error.strerror or type(error).__name__).lower()
                continue
            if folders and folders[-1].lower() not in LABEL_FOLDERS and any(map(_are_results, entries)):
                self._results.append("/".join(folders))
                continue
            for entry in entries:
                stem = self.stem(entry.name)
                if _is_folder(entry):
                    if stem is not None:
                        named.append(File(Path(entry.path), folders, stem))
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if target in followed or f"{os.path.realpath(path)}{os.sep}".startswith(f"{target}{os.sep}"):
                            continue  # a circle, or seen through another link
                        followed.add(target)
                    waiting.append((entry.path, (*folders, entry.name)))
                elif stem is None:
                    kind = os.path.splitext(entry.name)[1].lower()
                    self._not_read.update({kind} & {*OTHER_FORMATS[self.spatial_dims]})
                else:
                    found.append(File(Path(entry.path), folders, stem))
                    if not os.path.exists(entry.path):
                        dangling.append(entry.path)
        if dangling:
            text = f"{len(dangling)} links lead nowhere, such as {min(dangling)}: fetch the files first"
            say_once(logger, logging.WARNING, text, self.root)
        # `t1.nii.gz/t1.nii.gz`, as some archives are unpacked, is a folder like any other
        found += [one for one in named if not any(one.path in file.path.parents for file in found)]
        return tuple(sorted(found, key=lambda file: (file.folders, file.stem, file.path.name)))

    @property
    def left_out(self) -> str:
        """Which images are of a kind that is not read, or results, in words; empty where there is none."""
        _ = self.files  # lists them
        parts = []
        if self._not_read:
            kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self._not_read.items()))
            parts.append(
                f"images of kinds that are not read, and left out: {kinds} (read are {', '.join(self.suffixes)})"
            )
        if self._results:
            parts.append(f"results of earlier predictions are left out: {', '.join(sorted(self._results))}")
        return "; ".join(parts)

    def unread_cases(self) -> list[Entry]:
        """A case to be refused for each folder that can't be read; but for those that a disk has of its own."""
        return [
            Entry("_".join(folders), {}, folder=Path(*folders), problem=f"a folder that can't be read ({reason})")
            for folders, reason in sorted(self.unread.items())
            if folders and folders[-1] != "lost+found"
        ]

    def below(self, name: str) -> list[File]:
        """The files in one of its folders, their ``folders`` counted from there."""
        return [File(file.path, file.folders[1:], file.stem) for file in self.files if file.folders[:1] == (name,)]


def _are_results(entry: os.DirEntry[str]) -> bool:
    return _RESULTS.fullmatch(entry.name) is not None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: whoever reads it says what is wrong
        return False
