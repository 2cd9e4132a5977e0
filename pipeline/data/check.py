"""The data doctor: what is wrong, odd, repaired or worth knowing in a whole dataset, said once and by case.

What makes a single case unusable was found out when its fingerprint was taken, by the functions that load it for
training; `peers.py` compares the cases with each other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.cases import Case, DatasetDescription
from pipeline.data.findings import REFUSED, REPAIRED, SEVERITIES, WARNING, Finding, said_once
from pipeline.data.fingerprint import PERCENTILES, DatasetFingerprint
from pipeline.data.fingerprint_store import plain
from pipeline.data.fingerprinting import DEFAULT_RULES, fingerprint_dataset, fingerprint_headers
from pipeline.data.peers import LOOKS, class_name, class_volumes, in_world_order
from pipeline.data.stack import StackRules
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What the doctor found; the findings are sorted, the worst first."""

    fingerprint: DatasetFingerprint
    findings: tuple[Finding, ...]
    why: str = ""

    @property
    def refused(self) -> tuple[str, ...]:
        return tuple(case.case_id for case in self.fingerprint.cases if case.refusal is not None)

    def of_case(self, case_id: str) -> tuple[Finding, ...]:
        """What concerns this case and not nearly all cases."""
        shared = 0.5 * len(self.fingerprint.cases)
        return tuple(
            finding
            for finding in self.findings
            if case_id in finding.cases and (finding.severity == REFUSED or len(finding.cases) <= max(3, shared))
        )


def check_dataset(
    description: DatasetDescription,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept_in: Path | None = None,
    rules: StackRules = DEFAULT_RULES,
) -> Check:
    """Look at every voxel of a dataset (once: see `fingerprint_dataset` for the arguments) and judge it."""
    fingerprint = fingerprint_dataset(description, jobs, progress, kept_in, rules)
    return Check(fingerprint, judge(fingerprint), description.why)


def judge(dataset: DatasetFingerprint) -> tuple[Finding, ...]:
    """All findings of a fingerprint; a pure function of it."""
    single = []
    for case in dataset.cases:
        one = (case.case_id,)
        for reason in (case.refusal or "").splitlines():
            single.append(Finding(REFUSED, "unusable", reason, one))
        single += [Finding(WARNING, "voxels", text, one) for text in case.warnings]
        single += [Finding(REPAIRED, "header", text, one) for text in case.repairs]
    findings = said_once(single, len(dataset.cases), dataset.channel_names)
    for look in LOOKS:
        findings += look(dataset, dataset.usable)
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -len(finding.cases))))


def summary(dataset: DatasetFingerprint) -> dict[str, Any]:
    """What the usable cases of a dataset are like, in numbers that JSON holds.

    ``cases``, ``refused``, ``repaired``: how many. ``shape``, ``spacing_mm``: minimum, median and maximum per axis of
    the reference channel, along left-right, front-back and up-down. ``orientations``: code -> how many are stored so.
    ``channels``: per channel the median over the cases of the body's percentiles 0.5, 50 and 99.5, the extremes of all
    voxels, and how many cases are stored in which type. ``labels``: per class in how many cases it occurs, and its
    volume in ml where it does. ``empty_labels``: cases with a label of nothing but background.
    """
    usable = dataset.usable
    places = [in_world_order(case.grid) for case in usable if case.grid is not None]
    volumes = [class_volumes(case) for case in usable if case.label is not None]
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


def _spread(values: Sequence[Any]) -> dict[str, Any]:
    if not len(values):
        return {}
    found = np.array(values, dtype=np.float64)
    return {
        "minimum": found.min(axis=0).tolist(),
        "median": np.median(found, axis=0).tolist(),
        "maximum": found.max(axis=0).tolist(),
    }


def check_headers(
    cases: Sequence[Case], channels: Sequence[str], rules: StackRules = DEFAULT_RULES, on_refusal: str = "raise"
) -> None:
    """Refuse, before any time is spent, all cases whose headers alone show that they can't be used.

    Args:
        on_refusal: ``"raise"`` one error that names them all, or ``"skip"``: say so; loading leaves them out.

    Raises:
        DataError: refused cases, or none left.
    """
    found = fingerprint_headers(cases, channels, rules)
    reasons = [case.refusal.replace("\n", "\n  ") for case in found if case.refusal is not None]
    if not reasons:
        return
    text = f"{len(reasons)} of {len(cases)} cases that can't be used:\n  " + "\n  ".join(reasons) + "\n"
    if on_refusal == "raise" or len(reasons) == len(cases):
        raise DataError(
            text,
            expected="cases that load",
            fix="correct them or take them out of the dataset; `pipeline check DATASET` looks at every voxel of it",
        )
    logger.warning("%s%d cases go on without them", text, len(cases) - len(reasons))


def as_json(check: Check) -> dict[str, Any]:
    """All that the doctor knows, as JSON holds it.

    ``dataset``, ``layout``, ``why`` (it was taken for that), ``channels``, ``classes``; ``summary``: see `summary`;
    ``findings``: objects with the fields of `Finding`; ``cases``: objects with the fields of
    `pipeline.data.fingerprint.CaseFingerprint`.
    """
    dataset = check.fingerprint
    cases: list[dict[str, Any]] = plain(list(dataset.cases))
    for case in cases:
        for channel in case["channels"].values():
            del channel["miniature"]  # a picture for comparisons, of no use to a reader
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
