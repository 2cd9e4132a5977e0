"""The errors that a user meets. Each says what was found, where, what was expected, and what to do.

>>> print(DataError("2 NaN voxels", case="sub-01", file="cbf.nii.gz", expected="finite values",
...                 fix="export the map again"))
case sub-01, file cbf.nii.gz: found 2 NaN voxels; expected finite values; to fix it: export the map again
"""

from __future__ import annotations

import re
from os import PathLike, fspath

# What would steer a terminal or turn the direction of what it shows, and what no encoding takes.
_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT, _IN_NAME = re.compile(f"[{_CONTROL}]"), re.compile(f"[\t\n{_CONTROL}]")


class PipelineError(ValueError):
    """Base of all errors that come from input, not from a fault in this package.

    Args:
        found: what was found, in words that a clinical researcher understands.
        expected: what should have been there.
        fix: what the reader can do about it.
        case: id of the case.
        file: the file that was read or written.

    ``found`` alone is enough to construct one, so that an error survives the trip from a data loader's worker process.
    The text shows control characters escaped: an id or a name is whatever stood in somebody's table.

    >>> print(DataError("no such file", case="sub-\\x1b[2J01"))
    case sub-\\x1b[2J01: found no such file
    """

    def __init__(
        self,
        found: str,
        *,
        expected: str | None = None,
        fix: str | None = None,
        case: str | None = None,
        file: str | PathLike[str] | None = None,
    ) -> None:
        self.found, self.expected, self.fix, self.case = found, expected, fix, case
        self.file = None if file is None else fspath(file)
        super().__init__(found)

    def __str__(self) -> str:
        named = (("case", self.case), ("file", self.file))
        where = [f"{name} {_IN_NAME.sub(_escaped, str(value))}" for name, value in named if value]
        if not where and not self.expected and not self.fix:
            return _IN_TEXT.sub(_escaped, self.found)
        parts = [f"found {self.found}" if self.expected or where else self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.fix:
            parts.append(f"to fix it: {self.fix}")
        text = "; ".join(parts).replace("\n; ", "\n")  # what was found may be a list, which ends its last line itself
        return (", ".join(where) + ": " if where else "") + _IN_TEXT.sub(_escaped, text)

    def __reduce__(self):
        return _rebuild, (type(self), self.found, self.expected, self.fix, self.case, self.file)

    def for_case(self, case: str) -> PipelineError:
        """The same error with the case's id, where the code that raised it could not know it."""
        return _rebuild(type(self), self.found, self.expected, self.fix, self.case or case, self.file)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _rebuild(kind, found, expected, fix, case, file) -> PipelineError:
    return kind(found, expected=expected, fix=fix, case=case, file=file)


class DataError(PipelineError):
    """A dataset, a case or a file that can't be used as it is."""


class GeometryError(DataError):
    """Grids that do not describe the same space, or a header that describes none."""


class LabelError(DataError):
    """A label map with values that the bundle does not know."""


class ConfigError(PipelineError):
    """A config, an override or a command line that asks for something that does not exist or contradicts itself."""


class BundleError(PipelineError):
    """A bundle that is incomplete, stale, or holds what a bundle must not hold."""
