"""The phantom's brain: grey and white matter, fluid, vessels, and which artery feeds what.

A brain is described by signed depths below surfaces, in mm: the convexity, the temporal lobes, the tentorium with the
cerebellum below it, the brain stem. Sulci are the zero sheets of a random field, going in from the surface to a depth
of their own; so the folding of the two sides differs, as it does in people, and no mirror matches them voxel by voxel.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.special import expit

from pipeline.data.phantom_fields import RandomFields, ScanFrame, length_of

# Centres along the course of each artery's branches, (|x|, y, z) in mm: tissue belongs to the nearest one, roughly as
# in atlases of the arterial territories; the noise on the distance makes the watersheds irregular.
ARTERIES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "ACA": ((4, 62, 6), (4, 50, 36), (6, 20, 62), (6, -18, 66)),
    "MCA superior": ((48, 30, 12), (54, 6, 30), (46, 14, 48), (50, -14, 44)),
    "MCA inferior": ((54, 0, -14), (58, -30, 4), (52, -46, 24), (46, 24, -26)),
    "MCA deep": ((21, 10, 6), (24, -4, 14)),
    "PCA": ((8, -74, 8), (12, -58, 28), (30, -60, -10), (26, -26, -20), (10, -16, 6)),
}
CISTERN_MM = 2.0  # fluid around the brain that skull stripping leaves
SLAB_ROWS = 20


@dataclass
class Brain:
    """A healthy brain on the fine grid of its frame; all arrays (H, W, fine D).

    Args:
        x, y, z: position in the head, mm.
        inside: brain, fluid spaces included.
        grey, white, fluid: share of each tissue in the voxel, 0 to 1, adding up to 1 inside the brain.
        ventricle: share of ventricle (part of ``fluid``).
        vessel: share of large vessels, 0 to 1.
        cerebellum: below the tentorium.
        artery_distance: artery -> mm to its nearest branch, watershed noise included.
    """

    frame: ScanFrame
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    inside: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    fluid: np.ndarray
    ventricle: np.ndarray
    vessel: np.ndarray
    cerebellum: np.ndarray
    artery_distance: dict[str, np.ndarray]

    def territory_depth(self, arteries: tuple[str, ...], side: int) -> np.ndarray:
        """How far (mm) a voxel lies inside the territory of ``arteries`` on a side (+1 right); negative outside."""
        own = reduce(np.minimum, (self.artery_distance[name] for name in arteries))
        others = reduce(np.minimum, (d for name, d in self.artery_distance.items() if name not in arteries))
        depth = np.minimum((others - own) / 2, side * self.x)
        return np.where(self.cerebellum, -20.0, depth)


def grow_brain(frame: ScanFrame, rng: np.random.Generator) -> Brain:
    """A new brain: every size, fold, ventricle and watershed drawn from a copy of ``rng``."""
    fields = RandomFields(frame.axes_mm(), rng)
    x, y, z = frame.head_coordinates()
    # A few rows at a time, which fit into a core's cache. Each draws the same numbers.
    parts = [
        _grow(x[rows], y[rows], z[rows], fields.part(rows, deepcopy(rng)))
        for rows in (slice(first, min(first + SLAB_ROWS, len(x))) for first in range(0, len(x), SLAB_ROWS))
    ]
    tissues = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    artery_distance = {name: tissues.pop(name) for name in ARTERIES}
    return Brain(frame=frame, x=x, y=y, z=z, artery_distance=artery_distance, **tissues)


def _grow(x, y, z, fields: RandomFields) -> dict[str, np.ndarray]:
    """What `Brain` says of each voxel, and the distance from every artery by its name."""
    rng = fields.rng
    lateral = np.abs(x)

    cerebrum, cerebellum, stem = _depths(lateral, y, z, fields, rng)
    depth = np.maximum(np.maximum(cerebrum, cerebellum), stem)
    inside = depth > -CISTERN_MM
    below_tentorium = inside & (np.maximum(cerebellum, stem) >= cerebrum)

    atrophy_mm = rng.uniform(0.3, 1.3)
    cortex_mm = 2.8 + 0.4 * fields.draw(15)
    from_fluid = np.minimum(_folding(depth, fields), _fissures(x, y, z, fields))
    from_fluid = np.where(below_tentorium, depth, np.minimum(depth, from_fluid))
    cortex_mm = np.where(below_tentorium, np.where(cerebellum > stem, 7 + 2.5 * fields.draw(4), 0.5), cortex_mm)

    fluid = _share(atrophy_mm - from_fluid)
    grey = np.maximum(_share(atrophy_mm + cortex_mm - from_fluid), _deep_grey(lateral, y, z, fields))
    grey = np.where(below_tentorium & (stem > cerebellum), 0.45, grey)
    ventricle = _ventricles(x, y, z, fields, rng)
    fluid = np.maximum(fluid, ventricle) * inside
    grey = np.clip(grey, 0, 1 - fluid) * inside
    return {
        "inside": inside,
        "grey": grey,
        "white": (1 - fluid - grey) * inside,
        "fluid": fluid,
        "ventricle": ventricle * inside,
        "vessel": _vessels(x, y, z, depth, fluid - ventricle, fields) * inside,
        "cerebellum": below_tentorium,
        **_artery_distances(lateral, y, z, fields),
    }


def _share(signed_mm: np.ndarray) -> np.ndarray:
    """Share of a voxel beyond a surface at a signed distance: linear over about one pixel."""
    return np.clip(signed_mm / 1.2 + 0.5, 0, 1)


def _ellipsoid(x, y, z, centre, radii) -> np.ndarray:
    """Squared radius relative to an ellipsoid: 0 in its centre, 1 on its surface."""
    total = ((x - centre[0]) / radii[0]) ** 2
    total = total + ((y - centre[1]) / radii[1]) ** 2
    return total + ((z - centre[2]) / radii[2]) ** 2


def _depths(lateral, y, z, fields, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed depth (mm) inside cerebrum, cerebellum and brain stem."""
    half_width, half_length, top, bottom = rng.uniform((61, 77, 72, 58), (67, 84, 80, 64))
    across = (lateral / half_width) ** 2 * (1 + 0.28 * np.clip(y / half_length, 0, 1) ** 2)
    along = (y / half_length) ** 2
    # the exponent 2.5 makes the outline fuller than an ellipse
    across, along = across * np.sqrt(np.sqrt(across)), along * np.sqrt(np.sqrt(along))
    radius = np.sqrt(across + along + (z / np.where(z > 0, top, bottom)) ** 2)
    convexity = (1 - radius) * 66 + 1.3 * fields.draw(25)

    rough = 1.5 * fields.draw(14)
    # the tent over the cerebellum: high in the midline, falling to the sides and the back, open in front
    tentorium = -4 - 0.40 * lateral + 0.22 * (y + 20) - 3 * np.clip(y + 22, 0, None) + rough
    frontal_floor = z + 21 + 0.12 * lateral
    temporal_lobes = (1 - np.sqrt(_ellipsoid(lateral, y, z, (40, 3, -26), (23, 37, 32)))) * 23
    floor = np.maximum(np.maximum(frontal_floor, temporal_lobes), -18 - y) + rough
    cerebrum = np.minimum(np.minimum(convexity, floor), 0.8 * (z - tentorium))
    fossa = (1 - np.sqrt(_ellipsoid(lateral, y, z, (0, -47, -38), (52, 32, 34)))) * 36
    fossa = np.minimum(np.minimum(fossa, convexity + 6), 0.8 * (tentorium - z) - 1.5)
    stem = np.minimum((1 - np.sqrt((lateral / 15) ** 2 + ((y + 19) / 13) ** 2)) * 13, -2 - z)
    return cerebrum, fossa, stem


def _folding(depth, fields) -> np.ndarray:
    """Distance (mm) from the nearest sulcus: the zero sheets of a field, which end at a depth that varies."""
    field, gradient = fields.draw_with_gradient(7.2)
    slope = sum(np.square(g) for g in gradient)
    return np.abs(field) / np.sqrt(slope + 0.012) + np.clip(depth - (18 + 6 * fields.draw(18)), 0, None) * 0.9


def _fissures(x, y, z, fields) -> np.ndarray:
    """Distance (mm) from the interhemispheric and the two Sylvian fissures, wide as a sulcus where they are open."""
    lateral = np.abs(x)
    wave = fields.draw(12)
    corpus_callosum = np.clip(1 - np.sqrt(((y - 0) / 38) ** 2 + ((z - 4) / 27) ** 2), 0, None) * 40
    midline = np.abs(x + 1.2 * fields.draw(20)) + corpus_callosum
    # the cistern over the insula, and the cleft that opens from it, forward and outward, to the surface
    insula = np.sqrt(((y - 2) / 24) ** 2 + ((z - 4) / 19) ** 2)
    over_insula = np.abs(lateral - 37 + 4.5 * insula**2 - 1.2 * wave) + np.clip(insula - 0.85, 0, None) * 22
    cleft_line = 17 - 0.9 * (z - 2) + 0.35 * (lateral - 38) + 3.5 * wave
    outside_cleft = np.clip(33 - lateral, 0, None) + 0.5 * np.clip(np.abs(z - 2) - 15, 0, None)
    cleft = 0.6 * np.abs(y - cleft_line) + outside_cleft
    return np.minimum(midline, np.minimum(over_insula, cleft) - 0.7)


def _deep_grey(lateral, y, z, fields) -> np.ndarray:
    """Share of caudate, lentiform nucleus and thalamus."""
    uneven = 0.10 * fields.draw(8)
    nuclei = reduce(
        np.minimum,
        (
            _ellipsoid(lateral, y, z, (13.5, 21, 9), (5, 9, 12)),
            _ellipsoid(lateral - 0.15 * np.abs(y - 8), y, z, (24, 8, 3), (6.5, 16, 12)),
            _ellipsoid(lateral, y, z, (10.5, -13, 6), (8.5, 13, 10)),
        ),
    )
    return np.clip((1 + uneven - nuclei) * 3 + 0.5, 0, 1)


def _ventricles(x, y, z, fields, rng) -> np.ndarray:
    """Share of the lateral ventricles (bodies, horns), each side with a size of its own, and of the third."""
    size = rng.uniform(0.65, 1.5)
    left, right = size * rng.uniform(0.8, 1.25, 2)
    lateral, wide = np.abs(x), np.where(x > 0, right, left)
    uneven = 0.14 * fields.draw(14)
    tall = 7.5 * np.sqrt(wide)
    long = np.square(np.square((y - 2) / 34))  # numpy's ** 4 takes ten times as long
    body = ((lateral - 6 - 0.0028 * (y + 5) ** 2) / (3.8 * wide)) ** 2 + long
    body = body + ((z - 17 - 0.03 * y) / tall) ** 2
    atrium = _ellipsoid((lateral - 19 - 0.25 * (z - 10)) / wide, y, z, (0, -34, 8), (4.4, 17, 10))
    third = _ellipsoid(lateral, y, z, (0, -8, -2), (2.0 * size, 15, 11))
    fourth = _ellipsoid(lateral, y, z, (0, -34, -32), (6.5, 5, 9))
    nearest = np.minimum(np.minimum(body, atrium), np.minimum(third, fourth))
    return np.clip((1 + uneven - nearest) * 2 + 0.5, 0, 1)


def _vessels(x, y, z, depth, sulcal_fluid, fields) -> np.ndarray:
    """Share of dural sinuses, of the trunks at the base, and of the branches that run in sulci."""
    lateral = np.abs(x)
    sagittal_sinus = (4.5 - length_of(lateral * 1.3, depth)) * (y < 25)
    middle_cerebral = np.where(
        (lateral > 5) & (lateral < 36), 2.2 - length_of(y - 6 - 0.015 * (lateral - 16) ** 2, z + 11 - 0.2 * lateral), -1
    )
    anterior_cerebral = np.where(z < 26, 2.4 - length_of(lateral, y - 37 - 0.15 * z), -1)
    trunks = np.maximum(sagittal_sinus, np.maximum(middle_cerebral, anterior_cerebral))
    branches = np.clip(sulcal_fluid, 0, 1) * expit((fields.draw(3.4) - 2.1) * 6)
    return np.maximum(np.clip(trunks / 1.2, 0, 1), branches)


def _artery_distances(lateral, y, z, fields) -> dict[str, np.ndarray]:
    """Artery -> distance (mm) from its nearest branch centre, with a noise of its own on every artery."""
    position = np.stack((lateral, y, z, np.ones_like(z))).reshape(4, -1)
    norm = lateral**2 + y**2 + z**2
    result = {}
    for name, branches in ARTERIES.items():
        centres = np.array(branches, dtype=np.float64)
        # |p - c|^2 = |p|^2 + (|c|^2 - 2 p.c), and |p|^2 is the same for all
        relative = np.column_stack((-2 * centres, np.square(centres).sum(axis=1))) @ position
        nearest = reduce(np.minimum, relative).reshape(norm.shape)
        # deep perforators reach less far than cortical branches
        reach = 9.0 if name == "MCA deep" else 0.0
        result[name] = np.sqrt(np.maximum(norm + nearest, 0)) + reach + 5 * fields.draw(17) + 1.8 * fields.draw(7)
    return result
