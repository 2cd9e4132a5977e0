"""Cases on disk: which files belong to which case, and which of them is which channel.

`find_cases` lists a dataset for a bundle, whose channels are known; `describe_dataset` finds out what a dataset holds
without one. How datasets lie on disk is known to `pipeline.data.layouts`: a list of cases, the Decathlon, nnU-Net,
BIDS, ISLES, folders. No image is opened here, but for the number of sections in a TIFF stack.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from pipeline.data.complete import complete_entries, problem_text, refuse_odd_ids
from pipeline.data.layouts import SUFFIXES, Entry, Listing, Recognised, part_of_a_dataset, recognise
from pipeline.data.layouts.other_formats import other_format
from pipeline.data.pseudonyms import Pseudonyms
from pipeline.data.said import say_once
from pipeline.data.sections import each_section
from pipeline.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        case_id: unique in its dataset.
        image: a file per channel, in the order asked for.
        label: the reference segmentation, where there is one.
        relative: folder of the first channel below the dataset: results keep it.
        patient: to whom the case belongs, where the layout knows; None leaves it to the id's text (`patient_of`).
        problem: why it can't be used, known without opening a file; then it may have none.
    """

    case_id: str
    image: dict[str, Path]
    label: Path | None = None
    relative: Path = field(default=Path())
    patient: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DatasetDescription:
    """What a dataset holds, found out without a bundle.

    Args:
        layout: how its files are found, a name of `pipeline.data.layouts.LAYOUTS` or ``file``.
        why: the reason for that layout, in words.
        channel_names: the reference channel first; labels lie on its grid.
        classes: id -> name, without the background; empty where nothing says what the ids mean.
        cases: sorted by id; some may lack a channel or a label.
        dataset_dir: where it lies.
        announcement: what is said of it in the log.
    """

    layout: str
    why: str
    channel_names: tuple[str, ...]
    classes: dict[int, str]
    cases: tuple[Case, ...]
    dataset_dir: Path
    announcement: str = ""


def describe_dataset(
    dataset_dir: str | PathLike[str],
    channels: Sequence[str] | None = None,
    layout: str | None = None,
    spatial_dims: int = 3,
    say: bool = True,
) -> DatasetDescription:
    """Find out what a dataset holds.

    Args:
        dataset_dir: a folder, a list of cases (CSV, JSON), or a single image.
        channels: names, the reference channel first; by default what dataset.json says, or the endings of names that
            nearly all cases share. Where each channel has a mask of its own, the first one's is the label.
        layout: a name of `pipeline.data.layouts.LAYOUTS`; by default the first that fits.
        spatial_dims: 3 for volumes (NIfTI), 2 for sections (PNG, TIFF).
        say: whether it is `announced`.

    Raises:
        DataError: nothing there, labels alone, labels that can't be used (regions), or one id twice.
        ConfigError: an unknown layout, or a channel twice.
    """
    root, names = _checked(dataset_dir, channels, spatial_dims)
    found = _recognised(root, names, layout, spatial_dims, labelled=True)
    listing = found.listing
    _refuse_unusable_labels(listing, root)
    if listing.problems:
        say_once(logger, logging.WARNING, problem_text(listing.problems))
    cases = _cases(listing, listing.entries, root, require_label=False, keep_incomplete=True, spatial_dims=spatial_dims)
    if say and found.left_out:
        say_once(logger, logging.WARNING, f"{root}: {found.left_out}", root)
    description = DatasetDescription(
        found.layout, found.why, listing.channel_names, listing.classes, tuple(cases), root, _announcement(root, found)
    )
    return announced(description) if say else description


def announced(description: DatasetDescription) -> DatasetDescription:
    """The same, once its layout and channels are said in the log; once per process."""
    say_once(logger, logging.INFO, description.announcement, description.dataset_dir)
    return description


def find_cases(
    dataset_dir: str | PathLike[str],
    channels: Sequence[str],
    require_label: bool = True,
    keep_incomplete: bool = False,
    spatial_dims: int = 3,
    layout: str | None = None,
    pseudonyms: str | PathLike[str] | Pseudonyms | None = None,
    patients: Mapping[str, str] | None = None,
    missing_channels: str = "refuse",
) -> list[Case]:
    """All cases of a dataset, sorted by id.

    Args:
        dataset_dir: a folder, a list of cases (CSV, JSON), or a single file where there is one channel.
        channels: names in the bundle's order; compared without regard to case.
        require_label: whether a case without a label is refused; labels are found either way.
        keep_incomplete: whether cases that lack a channel are among the result, without it, so that whoever loads them
            refuses them one by one and the others go on; and whether cases that lack a needed label are left out with
            a warning. A dataset without any complete case is refused either way.
        spatial_dims: 3 for volumes (NIfTI), 2 for sections (PNG, TIFF).
        layout: a name of `pipeline.data.layouts.LAYOUTS`; by default the first that fits.
        pseudonyms: what takes the place of the ids, or the file that says so (`pipeline.data.pseudonyms`); then
            ``relative`` is empty, and ``patient`` is a pseudonym too.
        patients: case id -> patient, instead of what the layout says.
        missing_channels: ``"zero"`` where a case is usable that lacks channels, but not all.

    Raises:
        DataError: nothing there; channels or labels missing, or one id twice: with every case that it concerns.
        ConfigError: an unknown layout, or no channel.
    """
    root, names = _checked(dataset_dir, channels, spatial_dims)
    found = _recognised(root, names, layout, spatial_dims, labelled=require_label)
    _say(root, found, name_files=pseudonyms is None)
    listing, entries = found.listing, found.listing.entries
    if require_label:
        _refuse_unusable_labels(listing, root)
        entries = [entry for entry in entries if entry.labels or not entry.test]
    if listing.problems and not (keep_incomplete and any(map(_is_there, entries))):
        raise DataError(
            problem_text(listing.problems) + "\n",
            file=root,
            expected="existing files",
            fix="copy what is missing, or take these entries out",
        )
    if listing.problems:
        say_once(logger, logging.WARNING, problem_text(listing.problems))
    refuse_odd_ids(entries, root)
    if patients:
        entries = [replace(entry, patient=patients.get(entry.case_id, entry.patient)) for entry in entries]
    if pseudonyms is not None:
        names_of = pseudonyms if isinstance(pseudonyms, Pseudonyms) else Pseudonyms.read(pseudonyms)
        entries = names_of.applied(entries)
    return _cases(
        listing,
        entries,
        root,
        require_label,
        keep_incomplete,
        spatial_dims,
        name_files=pseudonyms is None,
        missing_channels=missing_channels,
    )


def _checked(
    dataset_dir: str | PathLike[str], channels: Sequence[str] | None, spatial_dims: int
) -> tuple[Path, list[str] | None]:
    root = Path(dataset_dir)
    names = None if channels is None else [name.lower() for name in channels]
    if names is not None and (not names or len(set(names)) != len(names)):
        raise ConfigError(f"channels {names}", expected="at least one name, each once")
    if spatial_dims not in SUFFIXES:
        raise ConfigError(f"spatial_dims={spatial_dims}", expected="2 or 3")
    if not os.path.exists(root):
        raise DataError("no such file or folder", file=root, expected="a dataset", fix=_nearest(root))
    return root, names


def _recognised(
    root: Path, channels: Sequence[str] | None, layout: str | None, spatial_dims: int, labelled: bool
) -> Recognised:
    """The dataset by its layout; of a folder that is a part of one, and no dataset by itself, it is said which.

    Args:
        labelled: whether images without their labels are of no use.
    """
    part = part_of_a_dataset(root) if layout is None else None
    try:
        found = recognise(root, channels, layout, spatial_dims)
    except DataError as error:
        raise part or error from None
    entries = found.listing.entries
    labelled = labelled or root.resolve().name.startswith("labels")  # which nobody means to predict
    if part and (not entries or (labelled and not any(entry.labels for entry in entries))):
        raise part
    return found


def _say(root: Path, found: Recognised, name_files: bool = True) -> None:
    """How a dataset lies on disk; ``name_files``: reasons may name a file (and so a patient)."""
    say_once(logger, logging.INFO, _announcement(root, found, name_files), root)
    if found.left_out:
        say_once(logger, logging.WARNING, f"{root}: {found.left_out}", root)


def _announcement(root: Path, found: Recognised, name_files: bool = True) -> str:
    text = f"{root}: layout {found.layout}, channels {', '.join(found.listing.channel_names)}"
    return "; ".join([f"{text}: {found.why}", *found.listing.notes]) if name_files else text


def _cases(
    listing: Listing,
    entries: Sequence[Entry],
    root: Path,
    require_label: bool,
    keep_incomplete: bool,
    spatial_dims: int,
    name_files: bool = True,
    missing_channels: str = "refuse",
) -> list[Case]:
    if spatial_dims == 2:
        entries = each_section(entries, name_files)
    channels = listing.channel_names
    entries = complete_entries(entries, channels, root, require_label, keep_incomplete, missing_channels)
    if not entries:
        suffix = SUFFIXES[spatial_dims][0]
        other, convert = (other_format(root) if name_files else None) or ("", "")
        raise DataError(
            f"no case, but {other}" if other else "no case",
            file=root,
            expected=f"files that end in {' / '.join(f'_{name}{suffix}' for name in channels)}, or folders "
            f"images and labels with {suffix} files of the same names",
            fix=convert
            or "rename the files, give the folder that holds the case folders, or list the files in a cases.csv",
        )
    refuse_odd_ids(entries, root)
    cases = [
        Case(
            entry.case_id,
            {name: entry.image[name][0] for name in channels if name in entry.image},
            entry.labels[0] if entry.labels else None,
            entry.folder,
            entry.patient,
            entry.problem,
        )
        for entry in entries
    ]
    return sorted(cases, key=lambda case: case.case_id)


def _is_there(entry: Entry) -> bool:
    paths = [path for paths in entry.image.values() for path in paths]
    return bool(paths) and all(map(os.path.isfile, paths))


def _refuse_unusable_labels(listing: Listing, root: Path) -> None:
    if listing.label_problem:
        raise DataError(
            listing.label_problem,
            file=root,
            expected="labels in which each voxel has one id of one class",
            fix="write the labels with an id per class, and name those in dataset.json",
        )


def _nearest(path: Path) -> str:
    """What the caller may have meant, from the names beside the first part of the path that does not exist."""
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    beside = missing.parent.iterdir() if missing.parent.is_dir() else ()
    siblings = [entry.name for entry in sorted(beside, key=lambda entry: (not entry.is_dir(), entry.name))]
    close = difflib.get_close_matches(missing.name, siblings, n=3, cutoff=0.5) or siblings[:5]
    return f"in {missing.parent} there is {', '.join(close) or 'nothing'}"
