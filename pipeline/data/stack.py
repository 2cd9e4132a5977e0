"""A case's files as one stack on one grid, and its label beside it; or the case is refused.

Loading for a network and the data doctor use the same functions, so that no case is judged twice in two ways. What a
grid alone decides stands apart (`resampling_remark`, `require_label_grid`): headers are enough for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike

import numpy as np

from pipeline.data.onto_grid import covered_share, on_grid, reordering
from pipeline.data.stack_rules import StackRules
from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io import Volume, read_image, read_image_grid, section_of
from pipeline.io.memory_order import copy_in_blocks
from pipeline.io.space import ORIENTATION_ASSUMED

LEAST_OVERLAP = 0.5
"""Share of the reference channel's voxels that another channel must cover to be resampled onto its grid."""


@dataclass(frozen=True, eq=False)
class Stack(Volume):
    """Channels (C, H, W, D) on one grid.

    Args:
        present: which of the channels there are; the others are 0 everywhere.
    """

    present: tuple[bool, ...] = ()


def load_stack(paths: Mapping[str, str | PathLike[str] | None], rules: StackRules | None = None) -> Stack:
    """Read channels into one array on the grid of the first that is there.

    A channel whose voxels are the same in another axis order is reordered. One on another grid in the same space is
    interpolated linearly (see `on_grid`), unless ``rules.on_other_grid`` is ``"refuse"``. Files are read in threads.

    Args:
        paths: channel -> file, in the order of the stack; None for a channel that is absent.
        rules: with ``missing_channels="zero"`` absent channels, and files that are 0 everywhere, become 0.

    Returns:
        Array (C, H, W, D) float32, of sections (C, H, W), the grid, and what was put right, each with the channel's
        name.

    Raises:
        DataError, GeometryError: as `read_image`; an absent or constant channel; a channel that covers less than half
            of the reference, or whose place in space is unknown; a section on another grid, always: it has no space
            in which it could be resampled.
    """
    rules = rules or StackRules()
    files = present_files(paths, rules)
    reference = next(iter(files))
    grid = read_image_grid(files[reference], rules.policy_of(reference))
    stack = np.zeros((len(paths), *grid.shape), np.float32)
    index = {name: number for number, name in enumerate(paths)}

    def fill(name: str) -> list[str]:
        volume = read_image(files[name], policy=rules.policy_of(name))
        remarks = [f"{name}: {repair}" for repair in volume.repairs]
        array, void = volume.array, void_remark(name, files[name], volume.array, rules)
        if void is None and not grid.same_grid(volume.grid):
            remarks.append(
                resampling_remark(name, files[name], volume.grid, reference, grid, rules.on_other_grid, volume.repairs)
            )
            array = on_grid(volume, grid)
            void = void_remark(name, files[name], array, rules, reference)
        if void is not None:
            return [*remarks, void]
        copy_in_blocks(stack[index[name]], array)
        return remarks

    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        remarks = list(pool.map(fill, files))
    repairs = [remark for channel in remarks for remark in channel]
    repairs += copy_remarks(files, rules)
    repairs += absence_remarks(paths, files)
    present = tuple(bool(channel.any()) for channel in stack)
    if not any(present):
        raise DataError("channels that are 0 everywhere", file=files[reference], expected="an image in one of them")
    return Stack(stack, grid, tuple(repairs), present)


def present_files(paths: Mapping[str, str | PathLike[str] | None], rules: StackRules) -> dict[str, str | PathLike[str]]:
    """The channels that have a file, in the order of the stack.

    Raises:
        DataError: an absent channel, unless the rules allow it; no channel at all.
    """
    if not paths:
        raise ConfigError("no channel", expected="at least one")
    files = {name: path for name, path in paths.items() if path is not None}
    absent = [name for name in paths if name not in files]
    if absent and (rules.missing_channels == "refuse" or not files):
        raise DataError(
            f"the channels {', '.join(files) or '(none)'}; no {', '.join(absent)}",
            expected=", ".join(paths),
            fix="add the missing files" + ("; or allow it: missing_channels=zero" if files else ""),
        )
    return files


def void_remark(
    name: str, path: str | PathLike[str] | None, array: np.ndarray, rules: StackRules, reference: str | None = None
) -> str | None:
    """What is said of a channel that is 0 everywhere, where a channel may be absent; None of one that shows something.

    Args:
        array: its voxels, as they are stored, or on the grid of the ``reference``: beyond it nothing counts.

    Raises:
        DataError: every voxel has one value, or all but one.
    """
    lowest, highest = float(array.min()), float(array.max())
    where = "" if reference is None else f" inside the box of {reference}"
    if lowest == highest == 0 and rules.missing_channels == "zero":
        return f"{name}: 0 everywhere{where}, so it counts as absent"
    but_one = min(np.count_nonzero(array > lowest), np.count_nonzero(array < highest)) < 2 < array.size
    if lowest == highest or but_one:
        each = "every voxel" if lowest == highest else "every voxel but one"
        usual = lowest if np.count_nonzero(array > lowest) < 2 else highest
        raise DataError(
            f"no contrast: {each} of channel {name}{where} is {usual:.6g}",
            file=path,
            expected="an image",
            fix="export the channel again, or leave the case out",
        )
    return None


def void_once_resampled(
    name: str, path: str | PathLike[str], volume: Volume, grid: Grid, rules: StackRules, reference: str
) -> str | None:
    """`void_remark` of a channel on the reference's grid, at the price of a few of its voxels where it shows something.

    Raises:
        DataError: as `void_remark`.
    """
    step = np.maximum(1, np.array(grid.shape) // 24)
    few = Grid(tuple(int(n) for n in (np.array(grid.shape) - 1) // step + 1), grid.affine @ np.diag([*step, 1.0]))
    drawn = on_grid(volume, few)
    if min(np.count_nonzero(drawn > drawn.min()), np.count_nonzero(drawn < drawn.max())) > 1:
        return None
    return void_remark(name, path, on_grid(volume, grid), rules, reference)


def require_own_label(label: str | PathLike[str], files: Iterable[str | PathLike[str]]) -> None:
    """Raises DataError where one file, under whatever name, or a copy of it is to be image and label."""
    if any(_same_content(label, file) for file in files):
        raise DataError("one file as image and as label", file=label, expected="a file for each")


def _same_content(one: str | PathLike[str], other: str | PathLike[str]) -> bool:
    """Whether two paths, or sections of files, lead to the same bytes; False where one can't be read."""
    (first, section), (second, another) = section_of(one), section_of(other)
    if section != another or not (os.path.isfile(first) and os.path.isfile(second)):
        return os.path.realpath(one) == os.path.realpath(other)
    try:
        if first.samefile(second):
            return True
        if first.stat().st_size != second.stat().st_size:
            return False
        with open(first, "rb") as left, open(second, "rb") as right:
            while (block := left.read(1 << 20)) == right.read(1 << 20):
                if not block:
                    return True
    except OSError:  # it is refused, with the reason, by whoever reads it as an image
        pass
    return False


def copy_remarks(files: Mapping[str, str | PathLike[str]], rules: StackRules) -> list[str]:
    """What is said of a file, or of a copy of it, that is two channels."""
    remarks, names = [], list(files)
    for number, name in enumerate(names):
        for other in names[:number]:
            volumes = rules.policy_of(name).volume, rules.policy_of(other).volume
            if volumes[0] == volumes[1] and _same_content(files[name], files[other]):
                remarks.append(f"{name}: the same file as {other}")
                break
    return remarks


def absence_remarks(
    paths: Mapping[str, str | PathLike[str] | None], files: Mapping[str, str | PathLike[str]]
) -> list[str]:
    """What is said of channels without a file."""
    absent = [name for name in paths if name not in files]
    remarks = [f"{name}: absent, 0 everywhere" for name in absent]
    if absent and absent[0] == next(iter(paths)):
        remarks.append(f"the grid is that of {next(iter(files))}")
    return remarks


def resampling_remark(
    name: str,
    path: str | PathLike[str],
    own: Grid,
    reference: str,
    grid: Grid,
    on_other_grid: str = "resample",
    repairs: Iterable[str] = (),
) -> str:
    """What is said of a channel that has to be brought from its ``own`` grid onto that of the reference channel.

    Args:
        repairs: of its header: where its place in space was assumed, it can't be brought to another place.

    Raises:
        GeometryError: it must not be, or covers less than half of the reference; a section on another grid.
    """
    if reordering(own, grid) is not None:
        return f"{name}: axes reordered from {own.orientation} to {grid.orientation}, every value kept"
    volumes = len(grid.shape) == len(own.shape) == 3
    covered = covered_share(grid, own) if volumes else 0.0
    assumed = any(repair.startswith(ORIENTATION_ASSUMED) for repair in repairs)
    if on_other_grid == "refuse" or covered < LEAST_OVERLAP or assumed:
        known = "nothing in the file says where it lies" if assumed else f"it covers {covered:.0%} of the reference"
        raise GeometryError(
            f"channel {name} on another grid ({own}; {known})",
            file=path,
            expected=f"the grid of {reference} ({grid})",
            fix="register and resample it to the reference channel",
        )
    lost = "less than 1%" if covered >= 0.995 else f"{1 - covered:.0%}"
    cover = "all of which it covers" if covered == 1 else f"{lost} of which it does not cover"
    return f"{name}: resampled from {own} to {grid}, {cover}"
