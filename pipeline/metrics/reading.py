"""The tables of a run, read back: what `write_tables` wrote comes out as it went in."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any, get_type_hints

from pipeline.errors import DataError
from pipeline.metrics.case import ClassResult
from pipeline.metrics.rows import Row, rows_by_class
from pipeline.metrics.table import COLUMNS

_TYPES = {name: kind for name, kind in get_type_hints(ClassResult).items() if kind in (int, float)}
_FIX = "measure again with this version, by pipeline evaluate or pipeline measure"


def read_cases(path: str | PathLike[str]) -> list[Row]:
    """The rows of a run, for `summarise`, `compare_rows` and reports.

    Args:
        path: a ``cases.csv`` or ``cases.json``, or the folder of a run in which one of them lies.

    Returns:
        In the order of the file; NaN where a value is undefined.

    Raises:
        DataError: no such file, one that is no table of cases, or that lacks a column, as those of an older version do;
            a case and class twice, or a case without one of the classes.
    """
    file = Path(path)
    if file.is_dir():
        names = [name for name in ("cases.csv", "cases.json") if (file / name).is_file()]
        if not names:
            raise DataError("no cases.csv", file=file, expected="the folder of a run that was measured", fix=_FIX)
        file = file / names[0]
    if not file.is_file():
        raise DataError("no such file or folder", file=file, expected="a run that was measured, or its cases.csv")
    try:
        text = file.read_bytes().decode("utf-8")
        lines = json.loads(text) if file.suffix.lower() == ".json" else list(csv.DictReader(StringIO(text)))
        known = all(isinstance(line, dict) for line in lines)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"a table that can't be read ({error})", file=file, expected="a cases.csv or cases.json"
        ) from error
    if not known or not lines:
        raise DataError("a table without cases", file=file, expected="a row per case and class")
    missing = [name for name in COLUMNS if name not in lines[0]]
    if missing:
        raise DataError(
            f"a table without the columns {', '.join(missing[:5])}" + (", ..." if len(missing) > 5 else ""),
            file=file,
            expected="a cases.csv with all columns",
            fix=_FIX,
        )
    try:
        rows = [_row(line) for line in lines]
    except (TypeError, ValueError) as error:
        raise DataError(f"a table with a cell that is no number ({error})", file=file, fix=_FIX) from error
    rows_by_class(rows, file=file)
    return rows


def _row(line: dict[str, Any]) -> Row:
    values = {field.name: line[field.name] for field in fields(ClassResult)}
    for name, kind in _TYPES.items():
        undefined = values[name] in ("", None) and kind is float
        values[name] = float("nan") if undefined else kind(values[name])
    return Row(line["case_id"], float(line["diagonal_mm"]), ClassResult(**values))
