"""BIDS: ``sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz``, and labels in ``derivatives``; ISLES'22 is of this kind.

A session is a case, ``sub-01_ses-02``, and a patient's sessions stay together. Raw images lie in the dataset's folder,
or in ``rawdata`` or ``raw_data``. Where all images of a session carry ``run-``, each run is a case.

A channel is named after the suffix in lower case, without the ``w`` of a weighting: ``T1w`` is ``t1`` (a bundle that
calls it ``t1w`` gets it too), ``FLAIR`` ``flair``, ``T1w`` with ``ce-`` is ``t1ce`` (or ``t1post``, ``t1gd``, ``t1c``).
A map whose suffix says nothing is named by its ``desc-``: ``desc-cbf_perf`` and ``desc-cbf`` are ``cbf``. Of several
files of a channel the raw one counts before a derived one, one in its own space before one in a template's
(``space-``), and one without ``desc-`` before one with. Series (bold, asl, ctp, a dwi with ``.bval``) are channels only
where asked for.

A label is, first, what names a lesion (``label-lesion_mask``, ``desc-tumor_mask``, ``lesion-msk``, ``_lesion``), then a
``dseg``, a ``seg`` or a mask with another ``label-``, then a bare ``_mask`` or ``_msk`` from ``derivatives``. Masks of
the brain, of tissues and of vessels never are, nor anything of ``probseg``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.layouts.folder import Entry, File, Folder, Listing, other_channels
from pipeline.data.layouts.names import NO_LABEL, OUTLINED, SERIES, before, without

DATATYPES = frozenset(("anat", "perf", "dwi", "func", "pet", "ct", "cta", "ctp", "swi", "fmap", "micr"))
RAW = ((), ("rawdata",), ("raw_data",))
NEVER = frozenset((*NO_LABEL, "wm", "gm", "aseg", "aparcaseg", "lvo", "cow", "eye", "eyes"))
"""What a mask is of that is no label."""
NAMELESS = frozenset({"perf", "map", "image", "img", "volume", "mr", "mri"})
"""Suffixes that say nothing of a channel where ``desc-`` does."""


@dataclass(frozen=True)
class BidsFile:
    """A file's name taken apart: ``before`` are the folders above ``sub-``, ``entities`` without sub and ses."""

    file: File
    before: tuple[str, ...]
    subject: str
    session: str | None
    entities: Mapping[str, str]
    suffix: str

    @property
    def derived(self) -> bool:
        return self.before not in RAW


def parse(file: File) -> BidsFile | None:
    """None for a file that is not named after BIDS, or lies below no ``sub-`` folder.

    >>> found = parse(File(Path(), ("sub-1", "ses-2", "anat"), "sub-1_ses-2_desc-preproc_T1w"))
    >>> found.subject, found.session, found.entities, found.suffix
    ('sub-1', 'ses-2', {'desc': 'preproc'}, 't1w')
    """
    at = next((number for number, name in enumerate(file.folders) if re.match(r"sub-[^_]+$", name)), None)
    if at is None or not file.stem.startswith(f"{file.folders[at]}_"):
        return None
    *tokens, last = file.stem.split("_")[1:]
    # `lesion-msk` is a suffix with a hyphen, `desc-cbf` an entity where a suffix should be
    suffix = last.lower()
    if "-" in last and without(last, ("msk", "mask")) is None:
        tokens, suffix = [*tokens, last], ""
    entities = {key.lower(): value for key, _, value in (token.partition("-") for token in tokens)}
    session = entities.pop("ses", None)
    if session is None:
        session = next((name[4:] for name in file.folders[at + 1 :] if name.startswith("ses-")), None)
    return BidsFile(
        file, file.folders[:at], file.folders[at], None if session is None else f"ses-{session}", entities, suffix
    )


def why(folder: Folder) -> str | None:
    """Subjects' folders with BIDS datatypes in them."""
    for file in folder.files:
        found = parse(file)
        if found and not found.derived and file.folders[-1] in DATATYPES:
            return f"subjects' folders with {file.folders[-1]} in them"
    return None


def why_isles22(folder: Folder) -> str | None:
    """BIDS with the challenge's own subjects."""
    challenge = any(part.startswith("sub-strokecase") for file in folder.files[:1000] for part in file.folders)
    return "BIDS with subjects called sub-strokecase" if challenge and why(folder) else None


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """A case per session, or per run. A single channel that no file is named after is the only one that there is.

    Raises:
        DataError: none of the channels asked for, and not a single other one that could be meant.
    """
    sessions: dict[tuple[str, str | None], list[BidsFile]] = defaultdict(list)
    for file in folder.files:
        if (found := parse(file)) is not None and found.before[:1] not in (("sourcedata",), ("code",)):
            sessions[found.subject, found.session].append(found)
    notes: list[str] = []
    if channels is None:
        channels, notes = _channels(sessions)
    names = {name: name for name in channels}
    if not any(channel_aliases(found) & set(names) for files in sessions.values() for found in files):
        own, _ = _channels(sessions)
        if len(channels) != 1 or len(own) != 1:
            raise other_channels(folder.root, own, channels)
        names = {own[0]: channels[0]}
        notes = [f"{own[0]} is taken for {channels[0]}: there is no other"]
    entries = []
    for (subject, session), files in sessions.items():
        images = [found for found in files if label_rank(found) is None and not _is_mask(found)]
        wanted = {name: [found for found in images if known in channel_aliases(found)] for known, name in names.items()}
        wanted = {name: [found for found in of if found in best(of)] for name, of in wanted.items() if of}
        runs = {found.entities.get("run") for of in wanted.values() for found in of}
        several = len(runs) > 1 and None not in runs
        for run in sorted(runs, key=str) if several else [None]:
            of_run = {
                name: [found.file.path for found in of if run is None or found.entities.get("run") == run]
                for name, of in wanted.items()
            }
            image = {name: paths for name, paths in of_run.items() if paths}
            if not image:
                continue
            labels = [found for found in files if run is None or found.entities.get("run") == run]
            first = next(iter(image.values()))[0]
            case_id = "_".join(part for part in (subject, session, run and f"run-{run}") if part)
            below = Path(*next(found.file.folders for found in images if found.file.path == first))
            entries.append(Entry(case_id, image, best_labels(labels), below, subject))
    return Listing(tuple(names.values()), entries, notes=notes)


def _channels(sessions: Mapping[tuple[str, str | None], Sequence[BidsFile]]) -> tuple[tuple[str, ...], list[str]]:
    """Channels that nearly all sessions with any image have."""
    counts: dict[str, int] = defaultdict(int)
    series: set[str] = set()
    with_images = 0
    for files in sessions.values():
        images = [found for found in files if label_rank(found) is None and not _is_mask(found)]
        raw = [found for found in images if not found.derived] or images
        names = {channel_of(found): found for found in raw}
        for name, found in list(names.items()):
            path = found.file.path
            if name in SERIES or path.with_name(f"{found.file.stem}.bval").exists():
                series.add(name)
                del names[name]
        with_images += bool(names)
        for name in names:
            counts[name] += 1
    chosen = tuple(sorted(name for name, number in counts.items() if number >= 0.9 * with_images))
    rare = sorted(f"{name} ({number})" for name, number in counts.items() if name not in chosen)
    notes = [f"{', '.join(sorted(series))}: a series over time, no channel unless it is asked for"] if series else []
    notes += [f"channels that too few of {with_images} sessions have: {', '.join(rare)}"] if rare else []
    return chosen, notes


def channel_of(found: BidsFile) -> str:
    """The name of a file's channel."""
    if found.suffix in NAMELESS or not found.suffix:
        return found.entities.get("desc", found.suffix).lower()
    name = found.suffix[:-1] if found.suffix in ("t1w", "t2w", "pdw") else found.suffix
    return f"{name}ce" if "ce" in found.entities else name


def channel_aliases(found: BidsFile) -> set[str]:
    """Every name by which a bundle may ask for a file's channel."""
    name = channel_of(found)
    if "ce" in found.entities:
        plain = name[:-2]
        return {name, *(f"{plain}{after}" for after in ("post", "gd", "c", "_ce", "wce"))}
    return {name, found.suffix, found.entities.get("desc", name).lower()}


def best(files: Sequence[BidsFile]) -> list[BidsFile]:
    """Those of a channel's files that count: raw, in its own space, untouched; several where that isn't enough."""

    def rank(found: BidsFile) -> tuple[bool, bool, bool]:
        return found.derived, "space" in found.entities, "desc" in found.entities

    least = min(map(rank, files), default=None)
    return [found for found in files if rank(found) == least]


def _is_mask(found: BidsFile) -> bool:
    return found.suffix in ("probseg", "dseg", "seg") or without(found.suffix, ("mask", "msk")) is not None


def label_rank(found: BidsFile) -> int | None:
    """How surely a file is the label, 0 the surest; None for what is none."""
    said = {found.entities.get(key, "").lower() for key in ("label", "desc")} - {""}
    if found.suffix == "probseg" or said & NEVER:
        return None
    masked = without(found.suffix, ("mask", "msk"))
    if found.suffix in ("lesion", "label") or (masked and any(before(masked, name) is not None for name in OUTLINED)):
        return 0
    if masked == "" and said & set(OUTLINED):
        return 0
    if found.suffix in ("dseg", "seg") or (masked == "" and "label" in found.entities):
        return 1
    if masked == "" and not said:
        return 2
    return None


def best_labels(files: Sequence[BidsFile]) -> list[Path]:
    """The file, or the equally good files, of the surest kind, in the image's own space before a template's."""
    ranked = [(rank, "space" in found.entities, found) for found in files if (rank := label_rank(found)) is not None]
    least = min(((rank, spaced) for rank, spaced, _ in ranked), default=None)
    return [found.file.path for rank, spaced, found in ranked if (rank, spaced) == least]
