"""A list of cases, as CSV or JSON, with any paths: for files that are named after nothing.

CSV (or TSV; a semicolon will do) with a header: ``case``, a column per channel, and, where there are any, ``label`` and
``patient``; an empty field is a file that the case lacks. A column without any image file (``age``) is no channel. JSON
is a list of objects with the same names, or an object with ``cases`` (that list), ``channels`` and ``labels`` (id ->
name) beside it; a case may hold its channels as ``image``. Relative paths are relative to the list. It is given as the
dataset, or found as ``cases.csv``, ``cases.tsv`` or ``cases.json`` in the dataset's folder, where it goes before every
other layout.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.layouts.decathlon import classes_of, folder_below
from pipeline.data.layouts.folder import SUFFIXES as IMAGE_SUFFIXES
from pipeline.data.layouts.folder import Entry, Folder, Listing
from pipeline.data.layouts.names import LABEL_NAMES
from pipeline.errors import DataError

FILES = ("cases.csv", "cases.tsv", "cases.json")
SUFFIXES = (".csv", ".tsv", ".json")
CASE_NAMES = ("case", "case_id", "id")
PATIENT_NAMES = ("patient", "patient_id", "subject")
LABEL_COLUMNS = (*LABEL_NAMES, "reference")


def why(folder: Folder) -> str | None:
    """A list beside the files."""
    name = next((name for name in FILES if folder.has(name)), None)
    return f"{name} lists the cases" if name else None


def listing(folder: Folder, channels: Sequence[str] | None) -> Listing:
    """The cases of the list in a dataset's folder."""
    return listing_of(next(folder.root / name for name in FILES if folder.has(name)), channels)


def listing_of(file: Path, channels: Sequence[str] | None) -> Listing:
    """The cases of a list.

    Raises:
        DataError: not readable, or without the columns that it needs.
    """
    rows, content = _json_rows(file) if file.suffix.lower() == ".json" else (read_table(file), {})
    names = list(dict.fromkeys(name for row in rows for name in row))
    case_name = next((name for name in CASE_NAMES if name in names), None)
    own = [name for name in names if name not in (*CASE_NAMES, *PATIENT_NAMES, *LABEL_COLUMNS)]
    columns = own
    own = [str(name).lower() for name in content.get("channels") or own]
    notes, said = [], []
    if channels is None and not content.get("channels"):
        files = [name for name in own if any(_is_image(file, row.get(name, "")) for row in rows)]
        others = [name for name in own if name not in files]
        if files and others:
            notes = [f"{', '.join(others)}: no file in this column, so it is no channel"]
            own, said = files, others
    wanted = list(own if channels is None else channels)
    unread = [name for name in columns if name not in (*wanted, *said)]
    if unread:
        notes.append(f"not read: the column{'s' if len(unread) > 1 else ''} {', '.join(unread)}")
    lacking = [name for name in wanted if name not in names]
    if case_name is None or lacking or not wanted:
        raise DataError(
            f"a list with the columns {', '.join(names) or '(none)'}",
            file=file,
            expected=f"case, {', '.join(wanted) or 'a column per channel'}, and label where there is one",
            fix="name the columns so in the first line",
        )
    entries, problems = [], []
    for number, row in enumerate(rows, start=1):
        case = row.get(case_name, "")
        if not case:
            problems.append(f"entry {number}: no {case_name}")
            entries.append(Entry(f"entry-{number}", {}, problem=f"entry {number} of the list has no {case_name}"))
            continue
        image = {name: [file.parent / row[name]] for name in wanted if row.get(name)}
        labels = [file.parent / row[name] for name in LABEL_COLUMNS if row.get(name)][:1]
        problems += [
            f"{path}: no such file" for path in (*(p for (p,) in image.values()), *labels) if not os.path.isfile(path)
        ]
        patient = next((row[name] for name in PATIENT_NAMES if row.get(name)), None)
        first = next(iter(image.values()), [file])[0]
        entries.append(Entry(case, image, labels, folder_below(file.parent, first), patient))
    classes, label_problem = classes_of(content)
    return Listing(tuple(wanted), entries, classes, label_problem, problems, notes)


def _is_image(file: Path, value: str) -> bool:
    """Whether a field looks like a file: by its suffix, or because there is one."""
    suffixes = [suffix for kind in IMAGE_SUFFIXES.values() for suffix in kind]
    return value.lower().endswith(tuple(suffixes)) or (value != "" and os.path.isfile(file.parent / value))


def read_table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line, in lower case; comma, semicolon or tab.

    Raises:
        DataError: not readable, a name twice, or a row that is longer than the first line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"a table that can't be read ({error})", file=file, expected="CSV, as UTF-8") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if len(set(names)) < len(names):
        raise DataError(f"the columns {', '.join(names)}", file=file, expected="each name once")
    reader.fieldnames = names
    rows = []
    for row in reader:
        if None in row:
            raise DataError(f"more fields than names in line {reader.line_num}", file=file, expected=", ".join(names))
        rows.append({name: (value or "").strip() for name, value in row.items()})
    return rows


def _json_rows(file: Path) -> tuple[list[dict[str, str]], Mapping[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"a list that can't be read ({error})", file=file, expected="JSON") from error
    cases = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise DataError("a JSON file without a list of cases", file=file, expected='[{"case": ..., "<channel>": path}]')
    rows = []
    for case in cases:
        image = case.get("image")
        flat = {**{k: v for k, v in case.items() if k != "image"}, **image} if isinstance(image, dict) else case
        rows.append({str(name).lower(): str(value) for name, value in flat.items() if value is not None})
    return rows, content if isinstance(content, dict) else {}
