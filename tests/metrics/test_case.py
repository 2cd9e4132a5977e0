"""A case's label maps: classes, empty masks, crops, types, and what is refused."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.metrics import absent_class, lesion_measures, measure_case, overlap_measures, surface_measures

CLASSES = {1: "anterior", 2: "posterior", 5: "rare"}


def test_every_class_equals_its_masks_measured_whole(implementation):
    """Cropping, axis order and multiple classes change nothing."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        shape = tuple(int(size) for size in rng.integers(3, 9, size=int(rng.integers(2, 4))))
        spacing = tuple(float(value) for value in rng.uniform(0.4, 6, size=len(shape)))
        prediction, reference = rng.choice([0, 0, 0, 1, 2, 3], size=(2, *shape))
        prediction, reference = np.pad(prediction, 2), np.pad(reference, 2)
        if rng.random() < 0.5:
            prediction, reference = np.asfortranarray(prediction), np.asfortranarray(reference)
        for result in measure_case(prediction, reference, spacing, CLASSES, tolerance_mm=2.0):
            p, r = prediction == result.class_id, reference == result.class_id
            counts = {"tp": p & r, "fp": p & ~r, "fn": ~p & r, "tn": ~p & ~r}
            expected = {name: int(mask.sum()) for name, mask in counts.items()}
            assert {name: getattr(result, name) for name in counts} == expected
            expected |= vars(overlap_measures(**expected))
            expected |= vars(lesion_measures(p, r))
            if p.any() and r.any():
                expected |= vars(surface_measures(p, r, spacing, tolerance_mm=2.0))
            assert {name: getattr(result, name) for name in expected} == pytest.approx(expected, nan_ok=True)


def test_empty_masks(implementation):
    empty, single = np.zeros((4, 5, 3), dtype=int), np.zeros((4, 5, 3), dtype=int)
    single[1, 2, 0] = 1
    spacing = (1.0, 2.0, 5.0)
    distances = ("hausdorff_mm", "hausdorff_95_mm", "assd_mm")

    [absent] = measure_case(empty, empty, spacing, {1: "lesion"})
    assert (absent.status, absent.dice, absent.iou, absent.nsd, absent.tn) == ("absent", 1, 1, 1, 60)
    assert [getattr(absent, name) for name in distances] == [0, 0, 0]

    [missed] = measure_case(empty, single, spacing, {1: "lesion"})
    assert (missed.status, missed.dice, missed.iou, missed.nsd, missed.fn) == ("missed", 0, 0, 0, 1)
    assert missed.volume_difference_ml == pytest.approx(-0.01)
    assert math.isnan(missed.ppv)

    [false_alarm] = measure_case(single, empty, spacing, {1: "lesion"})
    assert (false_alarm.status, false_alarm.dice, false_alarm.nsd, false_alarm.fp) == ("false_alarm", 0, 0, 1)
    assert false_alarm.volume_prediction_ml == pytest.approx(0.01)
    assert math.isnan(false_alarm.tpr)
    for result in (missed, false_alarm):
        assert all(math.isnan(getattr(result, name)) for name in distances)


def test_a_2d_image_has_no_volume():
    image = np.ones((3, 3), dtype=int)
    [result] = measure_case(image, image, (0.5, 0.5), {1: "cell"})
    assert result.dice == 1
    assert math.isnan(result.volume_reference_ml)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.uint8),
        lambda x: x.astype(np.uint64),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">i2"),
        lambda x: x.astype(np.int64)[::-1][::-1],
        lambda x: np.flip(np.flip(x, 1).copy(), 1),
        lambda x: np.repeat(x, 2, axis=2).astype(np.int8)[:, :, ::2],
        lambda x: torch.from_numpy(x.astype(np.int16)),
        lambda x: torch.from_numpy(x.astype(np.float32)).requires_grad_(),
        lambda x: torch.from_numpy(x).to(torch.bfloat16),
    ],
)
def test_types_of_label_maps(implementation, convert):
    rng = np.random.default_rng(4)
    prediction, reference = rng.choice([0, 1, 2], size=(2, 5, 6, 4))
    expected = measure_case(prediction, reference, (1.0, 1.0, 4.0), {1: "a", 2: "b"})
    assert measure_case(convert(prediction), convert(reference), (1.0, 1.0, 4.0), {"1": "a", "2": "b"}) == expected


def test_bool_masks_and_values_outside_the_classes(implementation):
    rng = np.random.default_rng(5)
    prediction, reference = rng.random((2, 5, 6, 4)) < 0.4
    [expected] = measure_case(prediction.astype(int), reference.astype(int), (1, 1, 1), {1: "a"})
    assert measure_case(prediction, reference, (1, 1, 1), {1: "a"}) == [expected]
    others = np.where(prediction, 1, rng.choice([-1, 0, 7, 255], size=prediction.shape))
    assert measure_case(others, reference, (1, 1, 1), {1: "a"}) == [expected]


def test_ids_that_the_type_does_not_hold_are_absent(implementation):
    """-1 as int8 has the bits of 255, and 44 those of 300 in one byte."""
    label_map = np.full((3, 3, 3), -1, dtype=np.int8)
    label_map[0] = 44
    results = measure_case(label_map, label_map, (1, 1, 1), {255: "a", 300: "b", 44: "c"})
    assert [result.status for result in results] == ["absent", "absent", "ok"]
    made = absent_class(255, "a", (3, 3, 3), (1, 1, 1))
    assert vars(made) == pytest.approx(vars(results[0]), nan_ok=True)


def test_a_prediction_and_a_reference_of_other_memory_order_and_type(implementation):
    rng = np.random.default_rng(6)
    prediction, reference = rng.choice([0, 1, 2], size=(2, 5, 6, 70))
    expected = measure_case(prediction, reference, (1.0, 2.0, 4.0), {1: "a", 2: "b"})
    mixed = np.asfortranarray(prediction.astype(np.uint8)), reference.astype(np.int16).transpose(2, 1, 0).copy().T
    found = measure_case(*mixed, (1.0, 2.0, 4.0), {1: "a", 2: "b"})
    assert [vars(result) for result in found] == [pytest.approx(vars(result)) for result in expected]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_tolerances_that_are_refused(value):
    with pytest.raises(ConfigError, match="tolerance"):
        measure_case(GOOD, GOOD, (1, 1, 1), {1: "lesion"}, tolerance_mm=value)


GOOD = np.ones((2, 3, 4), dtype=int)


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing_mm", "message"),
    [
        (np.full((2, 3, 4), 0.37), GOOD, (1, 1, 1), r"a prediction with 24 fractional values, such as 0.37.*argmax"),
        (GOOD, np.full((2, 3, 4), np.nan), (1, 1, 1), "a reference with 24 NaN"),
        (torch.full((2, 3, 4), torch.inf), GOOD, (1, 1, 1), "a prediction with 24 NaN or infinite"),
        (GOOD.astype(complex), GOOD, (1, 1, 1), "complex128"),
        (np.ones((2, 3, 5), dtype=int), GOOD, (1, 1, 1), r"\(2, 3, 5\) and a reference of shape \(2, 3, 4\)"),
        (GOOD[None], GOOD[None], (1, 1, 1), "without channels"),
        (GOOD[:0], GOOD[:0], (1, 1, 1), "shape"),
        (GOOD, GOOD, None, "spacing None for 3 axes; expected 3 positive distances in mm"),
        (GOOD, GOOD, (1, 1), "expected 3 positive"),
        (GOOD, GOOD, (1, 0, 1), "expected 3 positive"),
        (GOOD, GOOD, (1, 1, float("nan")), "expected 3 positive"),
    ],
)
def test_what_is_refused(prediction, reference, spacing_mm, message):
    with pytest.raises(DataError, match=message):
        measure_case(prediction, reference, spacing_mm, {1: "lesion"})


@pytest.mark.parametrize("classes", [{}, {0: "background"}, {"lesion": 1}, {-1: "x"}])
def test_class_maps_that_are_refused(classes):
    with pytest.raises(ConfigError, match="ids from 1"):
        measure_case(GOOD, GOOD, (1, 1, 1), classes)
