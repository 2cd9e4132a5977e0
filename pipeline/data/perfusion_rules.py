"""Threshold rules that a clinician would use to find an infarct core on perfusion maps, tuned as well as they can be.

They are what a network has to beat. Two families:

- **global**: flow below a share of the brain's usual flow;
- **mirrored side**: flow below a share of the flow at the same place of the other hemisphere.

Both may also ask for prolonged transit, and for a blood volume that is low, yet not as low as that of fluid; both drop
small components. :func:`tune_rules` picks each family's settings on training cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from os import cpu_count
from typing import Literal, Protocol

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from scipy.ndimage import binary_closing, gaussian_filter, label

from pipeline.data.midsagittal import find_midsagittal_plane
from pipeline.geometry import Grid

Family = Literal["global", "mirrored side"]
SMOOTHINGS_MM = (1.2, 2.4, 4.0)
# what is tried: (cbf_below, mtt_above) and (cbv_below, cbv_above)
FLOW_THRESHOLDS = tuple(product((0.2, 0.25, 0.3, 0.35, 0.4, 0.5), (0.0, 1.2, 1.4, 1.7)))
VOLUME_THRESHOLDS = tuple(product((np.inf, 0.5, 0.6, 0.7, 0.85), (0.0, 0.15)))
MIRROR_SMOOTHING_MM = 4.0  # the other side's folding is another one: compare with a neighbourhood, not a voxel


class PerfusionCase(Protocol):
    """What a rule looks at: three maps (H, W, D) on one grid, in any orientation, 0 outside the brain."""

    cbf: np.ndarray
    cbv: np.ndarray
    mtt: np.ndarray
    grid: Grid


class LabelledPerfusionCase(PerfusionCase, Protocol):
    """The same with a reference whose class 1 is the core."""

    label: np.ndarray


@dataclass(frozen=True)
class RuleSettings:
    """The thresholds of one rule.

    Args:
        family: what flow is compared with.
        cbf_below: share of the reference flow; a voxel below it is a candidate.
        mtt_above: multiple of the brain's median transit; 0 asks for nothing.
        cbv_below: share of the reference volume; infinity asks for nothing.
        cbv_above: share of the brain's median volume below which a voxel counts as fluid; 0 asks for nothing.
        smoothing_mm: standard deviation of the Gaussian that smooths the maps within slices; one of ``SMOOTHINGS_MM``.
        smallest_ml: components below this are dropped.
        largest_only: keep the largest component alone.
    """

    family: Family
    cbf_below: float = 0.30
    mtt_above: float = 0.0
    cbv_below: float = np.inf
    cbv_above: float = 0.0
    smoothing_mm: float = 2.4
    smallest_ml: float = 3.0
    largest_only: bool = False


@dataclass(frozen=True)
class TunedRule:
    """Settings, and the mean Dice that they reach on the cases on which they were tuned."""

    settings: RuleSettings
    dice: float


class RuleFeatures:
    """Everything that the rules compare, per brain voxel, for one case; made once, then every setting is cheap.

    Args:
        case: maps in any orientation; they are turned to RAS here, so that the first axis runs from left to right.
    """

    def __init__(self, case: PerfusionCase) -> None:
        self._orientation = io_orientation(case.grid.affine)
        maps = [self.to_ras(np.asarray(m, dtype=np.float32)) for m in (case.cbf, case.cbv, case.mtt)]
        order = np.argsort(self._orientation[:, 0])
        self.spacing_mm = tuple(case.grid.spacing_mm[axis] for axis in order)
        self.voxel_ml = case.grid.voxel_volume_ml
        self.brain = (maps[0] > 0) | (maps[1] > 0)
        self.plane = find_midsagittal_plane(self.brain, self.spacing_mm)

        cbf, cbv, mtt = (m[self.brain] for m in maps)
        not_vessel = cbv <= np.quantile(cbv, 0.95)
        self.usual_cbf, self.usual_cbv = float(cbf[not_vessel].mean()), float(np.median(cbv))
        self.usual_mtt = float(np.median(mtt))
        self.smoothed = {sigma: [s[self.brain] for s in self._smooth(maps, sigma)] for sigma in SMOOTHINGS_MM}
        mirrored = [self.plane.reflect(s, self.spacing_mm) for s in self._smooth(maps[:2], MIRROR_SMOOTHING_MM)]
        # where the other side is fluid or outside, a share of the usual flow stands in for it
        self.mirrored = [
            np.maximum(m[self.brain], 0.4 * usual)
            for m, usual in zip(mirrored, (self.usual_cbf, self.usual_cbv), strict=True)
        ]

    def candidates(self, settings: RuleSettings, every: int = 1) -> np.ndarray:
        """Brain voxels that meet every threshold: 1-D, bool, in the order of the brain mask, each ``every``-th one."""
        return self.low_flow(settings, every) & self.low_volume(settings, every)

    def low_flow(self, settings: RuleSettings, every: int = 1) -> np.ndarray:
        """The same, of the thresholds of flow and transit alone."""
        cbf, _, mtt = (m[::every] for m in self.smoothed[settings.smoothing_mm])
        mirrored = settings.family == "mirrored side"
        chosen = cbf < settings.cbf_below * (self.mirrored[0][::every] if mirrored else self.usual_cbf)
        return chosen & (mtt > settings.mtt_above * self.usual_mtt) if settings.mtt_above > 0 else chosen

    def low_volume(self, settings: RuleSettings, every: int = 1) -> np.ndarray:
        """The same, of the thresholds of volume alone."""
        cbv = self.smoothed[settings.smoothing_mm][1][::every]
        mirrored = settings.family == "mirrored side"
        chosen = np.ones(cbv.shape, bool)
        if np.isfinite(settings.cbv_below):
            chosen &= cbv < settings.cbv_below * (self.mirrored[1][::every] if mirrored else self.usual_cbv)
        if settings.cbv_above > 0:
            chosen &= cbv > settings.cbv_above * self.usual_cbv
        return chosen

    def components(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidates, gaps of a voxel closed: their components as a label map (RAS), and each one's volume in ml."""
        mask = np.zeros(self.brain.shape, bool)
        mask[self.brain] = chosen
        found, _ = label(binary_closing(mask, np.ones((3, 3, 1))) & self.brain)
        volume_ml = np.bincount(found.ravel()) * self.voxel_ml
        volume_ml[0] = 0  # the background
        return found, volume_ml

    def from_ras(self, mask: np.ndarray) -> np.ndarray:
        """A mask in the orientation in which the case came."""
        # output axis -> input axis and direction, the inverse of the turn to RAS
        turned = np.flip(mask, tuple(int(axis) for axis, sign in self._orientation if sign < 0))
        return np.transpose(turned, self._orientation[:, 0].astype(int))

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """An array of the case, axes turned to RAS."""
        return np.ascontiguousarray(apply_orientation(array, self._orientation))

    def _smooth(self, maps: Sequence[np.ndarray], sigma_mm: float) -> list[np.ndarray]:
        """Smoothed within slices, the outside of the brain left out of every average."""
        sigma = (sigma_mm / self.spacing_mm[0], sigma_mm / self.spacing_mm[1], 0)
        weight = gaussian_filter(self.brain.astype(np.float32), sigma) + 1e-3
        return [gaussian_filter(m, sigma) / weight for m in maps]


def features_of(cases: Sequence[PerfusionCase]) -> list[RuleFeatures]:
    """Each case's features, several cases at once: scipy's filters let other threads run."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(RuleFeatures, cases))


def global_threshold_rule(case: PerfusionCase, settings: RuleSettings | None = None) -> np.ndarray:
    """Core where flow is below a share (30% by default) of the brain's mean flow: a bool mask on its grid."""
    return apply_rule(RuleFeatures(case), settings or RuleSettings("global"))


def mirrored_side_rule(case: PerfusionCase, settings: RuleSettings | None = None) -> np.ndarray:
    """Core where flow is below a share (30% by default) of the mirrored side's: a bool mask on its grid."""
    return apply_rule(RuleFeatures(case), settings or RuleSettings("mirrored side"))


def apply_rule(features: RuleFeatures, settings: RuleSettings) -> np.ndarray:
    """The rule's mask (H, W, D; bool) in the orientation in which the case came."""
    return features.from_ras(_select(*features.components(features.candidates(settings)), settings))


def tune_rules(
    cases: Iterable[LabelledPerfusionCase], families: Sequence[Family] = ("global", "mirrored side")
) -> dict[Family, TunedRule]:
    """Each family's best settings: highest mean core Dice over the cases that have a core.

    First every combination of thresholds on every seventh voxel; then the best of each smoothing, and the best three of
    all, on whole volumes with every way of dropping components. Half a second per case.
    """
    with_core = [case for case in cases if np.any(case.label == 1)]
    prepared = features_of(with_core)
    references = [f.to_ras(case.label == 1) for f, case in zip(prepared, with_core, strict=True)]
    sampled = [(f, reference[f.brain][::7]) for f, reference in zip(prepared, references, strict=True)]
    best: dict[Family, TunedRule] = {}
    for family in families:
        scored = [rule for smoothing_mm in SMOOTHINGS_MM for rule in _grid_of_rules(family, smoothing_mm, sampled, 7)]
        scored.sort(key=lambda rule: -rule.dice)
        finalists = {rule.settings.smoothing_mm: rule.settings for rule in reversed(scored)}
        trials = []
        for settings in {*finalists.values(), *(rule.settings for rule in scored[:3])}:
            found = [f.components(f.candidates(settings)) for f in prepared]
            for smallest_ml, largest_only in ((3.0, False), (8.0, False), (3.0, True)):
                trial = replace(settings, smallest_ml=smallest_ml, largest_only=largest_only)
                scores = [_dice(_select(*f, trial), truth) for f, truth in zip(found, references, strict=True)]
                trials.append(TunedRule(trial, float(np.mean(scores))))
        best[family] = max(trials, key=lambda rule: rule.dice)
    return best


def _select(components: np.ndarray, volume_ml: np.ndarray, settings: RuleSettings) -> np.ndarray:
    """The components that the settings keep, as a mask."""
    keep = (volume_ml >= settings.smallest_ml) & (volume_ml > 0)
    if settings.largest_only:
        keep &= np.arange(volume_ml.size) == volume_ml.argmax()
    return keep[components]


def _grid_of_rules(
    family: Family, smoothing_mm: float, cases: Sequence[tuple[RuleFeatures, np.ndarray]], every: int
) -> list[TunedRule]:
    """Every combination of thresholds, and its mean Dice over cases: features, and the core in each ``every``-th voxel.

    A voxel is chosen where it meets both, a flow's and a volume's thresholds; so the counts of all pairs are a product
    of two matrices.
    """
    flows = [RuleSettings(family, *values, smoothing_mm=smoothing_mm) for values in FLOW_THRESHOLDS]
    volumes = [replace(flows[0], cbv_below=below, cbv_above=above) for below, above in VOLUME_THRESHOLDS]
    dice = np.zeros((len(flows), len(volumes)))
    for features, truth in cases:
        low_flow = np.stack([features.low_flow(settings, every) for settings in flows]).astype(np.float32)
        low_volume = np.stack([features.low_volume(settings, every) for settings in volumes]).astype(np.float32)
        chosen, right = low_flow @ low_volume.T, low_flow[:, truth] @ low_volume[:, truth].T  # whole numbers, exactly
        total = chosen.astype(np.float64) + np.count_nonzero(truth)
        dice += np.where(total > 0, 2 * right / np.maximum(total, 1), 1.0) / len(cases)
    return [
        TunedRule(replace(flow, cbv_below=volume.cbv_below, cbv_above=volume.cbv_above), float(dice[i, j]))
        for i, flow in enumerate(flows)
        for j, volume in enumerate(volumes)
    ]


def _dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(prediction & reference) / total if total else 1.0
