"""Whether a result of an earlier run still holds, and whether somebody has worked on it since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.data.file_digests import file_sha256
from pipeline.engines.cohort_result import DONE, CaseOutcome
from pipeline.errors import DataError, GeometryError
from pipeline.io import read_image
from pipeline.io.policy import ReadPolicy
from pipeline.io.section import is_section, read_section_grid
from pipeline.io.stream import cannot

CHANGED = "changed by somebody since it was written, and kept; volumes are not known"
_FIX = "move it elsewhere, or predict all cases again (--redo)"
_LENIENT = ReadPolicy(volume=0, non_finite="zero")


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
        DataError: the result has to be made again, but somebody has changed it: it may be hours of work. Or it can't be
            told, because what somebody has made of it is not on the case's grid, or not to be read.
    """
    if earlier is None or not earlier.files:
        return None
    states = {name: _state(output_dir / name, digest, earlier) for name, digest in earlier.files.items()}
    for name, state in states.items():
        if state == "misplaced":
            raise DataError(
                "a label map that was changed by somebody and is no longer one on the case's grid",
                file=output_dir / name,
                expected="one on the grid that it was written on",
                fix=_FIX,
            )
    found = set(states.values())
    if earlier.status == DONE and made_with and (made_with, inputs) == (earlier.made_with, earlier.inputs):
        if found == {"as written"} and earlier.reason != CHANGED:
            return replace(earlier, kept=True)
        before = earlier.volumes_as_written_ml or earlier.volumes_ml
        if found == {"as written"} and before:  # a correction that was undone
            return replace(earlier, kept=True, reason="", volumes_ml=before, volumes_as_written_ml={})
        if "lost" not in found and "changed" in found:
            return replace(
                earlier, kept=True, reason=CHANGED, volumes_ml={}, volumes_as_written_ml=before, instances=None
            )
    if "changed" in found:
        raise DataError(
            "a result that somebody has changed since it was written, of another input, bundle or version",
            file=output_dir / next(name for name, state in states.items() if state == "changed"),
            expected="no need to write over it",
            fix=_FIX,
        )
    return None


def others_work(
    names: Iterable[str], own: Mapping[str, str], begun: Mapping[str, str] | None, output_dir: Path
) -> dict[str, str]:
    """Files in the place of a case's results that no run has written: name -> SHA-256.

    Args:
        names: of the case's files, below ``output_dir``.
        own: name -> SHA-256 of those that a run has written.
        begun: of a case at which a run was killed, this function's answer when it was begun: what has come to lie there
            since, that run has written. None of any other case.

    Raises:
        DataError: a file that is there and can't be read.
    """
    found = {name: digest_of(output_dir / name) for name in names}
    return {
        name: digest
        for name, digest in found.items()
        if digest is not None and digest != own.get(name) and (begun is None or digest == begun.get(name))
    }


def require_no_other(names: Iterable[str], output_dir: Path) -> None:
    """Raises:
    DataError: there are such files: they may be somebody's work, or another program's.
    """
    for name in names:
        raise DataError(
            "a file that no run on record has written, in the place of this case's result",
            file=output_dir / name,
            expected="no file there",
            fix=_FIX,
        )


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none.

    Raises:
        DataError: it can't be read.
    """
    try:
        return file_sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot(error, path, "read") from error


def _state(path: Path, digest: str, earlier: CaseOutcome) -> str:
    """``as written``, ``changed`` (still a result for this case), ``misplaced`` (an image, but none on its grid), or
    ``lost``."""
    found = digest_of(path)
    if found in (digest, None):
        return "as written" if found else "lost"
    try:
        grid = read_image(path).grid
    except GeometryError:
        return "misplaced"
    except DataError:  # damaged, which is made again; or somebody's, of a kind that is no label map
        return "misplaced" if _is_image(path) else "lost"
    own = earlier.own_grid()
    return "changed" if own is None or grid.same_grid(own) else "misplaced"


def _is_image(path: Path) -> bool:
    """Of several volumes, with NaN, or of colours: whatever a program may have stored."""
    try:
        read_section_grid(path) if is_section(path) else read_image(path, policy=_LENIENT)
    except GeometryError:
        return True
    except DataError:
        return False
    return True
