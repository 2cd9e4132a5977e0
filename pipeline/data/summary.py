"""A checked dataset in numbers, in words, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.check import Check
from pipeline.data.findings import WARNING
from pipeline.data.fingerprint import PERCENTILES, DatasetFingerprint
from pipeline.data.fingerprint_store import plain
from pipeline.data.peers import class_name, class_volumes, in_world_order, segmented
from pipeline.geometry import length_unit
from pipeline.io.atomic import write_text


def summary(dataset: DatasetFingerprint) -> dict[str, Any]:
    """What the usable cases of a dataset are like, in numbers that JSON holds.

    ``cases``, ``refused``, ``repaired``: how many. ``shape``, ``spacing_mm``: minimum, median and maximum per axis of
    the reference channel, along left-right, front-back and up-down. ``orientations``: code -> how many are stored so.
    ``channels``: per channel the median over the cases of the body's percentiles 0.5, 50 and 99.5, the extremes of all
    voxels, and how many cases are stored in which type. ``labels``: per class in how many cases it occurs, and its
    volume in ml (of sections: pixels) where it does. ``empty_labels``: cases with a label of nothing but background.
    """
    usable = dataset.usable
    places = [in_world_order(case.grid) for case in usable if case.grid is not None]
    volumes = [class_volumes(case) for case in segmented(dataset)]
    channels = {}
    for name in dataset.channel_names:
        having = [case.channels[name] for case in usable if name in case.channels]
        if having:
            body = np.array([(one.body or one.all_voxels).percentiles for one in having])
            channels[name] = {
                "percentile_0_5": float(np.median(body[:, 0])),
                "median": float(np.median(body[:, PERCENTILES.index(50.0)])),
                "percentile_99_5": float(np.median(body[:, -1])),
                "minimum": min(one.all_voxels.minimum for one in having),
                "maximum": max(one.all_voxels.maximum for one in having),
                "stored": dict(Counter(one.stored for one in having)),
            }
    return {
        "cases": len(dataset.cases),
        "refused": len(dataset.cases) - len(usable),
        "repaired": sum(bool(case.repairs) for case in usable),
        "shape": _spread([shape for shape, _ in places]),
        "spacing_mm": _spread([spacing for _, spacing in places]),
        "orientations": dict(Counter(case.grid.orientation for case in usable if case.grid is not None).most_common()),
        "channels": channels,
        "labels": {
            class_name(dataset, label): {"cases": len(ml)} | _spread(ml)
            for label in sorted({label for one in volumes for label in one} | {i for i in dataset.classes if i})
            if (ml := [one[label] for one in volumes if one.get(label)]) is not None
        },
        "empty_labels": sum(not any(one.values()) for one in volumes),
    }


def verdict(check: Check) -> str:
    """How many cases ended in which way, in a line; warnings on many cases at once are beside them."""
    counts, number = check.counts, len(check.fingerprint.cases)
    words = f"{counts['warning']} with warnings, {counts['repaired']} repaired, {counts['refused']} refused"
    on_many = sum(finding.severity == WARNING for finding in check.shared)
    more = f"; {on_many} warning{'s' if on_many > 1 else ''} on many cases at once or on the dataset" if on_many else ""
    return f"{number} case{'s' if number != 1 else ''}: {counts['clean']} clean, {words}{more}"


def _spread(values: Sequence[Any]) -> dict[str, Any]:
    if not len(values):
        return {}
    found = np.array(values, dtype=np.float64)
    return {
        "minimum": found.min(axis=0).tolist(),
        "median": np.median(found, axis=0).tolist(),
        "maximum": found.max(axis=0).tolist(),
    }


def summary_lines(check: Check) -> list[tuple[str, str]]:
    """`summary` in words: (what, how it is)."""
    dataset, numbers = check.fingerprint, summary(check.fingerprint)
    why = f", {check.why}" if check.why else ""
    lines = [
        ("dataset", dataset.dataset_dir),
        ("layout", f"{dataset.layout}{why}"),
        ("cases", f"{numbers['cases']}, of which {numbers['refused'] or 'none'} refused"),
    ]
    if numbers["shape"]:
        lines.append(("voxels", _range(numbers["shape"], "x", ".0f")))
        if length_unit(len(numbers["shape"]["median"])) == "mm":  # else every pixel counts one
            lines.append(("voxel size", _range(numbers["spacing_mm"], "x", ".3g") + " mm"))
        stored = ", ".join(f"{code} {number}" for code, number in numbers["orientations"].items())
        lines.append(("stored as", stored))
    for name, one in numbers["channels"].items():
        kinds = ", ".join(f"{kind} {number}" for kind, number in one["stored"].items())
        text = (
            f"{one['percentile_0_5']:.4g} to {one['percentile_99_5']:.4g}, median {one['median']:.4g} (all voxels: "
            f"{one['minimum']:.4g} to {one['maximum']:.4g}; {kinds})"
        )
        lines.append((f"channel {name}", text))
    unit = "ml" if len(numbers["shape"].get("median", ())) == 3 else "pixels"
    for name, one in numbers["labels"].items():
        size = f": {_range(one, '', '.3g')} {unit}" if one["cases"] else ""
        lines.append((f"label {name}", f"in {one['cases']} case{'s' if one['cases'] != 1 else ''}{size}"))
    if numbers["empty_labels"]:
        lines.append(("empty labels", str(numbers["empty_labels"])))
    return lines


def _range(numbers: dict[str, Any], between: str, form: str) -> str:
    """ "median (minimum to maximum)", of lists number by number; one number where they are equal."""
    low, middle, high = (np.atleast_1d(numbers[name]) for name in ("minimum", "median", "maximum"))
    text = [between.join(format(value, form) for value in values) for values in (middle, low, high)]
    return text[0] if text[1] == text[2] else f"{text[0]} (from {text[1]} to {text[2]})"


def write_json(check: Check, path: Path) -> None:
    """`as_json` into a file that exists only when whole.

    Raises:
        DataError: it can't be written.
    """
    write_text(path, json.dumps(as_json(check), indent=1) + "\n")


def as_json(check: Check) -> dict[str, Any]:
    """All that the doctor knows, as JSON holds it.

    ``dataset``, ``layout``, ``why`` (it was taken for that), ``channels``, ``classes``; ``summary``: see `summary`;
    ``findings``: objects with the fields of `Finding`; ``cases``: objects with the fields of
    `pipeline.data.fingerprint.CaseFingerprint`, under pseudonyms without their files.
    """
    dataset = check.fingerprint
    cases: list[dict[str, Any]] = plain(list(dataset.cases))
    for case in cases:
        for channel in case["channels"].values():
            del channel["miniature"]  # a picture for comparisons, of no use to a reader
        if check.pseudonymous:
            del case["file_state"]
            for part in (*case["channels"].values(), *([case["label"]] if case["label"] else [])):
                del part["file"]
    return {
        "dataset": dataset.dataset_dir,
        "layout": dataset.layout,
        "why": check.why,
        "channels": list(dataset.channel_names),
        "classes": {str(label): name for label, name in dataset.classes.items()},
        "summary": summary(dataset),
        "findings": [plain(finding) for finding in check.findings],
        "cases": cases,
    }
