"""What flows through the phantom's brain: normal perfusion, an acute stroke, and the old or harmless changes like one.

Normal values: grey matter about 60 ml/100g/min and 4 ml/100g, white matter about 22 and 2, the order of magnitude that
oxygen-15 positron emission tomography gives (Leenders et al., Brain 1990;113:27-47). The core is where flow falls
below 30% of normal, the threshold in clinical use on perfusion maps; there normal is read from the other side, while a
phantom knows each voxel's own. In the penumbra flow is reduced, blood volume kept by vasodilatation, transit prolonged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pipeline.data.phantom_anatomy import Brain
from pipeline.data.phantom_fields import RandomFields, length_of

GREY_CBF, WHITE_CBF, FLUID_CBF = 60.0, 22.0, 1.5  # ml/100g/min
GREY_CBV, WHITE_CBV, FLUID_CBV = 4.0, 2.0, 0.25  # ml/100g, that is percent
CORE_FLOW_RATIO = 0.30
PENUMBRA_TRANSIT_RATIO = 1.45
SMALL_ML = (0.1, 10.0)  # of cores that are asked for by volume: a few voxels at least; every territory has room for it

# name -> (arteries without flow, how often): most strokes that are scanned are of the middle cerebral artery
OCCLUSIONS: dict[str, tuple[tuple[str, ...], float]] = {
    "MCA": (("MCA superior", "MCA inferior", "MCA deep"), 0.42),
    "MCA superior": (("MCA superior",), 0.26),
    "MCA inferior": (("MCA inferior",), 0.22),
    "MCA deep": (("MCA deep",), 0.02),
    "ACA": (("ACA",), 0.04),
    "PCA": (("PCA",), 0.04),
}


@dataclass
class Perfusion:
    """Flow (``cbf``, ml/100g/min) and blood volume (``cbv``, ml/100g), arrays of one shape."""

    cbf: np.ndarray
    cbv: np.ndarray

    def scaled(self, cbf: np.ndarray | float, cbv: np.ndarray | float) -> Perfusion:
        return Perfusion(self.cbf * cbf, self.cbv * cbv)

    def replaced(self, share: np.ndarray, cbf: float, cbv: float) -> Perfusion:
        """A mixture: ``share`` of another tissue with one flow and one volume, the rest as it was."""
        return Perfusion(self.cbf + share * (cbf - self.cbf), self.cbv + share * (cbv - self.cbv))


@dataclass
class Stroke:
    """An acute occlusion.

    Args:
        occlusion: key of ``OCCLUSIONS``.
        side: +1 right, -1 left.
        flow_ratio: flow relative to the voxel's own before the stroke.
        volume_ratio: the same for blood volume.
        core_distance: distance-like order, negative in the core, growing outwards.
    """

    occlusion: str
    side: int
    flow_ratio: np.ndarray
    volume_ratio: np.ndarray
    core_distance: np.ndarray


def normal_perfusion(brain: Brain, fields: RandomFields, rng: np.random.Generator) -> Perfusion:
    """Flow and volume by tissue, with the spread between people (15%) and between regions (6%)."""
    regional = 1 + 0.06 * fields.draw(35)
    grey_flow, white_flow = rng.uniform(0.86, 1.14, 2)
    grey_volume, white_volume = rng.uniform(0.9, 1.1, 2)
    flow = (GREY_CBF * grey_flow * brain.grey + WHITE_CBF * white_flow * brain.white) * regional
    volume = (GREY_CBV * grey_volume * brain.grey + WHITE_CBV * white_volume * brain.white) * regional
    return Perfusion(flow + FLUID_CBF * brain.fluid, volume + FLUID_CBV * brain.fluid)


def occlude(
    brain: Brain, fields: RandomFields, rng: np.random.Generator, small_ml: tuple[float, float] | None = None
) -> Stroke:
    """An acute stroke in one arterial territory, its core 6 ml at least, with penumbra around it.

    Collaterals decide how bad it is where: worst near the occluded branch and deep in the territory, better near the
    watersheds, uneven in between. The flow ratio is continuous: floor, core edge at 0.30, penumbra, normal.

    Args:
        small_ml: bounds of the core's volume in ml instead, within `SMALL_ML`: one embolus in a distal branch, compact,
            5 to 10 mm of penumbra around it. The volume is the label's, whose small parts in thick slices are lost.
    """
    tissue = brain.inside & (brain.ventricle < 0.5)
    names, (arteries, frequency) = list(OCCLUSIONS), zip(*OCCLUSIONS.values(), strict=True)
    territory_ml, side = 0.0, 0
    while territory_ml < 45:  # a territory may lie outside the scanned slices
        occlusion, side = names[rng.choice(len(names), p=frequency)], int(rng.choice((-1, 1)))
        depth = brain.territory_depth(arteries[names.index(occlusion)], side)
        affected = np.flatnonzero(tissue & (depth > 0))
        territory_ml = affected.size * brain.frame.fine_voxel_ml

    deep = affected[depth.flat[affected] > np.quantile(depth.flat[affected], 0.6)]
    if small_ml is not None:  # a small one in a sulcus would show nothing
        deep = deep[brain.fluid.flat[deep] < 0.2]
    start = rng.choice(deep)
    distance = length_of(*(axis - axis.flat[start] for axis in (brain.x, brain.y / 1.2, brain.z)))
    order = 0.65 * distance - 0.4 * np.clip(depth, None, 22) + 4.5 * fields.draw(15) + 1.5 * fields.draw(7)

    hypoperfused_ml = territory_ml * rng.uniform(0.5, 1.0)
    core_ml = float(np.clip(np.exp(rng.normal(np.log(46), 0.6)), 13, 0.65 * hypoperfused_ml))
    sorted_order = np.sort(order.flat[affected])
    core_edge, outer_edge = (
        sorted_order[min(int(ml / brain.frame.fine_voxel_ml), affected.size - 1)] for ml in (core_ml, hypoperfused_ml)
    )
    outer_edge = max(outer_edge, core_edge + 6)
    if small_ml is not None:
        core_ml = float(np.exp(rng.uniform(*np.log(small_ml))))
        order = distance + 0.2 * _radius_mm(core_ml) * fields.draw(7)
        penumbra_mm = rng.uniform(5, 10)

    floor = rng.uniform(0.07, 0.17)
    plateau = np.clip(rng.uniform(0.42, 0.56) + 0.05 * fields.draw(18), 0.37, 0.7)
    offset = np.log((CORE_FLOW_RATIO - floor) / (plateau - CORE_FLOW_RATIO))
    steepness, uneven = rng.uniform(0.8, 1.7), 1 + 0.05 * fields.draw(6)
    within = expit((depth - 1.0) / 0.9)

    def flow_ratio(core_edge: float, outer_edge: float) -> np.ndarray:
        ratio = floor + (plateau - floor) * expit((order - core_edge) / steepness + offset)
        ratio = ratio + (1 - ratio) * expit((order - outer_edge) / 2.5)
        ratio = 1 - (1 - ratio) * within
        # uneven where flow is lost alone: in a brain that is uneven all over, that would give the lesion away
        ratio = 1 - (1 - ratio) * uneven
        return np.where(brain.inside, np.clip(ratio, 0.04, 1.05), 1.0)

    if small_ml is not None:
        core_edge = _edge_of_core(lambda edge: flow_ratio(edge, edge + penumbra_mm), brain, core_ml)
        outer_edge = core_edge + penumbra_mm
    ratio = flow_ratio(core_edge, outer_edge)

    core_volume, penumbra_volume = rng.uniform(0.32, 0.52), rng.uniform(0.92, 1.15)
    volume_ratio = np.interp(
        ratio,
        (0.05, 0.22, 0.36, 0.55, 0.8, 1.0),
        (0.6 * core_volume, core_volume, 0.9, penumbra_volume, 1.05, 1.0),
    )
    return Stroke(occlusion, side, ratio, volume_ratio, order - core_edge)


def labelled_tissue(brain: Brain) -> np.ndarray:
    """bool (H, W, D): where a label may be, in slices: in the brain, sulci included, and not in a ventricle."""
    average = brain.frame.average_slices
    return (average(brain.inside) > 0.5) & (average(brain.ventricle) < 0.5)


def _edge_of_core(flow_ratio: Callable[[float], np.ndarray], brain: Brain, core_ml: float) -> float:
    """The edge for which the label's volume is ``core_ml``, to 5% or a voxel, by bisection: it grows with the edge."""
    tissue, voxel_ml = labelled_tissue(brain), float(np.prod(brain.frame.spacing_mm)) / 1000
    low, high = 0.0, 4 * _radius_mm(core_ml) + 10
    for _ in range(16):
        edge = (low + high) / 2
        core = tissue & (brain.frame.average_slices(flow_ratio(edge)) < CORE_FLOW_RATIO)
        found_ml = float(core.sum()) * voxel_ml
        if abs(found_ml - core_ml) <= max(0.05 * core_ml, voxel_ml):
            break
        low, high = (edge, high) if found_ml < core_ml else (low, edge)
    return edge


def _radius_mm(volume_ml: float) -> float:
    """Of the ball of a volume.

    >>> round(_radius_mm(1.0), 2)
    6.2
    """
    return float((3000 * volume_ml / (4 * np.pi)) ** (1 / 3))


def leukoaraiosis(brain: Brain, fields: RandomFields, rng: np.random.Generator) -> np.ndarray:
    """Loss (0 to 1) of small-vessel disease: caps and bands of white matter around the ventricles, nearly symmetric."""
    extent = rng.uniform(0, 1)
    lateral = np.abs(brain.x)
    distance = 0.9 * np.abs(lateral - 14) + 0.18 * np.abs(brain.y) + 0.5 * np.abs(brain.z - 17)
    patches = 6 * fields.draw(11)
    return (0.4 + 0.6 * extent) * expit((11 + 9 * extent - distance + patches) / 1.5) * brain.white


def slow_hemisphere(brain: Brain, side: int) -> np.ndarray:
    """Weight (0 to 1) of the tissue that a narrowed carotid artery feeds: one side's ACA and MCA territories."""
    depth = brain.territory_depth(("ACA", "MCA superior", "MCA inferior", "MCA deep"), side)
    return expit((depth + 2) / 3)


@dataclass
class OldInfarct:
    """Weights (0 to 1) of a healed infarct: its cyst full of fluid, the scarred wall, the thinned tissue around."""

    cyst: np.ndarray
    wall: np.ndarray
    rim: np.ndarray

    def spare(self, weight: np.ndarray) -> OldInfarct:
        return OldInfarct(self.cyst * weight, self.wall * weight, self.rim * weight)


def old_infarct(brain: Brain, fields: RandomFields, rng: np.random.Generator, side: int) -> OldInfarct | None:
    """A healed infarct of about 4-60 ml in one arterial territory; None where that lies outside the scanned slices."""
    names, (arteries, frequency) = list(OCCLUSIONS), zip(*OCCLUSIONS.values(), strict=True)
    depth = brain.territory_depth(arteries[rng.choice(len(names), p=frequency)], side)
    candidates = np.flatnonzero(brain.inside & (brain.ventricle < 0.5) & (depth > 3))
    if candidates.size == 0:
        return None
    start = rng.choice(candidates)
    distance = length_of(*(axis - axis.flat[start] for axis in (brain.x, brain.y, brain.z)))
    order = distance + 4 * fields.draw(10)
    size = int(np.exp(rng.normal(np.log(17), 0.65)) / brain.frame.fine_voxel_ml)
    ranked = np.sort(order.flat[candidates])
    edge, cyst_edge = (ranked[min(int(n), ranked.size // 2)] for n in (size, size * rng.uniform(0.45, 0.8)))
    within = expit(depth / 1.2)
    cyst = expit((cyst_edge - order) / 0.9) * within
    scar = expit((edge - order) / 0.9) * within
    return OldInfarct(cyst, np.clip(scar - cyst, 0, 1), expit((edge + 5 - order) / 1.2) * within * (1 - scar))


def skull_base_dropout(brain: Brain, fields: RandomFields) -> np.ndarray:
    """Signal loss (0 to 1) over the frontal sinus and the petrous bones, where air distorts the magnetic field."""
    lateral = np.abs(brain.x)
    frontal = length_of(lateral / 1.6, brain.y - 45, brain.z + 24)
    petrous = length_of(lateral - 46, brain.y + 12, brain.z + 32)
    return expit((13 + 3 * fields.draw(9) - np.minimum(frontal, petrous)) / 1.5)
