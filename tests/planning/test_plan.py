"""The plan of hand-made datasets, each made so that one rule decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.data.fingerprint import LabelFingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.planning.plan import plan
from tests.planning.conftest import Machine, intensities


def made(fingerprint, machine=None, device="cpu", memory_gb=16.0, **given):
    machine = machine or Machine()
    return plan(fingerprint, device, memory_gb=memory_gb, instruments=machine.instruments, **given)


def test_small_crops_are_seen_whole(dataset):
    """The hippocampus's sizes: the patch, strides and batch that its hand-made bundle has, which is half as wide."""
    result = made(dataset(160))
    assert result.patch_size == (40, 56, 40)
    assert result.spacing_mm == [1.0, 1.0, 1.0]
    assert result.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert result.feature_maps == (32, 64, 128, 256)
    assert (result.batch_size, result.convolutions_per_stage) == (2, (1, 2, 2, 2))
    assert result.found.covered == 1
    assert result.max_epochs == math.ceil(5000 * 2 / 128)
    assert "median case whole" in result.reasons["patch_size"]
    assert "the same in 160 cases" in result.reasons["spacing_mm"]


def test_every_decision_has_its_reason(dataset):
    result = made(dataset())
    for key in ("classes", "spacing_mm", "patch_size", "network_def", "batch_size", "max_epochs", "flip_axes"):
        assert result.reasons[key], key
    assert "'mri' is MR" in result.reasons["normalization#mri"]


def test_slow_machine_gets_a_narrower_network_then_coarser_voxels(dataset):
    cases = dataset(shape=(160, 160, 160))
    fast, middle, slow = (made(cases, Machine(speed)) for speed in (1e14, 2e12, 8e10))
    assert fast.convolutions_per_stage[0] == 2
    assert fast.spacing_mm == [1.0, 1.0, 1.0]
    assert fast.found.covered == 1
    assert middle.convolutions_per_stage[0] == 1
    assert middle.spacing_mm == [1.0, 1.0, 1.0]
    assert slow.feature_maps[0] <= middle.feature_maps[0]
    assert slow.spacing_mm[0] > 1.0
    assert "made coarser" in slow.reasons["spacing_mm"]
    for result in (fast, middle, slow):
        assert result.found.within
        assert result.found.step.seconds <= 1.1 * 1.53


def test_a_small_case_is_held_whole_along_every_axis(dataset):
    """A patch of 32 x 56 x 40 has more voxels than a case of 35 x 50 x 36, and yet cuts it: a lighter network does not.

    At this speed two convolutions at full resolution would have to shrink the patch to keep to their share of time.
    """
    result = made(dataset(160, shape=(35, 50, 36)), Machine(2.7e11))
    assert result.patch_size == (40, 56, 40)
    assert result.convolutions_per_stage == (1, 2, 2, 2)


def test_voxels_stay_fine_enough_for_the_object(dataset, case):
    """A label box of 9 mm is 8 voxels across at 1.125 mm: a coarser image than that is not made."""
    cases = dataset(shape=(160, 160, 160))
    for one in cases.cases:
        object.__setattr__(one.label, "box_mm", (9.0, 30.0, 30.0))
    assert made(cases, Machine(5e10)).spacing_mm == [1.0, 1.0, 1.0]


def test_more_time_gives_a_larger_step(dataset):
    cases = dataset(shape=(160, 160, 160))
    short, long = (made(cases, Machine(2e12), budget_s=60 * minutes) for minutes in (10, 240))
    assert short.found.step.seconds < long.found.step.seconds
    assert math.prod(short.patch_size) * short.feature_maps[0] < math.prod(long.patch_size) * long.feature_maps[0]


def test_memory_bounds_the_step(dataset):
    cases = dataset(shape=(200, 200, 200))
    large, small = (made(cases, Machine(1e14), "cuda", memory_gb=gb) for gb in (16.0, 2.0))
    assert small.found.step.bytes <= 2 * 2**30
    assert math.prod(small.patch_size) < math.prod(large.patch_size)


def test_a_gpu_fills_what_is_left_with_a_larger_batch(dataset):
    result = made(dataset(400), Machine(1e14), "cuda", memory_gb=16.0)
    assert result.patch_size == (40, 56, 40)
    assert result.batch_size > 2
    assert result.batch_size * math.prod(result.patch_size) <= 0.05 * 400 * 35 * 51 * 36
    assert made(dataset(4), Machine(1e14), "cuda").batch_size == 2  # 5% of so few cases is less than two


def test_too_little_memory_says_so(dataset):
    with pytest.raises(ConfigError, match="does not fit into memory"):
        made(dataset(), Machine(memory_bytes=10.0))


def test_a_machine_too_slow_for_anything_still_gets_a_plan_and_a_note(dataset):
    result = made(dataset(), Machine(1e6))
    assert not result.found.within
    assert any("give more time" in note for note in result.notes)


def test_few_slices_are_neither_resampled_nor_pooled(dataset):
    result = made(dataset(shape=(128, 128, 10), spacing_mm=(2.0, 2.0, 8.0)))
    assert result.spacing_mm == [2.0, 2.0, -1.0]
    assert {stride[2] for stride in result.strides} == {1}
    assert result.patch_size[2] == 10
    assert result.kernel_sizes[0] == (3, 3, 1)
    assert result.kernel_sizes[-1] == (3, 3, 3)
    assert result.rotation_degrees == (3.0, 3.0, 15.0)
    assert "10 slices" in result.reasons["spacing_mm"]


def test_one_slice(dataset):
    result = made(dataset(shape=(128, 128, 1), spacing_mm=(2.0, 2.0, 8.0)))
    assert result.patch_size[2] == 1
    assert {kernel[2] for kernel in result.kernel_sizes} == {1}
    assert result.rotation_degrees == (0.0, 0.0, 15.0)


def test_coarse_axis_takes_its_tenth_percentile(dataset, case):
    cases = [case(n, (200, 200, 40), (1.0, 1.0, 4.0 if n < 5 else 6.0)) for n in range(25)]
    fingerprint = dataset()
    object.__setattr__(fingerprint, "cases", tuple(cases))
    result = made(fingerprint, Machine(1e14))
    assert result.spacing_mm == [1.0, 1.0, 4.0]
    assert "10th percentile" in result.reasons["spacing_mm"]
    assert result.kernel_sizes[0] == (3, 3, 1)
    assert result.strides[1] == (2, 2, 1)


def test_axes_are_the_bundles_not_the_files(dataset):
    """Stored superior first: the thick slices lie along the first array axis, and along the last of the bundle."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -5.0, -1.0, 1.0, 1.0
    result = made(dataset(shape=(12, 100, 120), affine=affine))
    assert result.spacing_mm == [1.0, 1.0, -1.0]
    assert result.found.geometry.shape == (100, 120, 12)


def test_ct_window_is_that_of_the_labelled_tissue(dataset):
    result = made(dataset(channels={"CT": intensities(-1024, 3000)}, foreground=intensities(0, 200)))
    assert result.channels == ("ct",)
    assert result.normalization["ct"] == {"scheme": "window", "lower_hu": 1.0, "upper_hu": 199.0}
    assert "labelled voxels of 10 cases" in result.reasons["normalization#ct"]


def test_ct_that_is_no_hounsfield_units_is_said(dataset):
    result = made(dataset(channels={"ncct": intensities(0, 255)}))
    assert result.normalization["ncct"]["scheme"] == "z_score"
    assert "no Hounsfield units" in result.reasons["normalization#ncct"]


def test_unknown_names_are_decided_by_their_values_and_said(dataset):
    channels = {
        "a": intensities(0, 1000),
        "b": intensities(0, 10000, middle=10),
        "c": intensities(-1024, 3000),
        "pet": intensities(0, 1000),
    }
    result = made(dataset(channels=channels))
    assert [result.normalization[name]["scheme"] for name in "abc"] == ["z_score", "percentile", "window"]
    assert result.normalization["pet"]["scheme"] == "percentile"
    assert all("says nothing" in result.reasons[f"normalization#{name}"] for name in "abc")


def test_label_values_with_gaps_become_consecutive_classes(dataset):
    fingerprint = dataset(classes={}, voxels={0: 900, 255: 100})
    result = made(fingerprint)
    assert result.classes == {1: "foreground"}
    assert result.label_values == {1: 255}
    assert any("--classes" in note for note in result.notes)
    named = made(dataset(classes={}, voxels={0: 900, 2: 50, 4: 50}), classes={2: "core", 4: "penumbra"})
    assert (named.classes, named.label_values) == ({1: "core", 2: "penumbra"}, {1: 2, 2: 4})


def test_a_value_that_hardly_any_label_holds_is_said(dataset, case):
    fingerprint = dataset(cases=20, classes={})
    odd = case(0, voxels={0: 900, 1: 50, 2: 50})
    object.__setattr__(fingerprint, "cases", (odd, *fingerprint.cases[1:]))
    result = made(fingerprint)
    assert result.classes == {1: "class_1", 2: "class_2"}
    assert next(note for note in result.notes if "slip" in note).startswith("value 2 is in 1 of 20 labels")


def test_label_values_without_a_name_are_refused(dataset):
    with pytest.raises(ConfigError, match=r"without a name: 2 in 10 of 10 cases.*--classes 1=name,2=name"):
        made(dataset(voxels={0: 900, 1: 50, 2: 50}))


def test_mirrored_is_what_lies_on_either_side(dataset, case):
    assert made(dataset()).flip_axes == ()  # always in the middle

    def strokes(name: str):
        fingerprint = dataset(classes={1: name})
        object.__setattr__(fingerprint, "cases", tuple(case(n, side=0.3 + 0.4 * (n % 2)) for n in range(10)))
        return made(fingerprint)

    assert strokes("infarct").flip_axes == (0,)
    assert strokes("cleft").flip_axes == (0,)
    sided = strokes("kidney_left")
    assert sided.flip_axes == ()
    assert "kidney_left" in sided.reasons["flip_axes"]


def test_what_is_seen_often_is_deformed_more(dataset):
    often, seldom = made(dataset(10)), made(dataset(1000))
    assert (often.affine_probability, often.weight_decay) == (0.7, 0.05)
    assert (seldom.affine_probability, seldom.weight_decay) == (0.5, 0.001)


def test_rare_classes_are_sampled_more(dataset):
    assert made(dataset()).foreground_share == 0.5
    rare = made(dataset(voxels={0: 999_900, 1: 100}))
    assert rare.foreground_share == 0.67
    assert "0.01% of a case" in rare.reasons["foreground_share"]


def test_cases_without_a_class_make_the_dice_count_over_the_batch(dataset):
    fingerprint = dataset()
    assert not made(fingerprint).batch_dice
    object.__setattr__(fingerprint.cases[0], "label", LabelFingerprint("empty.nii.gz", {0: 1000}, {}))
    result = made(fingerprint)
    assert result.batch_dice
    assert "1 of 10 cases" in result.reasons["loss"]


def test_few_patients_make_fewer_folds(dataset):
    assert made(dataset(3)).folds == 3
    assert made(dataset(12)).folds == 5


def test_refused_cases_are_left_out(dataset, case):
    fingerprint = dataset(4)
    broken = case(9, (999, 999, 999), refusal="2 NaN voxels")
    object.__setattr__(fingerprint, "cases", (*fingerprint.cases, broken))
    assert made(fingerprint).found.geometry.shape == (35, 51, 36)


def test_without_labels_there_is_nothing_to_plan(dataset):
    with pytest.raises(DataError, match="3 cases, 0 of them with a label"):
        made(dataset(3, voxels={}))
    with pytest.raises(DataError, match="all of them empty"):
        made(dataset(3, voxels={0: 100}))
    with pytest.raises(DataError, match=r"3 of them not usable:\n  case_00: 2 NaN voxels"):
        made(dataset(3, refusal="2 NaN voxels"))
