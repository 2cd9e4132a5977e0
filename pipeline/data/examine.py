"""One case looked at: its headers alone, or every voxel once; never an error, always a `CaseFingerprint`.

The reader, the rules of a stack and their messages are those with which a case is loaded for training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from pipeline.data.case_label import load_case_label, require_numbered
from pipeline.data.cases import Case
from pipeline.data.exchanged import require_no_image
from pipeline.data.file_digests import file_state
from pipeline.data.fingerprint import MANY_IDS, CaseFingerprint, ChannelFingerprint, LabelFingerprint
from pipeline.data.intensities import absurd_voxels, background_value, body_shape, intensities, miniature, of_values
from pipeline.data.label import require_label_grid
from pipeline.data.onto_grid import covered_share
from pipeline.data.stack import (
    LEAST_OVERLAP,
    absence_remarks,
    copy_remarks,
    present_files,
    require_own_label,
    resampling_remark,
    void_once_resampled,
    void_remark,
)
from pipeline.data.stack_rules import StackRules
from pipeline.errors import DataError, PipelineError
from pipeline.geometry import Grid
from pipeline.io import Volume, is_section, read_header, read_image, read_image_grid, section_of
from pipeline.io.policy import ReadPolicy
from pipeline.io.stream import cannot

_MOST_FOREGROUND = 500_000


def file_states(case: Case) -> dict[str, str]:
    """What each file of a case is to it, and its path -> its `file_state`; empty text where it can't be told."""
    named = {f"image {name}": path for name, path in case.image.items()} | ({"label": case.label} if case.label else {})
    state = {}
    for role, path in named.items():
        try:
            state[f"{role}: {path}"] = file_state(section_of(path)[0])
        except (OSError, ValueError):  # ValueError: what is no path
            state[f"{role}: {path}"] = ""
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
        except OSError as error:
            self.refusals.append(str(cannot(error, Path(error.filename or ""), "read").for_case(self.case_id)))

    @property
    def refusal(self) -> str | None:
        return "\n".join(self.refusals) or None


def examine_headers(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    """What headers tell: files that are none, spaces that are none, channels and labels on grids that do not fit.

    Takes less than a millisecond per file; damaged or odd voxels stay unseen.

    Args:
        channels: names in the order of the stack; the first that a case has is its reference.
    """
    record = _Record(case.case_id)
    files = _files(case, channels, rules, record)
    grids: dict[str, Grid] = {}
    repairs: dict[str, tuple[str, ...]] = {}
    for name, path in files.items():
        with record.refusing():
            grids[name], repairs[name], _ = _header(path, rules.policy_of(name))
            record.repairs += [f"{name}: {repair}" for repair in repairs[name]]
    grid = grids.get(next(iter(files), ""))
    if grid is not None:
        _compare_grids(files, grids, repairs, grid, rules, record)
        if case.label is not None:
            with record.refusing():
                require_own_label(case.label, files.values())
                remark = require_label_grid(case.label, _header(case.label, rules.label_policy)[0], grid)
                record.repairs += [remark] if remark else []
    return CaseFingerprint(
        case.case_id, grid, repairs=tuple(record.repairs), refusal=record.refusal, file_state=file_states(case)
    )


def examine_voxels(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    """All that is to be known of a case, from every voxel, each file read once."""
    state = file_states(case)  # before reading: a file that changes meanwhile is read again the next time
    try:
        return replace(_examined(case, channels, rules), file_state=state)
    except MemoryError:
        found = "a case that does not fit into memory"
        error = DataError(found, case=case.case_id, fix="give fewer --jobs, or use a machine with more memory")
        return CaseFingerprint(case.case_id, None, refusal=str(error), file_state=state)


def _examined(case: Case, channels: Sequence[str], rules: StackRules) -> CaseFingerprint:
    record = _Record(case.case_id)
    files = _files(case, channels, rules, record)
    volumes: dict[str, Volume] = {}
    for name, path in files.items():
        with record.refusing():
            volumes[name] = read_image(path, policy=rules.policy_of(name))
            record.repairs += [f"{name}: {repair}" for repair in volumes[name].repairs]
    reference = volumes.get(next(iter(files), ""))
    grid = reference.grid if reference is not None else None
    ids, label = None, None
    if grid is not None:
        grids = {name: volume.grid for name, volume in volumes.items()}
        _compare_grids(files, grids, {name: volume.repairs for name, volume in volumes.items()}, grid, rules, record)
        if case.label is not None:
            with record.refusing():
                require_own_label(case.label, files.values())
                read = load_case_label(case.label, grid, rules)
                require_numbered(read, case.label)
                said = read.classes.repairs
                record.repairs += [text if text.startswith("label: ") else f"label: {text}" for text in said]
                ids = read.classes.array[0]
                label = _label(str(case.label), ids, grid)
                as_stored = label if read.instances is None else _label(str(case.label), read.instances[0], grid)
                shown = ids if read.instances is None else read.instances[0]
                require_no_image(as_stored, shown, {name: volume.array for name, volume in volumes.items()})
                if read.instances is not None:
                    objects = sum(number > 0 and count > 0 for number, count in as_stored.voxels.items())
                    label = replace(label, components=dict.fromkeys(label.components, objects))
    measured = {}
    for name, volume in volumes.items():
        with record.refusing():
            measured[name] = _channel(name, files[name], volume, ids, grid, rules, record)
            if grid is not None and _is_resampled(volume.grid, grid, rules) and measured[name].all_voxels.std > 0:
                void = void_once_resampled(name, files[name], volume, grid, rules, next(iter(files)))
                record.repairs += [void] if void else []
    inner = None
    if reference is not None:
        inner = body_shape(reference.array, background_value(reference.array))
    return CaseFingerprint(
        case.case_id, grid, inner, measured, label, tuple(record.repairs), tuple(record.warnings), record.refusal
    )


def _files(case: Case, channels: Sequence[str], rules: StackRules, record: _Record) -> dict[str, Path]:
    """The channels that the case has, absent ones noted; what is there is looked at even where one is missing."""
    if case.problem is not None:
        fix = "correct it, or take it out of the dataset"
        record.refusals.append(str(DataError(case.problem, case=case.case_id, expected="a file per channel", fix=fix)))
        return {}
    paths = {name: case.image.get(name) for name in channels}
    files = {name: path for name, path in paths.items() if path is not None}
    with record.refusing():
        present_files(paths, rules)
        record.warnings += copy_remarks(files, rules)
        record.repairs += absence_remarks(paths, files)
    return files


def _header(path: Path, policy: ReadPolicy) -> tuple[Grid, tuple[str, ...], str]:
    """Grid, what was put right, and the type of the stored values."""
    if is_section(path):
        return read_image_grid(path), (), section_of(path)[0].suffix.lower().lstrip(".")
    header = read_header(path, policy)
    return header.grid, header.repairs, header.dtype.name


def _compare_grids(
    files: Mapping[str, Path],
    grids: Mapping[str, Grid],
    repairs: Mapping[str, tuple[str, ...]],
    grid: Grid,
    rules: StackRules,
    record: _Record,
) -> None:
    reference = next(iter(grids))
    for name, own in grids.items():
        if not grid.same_grid(own):
            with record.refusing():
                record.repairs.append(
                    resampling_remark(name, files[name], own, reference, grid, rules.on_other_grid, repairs[name])
                )


def _is_resampled(own: Grid, grid: Grid, rules: StackRules) -> bool:
    """Whether a channel is brought from its ``own`` grid onto that of the reference, and not refused for it."""
    if grid.same_grid(own) or len(own.shape) != 3 or len(grid.shape) != 3 or rules.on_other_grid == "refuse":
        return False
    return covered_share(grid, own) >= LEAST_OVERLAP


def _channel(
    name: str,
    file: Path,
    volume: Volume,
    ids: np.ndarray | None,
    grid: Grid | None,
    rules: StackRules,
    record: _Record,
) -> ChannelFingerprint:
    array = volume.array
    everything, body = intensities(array, background_value(array))
    void = void_remark(name, file, array, rules)
    if void is not None:
        record.repairs.append(void)
    main = body or everything
    absurd = absurd_voxels(array, main)
    if absurd:
        record.warnings.append(
            f"{name}: {absurd} voxel{'s' if absurd > 1 else ''} far from all others (values from "
            f"{everything.minimum:.4g} to {everything.maximum:.4g}, 99% of the body from {main.percentiles[0]:.4g} to "
            f"{main.percentiles[-1]:.4g}): damaged, or burnt-in?"
        )
    if void is None and main.percentiles[0] == main.percentiles[-1]:
        record.warnings.append(f"{name}: 99% of the body is {main.percentiles[0]:.6g}: there is hardly anything to see")
    foreground = None
    if ids is not None and grid is not None:
        foreground = of_values(_under_label(volume, ids, grid))
    small = miniature(array, volume.grid.affine) if array.ndim == 3 else b""
    stored = _header(file, rules.policy_of(name))[2]
    return ChannelFingerprint(str(file), volume.grid, stored, everything, body, foreground, absurd, small)


def _under_label(volume: Volume, ids: np.ndarray, grid: Grid) -> np.ndarray:
    """The channel's values where the label is above 0; of a channel on another grid at those places that it covers."""
    if grid.same_grid(volume.grid):
        return volume.array[ids > 0]
    places = np.argwhere(ids > 0)
    places = places[:: max(1, -(-len(places) // _MOST_FOREGROUND))]
    to_volume = np.linalg.inv(volume.grid.affine) @ grid.affine
    index = places @ to_volume[:3, :3].T + to_volume[:3, 3]
    inside = (index > -0.5) & (index < np.array(volume.grid.shape) - 0.5)
    return ndimage.map_coordinates(volume.array, index[inside.all(axis=1)].T, np.float32, order=1, mode="nearest")


def _label(file: str, ids: np.ndarray, grid: Grid) -> LabelFingerprint:
    found, counts = np.unique(ids, return_counts=True)
    voxels = {0: 0} | {int(label): int(count) for label, count in zip(found, counts, strict=True)}
    if len(voxels) > MANY_IDS + 1 or len(voxels) == 1:
        return LabelFingerprint(file, voxels, {})
    box = ndimage.find_objects((ids != 0).astype(np.uint8))[0]
    number = np.searchsorted(found, ids[box]).astype(np.int32) + 1  # whatever the ids are, from 1 on
    connected = np.ones((3,) * ids.ndim)
    components, centres = {}, {}
    for label, own_box in zip(found.tolist(), ndimage.find_objects(number, len(found)), strict=True):
        if label == 0:
            continue
        own = number[own_box] == np.searchsorted(found, label) + 1
        components[label] = int(ndimage.label(own, connected)[1])
        if ids.ndim == 3:
            start = [outer.start + inner.start for outer, inner in zip(box, own_box, strict=True)]
            centres[label] = _centre(own, start, grid)
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
