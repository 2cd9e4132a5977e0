"""The largest patch and the widest network whose training step fits the memory and the time.

A step's time is part of the budget: in half an hour on a CPU a network learns more from a thousand small steps than
from a hundred large ones (hippocampus, two cores, 20 minutes: nnU-Net's plan with batches of 9 reaches a Dice of 0.60
in 230 steps, batches of 2 with one convolution less at full resolution 0.89). So width and patch give way to the clock:

1. a patch holds the whole median case where it is small, else a quarter of it (below that, nnU-Net too trains on a
   coarser image first) and as much as the time allows;
2. where the widest network can't have such a patch, a narrower one gets it;
3. on a CPU, where none can, the finer axes are resampled up to twice as coarse, as long as the labelled object stays
   eight voxels across.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.data.fingerprint import CaseFingerprint
from pipeline.errors import ConfigError
from pipeline.planning.memory import Account, Measurement, StepSpec
from pipeline.planning.memory import account as count_step
from pipeline.planning.memory import measure as run_step
from pipeline.planning.spacing import Geometry, coarser, smallest_object_voxels
from pipeline.planning.topology import Topology, shrinking

LARGEST_START = 256**3
"""Voxels of the first patch that is tried, as long in mm along each axis (nnU-Net's)."""
ENOUGH_VOXELS = 2**17
"""A patch of so many voxels (64 x 64 x 32) is wanted even of a small case, whole cases of fewer need no more."""
ENOUGH_SHARE = 0.25
"""Of the median case: what a patch should hold at least (nnU-Net's threshold for a coarser image)."""
OBJECT_VOXELS = 8.0
"""Across the labelled object, what a coarser image must leave."""
LARGEST_BATCH_SHARE = 0.05
"""Of all voxels of the dataset, in a batch (nnU-Net's)."""
FIRST_BATCH = 2
_COARSER = (1.0, 1.25, 1.5, 1.75, 2.0)
_ROUNDS = 3
_EXACTLY = 1.1  # what two measurements of the same step differ by
_PREDICTED = 1.3
"""Within so much of what was predicted, a measured step needs no second search."""


@dataclass(frozen=True)
class Recipe:
    """How wide a network is, and which share of a step's seconds it may take.

    Args:
        first: feature maps at full resolution.
        convolutions: per stage, at full resolution and below; most of the work is done at full resolution.
        share: of the time limit; below 1 for a network that is worth it only where steps abound.
    """

    first: int
    convolutions: tuple[int, int]
    share: float = 1.0

    def convolutions_per_stage(self, levels: int) -> tuple[int, ...]:
        return (self.convolutions[0], *[self.convolutions[1]] * (levels - 1))


RECIPES = {
    "cuda": (Recipe(32, (2, 2)), Recipe(24, (2, 2)), Recipe(16, (2, 2))),
    "cpu": (Recipe(32, (2, 2), share=0.25), Recipe(32, (1, 2)), Recipe(24, (1, 2)), Recipe(16, (1, 2))),
}


@dataclass(frozen=True)
class Limits:
    """What a training step may take, on ``cpu`` or ``cuda``."""

    device: str
    memory_bytes: int
    step_s: float


@dataclass(frozen=True)
class Instruments:
    """How a step's cost is found: `pipeline.planning.memory`'s functions, or a test's own."""

    account: Callable[[StepSpec, str], Account] = count_step
    measure: Callable[[StepSpec, str, str | None], Measurement | None] = run_step


@dataclass(frozen=True)
class Found:
    """What the search ended with.

    Args:
        within: whether the measured step keeps to the limits; not where even the smallest one does not.
    """

    geometry: Geometry
    topology: Topology
    recipe: Recipe
    batch_size: int
    step: Measurement
    within: bool

    @property
    def covered(self) -> float:
        """Share of the median case that a patch holds, 0..1."""
        return held_voxels(self.topology, self.geometry) / math.prod(self.geometry.shape)


def held_voxels(topology: Topology, geometry: Geometry) -> int:
    """Voxels of the median case that a patch holds: one that reaches beyond it along an axis holds no more of it."""
    return math.prod(min(p, n) for p, n in zip(topology.patch_size, geometry.shape, strict=True))


@dataclass(frozen=True)
class _Choice:
    geometry: Geometry
    topology: Topology
    recipe: Recipe
    batch_size: int


@dataclass
class Search:
    """See the module.

    Args:
        channels, classes: the network's inputs and outputs, background included.
        cases: usable ones.
        geometry: at the target spacing.
        progress: is told of each measurement, one sentence.
    """

    channels: int
    classes: int
    cases: Sequence[CaseFingerprint]
    geometry: Geometry
    limits: Limits
    instruments: Instruments = field(default_factory=Instruments)
    progress: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        self._rate = self._bytes_factor = 1.0
        self._precision = "float32"
        self._accounts: dict[StepSpec, Account] = {}
        self._tried: list[str] = []

    def run(self) -> Found:
        """
        Raises:
            ConfigError: no step at all fits into memory.
        """
        self._calibrate()
        found: Found | None = None
        for _ in range(_ROUNDS):
            choice = self._best()
            if found is not None and choice == _Choice(found.geometry, found.topology, found.recipe, found.batch_size):
                break
            predicted_s = self._predicted(choice)[1]
            step = self._measure(choice, self._precision)
            if step is None:
                self._bytes_factor *= 2
                continue
            within = step.bytes <= self.limits.memory_bytes and step.seconds <= _EXACTLY * self.limits.step_s
            if found is None or within or not found.within:
                found = Found(choice.geometry, choice.topology, choice.recipe, choice.batch_size, step, within)
            if within and predicted_s <= _PREDICTED * step.seconds:
                break
        if found is None:
            raise self._too_little_memory()
        return found

    def _calibrate(self) -> None:
        """One measured step, from which the others are predicted: bytes per counted byte, seconds per operation."""
        recipe = next(recipe for recipe in RECIPES[self.limits.device] if recipe.share == 1)
        patches = self._patches(self.geometry)
        start = ENOUGH_VOXELS if self.limits.device == "cpu" else 4 * ENOUGH_VOXELS
        small = next((t for t in patches if math.prod(t.patch_size) <= start), patches[-1])
        choice = _Choice(self.geometry, small, recipe, FIRST_BATCH)
        if self._measure(choice, None) is None and self._measure(replace(choice, topology=patches[-1]), None) is None:
            raise self._too_little_memory()

    def _measure(self, choice: _Choice, precision: str | None) -> Measurement | None:
        spec = self._spec(choice)
        step = self.instruments.measure(spec, self.limits.device, precision)
        size = f"{spec.batch_size} patches of {'x'.join(map(str, spec.patch_size))}, {spec.channels[0]} maps wide"
        if step is None:
            self._tried.append(f"{size}: does not fit into memory")
        else:
            self._precision = step.precision
            self._rate = self._account(choice).flops / step.seconds
            self._bytes_factor = step.bytes / self._account(choice).bytes
            self._tried.append(f"{size}: {step.seconds:.2f} s and {step.bytes / 2**30:.1f} GiB in {step.precision}")
        self.progress(self._tried[-1])
        return step

    def _best(self) -> _Choice:
        factors = _COARSER if self.limits.device == "cpu" else _COARSER[:1]
        fallback: _Choice | None = None
        for factor in factors:
            geometry = self.geometry if factor == 1 else coarser(self.geometry, self.cases, factor)
            if factor > 1 and smallest_object_voxels(geometry, self.cases) < OBJECT_VOXELS:
                break
            whole = math.prod(geometry.shape)
            enough = min(whole, max(ENOUGH_VOXELS, ENOUGH_SHARE * whole))
            for recipe in RECIPES[self.limits.device]:
                choice = self._largest(geometry, recipe)
                if choice is not None and held_voxels(choice.topology, choice.geometry) >= enough:
                    return self._larger_batch(choice)
                # Nothing holds enough: then what holds the largest part of a case, the narrowest and coarsest.
                fallback = choice if choice is not None and recipe.share == 1 else fallback
        if fallback is None:
            fallback = _Choice(
                self.geometry, self._patches(self.geometry)[-1], RECIPES[self.limits.device][-1], FIRST_BATCH
            )
        return fallback

    def _largest(self, geometry: Geometry, recipe: Recipe) -> _Choice | None:
        """The largest patch within the limits, by bisection of the shrinking ones."""
        choices = [_Choice(geometry, topology, recipe, FIRST_BATCH) for topology in self._patches(geometry)]
        low, high = 0, len(choices)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(choices[middle]) else (middle + 1, high)
        return choices[low] if low < len(choices) else None

    def _larger_batch(self, choice: _Choice) -> _Choice:
        """On a GPU, where a patch already holds a whole case, what is left of memory and time goes into the batch."""
        if self.limits.device == "cpu" or any(
            p < n for p, n in zip(choice.topology.patch_size, choice.geometry.shape, strict=True)
        ):
            return choice
        voxels = len(self.cases) * math.prod(choice.geometry.shape)
        most = int(LARGEST_BATCH_SHARE * voxels / math.prod(choice.topology.patch_size))
        while choice.batch_size < most and self._fits(replace(choice, batch_size=choice.batch_size + 1)):
            choice = replace(choice, batch_size=choice.batch_size + 1)
        return choice

    def _fits(self, choice: _Choice) -> bool:
        taken_bytes, seconds = self._predicted(choice)
        return taken_bytes <= self.limits.memory_bytes and seconds <= choice.recipe.share * self.limits.step_s

    def _predicted(self, choice: _Choice) -> tuple[float, float]:
        counted = self._account(choice)
        return counted.bytes * self._bytes_factor, counted.flops / self._rate

    def _account(self, choice: _Choice) -> Account:
        """Of the step, from one account per network: both numbers grow with the voxels of a batch."""
        spec = self._spec(choice)
        x, y, z = choice.topology.total_stride
        small = replace(spec, patch_size=(4 * x, 4 * y, 4 * z), batch_size=FIRST_BATCH)
        if small not in self._accounts:
            self._accounts[small] = self.instruments.account(small, self._precision)
        ratio = spec.batch_size * math.prod(spec.patch_size) / (small.batch_size * math.prod(small.patch_size))
        return self._accounts[small].scaled(ratio)

    def _patches(self, geometry: Geometry) -> list[Topology]:
        cube_mm = (LARGEST_START * math.prod(geometry.spacing_mm)) ** (1 / 3)
        start = [min(n, round(cube_mm / mm)) for n, mm in zip(geometry.shape, geometry.spacing_mm, strict=True)]
        return shrinking([max(1, n) for n in start], geometry.shape, geometry.spacing_mm, geometry.never_pooled)

    def _spec(self, choice: _Choice) -> StepSpec:
        topology, recipe = choice.topology, choice.recipe
        return StepSpec(
            self.channels,
            self.classes,
            topology.channels(recipe.first),
            topology.strides,
            topology.kernel_sizes,
            recipe.convolutions_per_stage(len(topology.strides)),
            topology.patch_size,
            choice.batch_size,
        )

    def _too_little_memory(self) -> ConfigError:
        return ConfigError(
            f"{self.limits.memory_bytes / 2**30:.1f} GiB of memory for a training step: {'; '.join(self._tried)}",
            expected="room for the smallest network",
            fix="give more by --memory, or end other programs",
        )
