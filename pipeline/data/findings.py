"""What the data doctor says: one finding, how grave it is, and how what many cases share is said once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

REFUSED, WARNING, REPAIRED, INFO = "refused", "warning", "repaired", "info"
SEVERITIES = (REFUSED, WARNING, REPAIRED, INFO)
"""The worst first. Refused: can't be used. Warning: can be, but look at it. Repaired: one meaning was certain."""

SHARED_FROM = 4
"""What is said of so many cases in the same words is said once."""


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Args:
        severity: one of `SEVERITIES`.
        topic: what it is about, such as ``"spacing"``.
        found: a sentence.
        cases: ids that it concerns; empty where it concerns the dataset as a whole.
        expected: what the others have, or what should be there.
        fix: what to do; empty where nothing needs to be done.
    """

    severity: str
    topic: str
    found: str
    cases: tuple[str, ...] = ()
    expected: str = ""
    fix: str = ""


def said_once(findings: Sequence[Finding], cases: int, channels: Sequence[str] = ()) -> list[Finding]:
    """What differs between cases in numbers alone, or between channels in their names, becomes one finding.

    Args:
        findings: each of one case.
        cases: of the whole dataset; what all of them share is said once even where they are few.
        channels: names with which a sentence may begin ("cbf: ...").
    """
    result = []
    for group in alike(findings, channels):
        ids = tuple(dict.fromkeys(case for finding in group for case in finding.cases))
        if len(group) == 1 or not (len(ids) >= SHARED_FROM or len(ids) == cases):
            result += group
            continue
        split = [_split(finding.found, channels) for finding in group]
        names = ", ".join(dict.fromkeys(name for name, _ in split if name))
        same = len({text for _, text in split}) == 1
        text = f"{names}: {split[0][1]}" if same and names else group[0].found
        if not same:
            text = f"{text} (for example; of the others alike)"
        result.append(Finding(group[0].severity, group[0].topic, text, ids))
    return result


def alike(findings: Sequence[Finding], channels: Sequence[str] = ()) -> list[list[Finding]]:
    """The findings, in their order, those together that differ in numbers, cases and ``channels`` alone."""
    groups: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for finding in findings:
        text = re.sub(r"^case .*?: found ", "", _split(finding.found, channels)[1])
        text = re.sub(r"[-+]?\d[\d.x%e+-]*", "#", text)
        groups[finding.severity, finding.topic, text, finding.expected].append(finding)
    return list(groups.values())


def _split(text: str, channels: Sequence[str]) -> tuple[str, str]:
    """("cbf", "units not stated") of "cbf: units not stated"; no name where the sentence has none."""
    name, colon, rest = text.partition(": ")
    return (name, rest) if colon and name in (*channels, "label") else ("", text)
