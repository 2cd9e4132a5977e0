"""Fingerprint -> plan: how a bundle for a dataset is set up, every decision with its reason.

The rules, in the order in which they are taken (nnU-Net: Isensee et al., Nature Methods 2021, supplementary note 2):

- **Spacing** (`spacing.py`): the median of the cases, for the coarse axis of anisotropic data their 10th percentile
  (nnU-Net). An axis of at most 20 slices is not resampled and never pooled.
- **Intensities** (`intensities.py`): a scheme per channel by what its name says that it measures, by its values where
  the name says nothing, or where it says CT of what can't be Hounsfield units.
- **Levels** (`topology.py`): each axis is pooled as long as 4 voxels remain, coarse axes later; kernels likewise
  (nnU-Net).
- **Patch, width, batch** (`search.py`): the largest patch whose training step fits the memory and the time, both
  measured on this machine (`memory.py`), not estimated. On a CPU the batch stays at 2, and width and resolution give
  way before the steps become too few; a GPU fills what is left with a larger batch (nnU-Net's rule).
- **Sampling**: half of the patches lie on a class, two thirds where the classes fill less than a thousandth of a case.
- **Augmentation**: mirrored left to right where what is labelled lies now on one side, now on the other, and no class
  is named after a side (nnU-Net mirrors all axes; on the hippocampus that lowers Dice); turned within the plane of
  thick slices; deformed more often, with more weight decay, where few voxels are seen again and again.
- **Loss**: Dice over the whole batch where a patch often holds no class.

What is left is the shared base's (``configs/``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.data.fingerprint import CaseFingerprint, DatasetFingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.planning.intensities import Scheme, scheme_for
from pipeline.planning.memory import device_memory_bytes
from pipeline.planning.search import Found, Instruments, Limits, Search
from pipeline.planning.spacing import AXES, target_geometry

BUDGET_S = {"cpu": 30 * 60.0, "cuda": 60 * 60.0}
"""Training time that a plan is made for, where none is given: what `pipeline train` takes then."""
WANTED_STEPS = {"cpu": 1000, "cuda": 4000}
"""How many steps that time should hold. On two cores, hippocampus reaches 0.88 within the first 800."""
_TRAINING_SHARE = 0.85  # of the budget; the rest is preparation and validation
MEMORY_SHARE = {"cpu": 0.4, "cuda": 0.85}
"""Of the memory: on a CPU the prepared cases want their part, on a GPU a display and the allocator's gaps."""
LONG_TRAINING_STEPS = 5000
"""For `max_epochs`, which rules where no budget does."""
RARE = 0.001
"""Share of a case's voxels below which its classes are rare."""
RARE_CLASS_SHARE = 0.1
"""Of the cases: a value that fewer labels hold may be a mistake, which is said."""
SEEN_OFTEN = 10.0
"""How often a training sees each voxel, from where on it is deformed more often."""
EITHER_SIDE = 0.1
"""Standard deviation of a class's centre from left to right, as a share of the volume, from where on it has no side;
0.29 would be anywhere."""
FOLDS = 5


@dataclass(frozen=True)
class Plan:
    """How a bundle is set up. Axes are right, anterior, superior.

    Args:
        channels: names in the order of the stack; the first one's grid is the reference.
        classes: id -> name, ids from 1 on without a gap.
        label_values: class id -> value in the label files, where they differ.
        spacing_mm: what cases are resampled to; -1 keeps an axis.
        normalization: per channel.
        patch_size: voxels per axis.
        feature_maps, strides, kernel_sizes, convolutions_per_stage: of the U-Net, per level.
        batch_size, max_epochs, folds: of the training.
        foreground_share, flip_axes, rotation_degrees, affine_probability: of its patches.
        weight_decay: of the optimizer.
        batch_dice: whether the loss's Dice is counted over the batch.
        reasons: key of ``bundle.yaml`` -> why, a sentence.
        notes: what the reader should know beside, a sentence each.
        found: what the search for the patch measured.
        made_for: device and time, for people.
    """

    channels: tuple[str, ...]
    classes: dict[int, str]
    label_values: dict[int, int]
    spacing_mm: list[float]
    normalization: dict[str, Scheme]
    patch_size: tuple[int, int, int]
    feature_maps: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]
    kernel_sizes: tuple[tuple[int, int, int], ...]
    convolutions_per_stage: tuple[int, ...]
    batch_size: int
    max_epochs: int
    folds: int
    foreground_share: float
    flip_axes: tuple[int, ...]
    rotation_degrees: tuple[float, float, float]
    affine_probability: float
    weight_decay: float
    batch_dice: bool
    reasons: dict[str, str]
    notes: tuple[str, ...]
    found: Found
    made_for: str

    @property
    def total_stride(self) -> tuple[int, int, int]:
        return self.found.topology.total_stride


@dataclass
class _Draft:
    """Decisions as they are taken."""

    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def because(self, key: str, reason: str) -> None:
        self.reasons[key] = reason


def plan(
    fingerprint: DatasetFingerprint,
    device: str = "cpu",
    *,
    memory_gb: float | None = None,
    budget_s: float | None = None,
    classes: Mapping[int, str] | None = None,
    instruments: Instruments | None = None,
    progress: Callable[[str], None] = lambda sentence: None,
) -> Plan:
    """Decide how a bundle for this dataset is set up; see the module for the rules.

    Args:
        fingerprint: of the dataset; refused cases are left out.
        device: ``"cpu"`` or ``"cuda"``: where it will be trained, and where steps are measured now.
        memory_gb: GiB that a training step may take; by default a share of what the device has (`MEMORY_SHARE`).
        budget_s: training time that it is made for; by default `BUDGET_S`.
        classes: label id -> name, instead of the fingerprint's.
        instruments: how steps are counted and measured; by default really.
        progress: is told each measurement.

    Raises:
        DataError: fewer than two usable cases with a label.
        ConfigError: classes that contradict the labels, or too little memory for any network.
    """
    if device not in BUDGET_S:
        raise ConfigError(f"the device {device!r}", expected=" or ".join(BUDGET_S))
    cases = [case for case in fingerprint.usable if case.grid is not None and case.label is not None]
    _require_labels(fingerprint, cases)
    draft = _Draft()
    names, values = _classes(fingerprint, cases, classes, draft)
    channels = tuple(name.lower() for name in fingerprint.channel_names)
    normalization = _normalization(fingerprint, cases, draft)
    geometry = target_geometry(cases)

    budget = BUDGET_S[device] if budget_s is None else budget_s
    memory = device_memory_bytes(device) * MEMORY_SHARE[device] if memory_gb is None else memory_gb * 2**30
    limits = Limits(device, int(memory), _TRAINING_SHARE * budget / WANTED_STEPS[device])
    made_for = (
        f"{WANTED_STEPS[device]} steps within {budget / 60:.3g} minutes: {limits.step_s:.2g} s each, in "
        f"{limits.memory_bytes / 2**30:.3g} GiB of {'a GPU' if device == 'cuda' else 'memory'}"
    )
    search = Search(len(channels), len(names) + 1, cases, geometry, limits, instruments or Instruments(), progress)
    found = search.run()
    _explain_search(found, limits, made_for, draft)

    seen = WANTED_STEPS[device] * found.batch_size * math.prod(found.topology.patch_size) / _voxels(found, cases)
    if seen >= SEEN_OFTEN:
        often = f"a training sees each voxel about {seen:.0f} times"
        draft.because("affine_probability", f"{often}: deformed more often, it is not learned by rote")
        draft.because("weight_decay", "with the stronger deformation below, against learning cases by rote")
    batch_dice = _batch_dice(found, cases, draft)
    return Plan(
        channels=channels,
        classes=names,
        label_values=values,
        spacing_mm=_spacing(found, geometry.spacing_mm, draft),
        normalization=normalization,
        patch_size=found.topology.patch_size,
        feature_maps=found.topology.channels(found.recipe.first),
        strides=found.topology.strides,
        kernel_sizes=found.topology.kernel_sizes,
        convolutions_per_stage=found.recipe.convolutions_per_stage(len(found.topology.strides)),
        batch_size=found.batch_size,
        max_epochs=_epochs(found, cases, draft),
        folds=_folds(cases, draft),
        foreground_share=_foreground_share(cases, draft),
        flip_axes=_flip_axes(names.values(), cases, draft),
        rotation_degrees=_rotation(found, draft),
        affine_probability=0.7 if seen >= SEEN_OFTEN else 0.5,
        weight_decay=0.05 if seen >= SEEN_OFTEN else 0.001,
        batch_dice=batch_dice,
        reasons=draft.reasons,
        notes=tuple(draft.notes),
        found=found,
        made_for=made_for,
    )


def _require_labels(fingerprint: DatasetFingerprint, cases: list[CaseFingerprint]) -> None:
    total, usable = len(fingerprint.cases), len(fingerprint.usable)
    if len(cases) >= 2:
        return
    refused = [case for case in fingerprint.cases if case.refusal is not None]
    if refused and usable < 2:
        reasons = "\n  ".join(f"{case.case_id}: {case.refusal}" for case in refused[:5])
        raise DataError(
            f"{total} cases, {len(refused)} of them not usable:\n  {reasons}\n",
            file=fingerprint.dataset_dir,
            expected="at least two usable cases with a label",
            fix="pipeline check says what is wrong with each case",
        )
    raise DataError(
        f"{total} cases, {len(cases)} of them with a label",
        file=fingerprint.dataset_dir,
        expected="at least two with a label: one to train on and one to validate on",
        fix="add label files (case_label.nii.gz, case_lesion.nii.gz or case_seg.nii.gz beside the images); "
        "without any, there is nothing that a network could learn",
    )


def _classes(
    fingerprint: DatasetFingerprint,
    cases: list[CaseFingerprint],
    given: Mapping[int, str] | None,
    draft: _Draft,
) -> tuple[dict[int, str], dict[int, int]]:
    """Class id -> name, and class id -> value in the files where the ids of the files have gaps."""
    found: dict[int, int] = {}
    for case in cases:
        assert case.label is not None
        for value, voxels in case.label.voxels.items():
            if value != 0 and voxels:
                found[value] = found.get(value, 0) + 1
    if not found:
        raise DataError(
            f"{len(cases)} label files, all of them empty", file=fingerprint.dataset_dir, expected="a labelled class"
        )
    named = dict(given or {value: name for value, name in fingerprint.classes.items() if value != 0})
    unnamed = sorted(set(found) - set(named)) if named else []
    if unnamed:
        counts = ", ".join(f"{value} in {found[value]} of {len(cases)} cases" for value in unnamed)
        raise ConfigError(
            f"label values without a name: {counts}",
            expected=f"values out of {', '.join(f'{value} ({name})' for value, name in sorted(named.items()))}",
            fix="name all of them by --classes, such as --classes " + ",".join(f"{v}=name" for v in sorted(found)),
        )
    for value in sorted(set(named) - set(found)):
        draft.notes.append(f"class {value} ({named[value]}) is in no label file: nothing can be learned of it")
    if not named:
        named = {value: "foreground" if len(found) == 1 else f"class_{value}" for value in found}
        draft.notes.append("nothing says what the label values mean: name them by --classes or in bundle.yaml")
    for value in sorted(found):
        if found[value] < RARE_CLASS_SHARE * len(cases):
            rare = f"value {value} is in {found[value]} of {len(cases)} labels"
            draft.notes.append(f"{rare}: a slip of the pen? `pipeline check` names them")
    values = sorted(named)
    source = "--classes" if given else "the dataset" if fingerprint.classes else "the values in the label files"
    counted = ", ".join(f"value {v} in {found.get(v, 0)} of {len(cases)} cases" for v in values)
    draft.because("classes", f"from {source}; {counted}")
    stored = dict(enumerate(values, 1))
    differ = any(index != value for index, value in stored.items())
    if differ:
        draft.because("label_values", "what stands for each class in the label files")
    return {index: named[value] for index, value in stored.items()}, stored if differ else {}


def _normalization(fingerprint: DatasetFingerprint, cases: list[CaseFingerprint], draft: _Draft) -> dict[str, Scheme]:
    schemes = {}
    for name in fingerprint.channel_names:
        channels = [case.channels[name] for case in cases if name in case.channels]
        if not channels:
            raise DataError(f"no usable case with the channel {name}", file=fingerprint.dataset_dir)
        schemes[name.lower()], reason = scheme_for(name, channels)
        draft.because(f"normalization#{name.lower()}", reason)
    if len(fingerprint.channel_names) > 1:
        draft.because("channels", f"the others are resampled onto the grid of {fingerprint.channel_names[0]}")
    return schemes


def _explain_search(found: Found, limits: Limits, made_for: str, draft: _Draft) -> None:
    patch, shape = found.topology.patch_size, found.geometry.shape
    whole = "the median case whole" if all(p >= n for p, n in zip(patch, shape, strict=True)) else ""
    holds = whole or f"{found.covered:.0%} of the median case"
    draft.because("patch_size", f"{holds} ({'x'.join(map(str, shape))} voxels); a multiple of the total stride")
    seconds, gib = found.step.seconds, found.step.bytes / 2**30
    measured = f"a step of {seconds:.2f} s and {gib:.1f} GiB, measured here in {found.step.precision}"
    if found.within:
        draft.because("network_def", f"the widest for {made_for}; {measured}")
    else:
        draft.because("network_def", f"the smallest there is; {measured}")
        draft.notes.append(f"wanted were {made_for}, but the smallest network takes {measured}: give more time")
    if found.step.busy:
        draft.notes.append(
            "other programs kept the cores busy, so a step's seconds come from one thread's computing time: on an idle "
            "machine the plan is surer"
        )
    if found.recipe.convolutions[0] == 1:
        draft.because("convolutions_per_stage", "a second one at full resolution would double the time of a step")
    on_cpu = limits.device == "cpu"
    draft.because(
        "batch_size", "many small steps beat few large ones on a CPU" if on_cpu else "what memory and time allow"
    )


def _spacing(found: Found, target_mm: tuple[float, float, float], draft: _Draft) -> list[float]:
    reason = found.geometry.reason
    if found.geometry.spacing_mm != target_mm:
        coarse = "x".join(f"{mm:.4g}" for mm in found.geometry.spacing_mm)
        reason += f"; made coarser, {coarse} mm, so that a patch holds {found.covered:.0%} of a case in the time given"
    draft.because("spacing_mm", reason)
    return found.geometry.config_spacing_mm


def _voxels(found: Found, cases: list[CaseFingerprint]) -> float:
    return float(len(cases) * math.prod(found.geometry.shape))


def _batch_dice(found: Found, cases: list[CaseFingerprint], draft: _Draft) -> bool:
    empty = sum(case.label is not None and not any(n for v, n in case.label.voxels.items() if v) for case in cases)
    if empty:
        draft.because("loss", f"{empty} of {len(cases)} cases have no class: over the batch the Dice has some to count")
    elif found.covered < 0.25:
        draft.because("loss", "a patch holds a small part of a case, often without a class: Dice over the batch")
    return bool(empty) or found.covered < 0.25


def _epochs(found: Found, cases: list[CaseFingerprint], draft: _Draft) -> int:
    training = max(1, len(cases) * (FOLDS - 1) // FOLDS)
    epochs = max(1, math.ceil(LONG_TRAINING_STEPS * found.batch_size / training))
    draft.because("max_epochs", f"{LONG_TRAINING_STEPS} steps on {training} cases; `--budget TIME` rules instead")
    return epochs


def _folds(cases: list[CaseFingerprint], draft: _Draft) -> int:
    from pipeline.data.splits import patient_of

    patients = len({patient_of(case.case_id) for case in cases})
    if patients < FOLDS:
        draft.because("folds", f"there are {patients} patients")
    return max(2, min(FOLDS, patients))


def _foreground_share(cases: list[CaseFingerprint], draft: _Draft) -> float:
    shares = []
    for case in cases:
        assert case.label is not None
        inside = sum(n for value, n in case.label.voxels.items() if value)
        if inside:
            shares.append(inside / sum(case.label.voxels.values()))
    filled = float(np.median(shares))
    share = 0.67 if filled < RARE else 0.5
    draft.because("foreground_share", f"of patches lie on a class: the classes fill {filled:.2%} of a case (median)")
    return share


def _flip_axes(classes: Iterable[str], cases: list[CaseFingerprint], draft: _Draft) -> tuple[int, ...]:
    sided = [name for name in classes if re.search(r"(?<![a-z])(left|right|l|r|lh|rh)(?![a-z])", name.lower())]
    if sided:
        draft.because("flip_axes", f"none: {', '.join(sided)} differ by the side")
        return ()
    by_class: dict[int, list[float]] = {}
    for case in cases:
        for value, centre in case.label.centres.items() if case.label is not None else ():
            by_class.setdefault(value, []).append(centre[0])
    spreads = [float(np.std(centres)) for centres in by_class.values() if len(centres) > 1]
    if not spreads or min(spreads) < EITHER_SIDE:
        draft.because("flip_axes", "none: what is labelled lies always at about the same place from left to right")
        return ()
    draft.because("flip_axes", "left to right: what is labelled lies now on the one side, now on the other")
    return (0,)


def _rotation(found: Found, draft: _Draft) -> tuple[float, float, float]:
    spacing = found.geometry.spacing_mm
    thick = found.geometry.kept_axis
    if thick is None and max(spacing) > 3 * min(spacing):
        thick = int(np.argmax(spacing))
    if thick is None:
        return 15.0, 15.0, 15.0
    across = 0.0 if found.geometry.shape[thick] == 1 else 3.0
    draft.because("rotation_degrees", f"about the three axes: within the plane of the thick {AXES[thick]} slices")
    x, y, z = (15.0 if axis == thick else across for axis in range(3))
    return x, y, z
