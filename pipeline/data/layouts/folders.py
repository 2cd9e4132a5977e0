"""A folder per case, or all files in one folder: whatever names its files after case and channel, and nothing more.

``sub-01/sub-01_cbf.nii.gz``, ``sub-01/cbf.nii.gz``, deeper (``sub-01/ses-02/...``), ``ID_cbf.nii.gz`` side by side, one
case's folder, or, for one channel, any images. `pipeline.data.layouts.names` says how names are read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.data.layouts.discover import channel_names, only_labels
from pipeline.data.layouts.folder import Entry, File, Folder, Listing
from pipeline.data.layouts.names import IMAGE_WORDS, LABEL_NAMES, MASK_WORDS, Role, before, is_label, role, without
from pipeline.data.layouts.other_names import add_overlooked, refuse_named_otherwise
from pipeline.data.layouts.partners import with_partners_named
from pipeline.errors import DataError


def why(folder: Folder) -> str | None:
    """Always: it is what remains."""
    inside = sum(bool(file.folders) for file in folder.files)
    return (
        "files in folders, named after their channels" if inside else "files side by side, named after case and channel"
    )


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """The cases of a folder.

    Raises:
        DataError: labels alone, where no channel is named.
    """
    files, partners, said = with_partners_named(folder.files)
    notes: list[str] = []
    if channels is None:
        if only_labels(folder.files):
            raise DataError(
                f"labels alone: {len(folder.files)} files such as {folder.files[0].path.name}, and no image",
                file=folder.root,
                expected="images beside their labels",
                fix="add the images; or name the channel, if these are images",
            )
        channels, notes = channel_names(files)
    elif len(channels) == 1 and not any(_is_channel(file, channels) for file in files):
        refuse_named_otherwise(files, channels[0], folder.root)
    entries = entries_of(files, channels, folder.root.resolve().name, partners)
    notes += said
    label_names = {label.name for entry in entries for label in entry.labels}
    masks = [name for name in label_names if (stem := folder.stem(name)) and without(stem, MASK_WORDS) is not None]
    if masks:
        notes.append(f"masks are taken for the labels, such as {min(masks)}")
    elif not label_names and (others := [file for file in files if without(file.stem, MASK_WORDS) is not None]):
        notes.append(
            f"{others[0].path.name} may be the brain's mask: no label unless it is named so, such as lesion_mask"
        )
    found = Listing(tuple(channels), entries, notes=notes)
    if any(_is_channel(file, channels) for file in files):
        add_overlooked(found, files)
    else:  # every image is taken, and a label where it has an image's name
        taken = {path for entry in entries for paths in (*entry.image.values(), entry.labels) for path in paths}
        alone = [file.path.name for file in files if file.path not in taken and is_label(file.stem)]
        if alone:
            found.notes.append(f"labels without an image of their name, left out: {len(alone)}, such as {min(alone)}")
    return found


def _is_channel(file: File, channels: Sequence[str]) -> bool:
    found = role(file.stem, channels)
    return found is not None and found.kind == "image"


def entries_of(
    files: Sequence[File], channels: Sequence[str], own_name: str, partners: Collection[Path]
) -> list[Entry]:
    """The cases that files make up; ``own_name`` is the id of a case without another.

    ``partners`` are labels that count beside one that an image has by name: of two, nobody knows which is meant.
    """
    folders: dict[tuple[str, ...], dict[str, list[tuple[Role, Path]]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        if (found := role(file.stem, channels)) is not None:
            folders[file.folders][found.prefix].append((found, file.path))
    if len(channels) == 1 and not any(_is_channel(file, channels) for file in files):
        return _unnamed(files, channels[0], partners)
    entries = []
    for folder, groups in folders.items():
        prefixes = [prefix for prefix in groups if prefix]
        if len(prefixes) <= 1:  # `sub-01_cbf` beside a bare `lesion`: one case
            case_id = "_".join(folder) or (prefixes[0] if prefixes else own_name)
            everything = [item for group in groups.values() for item in group]
            entries.append(_entry(case_id, everything, channels, folder, partners))
        else:  # two prefixes are never mixed: two patients
            entries += [
                _entry(prefix or own_name, group, channels, folder, partners) for prefix, group in groups.items()
            ]
    return [entry for entry in entries if entry.image]


def _entry(
    case_id: str,
    found: Sequence[tuple[Role, Path]],
    channels: Sequence[str],
    folder: tuple[str, ...],
    partners: Collection[Path],
) -> Entry:
    image: dict[str, list[Path]] = defaultdict(list)
    labels: dict[str, list[Path]] = defaultdict(list)
    own: list[Path] = []
    drawn: list[Path] = []
    for what, path in found:
        if what.kind == "image":
            image[what.name].append(path)
        elif path in partners and (what.kind == "label" or what.name == channels[0]):
            drawn.append(path)
        elif what.kind == "label":
            labels[what.name].append(path)
        elif what.name == channels[0]:
            own.append(path)
    name = next((name for name in (*LABEL_NAMES, *sorted(labels)) if name in labels), None)
    return Entry(case_id, dict(image), [*(labels[name] if name else own), *drawn], Path(*folder))


def _starts(stem: str) -> list[str]:
    """
    >>> _starts("sub-01_run-2_bold")
    ['sub-01_run-2_bold', 'sub-01_run-2', 'sub-01']
    """
    words = stem.split("_")
    return ["_".join(words[:count]) for count in range(len(words), 0, -1)]


def _unnamed(files: Sequence[File], channel: str, partners: Collection[Path]) -> list[Entry]:
    """One image per case, whose name says nothing of a channel: every file that is no label and no mask."""
    images = [file for file in files if not is_label(file.stem)]
    labels: dict[tuple[tuple[str, ...], str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        for name in (*LABEL_NAMES, *MASK_WORDS):
            if (prefix := before(file.stem, name)) is not None:
                labels[file.folders, prefix][name].append(file.path)
    in_folder = Counter(file.folders for file in images)
    stems = Counter(file.stem for file in images)
    begin_so = Counter((file.folders, start) for file in images for start in _starts(file.stem))
    entries = []
    for file in images:
        plain = without(file.stem, IMAGE_WORDS)
        places = [file.stem, *([] if plain is None else [plain])]  # `a` and `a_mask`; `image` and `mask`
        # `a_bold` and `a_mask`, where no other image of the folder begins with `a`
        places += [start for start in _starts(file.stem)[1:] if begin_so[file.folders, start] == 1]
        candidates = [labels[file.folders, place] for place in places if (file.folders, place) in labels]
        bare = labels.get((file.folders, ""), {})
        if in_folder[file.folders] == 1:  # beside a bare `label`; a bare `mask` may be the brain's
            candidates.append({name: paths for name, paths in bare.items() if name in LABEL_NAMES})
        lists = [found[name] for found in candidates for name in (*LABEL_NAMES, *MASK_WORDS) if name in found]
        own = next((rest for paths in lists if (rest := [path for path in paths if path not in partners])), [])
        own += [path for paths in lists for path in paths if path in partners]
        # Where folders hold files of one name, the folder tells them apart.
        case_id = file.stem if stems[file.stem] == 1 else "_".join((*file.folders, file.stem))
        entries.append(Entry(case_id, {channel: [file.path]}, own, Path(*file.folders)))
    return entries
