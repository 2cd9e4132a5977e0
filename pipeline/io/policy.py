"""What a reader may take on trust: the few choices that hazards of clinical files leave open, in one object."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class ReadPolicy:
    """How a file is read that does not say all it should. The default refuses; whatever is taken on trust is recorded.

    Args:
        non_finite: ``"refuse"`` a volume with NaN or infinite voxels, or take them as ``"zero"``.
        assume_orientation: axis codes, such as ``"RAS"``, for a file with neither qform nor sform (its pixdim is then
            the spacing); None refuses such a file.
        trust: ``"qform"`` or ``"sform"``, where both claim the same space and disagree; None refuses such a file.
        volume: which one of a 4D series is meant, from 0; None refuses a series.
        spacing_limits_mm: smallest and largest side of a voxel; outside, the header is taken for damaged.
        colour: ``"refuse"`` a section in colour, or take its brightness as ``"grey"`` values.
    """

    non_finite: str = "refuse"
    assume_orientation: str | None = None
    trust: str | None = None
    volume: int | None = None
    spacing_limits_mm: tuple[float, float] = (0.01, 30.0)
    colour: str = "refuse"

    def __post_init__(self) -> None:
        if self.non_finite not in ("refuse", "zero"):
            raise ConfigError(f"non_finite={self.non_finite!r}", expected="refuse or zero")
        if self.colour not in ("refuse", "grey"):
            raise ConfigError(f"colour={self.colour!r}", expected="refuse or grey")
        if self.trust not in (None, "qform", "sform"):
            raise ConfigError(f"trust={self.trust!r}", expected="qform, sform, or none of them")
        axes = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
        codes = self.assume_orientation
        if codes is not None and sorted(axes.get(code, -1) for code in str(codes)) != [0, 1, 2]:
            raise ConfigError(f"assume_orientation={codes!r}", expected="three axis codes, such as RAS or LPS")
        if self.volume is not None and (type(self.volume) is not int or self.volume < 0):
            raise ConfigError(f"volume={self.volume}", expected="a whole number from 0, or one per channel")
        low, high = self.spacing_limits_mm
        if not 0 < low < high:
            raise ConfigError(f"spacing_limits_mm={self.spacing_limits_mm}", expected="two sides, the smaller first")


STRICT = ReadPolicy()
"""Refuses whatever has more than one meaning."""
