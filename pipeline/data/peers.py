"""The cases of a dataset compared with each other: what differs from its peers, and what all share.

Each look is a function of the fingerprint and its usable cases that gives findings; a new one is added to `LOOKS`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.data.findings import INFO, SHARED_FROM, WARNING, Finding
from pipeline.data.fingerprint import CaseFingerprint, DatasetFingerprint
from pipeline.data.onto_grid import covered_share
from pipeline.data.outliers import LEAST_PEERS, copies, mirrored, odd_ones, on_the_other_side
from pipeline.data.stack import LEAST_OVERLAP
from pipeline.geometry import Grid

MIXTURE_SHARE = 0.2
"""Where more cases than this share stand out, they are no outliers but a second kind."""

_MOST_UNNAMED = 16
"""Classes that a dataset may have without naming them: the ids of more number objects, or are an image's values."""

_SIDES = ("left and right", "front and back", "top and bottom")


def _objects(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    """Labels whose ids are no classes: separate objects, or an image in the label's place."""
    numbers = {case.case_id: len(case.label.voxels) - 1 for case in usable if case.label is not None}
    if are_objects(dataset):
        text = f"labels of up to {max(numbers.values())} ids without names: objects, not compared as classes"
        return [Finding(INFO, "label", text)]
    return [
        Finding(WARNING, "label", f"a label of {number} ids: an image in the label's place?", (case_id,))
        for case_id, number in numbers.items()
        if number > _most_ids(dataset)
    ]


def _classes(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    labelled = segmented(dataset)
    held = {case.case_id: [i for i, n in case.label.voxels.items() if i and n] for case in labelled if case.label}
    filled = [case_id for case_id, labels in held.items() if labels]
    holders: dict[int, list[str]] = defaultdict(list)
    for case_id, labels in held.items():
        for label in labels:
            holders[label].append(case_id)
    known = ", ".join(f"{label} {name}" for label, name in dataset.classes.items())
    findings, odd = [], defaultdict(list)
    for label, ids in sorted(holders.items()):
        if dataset.classes and label not in dataset.classes:
            odd[tuple(ids), "which the classes do not name"].append(label)
        elif len(filled) >= LEAST_PEERS and len(ids) <= max(1, 0.05 * len(filled)) and len(holders) > 1:
            odd[tuple(ids), "in no other case"].append(label)
        elif len(filled) >= LEAST_PEERS and 0 < len(filled) - len(ids) <= max(1, 0.05 * len(filled)):
            without, text = tuple(i for i in filled if i not in ids), f"no voxel of {class_name(dataset, label)}"
            findings.append(Finding(WARNING, "classes", text, without, "all other cases have it", "look at the label"))
    for (having, why), labels in odd.items():
        text = f"label id{'s' if len(labels) > 1 else ''} {', '.join(map(str, labels))}, {why}"
        findings.append(Finding(WARNING, "classes", text, having, known, _ID_FIX))
    absent = [name for label, name in dataset.classes.items() if label and label not in holders]
    if labelled and absent:
        findings.append(Finding(WARNING, "classes", f"no case has any {', '.join(absent)}"))
    return findings


_ID_FIX = "correct it, or give the id a name among the classes"


def _labels(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    labelled = segmented(dataset)
    without = tuple(case.case_id for case in usable if case.label is None)
    if without and len(without) < len(usable):
        text = f"{len(without)} of {len(usable)} cases have no label"
        findings.append(Finding(WARNING, "label", text, without, fix="they can be predicted, not trained on"))
    elif without:
        findings.append(Finding(INFO, "label", "no case has a label"))
    if len(usable) - len(without) == 1:
        text = "one case has a label: no training, which holds back some to be measured on"
        findings.append(Finding(INFO, "label", text, fix="add labelled cases"))
    empty = tuple(case.case_id for case in labelled if not any(class_volumes(case).values()))
    if empty:
        text = f"{len(empty)} of {len(labelled)} labels are empty (nothing but background)"
        findings.append(Finding(INFO, "label", text, empty, fix="nothing, if these are healthy"))
    for label in sorted({label for case in labelled for label in class_volumes(case)}):
        having = [case for case in labelled if class_volumes(case).get(label)]
        name = class_name(dataset, label)
        volumes = [class_volumes(case)[label] for case in having]
        findings += _stand_out(
            having, np.log(volumes), 0.15, "label", f"volume of {name}:", [f"{v:.3g} ml" for v in volumes], "look at it"
        )
        pieces = [case.label.components.get(label, 1) for case in having]  # type: ignore[union-attr]
        words = [f"{n} pieces" for n in pieces]
        findings += _stand_out(having, np.log(pieces), 0.2, "label", f"{name} in", words, "look for stray voxels")
    return findings


def _copies(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    fix = "take one out: a copy in training and another in validation would measure memory"
    return [
        Finding(WARNING, "copies", f"{name}: the very same voxels under {len(ids)} ids", ids, "one case, one id", fix)
        for name, ids in copies(usable)
    ]


def _mirrored(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    suspects: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in dataset.channel_names:
        small = {case.case_id: case.channels[name].miniature for case in usable if name in case.channels}
        for case_id, axis in mirrored(small).items():
            suspects[case_id, axis].append(f"{name} resembles the other cases only")
    for label in sorted({label for case in usable for label in (case.label.centres if case.label else ())}):
        centres = {
            case.case_id: case.label.centres[label] for case in usable if case.label and label in case.label.centres
        }
        for case_id, axis in on_the_other_side(centres).items():
            suspects[case_id, axis].append(f"{class_name(dataset, label)} lies where the other cases have it only")
    fix = "compare it with the scanner's own images; the header or the voxels may be mirrored"
    return [
        Finding(WARNING, "side", f"{reasons[0]} when {_SIDES[axis]} are exchanged", (case_id,), fix=fix)
        for (case_id, axis), reasons in suspects.items()
    ]


def _reference(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    """Whether another channel in the first place would refuse fewer cases: it need not cover the others."""
    whole = [case for case in dataset.cases if len(case.channels) == len(dataset.channel_names) > 1]
    refused = {}
    for reference in dataset.channel_names:
        refused[reference] = sum(
            any(
                covered_share(case.channels[reference].grid, channel.grid) < LEAST_OVERLAP
                for channel in case.channels.values()
                if len(channel.grid.shape) == 3
            )
            for case in whole
        )
    first = dataset.channel_names[0]
    best = min(refused, key=lambda name: (refused[name], name != first))
    if not refused[first] or best == first:
        return []
    text = (
        f"with {first} as the reference, {refused[first]} cases are refused because another channel covers less than "
        f"half of it; with {best} first it would be {refused[best] or 'none'}"
    )
    return [Finding(INFO, "geometry", text, fix=f"name {best} first among the channels")]


_REORIENTED = "headers say so, and loading reorients"


def _orientations(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    for case in usable:
        hands = {name: _handedness(channel.grid.affine) for name, channel in case.channels.items()}
        if len(set(hands.values())) > 1:
            stored = ", ".join(f"{name} {channel.grid.orientation}" for name, channel in case.channels.items())
            text = f"channels stored with opposite handedness ({stored})"
            fix = "check that left is left in each"
            findings.append(Finding(WARNING, "side", text, (case.case_id,), fix=fix))
    grids = {case.case_id: case.grid for case in usable if case.grid is not None and len(case.grid.shape) == 3}
    counted = Counter(grid.orientation for grid in grids.values())
    if len(counted) < 2:
        return findings
    usual, number = counted.most_common(1)[0]
    odd = {case_id: grid for case_id, grid in grids.items() if grid.orientation != usual}
    if number < 0.6 * len(grids) or len(grids) < LEAST_PEERS:
        text = f"stored in {len(counted)} orientations: {', '.join(f'{code} {n}' for code, n in counted.most_common())}"
        return [*findings, Finding(INFO, "orientation", f"{text}; {_REORIENTED}")]
    hand = Counter(_handedness(grid.affine) for grid in grids.values()).most_common(1)[0][0]
    for opposite in (True, False):
        ids = tuple(i for i, grid in odd.items() if (_handedness(grid.affine) != hand) == opposite)
        if ids:
            codes = ", ".join(sorted({odd[case_id].orientation for case_id in ids}))
            text = f"stored as {codes}" + (": a mirror image of the others' order of axes" if opposite else "")
            fix = "check that left is left: a conversion may have flipped it" if opposite else ""
            findings.append(Finding(WARNING if opposite else INFO, "orientation", text, ids, usual, fix))
    return findings


def _geometry(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    for name in dataset.channel_names:
        having = [case for case in usable if name in case.channels]
        places = [in_world_order(case.channels[name].grid) for case in having]
        spacings = np.array([spacing for _, spacing in places])
        if len(having) and spacings.shape[1:] == (3,):
            extents = spacings * np.array([shape for shape, _ in places])
            for values, text, floor in ((spacings, "voxel size", 0.02), (extents, "field of view", 0.06)):
                words = ["x".join(f"{v:.3g}" for v in row) + " mm" for row in values]
                scores = np.log(values)
                odd = np.any([odd_ones(scores[:, axis].tolist(), floor) for axis in range(3)], axis=0)
                usual = "x".join(f"{v:.3g}" for v in np.median(values, axis=0)) + " mm"
                findings += _flagged(having, odd, "geometry", f"{name}: {text}", words, usual, "check the header")
    return findings


def _intensities(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    for name in dataset.channel_names:
        having = [case for case in usable if name in case.channels]
        if not having:
            continue
        seen = [case.channels[name].body or case.channels[name].all_voxels for case in having]
        low, middle, high = (np.array([one.percentiles[at] for one in seen]) for at in (0, 4, -1))
        spread = np.maximum(high - low, 1e-30)
        usual = float(np.median(spread))
        odd = odd_ones(np.log(spread).tolist(), 0.28) | odd_ones(middle.tolist(), 0.2 * usual)
        words = [f"{a:.4g} to {b:.4g}, median {m:.4g}" for a, m, b in zip(low, middle, high, strict=True)]
        others = f"{np.median(low):.4g} to {np.median(high):.4g}, median {np.median(middle):.4g}"
        fix = "check the units, the rescale slope, and that it is the right kind of image"
        findings += _flagged(having, odd, "intensity", f"{name}: values", words, others, fix)
        if name in ("ct", "ncct", "cta", "cect") and all(one.minimum >= 0 for one in seen):
            text = f"{name}: no value below 0 in any case: not Hounsfield units, in which air is -1000"
            findings.append(Finding(INFO, "intensity", text, fix="normalise it by percentiles, not by a window in HU"))
    return findings


def _types(dataset: DatasetFingerprint, usable: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    for name in dataset.channel_names:
        stored = Counter(case.channels[name].stored for case in usable if name in case.channels)
        if len(stored) > 1:
            text = f"{name}: stored as {', '.join(f'{kind} ({number})' for kind, number in stored.most_common())}"
            findings.append(Finding(INFO, "type", text))
    return findings


def _stand_out(
    cases: Sequence[CaseFingerprint],
    values: np.ndarray,
    floor: float,
    topic: str,
    what: str,
    words: list[str],
    fix: str,
) -> list[Finding]:
    odd = odd_ones(values.tolist(), floor)
    middle = words[int(np.argsort(values)[len(values) // 2])] if len(values) else ""
    return _flagged(cases, odd, topic, what, words, middle, fix)


def _flagged(
    cases: Sequence[CaseFingerprint],
    odd: np.ndarray,
    topic: str,
    what: str,
    words: Sequence[str],
    usual: str,
    fix: str,
) -> list[Finding]:
    """A finding per odd case; a single one where there are too many to be called odd."""
    share = float(np.mean(odd)) if len(odd) else 0.0
    picked = [(case.case_id, text) for case, text, flag in zip(cases, words, odd, strict=True) if flag]
    if share > MIXTURE_SHARE and len(picked) >= SHARED_FROM:
        text = f"{what} of {len(picked)} of {len(cases)} cases far from the others', such as {picked[0][1]}"
        ids = tuple(case_id for case_id, _ in picked)
        return [Finding(WARNING, topic, text, ids, usual, "two kinds of scans? " + fix)]
    return [Finding(WARNING, topic, f"{what} {text}", (case_id,), f"{usual} (median)", fix) for case_id, text in picked]


def are_objects(dataset: DatasetFingerprint) -> bool:
    """Whether the ids of the labels number objects (cells, lesions): many more than there are names for."""
    numbers = [len(case.label.voxels) - 1 for case in dataset.usable if case.label is not None]
    return bool(numbers) and float(np.median(numbers)) > _most_ids(dataset)


def segmented(dataset: DatasetFingerprint) -> list[CaseFingerprint]:
    """The usable cases whose label ids are classes."""
    if are_objects(dataset):
        return []
    most = _most_ids(dataset)
    return [case for case in dataset.usable if case.label is not None and len(case.label.voxels) - 1 <= most]


def _most_ids(dataset: DatasetFingerprint) -> int:
    return len(dataset.classes) + _MOST_UNNAMED


def class_volumes(case: CaseFingerprint) -> dict[int, float]:
    """Class id -> ml (of a section: pixels), the background left out."""
    if case.label is None or case.grid is None:
        return {}
    unit = case.grid.voxel_volume_ml if len(case.grid.shape) == 3 else 1.0
    return {label: count * unit for label, count in case.label.voxels.items() if label != 0}


def in_world_order(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Shape and spacing (mm) along left-right, front-back and up-down; of a section along its own axes."""
    from nibabel.orientations import io_orientation

    shape, spacing = np.array(grid.shape), np.array(grid.spacing_mm)
    order = np.argsort(io_orientation(grid.affine)[:, 0]) if len(shape) == 3 else np.arange(2)
    return shape[order], spacing[order]


def _handedness(affine: np.ndarray) -> bool:
    return bool(np.linalg.det(affine[:3, :3]) > 0)


def class_name(dataset: DatasetFingerprint, label: int) -> str:
    return dataset.classes.get(label, f"id {label}")


LOOKS = (_objects, _classes, _labels, _copies, _mirrored, _reference, _orientations, _geometry, _intensities, _types)
