"""Cases on disk: which files belong to which patient, and which of them is which channel.

Understood are a Decathlon folder (``dataset.json``), a folder of case folders whose files end in the channel's name
(``sub-01/sub-01_cbf.nii.gz``, ``sub-01/cbf.nii.gz``, also deeper: ``sub-01/ses-02/...``), a flat folder of
``ID_cbf.nii.gz``, one case folder, two folders ``images`` and ``labels`` with files of the same names, and for a bundle
of one channel any folder of volumes or a single file. A 2D bundle finds PNG and TIFF files in the same layouts, a TIFF
stack as one case per section. No image is opened here, but for the number of sections in a stack.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from pipeline.data.decathlon import decathlon_entries
from pipeline.data.image_label_folders import IMAGES, LABELS, each_section, image_label_entries
from pipeline.data.splits import Split, fingerprint, k_fold, patient_of, read_split
from pipeline.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SUFFIXES = {3: (".nii.gz", ".nii"), 2: (".png", ".tiff", ".tif")}
"""Of the files of volumes and of sections, by spatial dimensions."""
LABEL_NAMES = ("label", "lesion", "seg")
"""Names of a label file, the first found wins. ``mask`` is not among them: it is as often the brain's."""


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        case_id: unique in its dataset.
        image: a file per channel, in the order asked for.
        label: the reference segmentation, where there is one.
        relative: folder of the first channel below the dataset: results keep it.
    """

    case_id: str
    image: dict[str, Path]
    label: Path | None = None
    relative: Path = field(default=Path())


def find_cases(
    dataset_dir: str | PathLike[str],
    channels: Sequence[str],
    require_label: bool = True,
    keep_incomplete: bool = False,
    spatial_dims: int = 3,
) -> list[Case]:
    """All cases of a dataset, sorted by id.

    Args:
        dataset_dir: a folder in one of the layouts above, or a single file where there is one channel.
        channels: names in the bundle's order; compared without regard to case.
        require_label: whether a case without a label is refused; labels are found either way.
        keep_incomplete: whether cases that lack a channel are among the result, without it, so that whoever loads them
            refuses them one by one and the others go on; and whether cases that lack a needed label are left out with
            a warning. A dataset without any complete case is refused either way.
        spatial_dims: 3 for volumes (NIfTI), 2 for sections (PNG, TIFF).

    Raises:
        DataError: nothing there; channels or labels missing, or one id twice: with every case that it concerns.
    """
    root, channels = Path(dataset_dir), [name.lower() for name in channels]
    if not channels or len(set(channels)) != len(channels):
        raise ConfigError(f"channels {channels}", expected="at least one name, each once")
    if spatial_dims not in SUFFIXES:
        raise ConfigError(f"spatial_dims={spatial_dims}", expected="2 or 3")
    suffixes = SUFFIXES[spatial_dims]
    if not root.exists():
        raise DataError("no such file or folder", file=root, expected="a dataset", fix=_nearest(root))
    if root.is_file():
        found = _single_file(root, channels, suffixes)
    elif (root / "dataset.json").is_file():
        found = decathlon_entries(root, channels, with_test=not require_label)
    elif (root / IMAGES).is_dir() and (root / LABELS).is_dir():
        found = image_label_entries(root, channels, suffixes)
    else:
        found = _from_folders(root, channels, suffixes)
    if spatial_dims == 2:
        found = each_section(found, LABEL_NAMES)
    cases = sorted(_complete(found, channels, root, require_label, keep_incomplete), key=lambda case: case.case_id)
    if not cases:
        raise DataError(
            "no case",
            file=root,
            expected=f"files that end in {' / '.join(f'_{name}{suffixes[0]}' for name in channels)}, or folders "
            f"{IMAGES} and {LABELS} with {suffixes[0]} files of the same names",
            fix="rename the files, or give the folder that holds the case folders",
        )
    _refuse_duplicates(cases, root)
    return cases


def data_list(
    dataset_dir: str | PathLike[str],
    channels: Sequence[str],
    part: str = "all",
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    split_file: str | PathLike[str] | None = None,
    require_label: bool | None = None,
    spatial_dims: int = 3,
) -> list[dict]:
    """A dataset, or a part of it, as the list of items that MONAI's datasets take.

    A case that lacks a channel, or whose stacks do not fit together, is among them, and refused by name when it is
    loaded: the others go on.

    Args:
        part: ``"train"``, ``"validate"``, ``"all"``, or ``"unseen"``: all but what ``split_file`` names for training.
        folds, fold, seed: of the split by patient, see `pipeline.data.k_fold`.
        split_file: takes the place of the three; ids of the dataset that it does not name are left out.
        require_label: by default for all parts but ``"all"``.
        spatial_dims: 3 for volumes (NIfTI), 2 for sections (PNG, TIFF).

    Returns:
        ``{"case_id": str, "relative": folder, "image": {channel: path}, "label": path}`` per case; no ``"label"`` where
        there is none.

    Raises:
        DataError, ConfigError: as `find_cases`, `k_fold` and `read_split`; ids in the split file that the dataset
            lacks.
    """
    if part not in ("train", "validate", "all", "unseen"):
        raise ConfigError(f"part={part!r}", expected="train, validate, all or unseen")
    labelled = part != "all" if require_label is None else require_label
    cases = find_cases(dataset_dir, channels, require_label=labelled, keep_incomplete=True, spatial_dims=spatial_dims)
    if part == "unseen":
        if split_file is None:
            raise ConfigError("part='unseen' without a split_file", expected="the split.json of the run that trained")
        split, total = read_split(split_file), len(cases)
        cases = _unseen(cases, split)
        if len(cases) < total:
            logger.info("%d of %d cases are left out: these weights were trained on them", total - len(cases), total)
        if not cases:
            raise DataError("only cases that these weights were trained on", file=dataset_dir, expected="unseen cases")
    elif part != "all":
        ids = [case.case_id for case in cases]
        split = read_split(split_file) if split_file else k_fold(ids, folds, fold, seed, _stacks(cases, spatial_dims))
        wanted = set(_known(split, ids, split_file).train if part == "train" else split.validate)
        cases = [case for case in cases if case.case_id in wanted]
    return [
        {
            "case_id": case.case_id,
            "relative": case.relative.as_posix(),
            "image": {name: str(path) for name, path in case.image.items()},
        }
        | ({"label": str(case.label)} if case.label else {})
        for case in cases
    ]


def _stacks(cases: Sequence[Case], spatial_dims: int) -> dict[str, tuple[str, int]]:
    """Case id -> (id of its stack, number in it), of the cases that are sections of a stack."""
    if spatial_dims != 2:
        return {}
    from pipeline.io import section_of  # importing the image libraries takes longer than listing most datasets

    stacks = {}
    for case in cases:
        number = section_of(next(iter(case.image.values())))[1] if case.image else None
        stack = case.case_id.removesuffix(f"_{number or 0:03d}")
        if number is not None and stack != case.case_id:  # a file of one section keeps its id
            stacks[case.case_id] = (stack, number)
    return stacks


def _known(split: Split, ids: Iterable[str], split_file) -> Split:
    unknown = sorted({*split.train, *split.validate} - set(ids))
    if unknown:
        raise DataError(
            f"cases that the dataset lacks: {', '.join(unknown)}", file=split_file, fix="use the split of this dataset"
        )
    return split


def _unseen(cases: Sequence[Case], split: Split) -> list[Case]:
    """Those cases whose patients the weights trained by ``split`` have not seen.

    An image that was trained on is known by its content, whatever its case is called now; the other visits of its
    patient by the patient's id. Where no image is known, the dataset is another one, and equal ids mean nothing.
    """
    patients = {patient_of(case_id) for case_id in split.train}
    trained = {split.fingerprints.get(case_id) for case_id in split.train} - {None}
    known = {case.case_id for case in cases if fingerprint(next(iter(case.image.values()))) in trained}
    if trained and not known:
        shared = [case.case_id for case in cases if patient_of(case.case_id) in patients]
        if shared:
            logger.info("%d cases have the ids of training cases, but other images: other patients", len(shared))
        return list(cases)
    return [case for case in cases if case.case_id not in known and patient_of(case.case_id) not in patients]


def _stem(path: Path, suffixes: Sequence[str]) -> str | None:
    """The name without its suffix; None for another kind of file."""
    name = path.name.lower()
    return next((path.name[: -len(suffix)] for suffix in suffixes if name.endswith(suffix)), None)


def _role(stem: str, names: Iterable[str]) -> tuple[str, str] | None:
    """(case prefix, channel or label name) of a file; None where it ends in none of the names."""
    for name in names:
        if stem.lower() == name:
            return "", name
        if stem.lower().endswith(("_" + name, "-" + name, "." + name)):
            return stem[: -len(name) - 1], name
    return None


def _single_file(
    path: Path, channels: Sequence[str], suffixes: Sequence[str]
) -> list[tuple[str, dict[str, list[Path]], Path]]:
    stem = _stem(path, suffixes)
    if stem is None:
        expected = f"a {' or '.join(sorted(suffixes))} image, or a folder"
        raise DataError("a file of another kind", file=path, expected=expected)
    if len(channels) > 1:
        raise DataError(
            "one file", file=path, expected=f"the channels {', '.join(channels)}", fix="give the folder that holds them"
        )
    return [(stem, {channels[0]: [path]}, Path())]


def _from_folders(
    root: Path, channels: Sequence[str], suffixes: Sequence[str]
) -> list[tuple[str, dict[str, list[Path]], Path]]:
    """(case id, files per name, relative folder) for every folder below ``root`` and every prefix in it."""
    names = (*channels, *LABEL_NAMES)
    folders: dict[Path, dict[str, dict[str, list[Path]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    images = [path for path in sorted(root.rglob("*")) if _stem(path, suffixes) is not None and path.is_file()]
    images = [path for path in images if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    for path in images:
        role = _role(_stem(path, suffixes) or "", names)
        if role is not None:
            folders[path.parent.relative_to(root)][role[0]][role[1]].append(path)
    if len(channels) == 1 and not any(channels[0] in files for group in folders.values() for files in group.values()):
        # A bundle of one channel needs no names: every volume that is no label is a case. Where folders hold files of
        # one name, the folder tells them apart.
        labels: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in images:
            role = _role(_stem(path, suffixes) or "", LABEL_NAMES)
            if role is not None:
                labels[path.parent, role[0]][role[1]].append(path)
        images = [path for path in images if _role(_stem(path, suffixes) or "", LABEL_NAMES) is None]
        stems = Counter(_stem(path, suffixes) for path in images)
        unnamed = [(path, _stem(path, suffixes) or "", path.parent.relative_to(root)) for path in images]
        return [
            (
                stem if stems[stem] == 1 else "_".join((*folder.parts, stem)),
                {channels[0]: [path], **labels.get((path.parent, stem), {})},
                folder,
            )
            for path, stem, folder in unnamed
        ]
    cases = []
    for folder, groups in folders.items():
        prefixes = [prefix for prefix in groups if prefix]
        if (
            len(prefixes) <= 1
        ):  # `sub-01_cbf` beside a bare `lesion`: one case. Two prefixes are never mixed: two patients.
            merged: dict[str, list[Path]] = defaultdict(list)
            for files in groups.values():
                for name, paths in files.items():
                    merged[name] += paths
            own_name = prefixes[0] if prefixes else root.resolve().name
            cases.append(("_".join(folder.parts) or own_name, merged, folder))
        else:
            cases += [(prefix or root.resolve().name, files, folder) for prefix, files in groups.items()]
    return [(case_id, files, folder) for case_id, files, folder in cases if any(name in files for name in channels)]


def _complete(found, channels: Sequence[str], root: Path, require_label: bool, keep_incomplete: bool) -> list[Case]:
    problems: list[str] = []
    unlabelled: list[str] = []
    if keep_incomplete:
        keep_incomplete = any(
            all(name in files for name in channels) and (not require_label or any(n in files for n in LABEL_NAMES))
            for _, files, _ in found
        )
    cases = []
    for case_id, files, relative in found:
        missing = [name for name in channels if name not in files]
        twice = [name for name in channels if len(files.get(name, ())) > 1]
        label_name = next((name for name in LABEL_NAMES if name in files), None)
        labels = files[label_name] if label_name else []
        if missing and not keep_incomplete:
            problems.append(f"{case_id}: no {', '.join(missing)}")
        if twice and keep_incomplete:
            logger.warning("case %s has several files for %s: neither is taken", case_id, ", ".join(twice))
            files = {name: paths for name, paths in files.items() if name not in twice}
            twice = []
        if twice or (require_label and len(labels) > 1):
            problems.append(
                f"{case_id}: several files for {', '.join([*twice, *(['the label'] if len(labels) > 1 else [])])}"
            )
        if require_label and not labels and keep_incomplete:
            unlabelled.append(case_id)
            continue
        if require_label and not labels:
            problems.append(f"{case_id}: no label")
        image = {name: files[name][0] for name in channels if name in files}
        cases.append(Case(case_id, image, labels[0] if labels else None, relative))
    if problems:
        shown = [*sorted(problems)[:5], *([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])]
        nowhere = [name for name in channels if not any(name in files for _, files, _ in found)]
        if require_label and not any(name in files for _, files, _ in found for name in LABEL_NAMES):
            nowhere.append(f"{', '.join(LABEL_NAMES[:-1])} or {LABEL_NAMES[-1]}")
        raise DataError(
            f"{len(problems)} problem(s) in {len(cases)} cases:\n  " + "\n  ".join(shown) + "\n",
            file=root,
            expected=f"per case one file for {', '.join(channels)}" + (" and one label" if require_label else ""),
            fix=f"no file ends in {', nor in '.join(nowhere)}: are these the data for this bundle?"
            if nowhere
            else "add what is missing, or move these cases out of the dataset",
        )
    if unlabelled:
        logger.warning("%d cases have no label and are left out: %s", len(unlabelled), ", ".join(sorted(unlabelled)))
    return cases


def _refuse_duplicates(cases: Sequence[Case], root: Path) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        places[case.case_id].append(str(next(iter(case.image.values()))))
    twice = [f"{name}: {', '.join(paths)}" for name, paths in places.items() if len(paths) > 1]
    if twice:
        raise DataError(
            "ids that several cases share:\n  " + "\n  ".join(twice) + "\n",
            file=root,
            expected="one id per case, so that no result overwrites another",
            fix="rename the files or folders",
        )


def _nearest(path: Path) -> str:
    """What the caller may have meant, from the names beside the first part of the path that does not exist."""
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    close = difflib.get_close_matches(missing.name, siblings, n=3, cutoff=0.5) or siblings[:5]
    return f"in {missing.parent} there is {', '.join(close) or 'nothing'}"
