"""A digital brain-perfusion phantom: the data on which the project runs out of the box, seeded, nothing to download.

One case is a skull-stripped brain with three maps, cerebral blood flow (CBF), blood volume (CBV) and mean transit time
(MTT), and the label of an acute stroke's core. It is meant to be hard for the reasons for which patients are hard: the
core is defined against each tissue's own normal flow, so that penumbral white matter falls below the usual threshold
for the whole brain; neither folding nor disease is symmetric; old infarcts, small-vessel disease and slow carotid flow
look alike.

MTT follows from the central volume principle, MTT = CBV / CBF (Meier & Zierler, J Appl Physiol 1954;6:731-744); CBF
in ml/100g/min and CBV in ml/100g give MTT = 60 CBV / CBF seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import gaussian_filter

from pipeline.data import phantom_lesions as lesions
from pipeline.data.phantom_anatomy import Brain, grow_brain
from pipeline.data.phantom_fields import RandomFields, ScanFrame, rotation_matrix
from pipeline.geometry import Grid

PHANTOM_VERSION = 2
CHANNELS = ("cbf", "cbv", "mtt")
MTT_MAX_S = 24.0
STEPS = {"cbf": 0.01, "cbv": 0.001, "mtt": 0.01}


@dataclass
class PhantomTruth:
    """What no scanner shows, averaged over slices but before point spread, scaling and noise; arrays (H, W, D).

    Args:
        grey, white, fluid: tissue shares, 0 to 1.
        flow_ratio: flow relative to the voxel's own before the stroke; 1 where there is none.
        cbf: ml/100g/min.
        cbv: ml/100g.
        mtt: s.
    """

    grey: np.ndarray
    white: np.ndarray
    fluid: np.ndarray
    flow_ratio: np.ndarray
    cbf: np.ndarray
    cbv: np.ndarray
    mtt: np.ndarray


@dataclass
class PhantomCase:
    """One simulated examination; arrays (H, W, D) on ``grid``, in the orientation in which a scanner might store them.

    Args:
        cbf: ml/100g/min, float32, 0 outside the brain.
        cbv: ml/100g (percent), float32.
        mtt: s, float32, at most 24.
        label: uint8; 1 core, and 2 penumbra where it was asked for.
        brain: bool, the skull-stripped brain with its fluid spaces.
        grid: shape and affine.
        facts: what the case holds: volumes in ml, territory, look-alikes, geometry; numbers, strings and lists of them.
        truth: the noise-free maps.
    """

    cbf: np.ndarray
    cbv: np.ndarray
    mtt: np.ndarray
    label: np.ndarray
    brain: np.ndarray
    grid: Grid
    facts: dict[str, Any]
    truth: PhantomTruth


def make_case(
    seed: int, *, penumbra: bool = False, healthy: bool = False, lesion_ml: tuple[float, float] | None = None
) -> PhantomCase:
    """Simulate one examination.

    Args:
        seed: non-negative. The same seed gives the same arrays, byte for byte; ``penumbra`` does not change the
            maps, and ``healthy`` takes the stroke away from the same brain.
        penumbra: label the penumbra as class 2.
        healthy: no acute lesion; old and harmless changes stay.
        lesion_ml: a small lesion in the same brain: bounds of the core's volume, ml (`phantom_lesions.occlude`).
    """
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    geometry, anatomy, chronic, acute, scanner, storage = streams
    frame = ScanFrame.draw(geometry)
    brain = grow_brain(frame, anatomy)
    axes = frame.axes_mm()

    stroke = None if healthy else lesions.occlude(brain, RandomFields(axes, acute), acute, lesion_ml)
    perfusion, facts = _perfuse(brain, stroke, chronic)
    cbf, cbv = frame.average_slices(perfusion.cbf), frame.average_slices(perfusion.cbv)
    inside = frame.average_slices(brain.inside) > 0.5
    flow_ratio = volume_ratio = np.ones(frame.shape)
    if stroke is not None:
        flow_ratio, volume_ratio = map(frame.average_slices, (stroke.flow_ratio, stroke.volume_ratio))
    truth = PhantomTruth(
        grey=frame.average_slices(brain.grey),
        white=frame.average_slices(brain.white),
        fluid=frame.average_slices(brain.fluid),
        flow_ratio=flow_ratio,
        cbf=cbf,
        cbv=cbv,
        mtt=mean_transit_time(cbf, cbv),
    )
    maps = _acquire(cbf, cbv, inside, frame, scanner)
    label = _label(truth, volume_ratio, lesions.labelled_tissue(brain), penumbra)

    voxel_ml = float(np.prod(frame.spacing_mm)) / 1000
    facts |= {
        "occlusion": None if stroke is None else stroke.occlusion,
        "side": None if stroke is None else ("right" if stroke.side > 0 else "left"),
        "core_ml": round(float((label == 1).sum()) * voxel_ml, 3),
        "brain_ml": round(float(inside.sum()) * voxel_ml, 1),
        "spacing_mm": list(frame.spacing_mm),
        "head_tilt_deg": [round(angle, 2) for angle in frame.tilt_deg],
    }
    if penumbra:
        facts["penumbra_ml"] = round(float((label == 2).sum()) * voxel_ml, 3)
    case = PhantomCase(**maps, label=label, brain=inside, grid=Grid(frame.shape, np.eye(4)), facts=facts, truth=truth)
    return _store(case, frame, storage)


def mean_transit_time(cbf: np.ndarray, cbv: np.ndarray) -> np.ndarray:
    """MTT in s from CBF (ml/100g/min) and CBV (ml/100g); 0 where nothing flows.

    >>> mean_transit_time(np.array([60.0, 22.0, 0.0]), np.array([4.0, 2.2, 0.0])).tolist()
    [4.0, 6.0, 0.0]
    """
    return np.divide(60.0 * cbv, cbf, out=np.zeros_like(cbf), where=cbf > 0)


def _perfuse(
    brain: Brain, stroke: lesions.Stroke | None, rng: np.random.Generator
) -> tuple[lesions.Perfusion, dict[str, Any]]:
    """Normal perfusion, changed by old disease, the stroke, and vessels; and what was put in."""
    fields = RandomFields(brain.frame.axes_mm(), rng)
    perfusion = lesions.normal_perfusion(brain, fields, rng)
    facts: dict[str, Any] = {"leukoaraiosis": False, "slow_hemisphere": None, "old_infarcts_ml": []}

    if rng.random() < 0.65:
        loss = lesions.leukoaraiosis(brain, fields, rng)
        perfusion = perfusion.scaled(1 - 0.55 * loss, 1 - 0.35 * loss)
        facts["leukoaraiosis"] = True
    if rng.random() < 0.4:
        side = int(rng.choice((-1, 1)))
        weight = lesions.slow_hemisphere(brain, side)
        perfusion = perfusion.scaled(1 - rng.uniform(0.15, 0.4) * weight, 1 + rng.uniform(0, 0.12) * weight)
        facts["slow_hemisphere"] = "right" if side > 0 else "left"
    if stroke is not None:
        # fluid has no flow of its own to lose
        perfusion = perfusion.scaled(
            np.where(brain.fluid > 0.5, 1, stroke.flow_ratio), np.where(brain.fluid > 0.5, 1, stroke.volume_ratio)
        )
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.35, 0.4, 0.18, 0.07)))):
        old = lesions.old_infarct(brain, fields, rng, side=int(rng.choice((-1, 1))))
        if old is None:
            continue
        if stroke is not None:
            old = old.spare(np.clip((stroke.core_distance - 2) / 4, 0, 1))
        perfusion = perfusion.replaced(old.cyst, rng.uniform(1.5, 6), rng.uniform(0.2, 0.7))
        # the gliotic wall has as little flow as a core; it has lost less of its volume, and has no penumbra around it
        flow, volume = rng.uniform(0.25, 0.45), rng.uniform(0.45, 0.7)
        perfusion = perfusion.scaled(1 - (1 - flow) * old.wall, 1 - (1 - volume) * old.wall)
        perfusion = perfusion.scaled(1 - 0.35 * old.rim, 1 - 0.3 * old.rim)
        facts["old_infarcts_ml"].append(round(float((old.cyst + old.wall).sum()) * brain.frame.fine_voxel_ml, 2))
    if rng.random() < 0.4:
        dropout = lesions.skull_base_dropout(brain, fields)
        perfusion = perfusion.scaled(1 - 0.75 * dropout, 1 - 0.7 * dropout)

    supplied = 1.0 if stroke is None else np.where(stroke.flow_ratio < 0.6, rng.uniform(0.3, 0.8), 1.0)
    vessel_cbf, vessel_cbv = rng.uniform(90, 150) * supplied, rng.uniform(7, 12) * np.sqrt(supplied)
    cbf = perfusion.cbf + brain.vessel * (vessel_cbf - perfusion.cbf)
    cbv = perfusion.cbv + brain.vessel * (vessel_cbv - perfusion.cbv)
    return lesions.Perfusion(cbf * brain.inside, cbv * brain.inside), facts


def _label(truth: PhantomTruth, volume_ratio: np.ndarray, tissue: np.ndarray, penumbra: bool) -> np.ndarray:
    """1 where flow is below 30% of the tissue's own; 2, if asked for, where it is not but transit is prolonged."""
    core = tissue & (truth.flow_ratio < lesions.CORE_FLOW_RATIO)
    label = core.astype(np.uint8)
    if penumbra:
        # MTT = CBV / CBF, so the ratio of transit times is the ratio of the ratios
        prolonged = volume_ratio > lesions.PENUMBRA_TRANSIT_RATIO * truth.flow_ratio
        label[tissue & prolonged & ~core] = 2
    return label


def _acquire(
    cbf: np.ndarray, cbv: np.ndarray, inside: np.ndarray, frame: ScanFrame, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Maps as a scanner and its deconvolution give them: blurred, biased, scaled by the arterial input, noisy."""
    point_spread, level = rng.uniform(0.8, 1.2), rng.uniform(0.35, 0.7)

    def blurred(array: np.ndarray, pixels: float) -> np.ndarray:
        return gaussian_filter(array, (pixels, pixels, 0))

    def correlated(pixels: float) -> np.ndarray:
        grain = blurred(rng.standard_normal(frame.shape), pixels)
        return grain / grain.std()

    bias = np.exp(0.06 * RandomFields(frame.axes_mm(fine=False), rng).draw(60))
    cbf, cbv = blurred(cbf, point_spread) * bias, blurred(cbv, point_spread) * bias
    shared = correlated(0.9)
    noisy_cbf = cbf + level * (rng.uniform(1.5, 2.8) * correlated(0.9) + 0.05 * cbf * shared)
    noisy_cbv = cbv + level * (rng.uniform(0.12, 0.24) * correlated(0.9) + 0.04 * cbv * shared)
    # transit is least certain where little flows
    mtt = 60 * np.maximum(noisy_cbv, 0.05) / np.maximum(noisy_cbf, 1.5)
    mtt = mtt + level * correlated(0.8) * np.clip(12 / np.maximum(cbf, 3), 0.25, 5)

    cbf_scale, cbv_scale = np.exp(rng.normal(0, (0.18, 0.12)))
    maps = {"cbf": noisy_cbf * cbf_scale, "cbv": noisy_cbv * cbv_scale}
    maps["mtt"] = np.minimum(mtt * cbv_scale / cbf_scale, MTT_MAX_S)
    return {
        name: (np.round(np.clip(array, 0, None) / STEPS[name]) * STEPS[name] * inside).astype(np.float32)
        for name, array in maps.items()
    }


def _store(case: PhantomCase, frame: ScanFrame, rng: np.random.Generator) -> PhantomCase:
    """The case with an affine as scanners write it: two in five oblique, axes in RAS, LPS, LAS or LPI order."""
    oblique = rng.random() < 0.4
    angles = rng.uniform((4, -3, -3), (15, 3, 3)) if oblique else np.zeros(3)
    codes = str(rng.choice(("RAS", "LPS", "LAS", "LPI"), p=(0.35, 0.4, 0.15, 0.1)))
    matrix = rotation_matrix(tuple(angles)) * np.array(frame.spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = np.round(rng.uniform(-20, 20, 3), 3) - matrix @ (np.array(frame.shape) - 1) / 2

    turn = ornt_transform(io_orientation(np.eye(4)), axcodes2ornt(codes))
    affine = affine @ inv_ornt_aff(turn, frame.shape)

    def stored(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(apply_orientation(array, turn))

    case.facts |= {"orientation": codes, "oblique_deg": [round(float(angle), 2) for angle in angles]}
    return PhantomCase(
        **{name: stored(getattr(case, name)) for name in (*CHANNELS, "label", "brain")},
        grid=Grid(frame.shape, affine),
        facts=case.facts,
        truth=PhantomTruth(**{name: stored(array) for name, array in vars(case.truth).items()}),
    )
