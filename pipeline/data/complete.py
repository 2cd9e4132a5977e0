"""Which of the cases that a layout found are complete, and what is said of the others."""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.layouts import Entry
from pipeline.data.layouts.names import LABEL_NAMES
from pipeline.data.said import say_once
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


def complete_entries(
    entries: Sequence[Entry],
    channels: Sequence[str],
    root: Path,
    require_label: bool,
    keep_incomplete: bool,
    missing_channels: str = "refuse",
) -> list[Entry]:
    """The entries with one file per channel and at most one label.

    Args:
        keep_incomplete: keep those that lack a channel (or have several files for it: neither is taken), and leave out
            those without a needed label, with a warning; unless no entry is complete.
        missing_channels: ``"zero"`` counts an entry as complete that has any of the channels.

    Raises:
        DataError: with the first of the cases that can't be used.
    """
    enough = any if missing_channels == "zero" else all
    keep_incomplete = keep_incomplete and any(
        enough(name in entry.image for name in channels) and (not require_label or entry.labels) for entry in entries
    )
    problems: list[str] = []
    unlabelled: list[str] = []
    unclear: list[str] = []
    kept = []
    for entry in entries:
        missing = [name for name in channels if name not in entry.image]
        twice = [name for name in channels if len(entry.image.get(name, ())) > 1]
        if missing and not keep_incomplete:
            problems.append(f"{entry.case_id}: {entry.problem or 'no ' + ', '.join(missing)}")
        if twice and keep_incomplete:
            text = f"case {entry.case_id} has several files for {', '.join(twice)}: neither is taken"
            say_once(logger, logging.WARNING, text, root)
            entry = replace(entry, image={name: paths for name, paths in entry.image.items() if name not in twice})
            twice = []
        if twice or (require_label and len(entry.labels) > 1):
            several = [*twice, *(["the label"] if len(entry.labels) > 1 else [])]
            problems.append(f"{entry.case_id}: several files for {', '.join(several)}")
        if len(entry.labels) > 1:
            unclear.append(entry.case_id)
            entry = replace(entry, labels=[])
        elif require_label and not entry.labels and keep_incomplete:
            unlabelled.append(entry.case_id)
            continue
        elif require_label and not entry.labels:
            problems.append(f"{entry.case_id}: no label")
        kept.append(entry)
    if problems:
        raise _refusal(problems, entries, channels, root, require_label)
    if unlabelled:
        have = (
            "1 case has no label and is" if len(unlabelled) == 1 else f"{len(unlabelled)} cases have no label and are"
        )
        say_once(logger, logging.WARNING, f"{have} left out: {', '.join(sorted(unlabelled))}", root)
    if unclear:
        have = "1 case has" if len(unclear) == 1 else f"{len(unclear)} cases have"
        text = f"{have} several files for the label: none is taken, such as {unclear[0]}"
        say_once(logger, logging.WARNING, text, root)
    return kept


def _refusal(
    problems: Sequence[str], entries: Sequence[Entry], channels: Sequence[str], root: Path, require_label: bool
) -> DataError:
    nowhere = [name for name in channels if not any(name in entry.image for entry in entries)]
    if all(entry.problem for entry in entries):
        nowhere = []
    elif require_label and not any(entry.labels for entry in entries):
        nowhere.append(f"{', '.join(LABEL_NAMES[:-1])} or {LABEL_NAMES[-1]}")
    return DataError(
        f"{len(problems)} problem(s) in {_cases(len(entries))}:\n  {_listed(sorted(problems))}\n",
        file=root,
        expected=f"per case one file for {', '.join(channels)}" + (" and one label" if require_label else ""),
        fix=f"no file ends in {', nor in '.join(nowhere)}: are these the data for this bundle?"
        if nowhere
        else "add what is missing, or move these cases out of the dataset",
    )


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"


def _listed(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - 5} more"] if len(problems) > 5 else []
    return "\n  ".join([*problems[:5], *more])


def problem_text(problems: Sequence[str]) -> str:
    """Entries of a list or a dataset.json that name what does not exist, all of them."""
    return f"{len(problems)} wrong {'entry' if len(problems) == 1 else 'entries'}:\n  " + "\n  ".join(problems)


def refuse_odd_ids(entries: Sequence[Entry], root: Path) -> None:
    """Raises:
    DataError: an id that several cases share where upper and lower case are one (macOS, Windows), with the files of
        all of them; an id that is no name of a file, with which no result can be written.
    """
    places: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        places[unicodedata.normalize("NFC", entry.case_id).casefold()].append(entry)
    twice = [f"{of[0].case_id}: {', '.join(map(_place, of))}" for of in places.values() if len(of) > 1]
    if twice:
        raise DataError(
            "ids that several cases share:\n  " + "\n  ".join(twice) + "\n",
            file=root,
            expected="one id per case, upper and lower case taken for one, so that no result overwrites another",
            fix="rename the files or folders",
        )
    odd = [repr(entry.case_id) for entry in entries if not _is_file_name(entry.case_id)]
    if odd:
        raise DataError(
            f"ids that are no names of files: {_listed(odd)}",
            file=root,
            expected="ids without a slash, so that a result can be named after each",
            fix="give these cases other ids",
        )


def _place(entry: Entry) -> str:
    return str(next(iter(entry.image.values()), ["(no image)"])[0])


def _is_file_name(case_id: str) -> bool:
    return case_id not in ("", ".", "..") and not set(case_id) & {"/", "\\", "\0"}
