"""Hand-made fingerprints, and instruments that compute a step's cost by a formula instead of running it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.data.fingerprint import (
    CaseFingerprint,
    ChannelFingerprint,
    DatasetFingerprint,
    IntensityFingerprint,
    LabelFingerprint,
)
from pipeline.geometry import Grid
from pipeline.planning.memory import Account, Measurement, StepSpec
from pipeline.planning.search import Instruments


def intensities(low: float, high: float, count: int = 1000, middle: float | None = None) -> IntensityFingerprint:
    """Spread evenly from ``low`` to ``high``; with ``middle``, all but the last quarter lies evenly below it."""
    shares = np.array([0.5, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5]) / 100
    if middle is None:
        values = low + shares * (high - low)
    else:
        values = np.where(
            shares <= 0.75, low + shares / 0.75 * (middle - low), middle + (shares - 0.75) * 4 * (high - middle)
        )
    return IntensityFingerprint(count, low, high, (low + high) / 2, (high - low) / 4, tuple(values.tolist()))


@pytest.fixture
def case() -> Callable[..., CaseFingerprint]:
    def make(
        number: int = 0,
        shape: tuple[int, int, int] = (35, 51, 36),
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        channels: dict[str, IntensityFingerprint] | None = None,
        foreground: IntensityFingerprint | None = None,
        voxels: dict[int, int] | None = None,
        **changes: Any,
    ) -> CaseFingerprint:
        affine = changes.pop("affine", np.diag([*spacing_mm, 1.0]))
        grid, total = Grid(shape, affine), math.prod(shape)
        values = {"mri": intensities(0, 1000)} if channels is None else channels
        label = None
        if voxels is None:
            voxels = {0: total - total // 20, 1: total // 20}
        if voxels:
            side = changes.pop("side", 0.5)
            label = LabelFingerprint(
                f"{number}_label.nii.gz", voxels, {1: 1}, (20.0, 20.0, 20.0), {1: (side, 0.5, 0.5)}
            )
        fingerprints = {
            name: ChannelFingerprint(f"{number}_{name}.nii.gz", grid, "int16", value, value, foreground)
            for name, value in values.items()
        }
        return CaseFingerprint(f"case_{number:02d}", grid, None, fingerprints, label, **changes)

    return make


@pytest.fixture
def dataset(case) -> Callable[..., DatasetFingerprint]:
    def make(cases: int = 10, classes: dict[int, str] | None = None, **of_case: Any) -> DatasetFingerprint:
        made = tuple(case(number, **of_case) for number in range(cases))
        names = tuple(made[0].channels)
        return DatasetFingerprint("scans", "decathlon", names, {1: "lesion"} if classes is None else classes, made)

    return make


class Machine:
    """A machine on which a step takes what its multiplications say.

    Args:
        operations_per_s: of a network whose activations are 1000 operations per byte.
        memory_bytes: beyond which a step fails.
    """

    def __init__(self, operations_per_s: float = 2e11, memory_bytes: float = math.inf) -> None:
        self.operations_per_s, self.memory_bytes, self.measured = operations_per_s, memory_bytes, list[StepSpec]()

    def account(self, spec: StepSpec, precision: str) -> Account:
        voxels, flops, shrunk = spec.batch_size * math.prod(spec.patch_size), 0.0, 1.0
        for maps, stride, count in zip(spec.channels, spec.strides, spec.convolutions_per_stage, strict=True):
            shrunk *= math.prod(stride)
            flops += 6 * count * 27 * maps**2 * voxels / shrunk
        return Account(int(flops / 1000), 10**6, int(flops))

    def measure(self, spec: StepSpec, device: str, precision: str | None) -> Measurement | None:
        self.measured.append(spec)
        counted = self.account(spec, "float32")
        if counted.bytes > self.memory_bytes:
            return None
        return Measurement(2 * counted.bytes, counted.flops / self.operations_per_s, precision or "bfloat16")

    @property
    def instruments(self) -> Instruments:
        return Instruments(self.account, self.measure)


@pytest.fixture
def machine() -> type[Machine]:
    return Machine
