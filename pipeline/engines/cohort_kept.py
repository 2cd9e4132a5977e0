"""Whether a result of an earlier run still holds, and whether somebody has worked on it since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data.file_digests import file_sha256
from pipeline.engines.cohort_result import DONE, CaseOutcome
from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid
from pipeline.io import read_image

CHANGED = "changed by somebody since it was written, and kept; volumes are not known"


def still_holds(
    earlier: CaseOutcome | None, inputs: Mapping[str, str], made_with: str, output_dir: Path
) -> CaseOutcome | None:
    """The outcome of a result that need not be made again; None where it must be.

    Its inputs, the bundle, the weights and the version are those that it was made with, by their digests, and its files
    are there: as they were written, or, where somebody has corrected them, readable and on the case's grid.

    Args:
        earlier: how the case ended the last time.
        inputs: channel -> SHA-256 of its file now.
        made_with: see `CaseOutcome`; empty where it can't be told, and then no result holds.

    Raises:
        DataError: the result has to be made again, but somebody has changed it: it may be hours of work.
    """
    if earlier is None or not earlier.files:
        return None
    states = {_state(output_dir / name, digest, earlier) for name, digest in earlier.files.items()}
    if earlier.status == DONE and made_with and (made_with, inputs) == (earlier.made_with, earlier.inputs):
        if states == {"as written"}:
            return replace(earlier, kept=True)
        if "lost" not in states:
            return replace(earlier, kept=True, reason=CHANGED, volumes_ml={})
    if "changed" in states:
        raise DataError(
            "a result that somebody has changed since it was written, of another input, bundle or version",
            file=output_dir / next(iter(earlier.files)),
            expected="no need to write over it",
            fix="move it elsewhere, or predict all cases again (--redo)",
        )
    return None


def _state(path: Path, digest: str, earlier: CaseOutcome) -> str:
    """``as written``, ``changed`` (still a result for this case), or ``lost``."""
    try:
        if file_sha256(path) == digest:
            return "as written"
        grid = read_image(path).grid
    except (OSError, PipelineError):  # gone or damaged: it is made again
        return "lost"
    own = Grid(tuple(earlier.grid["shape"]), np.array(earlier.grid["affine"])) if earlier.grid else grid
    return "changed" if grid.same_grid(own) else "lost"
