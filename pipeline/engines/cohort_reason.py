"""Why a case is not done, in words for a table, and in a log for whoever mends it."""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.case_error import case_error, failing_step, lacks_memory
from pipeline.data.pseudonyms import hidden_error, without_paths
from pipeline.engines.cohort_case import causes
from pipeline.engines.cohort_result import FAILED, REFUSED
from pipeline.errors import PipelineError


def explained(error: Exception, item: Mapping[Hashable, Any], log: Path) -> tuple[str, str]:
    """Refused or failed, and why; MONAI wraps what a transform raises, so the reason may lie
    deeper.

    Args:
        item: of the data list: it knows the id, and whether paths must not be named.
        log: gets the trace of a failure.
    """
    step, _ = failing_step(error)
    where = f" (in {step})" if step else ""
    behind = list(causes(error))
    for cause in behind:
        if isinstance(cause, PipelineError):
            named = type(cause)(
                cause.found + where,
                expected=cause.expected,
                fix=cause.fix,
                case=cause.case or str(item["case_id"]),
                file=cause.file,
            )
            return REFUSED, str(hidden_error(named, item))
    reason = without_paths(f"{type(behind[-1]).__name__}: {behind[-1]}{where}", item)
    if any(map(lacks_memory, behind)):
        reason = str(case_error(error, item))
    trace = without_paths("".join(traceback.format_exception(error)), item)
    try:
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"case {item['case_id']}\n{trace}\n")
    except OSError as full:
        reason += f"; its trace is not in {log.name}: {full.strerror or full}"
    return FAILED, reason
