"""What a chain of transforms raises, in words: case, file and transform, not ``applying transform <... at 0x..>``.

MONAI wraps each error in another that names the transform by its ``repr`` and nothing else; the reason lies below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pipeline.data.pseudonyms import hidden_error
from pipeline.errors import DataError, PipelineError

_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory", re.IGNORECASE)
_WRAPPED = re.compile(
    r"applying transform (?:<(?:.*\.)?(?P<object>\w+) object|<function (?:\S*\.)?(?P<function>\w+)?|(?P<name>\w+))"
)


def failing_step(error: BaseException) -> tuple[str, BaseException]:
    """The name of the transform that failed, empty where it was none; and what it raised.

    >>> failing_step(ValueError("x"))
    ('', ValueError('x'))
    """
    step = ""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        match = _WRAPPED.match(str(error))
        if match is None:
            break
        step, error = match["object"] or match["function"] or match["name"] or step, error.__cause__
    return step, error


def case_error(error: BaseException, item: Mapping[Any, Any]) -> PipelineError:
    """What was raised while ``item``, as `pipeline.data.data_list` makes it, went through a chain."""
    step, cause = failing_step(error)
    where = f" (in {step})" if step else ""
    if isinstance(cause, PipelineError):
        named = type(cause)(
            cause.found + where,
            expected=cause.expected,
            fix=cause.fix,
            case=cause.case or _case_id(item),
            file=cause.file,
        )
        return hidden_error(named, item)
    image = item.get("image")
    file = next(iter(image.values()), None) if isinstance(image, Mapping) else image
    found, fix = f"a case on which a transform fails with {type(cause).__name__}: {cause}{where}", None
    if lacks_memory(cause):
        asked = re.search(r"allocate ([\d.]+ \w+)", str(cause))
        found = f"a case that needs more memory than is free{f' ({asked[1]} at once)' if asked else ''}{where}"
        fix = "close other programs, take a machine with more memory, or correct the case if it should not be so large"
        if "CUDA" in str(cause):
            found, fix = found.replace("memory", "GPU memory"), "close what else uses the GPU, or say device#name=cpu"
    path = file if isinstance(file, str | os.PathLike) else None
    return hidden_error(DataError(found, fix=fix, case=_case_id(item), file=path), item)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory could not be had: Python's, NumPy's, or torch's on a CPU or a GPU.

    >>> lacks_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def _case_id(item: Mapping[Any, Any]) -> str:
    return str(item.get("case_id", "(without an id)"))
