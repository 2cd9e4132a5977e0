"""Whose case is whose: a file that says so where neither the layout nor the ids do."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from pipeline.data.layouts.table import CASE_NAMES, PATIENT_NAMES, read_table
from pipeline.errors import DataError


def read_patients(path: str | PathLike[str]) -> dict[str, str]:
    """Case id -> patient, from a CSV with the columns ``case`` and ``patient``, or a JSON object.

    Raises:
        DataError: not such a file, or a case of two patients.
    """
    file = Path(path)
    expected = "a CSV with the columns case and patient, or a JSON object of case id -> patient"
    if file.suffix.lower() == ".json":
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise DataError(f"a list of patients that can't be read ({error})", file=file, expected=expected) from error
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
            raise DataError("a list of patients of another form", file=file, expected=expected)
        return content
    rows = read_table(file)
    case, patient = (
        next((name for name in names if rows and name in rows[0]), None) for names in (CASE_NAMES, PATIENT_NAMES)
    )
    if case is None or patient is None:
        raise DataError(f"the columns {', '.join(rows[0]) if rows else '(none)'}", file=file, expected=expected)
    found: dict[str, str] = {}
    for row in rows:
        if found.setdefault(row[case], row[patient]) != row[patient]:
            raise DataError("a case of two patients", case=row[case], file=file, expected="one")
    return {name: of for name, of in found.items() if of}
