"""What is known of a dataset after it was read once: per case its grids, intensities, label volumes, repairs, refusals.

The doctor (`pipeline check`) makes a fingerprint, `pipeline init` plans from it, and it is kept, so that no case is
read twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.geometry import Grid

PERCENTILES = (0.5, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5)
MINIATURE_SIDE = 12
MANY_IDS = 256
"""A segmentation has no more classes than this; of the ids of more, pieces and centres are not kept."""


@dataclass(frozen=True)
class IntensityFingerprint:
    """Of some voxels of one channel.

    Args:
        count: how many voxels.
        minimum, maximum, mean, std: of the values of all of them.
        percentiles: at `PERCENTILES`, of a regular sample of a million where there are more.
    """

    count: int
    minimum: float
    maximum: float
    mean: float
    std: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ChannelFingerprint:
    """One channel of one case.

    Args:
        file: its path.
        grid: its own, before it is brought onto the reference channel's.
        stored: type of the stored values, such as ``"int16"``.
        all_voxels: intensities of the whole volume.
        body: of the voxels that are not the most frequent lowest value (air, or what a skull strip left); None where
            there is none.
        foreground: of the voxels with a label above 0, on the label's grid; None without a label.
        absurd: voxels so far from all others that they must be damage, such as 1e30.
        miniature: the volume at `MINIATURE_SIDE` voxels per side, RAS+, one byte each between its percentiles 1 and 99;
            empty for a section. It tells a copy or a mirror image from its peers.
    """

    file: str
    grid: Grid
    stored: str
    all_voxels: IntensityFingerprint
    body: IntensityFingerprint | None = None
    foreground: IntensityFingerprint | None = None
    absurd: int = 0
    miniature: bytes = b""


@dataclass(frozen=True, eq=False)
class LabelFingerprint:
    """The reference segmentation of one case.

    Args:
        file: its path.
        voxels: id -> how many voxels, the background (0) included.
        components: id -> number of 26-connected components, of objects where the label numbers them; without the
            background.
        box_mm: sides of the bounding box of everything above 0; None where nothing is.
        centres: id -> centre of its voxels in the volume's box, from 0 (left, back, bottom) to 1 (right, front, top);
            without the background, empty for a section.
    """

    file: str
    voxels: dict[int, int]
    components: dict[int, int]
    box_mm: tuple[float, ...] | None = None
    centres: dict[int, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CaseFingerprint:
    """One case.

    Args:
        case_id: its id.
        grid: of the reference channel (the first); None where it could not be read.
        body_shape: voxels of the bounding box of the body in the reference channel; None where it could not be read.
        channels: name -> what it holds; empty where the case is refused before its voxels were read.
        label: None without one.
        repairs: what was put right or assumed, one sentence each.
        warnings: what is odd but usable, one sentence each.
        refusal: why the case can't be used, as it is said to the user, a line per reason; None where it can.
        file_state: what a file is to the case, and its path -> `pipeline.data.file_digests.file_state`, empty where
            there is no such file: what was read is still current while they are equal.
    """

    case_id: str
    grid: Grid | None
    body_shape: tuple[int, ...] | None = None
    channels: dict[str, ChannelFingerprint] = field(default_factory=dict)
    label: LabelFingerprint | None = None
    repairs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str | None = None
    file_state: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetFingerprint:
    """All cases of a dataset, those that were refused included.

    Args:
        dataset_dir: where it lies.
        layout: how its files were found, such as ``"decathlon"``.
        channel_names: in the order of the stack.
        classes: id -> name, of the labels; empty where nothing says what they are.
        cases: sorted by id.
    """

    dataset_dir: str
    layout: str
    channel_names: tuple[str, ...]
    classes: dict[int, str]
    cases: tuple[CaseFingerprint, ...]

    @property
    def usable(self) -> tuple[CaseFingerprint, ...]:
        return tuple(case for case in self.cases if case.refusal is None)

    def spacings_mm(self) -> np.ndarray:
        """Of the usable cases' reference grids, (N, 3)."""
        return np.array([case.grid.spacing_mm for case in self.usable if case.grid is not None])

    def shapes(self) -> np.ndarray:
        """Of the usable cases' reference grids, (N, 3)."""
        return np.array([case.grid.shape for case in self.usable if case.grid is not None])
