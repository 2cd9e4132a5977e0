"""Other names for the cases: ``--pseudonyms FILE`` (a config's ``pseudonyms``), and what never leaves the input.

FILE is a CSV with the columns ``id`` and ``pseudonym``, a line per case. The pseudonym takes the place of the id where
the dataset is listed, before anything else happens: names of results and the folders that they lie in, tables,
``run.json``, ``split.json``, TensorBoard, pictures and messages of the run know no other. A case that the file does not
name is refused before any work, and so are an id or a pseudonym that stands there twice. These refusals name the ids,
on the terminal, because nobody could act on them otherwise; nothing of them is stored.

With pseudonyms, stored text holds no path of an input either: an error says which channel of which pseudonym it was
(`without_paths`). What a run's configs do keep is the dataset's own folder and that of FILE, because the run can't be
repeated without them: a dataset's folder should not bear a patient's name.

What is never copied from an input to an output, with or without pseudonyms: a NIfTI header's free text (``descrip``,
``aux_file``, ``intent_name``, ``db_name``) and its extensions; tags of a TIFF or PNG. Results are written with headers
of their own, made from the grid alone (`pipeline.io.write_volume`, `pipeline.io.write_section`). Versions and hardware
in ``run.json`` name no person, machine or folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from pipeline.data.layouts import Entry
from pipeline.data.layouts.folder import FOUND
from pipeline.data.layouts.table import read_table
from pipeline.data.splits import patient_of
from pipeline.errors import DataError, PipelineError

MARK = "pseudonymous"
"""The key of a data-list item whose paths must not be stored."""


@dataclass(frozen=True)
class Pseudonyms:
    """Ids and what takes their place.

    Args:
        names: id -> pseudonym.
        file: where they were read, for messages.
    """

    names: Mapping[str, str]
    file: str | None = None

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Pseudonyms:
        """Read a CSV with the columns ``id`` and ``pseudonym``.

        Raises:
            DataError: not such a file; an id or a pseudonym twice (without regard to case: many file systems have
                none), a pseudonym that is no file name, or one that is the id of another case.
        """
        file = Path(path)
        rows = read_table(file)
        expected = "a CSV with the columns id and pseudonym, a line per case"
        if not rows or not {"id", "pseudonym"} <= set(rows[0]):
            columns = f"the columns {', '.join(rows[0])}" if rows else "no line but the first"
            raise DataError(columns, file=file, expected=expected)
        problems = []
        for column in ("id", "pseudonym"):
            counts = Counter(row[column].lower() if column == "pseudonym" else row[column] for row in rows)
            twice = sorted(value for value, number in counts.items() if number > 1 and value)
            problems += [f"twice the {column} {', '.join(twice)}"] if twice else []
        empty = sum(not row["id"] or not row["pseudonym"] for row in rows)
        problems += [f"{empty} lines with an empty field"] if empty else []
        odd = sorted(name for row in rows if (name := row["pseudonym"]) and not re.fullmatch(r"\w[\w.\- ]*", name))
        problems += [f"pseudonyms that are no file names: {', '.join(odd)}"] if odd else []
        ids = {row["id"] for row in rows}
        mixed = sorted(row["id"] for row in rows if row["pseudonym"] in ids)
        problems += [f"pseudonyms that are ids of this file: those of {', '.join(mixed)}"] if mixed else []
        if problems:
            raise DataError("; ".join(problems), file=file, expected=f"{expected}, each with a name of its own")
        return cls({row["id"]: row["pseudonym"] for row in rows}, fspath(file))

    def applied(self, entries: Sequence[Entry]) -> list[Entry]:
        """The same cases under their pseudonyms, without folders; a patient is called after the first of his cases in
        the order of the file.

        Raises:
            DataError: ids that the file does not name, all of them.
        """
        missing = sorted(entry.case_id for entry in entries if entry.case_id not in self.names)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(entries)} cases without a pseudonym: {', '.join(missing)}",
                file=self.file,
                expected="a line for every case of the dataset",
                fix="add these lines to the file",
            )
        known = {entry.case_id: entry.patient for entry in entries if entry.patient is not None}
        patients: dict[str, str] = {}
        for case_id, pseudonym in self.names.items():
            patients.setdefault(known.get(case_id) or patient_of(case_id), pseudonym)
        return [
            replace(
                entry,
                case_id=self.names[entry.case_id],
                folder=Path(),
                patient=patients[entry.patient or patient_of(entry.case_id)],
                problem=entry.problem and entry.problem.partition(FOUND)[0],
            )
            for entry in entries
        ]


def without_paths(text: str, item: Mapping[Any, Any]) -> str:
    """A text about a case, to be stored: as it is, or, for one under a pseudonym, with channels for its paths.

    Folders and file names are replaced too where they stand alone: a library may name either.

    >>> item = {"case_id": "P1", "image": {"ct": "/data/smith/ct.nii.gz"}, "pseudonymous": True}
    >>> without_paths("can't read /data/smith/ct.nii.gz (in /data/smith)", item)
    "can't read <ct of P1> (in <folder of P1>)"
    """
    if not item.get(MARK):
        return text
    paths = [(str(name), str(path)) for name, path in dict(item.get("image") or {}).items()]
    paths += [("label", str(item["label"]))] if isinstance(item.get("label"), str) else []
    hidden: dict[str, str] = {}
    for name, path in paths:
        plain = Path(path.partition("#")[0])
        beside = f"{plain.parent.name}/{plain.name}"
        for form in (path, plain, plain.absolute(), Path(os.path.realpath(plain)), beside, plain.name):
            hidden.setdefault(str(form), f"<{name} of {item['case_id']}>")
        for folder in (plain.parent, plain.parent.absolute(), Path(os.path.realpath(plain.parent))):
            if len(folder.parts) > 1:
                hidden.setdefault(str(folder), f"<folder of {item['case_id']}>")
    for form in sorted(hidden, key=len, reverse=True):
        text = text.replace(form, hidden[form])
    return text


def hidden_error(error: PipelineError, item: Mapping[Any, Any]) -> PipelineError:
    """The error as it may be stored and shown: as it is, or, for a case under a pseudonym, without paths."""
    if not item.get(MARK):
        return error
    file = None if error.file is None else without_paths(error.file, item)
    parts = [None if part is None else without_paths(part, item) for part in (error.expected, error.fix)]
    return type(error)(
        without_paths(error.found, item), expected=parts[0], fix=parts[1], case=str(item["case_id"]), file=file
    )
