"""The stroke challenges whose layouts are their own: ISLES'18 (and '15 to '17), and ISLES'24.

ISLES'18 comes from the SMIR platform: a folder per file, both named after what the file holds, such as
``case_1/SMIR.Brain.XX.O.CT_CBF.345563/SMIR.Brain.XX.O.CT_CBF.345563.nii``; the label is ``OT``. The years before are
the same with ``VSD`` for ``SMIR``. Channels lose the modality where a map follows: ``CT_CBF`` is ``cbf``, ``MR_Tmax``
``tmax``, ``CT`` stays ``ct``.

ISLES'24 as it lies in its public archive: ``raw_data`` (or ``rawdata``) and ``derivatives``, each with a folder per
subject, ``ses-01`` (or ``ses-0001``) the admission, ``ses-02`` the follow-up. A patient is one case. Its images are
those of the admission on the grid of the plain CT: ``ncct`` itself, from the raw data, and the others (``cta``,
``cbf``, ``cbv``, ``mtt``, ``tmax``) that ``derivatives`` hold as ``space-ncct``; its label is the follow-up's
``lesion-msk``, on that grid where there is one.
The follow-up's ``dwi`` and ``adc`` are channels only where asked for: the label was drawn on them, and nobody has
them at admission. ISLES'22 is BIDS.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.layouts import bids
from pipeline.data.layouts.folder import Entry, Folder, Listing, other_channels
from pipeline.data.layouts.names import SERIES, without

_SMIR = re.compile(r"(?:SMIR|VSD)\.[^.]+\.[^.]+\.O\.(?P<what>[^.]+)(?:\..*)?")
FOLLOW_UP = ("adc", "dwi")


def why_18(folder: Folder) -> str | None:
    """Files that SMIR has named."""
    named = next((file for file in folder.files if _SMIR.fullmatch(file.stem)), None)
    return f"files named as {named.path.name}" if named else None


def listing_18(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """A case per folder that holds SMIR's folders."""
    cases: dict[tuple[str, ...], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in folder.files:
        match = _SMIR.fullmatch(file.stem)
        if match is not None:
            own = file.folders[:-1] if file.folders and _SMIR.fullmatch(file.folders[-1]) else file.folders
            cases[own][_known(match["what"].lower())].append(file.path)
    notes = []
    if channels is not None and not any(_known(name) in files for name in channels for files in cases.values()):
        raise other_channels(
            folder.root, sorted({name for files in cases.values() for name in files} - {"ot"}), channels
        )
    if channels is None:
        counts: dict[str, int] = defaultdict(int)
        for files in cases.values():
            for name in files:
                counts[name] += 1
        names = sorted(name for name, number in counts.items() if name != "ot" and number >= 0.9 * len(cases))
        channels = tuple(name for name in names if name not in SERIES)
        left = [name for name in names if name in SERIES]
        notes = [f"{', '.join(left)}: a series over time, no channel unless it is asked for"] if left else []
    entries = []
    for own, files in cases.items():
        image = {name: files[_known(name)] for name in channels if _known(name) in files}
        if image:
            case_id = "_".join(own) or folder.root.resolve().name
            entries.append(Entry(case_id, image, files.get("ot", []), Path(*own)))
    return Listing(tuple(channels), entries, notes=notes)


def _known(name: str) -> str:
    return re.sub(r"^(ct|mr)_", "", name)


def why_24(folder: Folder) -> str | None:
    """Lesions of a follow-up, or perfusion maps, on the grid of the plain CT."""
    for file in folder.files:
        found = bids.parse(file)
        if found and found.derived and found.entities.get("space", "").lower() == "ncct":
            return f"derivatives on the plain CT's grid, such as {file.path.name}"
    return None


def listing_24(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """A case per subject."""
    subjects: dict[str, list[bids.BidsFile]] = defaultdict(list)
    for file in folder.files:
        if (found := bids.parse(file)) is not None:
            subjects[found.subject].append(found)
    cases: dict[str, tuple[dict[str, list[Path]], list[Path]]] = {}
    counts: dict[str, int] = defaultdict(int)
    for subject, files in subjects.items():
        image: dict[str, list[Path]] = defaultdict(list)
        lesions = []
        for found in files:
            on_ct = found.entities.get("space", "").lower() == "ncct"
            if found.suffix == "lesion-msk":
                lesions.append((not on_ct, found.file.path))
            elif (found.suffix == "ncct" and not found.derived) or (on_ct and without(found.suffix, ("msk",)) is None):
                image[found.suffix].append(found.file.path)
        for name in image:
            counts[name] += 1
        least = min((elsewhere for elsewhere, _ in lesions), default=False)
        cases[subject] = dict(image), [path for elsewhere, path in lesions if elsewhere == least]
    notes: list[str] = []
    if channels is not None and not set(channels) & set(counts):
        raise other_channels(folder.root, sorted(counts), channels)
    if channels is None:
        names = {name for name, number in counts.items() if number >= 0.9 * len(cases)}
        left = sorted(names & {*FOLLOW_UP, *SERIES})
        channels = tuple(sorted(names - set(left), key=lambda name: (name != "ncct", name)))
        notes = [f"{', '.join(left)}: of the follow-up, or series; no channels unless asked for"] if left else []
    entries = [
        Entry(subject, {name: image[name] for name in channels if name in image}, labels, Path(subject), subject)
        for subject, (image, labels) in cases.items()
        if any(name in image for name in channels)
    ]
    return Listing(tuple(channels), entries, notes=notes)
