"""Which channels a folder holds, from the names of its files alone.

Looked for is what the names of nearly all cases share at their ends. First every folder is taken for a case, then every
distinct beginning of a name for one; where neither explains the files, a single case is recognised by its modalities'
usual names, and whatever is left is one image per file, whose channel is called ``image``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from pipeline.data.layouts.folder import File
from pipeline.data.layouts.names import (
    IMAGE_FOLDERS,
    IMAGE_WORDS,
    MASK_WORDS,
    MODALITIES,
    SERIES,
    before,
    endings,
    is_label,
    role,
    without,
)

NEARLY_ALL = 0.9
"""Share of the cases that must have a channel."""
UNNAMED = "image"
"""The channel of files whose names say nothing of one."""


def channel_names(files: Sequence[File]) -> tuple[tuple[str, ...], list[str]]:
    """The channels of a dataset, the reference channel first, and remarks on what is no channel.

    In alphabetical order, but for a channel that alone has a mask of its own: it comes first, because a label lies on
    the reference channel's grid.
    """
    by_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        by_folder[file.folders].append(file.stem)
    found = _per_folder(by_folder) or _per_beginning(by_folder) or _single_case(by_folder)
    channels, remarks = _ordered(found)
    return channels, remarks + ([] if channels == (UNNAMED,) else _of_some_cases(files, channels))


def _of_some_cases(files: Sequence[File], channels: Sequence[str]) -> list[str]:
    """What is said of images that are a modality by their names, and that too few cases have for a channel."""
    cases: dict[str, set[tuple[tuple[str, ...], str]]] = defaultdict(set)
    for file in files:
        if role(file.stem, channels) is None:
            name = next((ending for _, ending in endings(file.stem) if ending in MODALITIES - SERIES), None)
            if name is not None:
                cases[name].add((file.folders, before(file.stem, name) or ""))
    return [
        f"{name}: {len(of)} {'case has' if len(of) == 1 else 'cases have'} it, too few for a channel that is found by "
        f"itself; name the channels to have it, with missing_channels=zero for the cases without"
        for name, of in sorted(cases.items())
    ]


def shared_names(files: Sequence[File]) -> set[str]:
    """The channels that the names of several cases share, or the modalities of a single one: where whoever asks has a
    name for what has none, a folder of images is no case of as many channels."""
    by_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        by_folder[file.folders].append(file.stem)
    several = _per_folder(by_folder) if len([folder for folder in by_folder if folder]) > 1 else set()
    names, _ = _ordered(several or _per_beginning(by_folder) or _single_case(by_folder))
    return set(names) - {UNNAMED}


def _ordered(found: set[str]) -> tuple[tuple[str, ...], list[str]]:
    named = sorted({_plain(name) for name in found if not is_label(name)})
    named = [name for name in named if not _is_numbers(name)]
    series = [name for name in named if name in SERIES]
    remarks = [f"{', '.join(series)}: a series over time, no channel unless it is asked for"] if series else []
    named = [name for name in named if name not in SERIES]
    masked = {_plain(rest) for name in found if (rest := without(name, MASK_WORDS))}
    named.sort(key=lambda name: (name not in masked, name))
    return tuple(named) or (UNNAMED,), remarks


def _plain(name: str) -> str:
    return without(name, IMAGE_WORDS) or name


def _is_numbers(name: str) -> bool:
    """Whether a name begins with a number: an id, no channel (``4dpwi`` does not: its letters follow at once)."""
    return re.match(r"\d+([_\-.]|$)", name) is not None


def _shared(endings_of: Sequence[Iterable[tuple[object, str]]], cases: float) -> list[str | None]:
    """For each file its longest ending that nearly all cases share; ``endings_of`` gives (case, ending) of each."""
    owners: dict[str, set[object]] = defaultdict(set)
    for pairs in endings_of:
        for case, ending in pairs:
            owners[ending].add(case)
    enough = {ending for ending, of in owners.items() if len(of) >= NEARLY_ALL * cases and not _is_numbers(ending)}
    return [next((ending for _, ending in pairs if ending in enough), None) for pairs in endings_of]


def _per_folder(by_folder: dict[tuple[str, ...], list[str]]) -> set[str]:
    """Names under the assumption that each folder is a case; none where it does not hold."""
    folders = {folder: stems for folder, stems in by_folder.items() if folder}
    beside = len(by_folder.get((), ()))  # a template or an atlas may lie beside the cases
    if not folders or beside > (1 - NEARLY_ALL) * sum(map(len, folders.values())):
        return set()
    if len(folders) == 1:
        ((folder, stems),) = folders.items()
        return set() if folder[-1].lower() in IMAGE_FOLDERS else _of_one_case(stems, folder)
    pairs = [(folder, stem) for folder, stems in folders.items() for stem in stems]
    chosen = _shared([[(folder, ending) for _, ending in endings(stem)] for folder, stem in pairs], len(folders))
    seen = Counter((folder, name) for (folder, _), name in zip(pairs, chosen, strict=True) if name is not None)
    repeated = len({folder for (folder, _), number in seen.items() if number > 1})
    if repeated > (1 - NEARLY_ALL) * len(folders):  # two files of a folder are the same: it holds several cases
        return set()
    names = {name for name in chosen if name is not None}
    return names if any(not is_label(name) for name in names) else set()


def _per_beginning(by_folder: dict[tuple[str, ...], list[str]]) -> set[str]:
    """Names under the assumption that each distinct beginning of a name is a case: the most specific names that hold.

    The number of cases is not known: what is tried are the numbers of cases in which endings occur, the fewest first.
    """
    pairs = [(folder, stem) for folder, stems in by_folder.items() for stem in stems]
    cut = [[((folder, first), ending) for first, ending in endings(stem) if first] for folder, stem in pairs]
    counts = Counter(ending for endings_of in cut for _, ending in endings_of)
    least = max(2, len(pairs) // 40)  # nobody has more channels; and a name that is an id by chance is not tried
    for cases in sorted({number for name, number in counts.items() if number >= least and not _is_numbers(name)}):
        chosen = _shared(cut, cases)
        of_case: dict[object, set[str]] = defaultdict(set)
        for endings_of, name in zip(cut, chosen, strict=True):
            if name is not None:
                of_case[next(case for case, ending in endings_of if ending == name)].add(name)
        images = {name for name in chosen if name is not None and not is_label(name)}
        share = {name: sum(name in names for names in of_case.values()) / len(of_case) for name in images}
        if images and all(value >= NEARLY_ALL for value in share.values()):
            return {name for name in chosen if name is not None}
    return set()


def _single_case(by_folder: dict[tuple[str, ...], list[str]]) -> set[str]:
    """Names under the assumption that all files are one case: where each ends in a modality's name or is a label."""
    if len(by_folder) != 1:
        return set()
    ((folder, stems),) = by_folder.items()
    names = _of_one_case(stems, folder)
    images = [_plain(name) for name in names if not is_label(name)]
    known = all(any(ending in MODALITIES for _, ending in endings(name)) for name in images)
    return names if images and known and len(stems) > 1 else set()


def _of_one_case(stems: Sequence[str], folder: Sequence[str]) -> set[str]:
    """The files' names without the case's id: what they share with their folder, or what all images begin with."""
    starts = ["_".join(folder).lower(), folder[-1].lower()] if folder else []
    names = [_without_start(stem.lower(), starts) for stem in stems]
    images = [name for name in names if not is_label(name)]
    # of sorted texts, the first and the last differ soonest
    first, last = (min(images), max(images)) if len(images) > 1 else ("", "")
    shared = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    shared = shared[: max(shared.rfind(separator) for separator in "_-.") + 1]
    rests = [name.removeprefix(shared) for name in names]
    return set(names if any(rest in IMAGE_WORDS for rest in rests) else rests)  # `ct_image`: the name is ct


def _without_start(name: str, starts: Sequence[str]) -> str:
    return next((name[len(start) + 1 :] for start in starts if name.startswith((f"{start}_", f"{start}-"))), name)


def only_labels(files: Sequence[File]) -> bool:
    """Whether all files are labels by their names: ``lesion-000``, ``p1_mask``; then no image is there."""
    words = ("lesion", "lesions", "label", "labels", "mask", "masks", "seg", "segmentation")
    starts = [re.match(r"[a-z]+(?=[_\-.\d]|$)", file.stem.lower()) for file in files]
    return bool(files) and all(
        is_label(file.stem) or (start is not None and start[0] in words)
        for file, start in zip(files, starts, strict=True)
    )
