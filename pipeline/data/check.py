"""The data doctor: what is wrong, odd, repaired or worth knowing in a whole dataset, said once and by case.

What makes a single case unusable was found out when its fingerprint was taken, by the functions that load it for
training; `peers.py` compares the cases with each other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.data.cases import Case, DatasetDescription
from pipeline.data.findings import INFO, REFUSED, REPAIRED, SEVERITIES, SHARED_FROM, WARNING, Finding, said_once
from pipeline.data.fingerprint import CaseFingerprint, DatasetFingerprint
from pipeline.data.fingerprinting import DEFAULT_RULES, fingerprint_dataset, fingerprint_headers
from pipeline.data.peers import LOOKS, class_name, class_volumes
from pipeline.data.pseudonyms import MARK, without_paths
from pipeline.data.stack_rules import StackRules
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

_MOST_CLASSES = 8
"""Of which a line of the table gives the volumes one by one."""


@dataclass(frozen=True)
class CaseLine:
    """A case in a table: its id, its grid and its label in words, what there is to say of it alone, and its verdict:
    the severity of the worst of that, or repaired, however many others were too; info where it is clean."""

    case_id: str
    image: str
    label: str
    findings: tuple[Finding, ...]
    verdict: str = INFO


@dataclass(frozen=True)
class Check:
    """What the doctor found; the findings are sorted, the worst first.

    ``why`` the dataset was taken for what it was; by which ``rules`` it was read; whether its ids are pseudonyms: then
    nothing that is stored may name a file.
    """

    fingerprint: DatasetFingerprint
    findings: tuple[Finding, ...]
    why: str = ""
    rules: StackRules = DEFAULT_RULES
    pseudonymous: bool = False

    @property
    def refused(self) -> tuple[str, ...]:
        return tuple(case.case_id for case in self.fingerprint.cases if case.refusal is not None)

    @property
    def shared(self) -> tuple[Finding, ...]:
        """What concerns the dataset as a whole, or so many cases that it is said once and not beside each of them."""
        return tuple(finding for finding in self.findings if not self._is_single(finding))

    def of_case(self, case_id: str) -> tuple[Finding, ...]:
        """Why this case is refused, and what concerns it and not many others too."""
        return self._by_case.get(case_id, ())

    @cached_property
    def _by_case(self) -> dict[str, tuple[Finding, ...]]:
        said: dict[str, list[Finding]] = {case.case_id: _refusals(case) for case in self.fingerprint.cases}
        for finding in self.findings:
            if self._is_single(finding) and finding.severity != REFUSED:
                for case_id in finding.cases:
                    said[case_id].append(finding)
        return {case_id: tuple(findings) for case_id, findings in said.items()}

    def _is_single(self, finding: Finding) -> bool:
        return 0 < len(finding.cases) < SHARED_FROM and len(finding.cases) < max(2, len(self.fingerprint.cases))

    @property
    def counts(self) -> dict[str, int]:
        """``clean`` or a severity -> of how many cases that is the verdict."""
        worst = Counter(line.verdict for line in self.lines())
        return {"clean": worst[INFO]} | {severity: worst[severity] for severity in (WARNING, REPAIRED, REFUSED)}

    def lines(self) -> list[CaseLine]:
        """A line per case, sorted by id."""
        lines = []
        for case in self.fingerprint.cases:
            ml = [
                f"{class_name(self.fingerprint, label)} {size:.3g}"
                for label, size in class_volumes(case).items()
                if size
            ]
            if len(ml) > _MOST_CLASSES:
                ml = [f"{len(ml)} ids, together {sum(class_volumes(case).values()):.3g}"]
            label = ", ".join(ml) + (" ml" if ml and case.grid is not None and len(case.grid.shape) == 3 else "")
            if case.label is not None and not ml:
                label = "empty"
            image = str(case.grid).replace(" voxels of ", ", ") if case.grid is not None else ""
            findings = self.of_case(case.case_id)
            severities = [finding.severity for finding in findings] + ([REPAIRED] if case.repairs else [])
            verdict = min(severities, key=SEVERITIES.index, default=INFO)
            lines.append(CaseLine(case.case_id, image, label, findings, verdict))
        return lines


def check_dataset(
    description: DatasetDescription,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept_in: Path | None = None,
    rules: StackRules = DEFAULT_RULES,
    pseudonymous: bool = False,
) -> Check:
    """Look at every voxel of a dataset (once: see `fingerprint_dataset` for the arguments) and judge it.

    Args:
        pseudonymous: the cases' ids are pseudonyms: no text may name a file.
    """
    fingerprint = fingerprint_dataset(description, jobs, progress, kept_in, rules)
    if pseudonymous:
        of = {case.case_id: case for case in description.cases}
        cases = (replace(case, refusal=_hidden(case.refusal, of[case.case_id])) for case in fingerprint.cases)
        fingerprint = replace(fingerprint, cases=tuple(cases))
    return Check(fingerprint, judge(fingerprint), description.why, rules, pseudonymous)


def _hidden(text: str | None, case: Case) -> str | None:
    """A text about a case under a pseudonym, with channels for its paths."""
    image = {name: str(path) for name, path in case.image.items()}
    label = {} if case.label is None else {"label": str(case.label)}
    return None if text is None else without_paths(text, {"case_id": case.case_id, "image": image, MARK: True} | label)


def judge(dataset: DatasetFingerprint) -> tuple[Finding, ...]:
    """All findings of a fingerprint; a pure function of it."""
    single = []
    for case in dataset.cases:
        one = (case.case_id,)
        single += _refusals(case)
        single += [Finding(WARNING, "voxels", text, one) for text in case.warnings]
        single += [Finding(REPAIRED, "header", text, one) for text in case.repairs]
    findings = said_once(single, len(dataset.cases), dataset.channel_names)
    for look in LOOKS:
        findings += look(dataset, dataset.usable)
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -len(finding.cases))))


def refused_once(dataset: DatasetFingerprint) -> list[Finding]:
    """Why cases can't be used; what many of them share, once."""
    reasons = [reason for case in dataset.cases for reason in _refusals(case)]
    return said_once(reasons, len(dataset.cases), dataset.channel_names)


def _refusals(case: CaseFingerprint) -> list[Finding]:
    return [Finding(REFUSED, "unusable", reason, (case.case_id,)) for reason in (case.refusal or "").splitlines()]


def check_headers(
    cases: Sequence[Case],
    channels: Sequence[str],
    rules: StackRules = DEFAULT_RULES,
    on_refusal: str = "raise",
    pseudonymous: bool = False,
) -> list[CaseFingerprint]:
    """Refuse, before any time is spent, all cases whose headers alone show that they can't be used.

    Args:
        on_refusal: ``"raise"`` one error that names them all; ``"skip"``: say so, loading leaves them out, unless none
            is left; ``"report"``: say so.
        pseudonymous: the cases' ids are pseudonyms: no text may name a file.

    Returns:
        What the headers say of each case, those that are refused included.

    Raises:
        DataError: refused cases, or none left.
    """
    found = fingerprint_headers(cases, channels, rules)
    said = [_hidden(one.refusal, case) if pseudonymous else one.refusal for one, case in zip(found, cases, strict=True)]
    reasons = [reason.replace("\n", "\n  ") for reason in said if reason is not None]
    if not reasons:
        return found
    text = (
        f"{len(reasons)} of {len(cases)} case{'s' if len(cases) != 1 else ''} that can't be used:\n  "
        + "\n  ".join(reasons)
        + "\n"
    )
    if on_refusal == "raise" or (on_refusal == "skip" and len(reasons) == len(cases)):
        raise DataError(
            text,
            expected="cases that load",
            fix="correct them or take them out of the dataset; `pipeline check DATASET` looks at every voxel of it",
        )
    left = len(cases) - len(reasons)
    logger.warning("%s%s on without them", text, "1 case goes" if left == 1 else f"{left} cases go")
    return found
