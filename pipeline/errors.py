"""The errors that a user meets. Each says what was found, where, what was expected, and what to do.

>>> print(DataError("2 NaN voxels", case="sub-01", file="cbf.nii.gz", expected="finite values",
...                 fix="export the map again"))
case sub-01, file cbf.nii.gz: found 2 NaN voxels; expected finite values; to fix it: export the map again
"""

from __future__ import annotations

from os import PathLike, fspath


class PipelineError(ValueError):
    """Base of all errors that come from input, not from a fault in this package.

    Args:
        found: what was found, in words that a clinical researcher understands.
        expected: what should have been there.
        fix: what the reader can do about it.
        case: id of the case.
        file: the file that was read or written.

    ``found`` alone is enough to construct one, so that an error survives the trip from a data loader's worker process.
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
        where = [f"{name} {value}" for name, value in (("case", self.case), ("file", self.file)) if value]
        if not where and not self.expected and not self.fix:
            return self.found
        parts = [f"found {self.found}" if self.expected or where else self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.fix:
            parts.append(f"to fix it: {self.fix}")
        return (", ".join(where) + ": " if where else "") + "; ".join(parts)

    def __reduce__(self):
        return _rebuild, (type(self), self.found, self.expected, self.fix, self.case, self.file)

    def for_case(self, case: str) -> PipelineError:
        """The same error with the case's id, where the code that raised it could not know it."""
        return _rebuild(type(self), self.found, self.expected, self.fix, self.case or case, self.file)


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
