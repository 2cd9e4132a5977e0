"""One case looked at: its headers alone, or every voxel once; never an error, always a `CaseFingerprint`.

The reader, the rules of a stack and their messages are those with which a case is loaded for training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from pipeline.data.cases import Case
from pipeline.data.fingerprint import CaseFingerprint, ChannelFingerprint, LabelFingerprint
from pipeline.data.intensities import absurd_voxels, background_value, body_shape, intensities, miniature, of_values
from pipeline.data.stack import StackRules, load_label, require_label_grid, resampling_remark
from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid
from pipeline.io import Volume, read_image, read_image_grid, section_of

_MOST_FOREGROUND = 500_000
_MANY_IDS = 64
"""A segmentation has fewer classes than this; an image that is taken for one has more values."""


def file_state(case: Case) -> dict[str, tuple[int, int]]:
    """Path -> (size, modification time in ns) of each file of a case; (-1, 0) where there is none."""
    state = {}
    for path in (*case.image.values(), *([case.label] if case.label else [])):
        file = section_of(path)[0]
        try:
            found = file.stat()
            state[str(path)] = (found.st_size, found.st_mtime_ns)
        except OSError:
            state[str(path)] = (-1, 0)
    return state


@dataclass
class _Record:
    """What is found out about a case, in order."""

    case_id: str
    repairs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Notes why something can't be used, and lets the rest of the case be looked at."""
        try:
            yield
        except PipelineError as error:
            self.refusals.append(str(error.for_case(self.case_id)))

    @property
    def refusal(self) -> str | None:
        return "\n".join(self.refusals) or None


def examine_headers(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    """What headers tell: files that are none, spaces that are none, channels and labels on grids that do not fit.

    Takes less than a millisecond per file; damaged or odd voxels stay unseen.

    Args:
        channels: names in the order of the stack; the first is the reference.
    """
    record = _Record(case.case_id)
    grids: dict[str, Grid] = {}
    for name in _present(case, channels, rules, record):
        with record.refusing():
            grids[name] = read_image_grid(case.image[name])
    grid = grids.get(channels[0])
    if grid is not None:
        _compare_grids(case, grids, grid, rules, record)
        if case.label is not None:
            with record.refusing():
                require_label_grid(case.label, read_image_grid(case.label), grid)
    return CaseFingerprint(
        case.case_id, grid, repairs=tuple(record.repairs), refusal=record.refusal, file_state=file_state(case)
    )


def examine_voxels(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    """All that is to be known of a case, from every voxel, each file read once."""
    state = file_state(case)  # before reading: a file that changes meanwhile is read again the next time
    try:
        return replace(_examined(case, channels, rules), file_state=state)
    except MemoryError:
        found = "a case that does not fit into memory"
        error = DataError(found, case=case.case_id, fix="give fewer --jobs, or use a machine with more memory")
        return CaseFingerprint(case.case_id, None, refusal=str(error), file_state=state)


def _examined(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    record = _Record(case.case_id)
    volumes: dict[str, Volume] = {}
    for name in _present(case, channels, rules, record):
        with record.refusing():
            volumes[name] = read_image(case.image[name])
            record.repairs += [f"{name}: {repair}" for repair in volumes[name].repairs]
    reference = volumes.get(channels[0])
    grid = reference.grid if reference is not None else None
    ids, label = None, None
    if grid is not None:
        _compare_grids(case, {name: volume.grid for name, volume in volumes.items()}, grid, rules, record)
        if case.label is not None:
            with record.refusing():
                read = load_label(case.label, grid, rules.labels, rules.label_values)
                record.repairs += [repair for repair in read.repairs if repair not in record.repairs]
                ids = read.array[0]
                label = _label(str(case.label), ids, grid, record)
    measured = {}
    for name, volume in volumes.items():
        with record.refusing():
            measured[name] = _channel(name, str(case.image[name]), volume, ids, grid, record)
    inner = None
    if reference is not None:
        inner = body_shape(reference.array, background_value(reference.array))
    return CaseFingerprint(
        case.case_id, grid, inner, measured, label, tuple(record.repairs), tuple(record.warnings), record.refusal
    )


def _present(case: Case, channels: Sequence[str], rules: StackRules, record: _Record) -> list[str]:
    """The channels that the case has, the missing ones noted."""
    missing = [name for name in channels if name not in case.image]
    if missing and (rules.missing_channels == "refuse" or channels[0] in missing):
        with record.refusing():
            raise DataError(
                f"the channels {', '.join(case.image) or '(none)'}; no {', '.join(missing)}",
                expected=", ".join(channels),
                fix="add the missing files",
            )
    elif missing:
        record.repairs += [f"{name}: missing, taken as 0" for name in missing]
    return [name for name in channels if name in case.image]


def _compare_grids(case: Case, grids: dict[str, Grid], grid: Grid, rules: StackRules, record: _Record) -> None:
    reference = next(iter(grids))
    for name, own in grids.items():
        if not grid.same_grid(own):
            with record.refusing():
                remark = resampling_remark(name, case.image[name], own, reference, grid, rules.on_other_grid)
                record.repairs.append(remark)


def _channel(
    name: str, file: str, volume: Volume, ids: np.ndarray | None, grid: Grid | None, record: _Record
) -> ChannelFingerprint:
    array = volume.array
    background = background_value(array)
    everything, body = intensities(array, background)
    if everything.minimum == everything.maximum:
        raise DataError(
            f"no contrast: every voxel is {everything.minimum:.6g} in channel {name}",
            file=file,
            expected="an image",
            fix="export the channel again, or leave the case out",
        )
    main = body or everything
    absurd = absurd_voxels(array, main)
    if absurd:
        record.warnings.append(
            f"{name}: {absurd} voxel{'s' if absurd > 1 else ''} far from all others (values from "
            f"{everything.minimum:.4g} to {everything.maximum:.4g}, 99% of the body from {main.percentiles[0]:.4g} to "
            f"{main.percentiles[-1]:.4g}): damaged, or burnt-in?"
        )
    if main.percentiles[0] == main.percentiles[-1]:
        record.warnings.append(f"{name}: 99% of the body is {main.percentiles[0]:.6g}: there is hardly anything to see")
    foreground = None
    if ids is not None and grid is not None:
        foreground = of_values(_under_label(volume, ids, grid))
    small = miniature(array, volume.grid.affine) if array.ndim == 3 else b""
    return ChannelFingerprint(file, volume.grid, _stored(file), everything, body, foreground, absurd, small)


def _under_label(volume: Volume, ids: np.ndarray, grid: Grid) -> np.ndarray:
    """The channel's values where the label is above 0; of a channel on another grid interpolated as loading does."""
    if grid.same_grid(volume.grid):
        return volume.array[ids > 0]
    places = np.argwhere(ids > 0)
    places = places[:: max(1, -(-len(places) // _MOST_FOREGROUND))]
    to_volume = np.linalg.inv(volume.grid.affine) @ grid.affine
    index = places @ to_volume[:3, :3].T + to_volume[:3, 3]
    outside = float(volume.array.min())
    return ndimage.map_coordinates(volume.array, index.T, np.float32, order=1, mode="grid-constant", cval=outside)


def _label(file: str, ids: np.ndarray, grid: Grid, record: _Record) -> LabelFingerprint:
    found, counts = np.unique(ids, return_counts=True)
    voxels = {int(label): int(count) for label, count in zip(found, counts, strict=True)}
    voxels = {0: 0} | voxels
    classes = [label for label in voxels if label != 0]
    if len(classes) > _MANY_IDS:
        record.warnings.append(
            f"label: {len(classes)} different ids ({classes[0]} to {classes[-1]}): an image in the label's place?"
        )
        return LabelFingerprint(file, voxels, {})
    if not classes:
        return LabelFingerprint(file, voxels, {})
    box = ndimage.find_objects((ids != 0).astype(np.uint8))[0]
    inside = ids[box]
    connected = np.ones((3,) * ids.ndim)
    components, centres = {}, {}
    for label in classes:
        own = inside == label
        components[label] = int(ndimage.label(own, connected)[1])
        if ids.ndim == 3:
            centres[label] = _centre(own, [side.start for side in box], grid)
    sides = tuple((side.stop - side.start) * spacing for side, spacing in zip(box, grid.spacing_mm, strict=True))
    return LabelFingerprint(file, voxels, components, sides, centres)


def _centre(own: np.ndarray, start: Sequence[int], grid: Grid) -> tuple[float, ...]:
    """Centre of mass in the volume's box, from 0 (left, back, bottom) to 1 (right, front, top)."""
    from nibabel.orientations import io_orientation

    total, result = np.count_nonzero(own), [0.0, 0.0, 0.0]
    for axis, (world, direction) in enumerate(io_orientation(grid.affine)):
        along = np.count_nonzero(own, axis=tuple(other for other in range(3) if other != axis))
        place = (float(along @ np.arange(len(along))) / total + start[axis] + 0.5) / grid.shape[axis]
        result[int(world)] = place if direction > 0 else 1 - place
    return tuple(result)


def _stored(file: str) -> str:
    return Path(file).suffix
