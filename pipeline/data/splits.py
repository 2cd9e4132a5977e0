"""Training and validation parts, by patient.

>>> split = k_fold(["a", "b_ses-1", "b_ses-2", "c", "d"], folds=2, fold=0, seed=0)
>>> sorted(split.train + split.validate)
['a', 'b_ses-1', 'b_ses-2', 'c', 'd']
>>> len({"b_ses-1", "b_ses-2"} & set(split.validate)) in (0, 2)
True
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

from pipeline.errors import ConfigError, DataError


@dataclass(frozen=True)
class Split:
    """Case ids of the two parts, each sorted; no patient is in both, and no stack of sections but where `k_fold` had
    fewer than folds and cut them into blocks.

    ``fingerprints`` (case id -> `fingerprint` of its first channel) tell a case from another dataset's of the same id;
    ``patients`` (case id -> patient) say to whom a case belongs whose id does not (`patient_of`).
    """

    train: tuple[str, ...]
    validate: tuple[str, ...]
    fingerprints: dict[str, str] = field(default_factory=dict, hash=False)
    patients: dict[str, str] = field(default_factory=dict, hash=False)

    def patient(self, case_id: str) -> str:
        return self.patients.get(case_id) or patient_of(case_id)


def fingerprint(path: str | PathLike[str]) -> str:
    """What tells one image from another: its file's size, a hash of a mebibyte of it, and its place in a stack.

    The mebibyte is read in blocks from all over the file: one that is not compressed often begins with empty slices.
    """
    from pipeline.io import section_of  # importing the image libraries takes longer than listing most datasets

    image, section = section_of(path)
    size, blocks, length, digest = image.stat().st_size, 16, 2**16, hashlib.sha256()
    with open(image, "rb") as file:
        for block in range(blocks):
            file.seek(max(0, size - length) * block // (blocks - 1))
            digest.update(file.read(length))
    return f"{digest.hexdigest()[:32]}-{size}" + ("" if section is None else f"-{section}")


TRAINED_ON = "the weights were trained on this case"
"""Remark of a result that says nothing of how good results of new patients are."""


def trained_cases(split: Split, images: Mapping[str, Sequence[str | PathLike[str]]]) -> set[str]:
    """Those of the cases (id -> an image per channel, in any order) that ``split`` trained on, by the images' content.

    A split knows the channel that came first in training; it need not be the first here.
    """
    trained = {split.fingerprints.get(case_id) for case_id in split.train} - {None}
    if not trained:
        return set()

    def is_known(path: str | PathLike[str]) -> bool:
        return Path(str(path).partition("#")[0]).is_file() and fingerprint(path) in trained

    return {case_id for case_id, paths in images.items() if any(map(is_known, paths))}


def patient_of(case_id: str) -> str:
    """The patient to whom a case belongs: its ``sub-`` label, or else its id up to ``_ses-``; visits stay together.

    >>> patient_of("sub-01_ses-02"), patient_of("sub-01_baseline"), patient_of("p7_ses-2")
    ('sub-01', 'sub-01', 'p7')
    >>> patient_of("hippocampus_001")
    'hippocampus_001'
    """
    subject = re.match(r"sub-[^_]+", case_id)
    return subject.group() if subject else case_id.split("_ses-")[0]


def k_fold(
    case_ids: Iterable[str],
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    stacks: Mapping[str, tuple[str, int]] | None = None,
    patients: Mapping[str, str] | None = None,
    volumes: Mapping[str, Mapping[int, float]] | None = None,
) -> Split:
    """One fold of a seeded k-fold split by patient.

    The patients' order comes from a hash of seed and id: it is the same on every platform and with every version of
    every library (numpy promises that only for its legacy generator), and does not depend on the order of the files.
    Where there are fewer patients than folds, each patient is a fold of its own.

    Neighbouring sections of a stack are nearly copies: a stack is one patient, whole in one part. Where stacks leave
    fewer patients than folds, as a single stack does, they are cut instead: the cases in the order of their stacks and
    sections, part ``fold`` of ``folds`` equal contiguous blocks validates, and only the sections at a block's ends have
    neighbours in training. The seed changes nothing there, and a stack that is named after a patient (``sub-01.tif``)
    stays whole.

    >>> stack = {f"one_{number:03d}": ("one", number) for number in range(6)}
    >>> k_fold(stack, folds=3, fold=1, stacks=stack).validate
    ('one_002', 'one_003')

    With ``volumes`` the folds resemble each other: the patients are put in order of the classes that they have and then
    of their labels' volume, cut into runs of as many as there are folds, and of each run every fold gets one, which
    the hash decides. So no fold lacks the patients without a lesion, nor all the large ones.

    >>> volumes = {name: {1: size} for name, size in zip("abcdef", [0, 0, 3, 4, 90, 80])}
    >>> [k_fold(volumes, folds=2, fold=fold, volumes=volumes).validate for fold in (0, 1)]
    [('b', 'c', 'f'), ('a', 'd', 'e')]

    Args:
        case_ids: of all cases.
        folds: number of parts; at least 2.
        fold: which part validates, from 0.
        seed: another seed shuffles the patients anew.
        stacks: case id -> (its stack, its number there), of the cases that are sections of a stack.
        patients: case id -> patient, of those whose id does not say (`patient_of`).
        volumes: case id -> class id -> volume of its label, in any one unit; a case that it lacks counts as one without
            a label. Not for stacks that are cut.

    Raises:
        ConfigError: a fold that does not exist.
        DataError: fewer than two patients.
    """
    cases = sorted(case_ids)
    stacks, given = stacks or {}, dict(patients or {})
    patient = {case: given.get(case) or patient_of(stacks[case][0] if case in stacks else case) for case in cases}
    order = sorted(set(patient.values()), key=lambda name: _rank(seed, name))
    in_blocks = bool(stacks) and len(order) < folds
    if in_blocks:
        patient = {case: given.get(case) or patient_of(case) for case in cases}
        ordered = sorted(cases, key=lambda case: stacks.get(case, (case, 0)))
        order = list(dict.fromkeys(patient[case] for case in ordered))
    elif volumes is not None:
        order = _stratified(order, patient, volumes, folds, seed)
    if len(order) < 2:
        raise DataError(
            f"{len(cases)} case(s) of {len(order)} patient(s)",
            expected="at least two patients, one to train on and one to validate on",
            fix="add cases, or name both parts in a split file",
        )
    if folds < 2:
        raise ConfigError(f"folds={folds}", expected="at least 2")
    parts = min(folds, len(order))
    if not 0 <= fold < parts:
        raise ConfigError(f"fold={fold}", expected=f"0 to {parts - 1} (folds={folds}, {len(order)} patients)")
    block = slice(len(order) * fold // parts, len(order) * (fold + 1) // parts)
    held_back = set(order[block if in_blocks else slice(fold, None, parts)])
    return Split(
        train=tuple(case for case in cases if patient[case] not in held_back),
        validate=tuple(case for case in cases if patient[case] in held_back),
        patients={case: name for case, name in given.items() if case in patient and name != patient_of(case)},
    )


def _stratified(
    patients: Sequence[str],
    patient: Mapping[str, str],
    volumes: Mapping[str, Mapping[int, float]],
    folds: int,
    seed: int,
) -> list[str]:
    """The patients so that each run of ``folds`` of them holds similar ones, in the hash's order within the run."""
    total: dict[str, dict[int, float]] = {name: {} for name in patients}
    for case, name in patient.items():
        for label, volume in volumes.get(case, {}).items():
            total[name][label] = total[name].get(label, 0.0) + volume

    def resemblance(name: str) -> tuple[tuple[int, ...], float, bytes]:
        present = {label: volume for label, volume in total[name].items() if volume > 0}
        return tuple(sorted(present)), sum(present.values()), _rank(seed, name)

    alike = sorted(patients, key=resemblance)
    runs = [alike[start : start + folds] for start in range(0, len(alike), folds)]
    return [name for run in runs for name in sorted(run, key=lambda name: _rank(seed, name))]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "backslashreplace")).digest()


def write_split(path: str | PathLike[str], split: Split) -> None:
    """Write a split as JSON, so that a run can be repeated and compared on the same cases.

    Raises:
        DataError: it can't be written.
    """
    from pipeline.io.atomic import write_text  # importing the image libraries takes longer than listing most datasets

    content = asdict(split)
    if not split.patients:  # most ids say whose they are
        del content["patients"]
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_split(path: str | PathLike[str], fold: int = 0) -> Split:
    """Read what `write_split` wrote, or the same written by hand: ``{"train": [ids], "validate": [ids]}``.

    A list of such objects, a fold each, is read too, also as nnU-Net writes it (``splits_final.json``, with ``val``).

    Args:
        path: of the JSON file.
        fold: which one of a list.

    Raises:
        DataError: no such file, not of this form, or a patient in both parts.
        ConfigError: a fold that the list lacks.
    """
    expected = '{"train": [case ids], "validate": [case ids]}'
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise DataError(f"a split file that can't be read ({reason})", file=path, fix="check the path") from error
    except ValueError as error:
        raise DataError(f"a split file that is not JSON ({error})", file=path, expected=expected) from error
    if isinstance(content, list) and content:
        if not 0 <= fold < len(content):
            raise ConfigError(f"fold={fold}", expected=f"0 to {len(content) - 1}, the folds of {Path(path).name}")
        content = content[fold]
    if isinstance(content, dict) and "val" in content:
        content = {"validate": content["val"]} | content
    if not isinstance(content, dict) or not all(_are_ids(content.get(name)) for name in ("train", "validate")):
        raise DataError("a split file of another form", file=path, expected=expected)
    split = Split(
        tuple(sorted(content["train"])),
        tuple(sorted(content["validate"])),
        dict(content.get("fingerprints", {})),
        dict(content.get("patients", {})),
    )
    both = sorted({split.patient(i) for i in split.train} & {split.patient(i) for i in split.validate})
    if both:
        raise DataError(
            f"patients in both parts: {', '.join(both)}",
            file=path,
            expected="each in one",
            fix="validation would measure memory: take them out of one part",
        )
    return split


def _are_ids(part: object) -> bool:
    return isinstance(part, list) and all(isinstance(name, str) for name in part)
