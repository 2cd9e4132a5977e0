"""Files whose names say that they are another channel than those asked for: refused, named or mentioned, never dropped.

A bundle of one channel takes files that are named after their case alone (``p1.nii.gz``), whatever its channel is
called; but not ``p1_cbf.nii.gz`` beside ``p1_mtt.nii.gz``, and not ``p1_t1.nii.gz`` beside ``p1_label.nii.gz``: those
have a channel by their names, or an id that is not the whole name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.layouts.discover import NEARLY_ALL, shared_names
from pipeline.data.layouts.folder import FOUND, Entry, File, Listing
from pipeline.data.layouts.names import (
    IMAGE_WORDS,
    LABEL_NAMES,
    MASK_WORDS,
    MODALITIES,
    before,
    endings,
    is_label,
    role,
)
from pipeline.errors import DataError

_MOST_NAMED = 5


def refuse_named_otherwise(files: Sequence[File], channel: str, root: Path) -> None:
    """Refuse images of which none is named after the only channel, where their names tell them apart by another.

    Args:
        files: images and labels.
        channel: in lower case.

    Raises:
        DataError: images of one case that differ by their endings, or a label that pairs without the image's ending.
    """
    found = _modalities_side_by_side(files) or _told_apart(files)
    if found:
        raise DataError(
            f"files with the channels {', '.join(sorted(found))}",
            file=root,
            expected=f"{channel}, the only channel of this bundle",
            fix=f"rename the files that are meant to ..._{channel}; or say in a cases.csv (case, {channel}, label) "
            "which they are; or make a bundle for these channels with `pipeline init`",
        )


def _modalities_side_by_side(files: Sequence[File]) -> set[str]:
    """Modalities by their usual names, of which some case has several; however many other cases have them."""
    of_case: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
    for file in files:
        for name in MODALITIES:
            if (prefix := before(file.stem, name)) is not None:
                of_case[file.folders, prefix].add(name)
    return set().union(*(names for names in of_case.values() if len(names) > 1))


def _told_apart(files: Sequence[File]) -> set[str]:
    """Endings that nearly all cases share, where there are several, or one that a case's label does not carry."""
    labelled = {
        (file.folders, prefix)
        for file in files
        for name in (*LABEL_NAMES, *MASK_WORDS)
        if (prefix := before(file.stem, name)) is not None
    }
    # with a label of its whole name, an image is a case of that name
    images = [file for file in files if not is_label(file.stem) and (file.folders, file.stem) not in labelled]
    names = {name for name in shared_names(files) if name not in IMAGE_WORDS}
    ends = [(file, found) for file in images if (found := role(file.stem, sorted(names))) and found.kind == "image"]
    if not names or len(ends) < NEARLY_ALL * len(images):  # some of the cases' ids end alike
        return set()
    paired = any({(file.folders, found.prefix), (file.folders, "")} & labelled for file, found in ends)
    return names if len(names) > 1 or paired else set()


def add_overlooked(listing: Listing, files: Sequence[File]) -> None:
    """Add the cases of which no image has the name of a channel, to be refused by name, and note what is of no case.

    A case by the looks of it is a folder as deep as the cases' that holds a label or an image named after the folder,
    or, where cases lie side by side, a label and an image that begin alike.
    """
    taken = {path for entry in listing.entries for paths in (*entry.image.values(), entry.labels) for path in paths}
    ids: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for entry in listing.entries:
        ids[entry.folder.parts].add(entry.case_id.lower())
    left: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in files:
        own = ids.get(file.folders, set())
        if file.path not in taken and len(own) != 1 and not own & _starts(file):
            left[file.folders].append(file)
    depths = {len(folders) for folders in ids}
    stray: list[File] = []
    for folders, others in left.items():
        images = [file for file in others if not is_label(file.stem)]
        labels = {file: found for file in others if (found := role(file.stem, ())) and found.kind == "label"}
        case_id = "_".join(folders)
        if folders in ids:
            by_start: dict[str, list[File]] = defaultdict(list)
            for file in images:
                for start in _starts(file):
                    by_start[start].append(file)
            named = {file: found.prefix for file, found in labels.items() if found.prefix.lower() in by_start}
            for label, prefix in named.items():
                listing.entries.append(_incomplete(prefix, by_start[prefix.lower()], [label], listing))
            mentioned = {file for prefix in named.values() for file in by_start[prefix.lower()]}
            images = [file for file in images if file not in mentioned]
        elif images and len(folders) in depths and (labels or any(folders[-1].lower() in _starts(f) for f in images)):
            listing.entries.append(_incomplete(case_id, images, list(labels), listing))
            continue
        stray += images
    if stray:
        listing.notes.append(f"of no case, and not read: {_named(stray)}")


def _incomplete(case_id: str, images: Sequence[File], labels: Sequence[File], listing: Listing) -> Entry:
    problem = f"no {', '.join(listing.channel_names)}{FOUND}{_named(images)}"
    return Entry(case_id, {}, [file.path for file in labels], Path(*images[0].folders), problem=problem)


def _named(files: Sequence[File]) -> str:
    more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    return ", ".join(file.path.name for file in files[:_MOST_NAMED]) + more


def _starts(file: File) -> set[str]:
    return {start for start, _ in endings(file.stem) if start} | {file.stem.lower()}
