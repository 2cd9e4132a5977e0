"""Which normalisation a channel gets: by its name where that says what it measures, else by its values.

| words of the name (case, `_`, `-`, `.` and digits at the end do not matter) | what it is | scheme |
|---|---|---|
| cbf, cbv, mtt, ttp, tmax, tmip, perf, pwi, ctp, dce, dsc, ktrans, kep | a perfusion map | percentile |
| pet, suv, fdg, psma, dotatate, spect | an emission image | percentile |
| ct, cta, ncct, cect, cbct, hu | CT in Hounsfield units | window |
| mr, mri, mra, t1, t1w, t1c, t1ce, t1gd, t2, t2w, flair, pd, pdw, dwi, adc, swi, b1000... | MR, no unit | z_score |

The first row that matches wins: `CT_CBF` is a perfusion map and `pet_ct` an emission image. CT keeps its unit: its
window is the 0.5 to 99.5 percentiles of the labelled tissue over all cases (Isensee et al., nnU-Net, Nature Methods
2021, supplement). MR is z-scored inside the body. Maps whose vessels or organs of excretion reach many times the
tissue's values are clipped at the 0.5 and 99 percentiles before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pipeline.data.fingerprint import PERCENTILES, ChannelFingerprint, IntensityFingerprint

Scheme = dict[str, str | float]

_WORDS = {
    "a perfusion map": {"cbf", "cbv", "mtt", "ttp", "tmax", "tmip", "perf", "perfusion", "pwi", "ctp"}
    | {"dce", "dsc", "ktrans", "kep"},
    "an emission image": {"pet", "suv", "fdg", "psma", "dotatate", "spect"},
    "CT": {"ct", "cta", "ncct", "cect", "cbct", "hu"},
    "MR": {"mr", "mri", "mra", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t1km", "t2", "t2w", "t2f", "flair", "pd"}
    | {"pdw", "dwi", "adc", "swi", "bold", "stir"},
}  # fmt: skip
_B_VALUE = re.compile(r"b\d{2,4}")

AIR_HU = -300.0
"""CT in Hounsfield units reaches below this value wherever there is air or lung; no display value and no MR does."""
_HEAVY_TAIL = 6.0
"""From this ratio of (99.5 percentile - median) to the interquartile range on, few voxels reach far beyond the rest."""


def kind_of(name: str) -> str | None:
    """What a channel's name says that it is, one of the rows above; None where it says nothing.

    >>> kind_of("mr_t1"), kind_of("CT_CBF"), kind_of("NCCT"), kind_of("b1000"), kind_of("0000")
    ('MR', 'a perfusion map', 'CT', 'MR', None)
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    for kind, known in _WORDS.items():
        if any(word in known or word.rstrip("0123456789") in known - {"t", "b"} for word in words):
            return kind
    return "MR" if any(_B_VALUE.fullmatch(word) for word in words) else None


def scheme_for(name: str, channels: Sequence[ChannelFingerprint]) -> tuple[Scheme, str]:
    """The normalisation of one channel, and the reason as a sentence.

    Args:
        name: of the channel.
        channels: its fingerprints, one per case.
    """
    kind, lowest = kind_of(name), float(np.median([channel.all_voxels.minimum for channel in channels]))
    if kind == "CT" and lowest > AIR_HU:
        scheme, reason = _by_values(channels)
        found = f"named like CT, but its lowest value is {lowest:.4g} (median): no Hounsfield units"
        return scheme, f"{found}; {reason}"
    if kind == "CT":
        return _window(channels, f"'{name}' is CT")
    if kind == "MR":
        return {"scheme": "z_score"}, f"'{name}' is MR: no unit, so each case by its own body's mean and deviation"
    if kind is not None:
        return (
            _percentile(),
            f"'{name}' is {kind}: clipped at percentiles of each case's body, its few brightest voxels tell little",
        )
    scheme, reason = _by_values(channels)
    return scheme, f"the name '{name}' says nothing; {reason}"


def _by_values(channels: Sequence[ChannelFingerprint]) -> tuple[Scheme, str]:
    lowest = float(np.median([channel.all_voxels.minimum for channel in channels]))
    if lowest <= AIR_HU:
        return _window(channels, f"values from {lowest:.4g} look like Hounsfield units")
    low, middle, high, top = (
        float(np.median([_at(channel.body or channel.all_voxels, q) for channel in channels]))
        for q in (25.0, 50.0, 75.0, 99.5)
    )
    if top - middle > _HEAVY_TAIL * max(high - low, 1e-12):
        return _percentile(), f"a few voxels reach {top:.4g} where the median is {middle:.4g}: clipped at percentiles"
    return {"scheme": "z_score"}, "its values are spread evenly: each case by its own mean and deviation"


def _percentile() -> Scheme:
    return {"scheme": "percentile", "lower": 0.5, "upper": 99.0}


def _window(channels: Sequence[ChannelFingerprint], why: str) -> tuple[Scheme, str]:
    labelled = [channel.foreground for channel in channels if channel.foreground and channel.foreground.count]
    voxels = labelled or [channel.body or channel.all_voxels for channel in channels]
    lower, upper = (round(pooled_percentile(voxels, q), 1) for q in (0.5, 99.5))
    where = f"of the labelled voxels of {len(labelled)} cases" if labelled else f"of the body in {len(voxels)} cases"
    reason = f"{why}: the window holds the 0.5 to 99.5 percentiles {where}"
    if upper - lower < 1:
        lower, upper, reason = lower - 50.0, upper + 50.0, f"{reason}, widened: they are one value"
    return {"scheme": "window", "lower_hu": lower, "upper_hu": upper}, reason


def _at(values: IntensityFingerprint, percentile: float) -> float:
    return values.percentiles[PERCENTILES.index(percentile)]


def pooled_percentile(parts: Sequence[IntensityFingerprint], percentile: float) -> float:
    """A percentile of all parts together, each with equal weight, as if equally many voxels had been drawn of each.

    Between the percentiles that a fingerprint holds, its distribution is taken as straight.

    Args:
        parts: one per case.
        percentile: 0 to 100.
    """
    shares = np.array([0.0, *PERCENTILES, 100.0]) / 100
    knots = [np.array([part.minimum, *part.percentiles, part.maximum]) for part in parts]
    values = np.unique(np.concatenate(knots))
    below = np.mean([_share_below(values, knot, shares) for knot in knots], axis=0)
    return float(np.interp(percentile / 100, below, values))


def _share_below(values: np.ndarray, knots: np.ndarray, shares: np.ndarray) -> np.ndarray:
    # Of equal knots (an atom, such as air) the last one's share counts: so many voxels are not above the value.
    last = np.append(np.diff(knots) > 0, True)
    return np.interp(values, knots[last], shares[last], left=0.0)
