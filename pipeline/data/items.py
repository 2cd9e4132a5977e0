"""A dataset, or a part of it, as MONAI's datasets take it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.data.cases import Case, find_cases
from pipeline.data.patients import read_patients
from pipeline.data.pseudonyms import MARK, Pseudonyms
from pipeline.data.sections import stacks_of
from pipeline.data.splits import Split, k_fold, patient_of, read_split, trained_cases
from pipeline.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

PARTS = ("train", "validate", "all", "unseen")


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
    layout: str | None = None,
    pseudonyms: str | PathLike[str] | None = None,
    patients: str | PathLike[str] | None = None,
    stratify: bool = False,
    missing_channels: str = "refuse",
    label_holds: str = "classes",
) -> list[dict]:
    """A dataset, or a part of it, as the list of items that MONAI's datasets take.

    A case that lacks a channel, or whose stacks do not fit together, is among them, and refused by name when it is
    loaded: the others go on.

    Args:
        part: ``"train"``, ``"validate"``, ``"all"``, or ``"unseen"``: all but what ``split_file`` names for training.
        folds, fold, seed: of the split by patient, see `pipeline.data.k_fold`.
        split_file: takes the place of the three (``fold`` chooses from a list of folds); ids of the dataset that it
            does not name are left out. It may hold ids or, where there are any, pseudonyms.
        require_label: by default for all parts but ``"all"``.
        spatial_dims: 3 for volumes (NIfTI), 2 for sections (PNG, TIFF).
        layout: a name of `pipeline.data.layouts.LAYOUTS`; by default the first that fits.
        pseudonyms: a CSV file with what takes the place of the ids, see `pipeline.data.pseudonyms`.
        patients: a CSV file with the columns ``case`` and ``patient``, or a JSON object, case id -> patient: instead of
            what the layout or the ids say.
        stratify: whether the folds resemble each other in the volumes of their labels, or in how many objects these
            number; every label is read once. Off where a split must be the one of an earlier version.
        missing_channels: ``"zero"`` where a case is usable that lacks channels, but not all.
        label_holds: ``"classes"`` or ``"instances"``, see `pipeline.data.StackRules`; for ``stratify``.

    Returns:
        ``{"case_id": str, "relative": folder, "image": {channel: path}, "label": path}`` per case; no ``"label"`` where
        there is none; ``"patient"`` where the id does not say it; ``"pseudonymous": True`` under a pseudonym;
        ``"problem"``, why it can't be used, where that is known before a file is opened.

    Raises:
        DataError, ConfigError: as `find_cases`, `k_fold` and `read_split`; ids in the split file that the dataset
            lacks.
    """
    if part not in PARTS:
        raise ConfigError(f"part={part!r}", expected="train, validate, all or unseen")
    if part == "unseen" and split_file is None:
        raise ConfigError("part='unseen' without a split_file", expected="the split.json of the run that trained")
    labelled = part != "all" if require_label is None else require_label
    names = Pseudonyms.read(pseudonyms) if pseudonyms is not None else None
    cases = find_cases(
        dataset_dir,
        channels,
        require_label=labelled,
        keep_incomplete=True,
        spatial_dims=spatial_dims,
        layout=layout,
        pseudonyms=names,
        patients=read_patients(patients) if patients is not None else None,
        missing_channels=missing_channels,
    )
    if part != "all":
        split = None if split_file is None else _renamed(read_split(split_file, fold), names)
        if part == "unseen":
            assert split is not None
            total, cases = len(cases), _unseen(cases, split)
            if len(cases) < total:
                logger.info(
                    "%d of %d cases are left out: these weights were trained on them", total - len(cases), total
                )
            if not cases:
                raise DataError(
                    "only cases that these weights were trained on", file=dataset_dir, expected="unseen cases"
                )
        else:
            split = split or _split(cases, folds, fold, seed, spatial_dims, label_holds if stratify else None)
            wanted = set(_known(split, cases, split_file).train if part == "train" else split.validate)
            cases = [case for case in cases if case.case_id in wanted]
    return [_item(case, pseudonymous=names is not None) for case in cases]


def _item(case: Case, pseudonymous: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "case_id": case.case_id,
        "relative": case.relative.as_posix(),
        "image": {name: str(path) for name, path in case.image.items()},
    }
    if case.label is not None:
        item["label"] = str(case.label)
    if _patient(case) != patient_of(case.case_id):
        item["patient"] = _patient(case)
    if case.problem is not None:
        item["problem"] = case.problem
    return item | ({MARK: True} if pseudonymous else {})


def _patient(case: Case) -> str:
    return case.patient or patient_of(case.case_id)


def _split(
    cases: Sequence[Case], folds: int, fold: int, seed: int, spatial_dims: int, stratify_by: str | None
) -> Split:
    stacks = stacks_of({case.case_id: _first(case) for case in cases if case.image}) if spatial_dims == 2 else {}
    patients = {case.case_id: case.patient for case in cases if case.patient is not None}
    volumes = None
    if stratify_by is not None:
        from pipeline.data.label_volumes import label_volumes

        labels = {case.case_id: case.label for case in cases if case.label is not None}
        volumes = label_volumes(labels, label_holds=stratify_by)
    return k_fold([case.case_id for case in cases], folds, fold, seed, stacks, patients, volumes)


def _first(case: Case) -> Path:
    return next(iter(case.image.values()))


def _renamed(split: Split, names: Pseudonyms | None) -> Split:
    """The split by pseudonyms, whichever of the two its file holds: no pseudonym is the id of a case."""
    if names is None:
        return split

    def new(by_id: Mapping[str, str]) -> dict[str, str]:
        return {names.names.get(case, case): value for case, value in by_id.items()}

    train, validate = (tuple(names.names.get(case, case) for case in part) for part in (split.train, split.validate))
    return replace(
        split, train=train, validate=validate, fingerprints=new(split.fingerprints), patients=new(split.patients)
    )


def _known(split: Split, cases: Iterable[Case], split_file: str | PathLike[str] | None) -> Split:
    unknown = sorted({*split.train, *split.validate} - {case.case_id for case in cases})
    if unknown:
        raise DataError(
            f"cases that the dataset lacks: {', '.join(unknown)}", file=split_file, fix="use the split of this dataset"
        )
    return split


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _unseen(cases: Sequence[Case], split: Split) -> list[Case]:
    """Those cases whose patients the weights trained by ``split`` have not seen.

    An image that was trained on is known by its content, whatever its case is called now; the other visits of its
    patient by the patient's id. Where no image is known, the dataset is another one, and equal ids mean nothing.
    """
    in_training = set(split.train)
    patients = {split.patient(case_id) for case_id in split.train}
    patients |= {_patient(case) for case in cases if case.case_id in in_training}
    known = trained_cases(split, {case.case_id: tuple(case.image.values()) for case in cases if case.image})
    if not known and any(case_id in split.fingerprints for case_id in split.train):
        shared = [case.case_id for case in cases if _patient(case) in patients]
        if shared:
            logger.warning(
                "%d cases have the ids of training cases (%s), and none is a file that was trained on: other patients, "
                "it is assumed. If they are the same scans, saved again, the figures are too good: leave them out",
                len(shared),
                _some(shared),
            )
        return list(cases)
    patients |= {_patient(case) for case in cases if case.case_id in known}
    return [case for case in cases if case.case_id not in known and _patient(case) not in patients]
