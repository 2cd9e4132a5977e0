"""The weight map of U-Net eq. 2: its figures, and its distances beside one distance transform per object."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandomizableTrait
from scipy import ndimage

from pipeline.data import CaseDataset
from pipeline.errors import ConfigError, DataError, LabelError
from pipeline.transforms import BorderWeightsd
from pipeline.transforms.border_weights import balancing_weights, border_term, border_weights, distance_sum


def by_brute_force(instances, spacing):
    """d_1 + d_2 from the distances of every voxel to every voxel of every object, in float64."""
    points = np.argwhere(np.ones(instances.shape, bool)) * spacing
    of_object = []
    for object_id in np.unique(instances[instances > 0]):
        own = np.argwhere(instances == object_id) * spacing
        of_object.append(np.linalg.norm(points[:, None] - own[None], axis=2).min(1))
    nearest = np.sort(np.stack(of_object), axis=0)
    return (nearest[0] + nearest[1]).reshape(instances.shape)


def scattered(shape, number, seed, largest=3):
    """Boxes at random places, the later ones over the earlier: touching, apart, cut off, some in two parts."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(shape, np.int32)
    for object_id in range(1, number + 1):
        start = [int(rng.integers(0, n)) for n in shape]
        instances[tuple(slice(s, s + int(rng.integers(1, largest + 1))) for s in start)] = object_id
    return instances


@pytest.mark.parametrize(("total", "expected"), [(0, 10), (2, 9.2312), (5, 6.0653), (10, 1.3534), (math.inf, 0)])
def test_the_papers_defaults_give_these_figures(total, expected):
    assert border_term(np.array(total)) == pytest.approx(expected, abs=5e-5)


def test_a_row_by_hand():
    # Objects at 0 and 6: between them d_1 + d_2 = 6 everywhere, on either of them 0 + 6, beyond the second 6 + 2.
    row = np.array([[1, 0, 0, 0, 0, 0, 2, 0]])
    assert distance_sum(row, (1, 1), 50).tolist() == [[6, 6, 6, 6, 6, 6, 6, 8]]
    weights = border_weights(row, class_weights=[0.5, 2.0])
    expected = np.array([2, 0.5, 0.5, 0.5, 0.5, 0.5, 2, 0.5]) + 10 * np.exp(-(np.array([6.0] * 7 + [8]) ** 2) / 50)
    np.testing.assert_allclose(weights[0], expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing", "number"),
    [((19, 23), (1.0, 1.0), 9), ((17, 12), (0.7, 2.0), 5), ((9, 8, 5), (1.0, 1.2, 5.0), 7), ((13, 1), (1.0, 1.0), 3)],
)
def test_distances_are_exact(shape, spacing, number, seed):
    instances = scattered(shape, number, seed)
    expected = by_brute_force(instances, spacing)
    np.testing.assert_allclose(distance_sum(instances, spacing, 1e4), expected, rtol=1e-6)
    limit = float(np.median(expected))
    cut = distance_sum(instances, spacing, limit)
    inside = expected < limit * (1 - 1e-6)
    np.testing.assert_allclose(cut[inside], expected[inside], rtol=1e-6)
    assert np.isinf(cut[expected > limit * (1 + 1e-6)]).all()


def test_the_map_is_that_of_one_distance_transform_per_object():
    instances = scattered((120, 150), 40, seed=0, largest=12)
    each = np.sort([ndimage.distance_transform_edt(instances != i) for i in np.unique(instances)[1:]], axis=0)
    expected = 10 * np.exp(-((each[0] + each[1]) ** 2) / 50)
    np.testing.assert_allclose(border_weights(instances, class_weights=None) - 1, expected, atol=2e-6)


def test_ids_need_not_be_consecutive_or_small():
    instances = scattered((20, 20), 6, seed=1)
    table = np.array([0, 7, 10**9, 3, 65535, 12, 500_000])
    np.testing.assert_array_equal(border_weights(table[instances]), border_weights(instances))
    full = np.where(instances == 0, 1, 2)  # no background at all
    np.testing.assert_array_equal(border_weights(full * 10**9), border_weights(full, full * 0 + 1))


@pytest.mark.parametrize("value", [0, 1])
def test_fewer_than_two_objects_leave_the_class_balance(value):
    assert (border_weights(np.full((5, 4), value)) == 1).all()
    one = np.zeros((4, 5), int)
    one[1, 1:3] = 3
    weights = border_weights(one)
    assert weights[one > 0].tolist() == pytest.approx([20 / (2 * 2)] * 2)
    assert weights[one == 0].tolist() == pytest.approx([20 / (2 * 18)] * 18)


def test_balance_gives_every_class_the_same_weight_in_all():
    classes = np.array([0] * 6 + [2] * 3 + [5])
    weights = balancing_weights(classes)
    assert [weights[k] * n for k, n in ((0, 6), (2, 3), (5, 1))] == pytest.approx([10 / 3] * 3)
    assert np.mean([weights[int(k)] for k in classes]) == pytest.approx(1)


def test_classes_and_objects_are_two_things():
    objects, classes = np.array([[1, 1, 0, 0, 2]]), np.array([[1, 1, 0, 0, 2]])
    weights = border_weights(objects, classes, w0=0.0)
    assert weights[0].tolist() == pytest.approx([5 / 6, 5 / 6, 5 / 6, 5 / 6, 5 / 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"w0": -1.0}, "w0=-1.0"),
        ({"spacing": (1.0,)}, "one spacing above 0 per axis"),
        ({"class_weights": "inverse"}, "balanced"),
    ],
)
def test_arguments_without_a_meaning_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        border_weights(np.eye(4, dtype=int), **change)


@pytest.mark.parametrize(
    ("instances", "options", "message"),
    [
        (np.full((2, 2), 0.5), {}, "not whole numbers"),
        (np.full((2, 2), -1), {}, "down to -1"),
        (np.ones((2, 2), int), {"class_weights": [1.0]}, "class 1"),
        (np.ones(3, int), {}, "instances of shape"),
        (np.ones((2, 2), int), {"classes": np.ones((2, 3), int)}, "classes of shape"),
    ],
)
def test_labels_without_a_meaning_are_refused(instances, options, message):
    with pytest.raises((LabelError, DataError), match=message):
        border_weights(instances, **options)


def label_3d(instances, spacing):
    return MetaTensor(torch.as_tensor(instances)[None], affine=torch.diag(torch.tensor([*spacing, 1.0])))


def test_a_volume_counts_in_millimetres_and_a_section_in_voxels():
    volume = scattered((8, 9, 4), 6, seed=2)
    item = BorderWeightsd()({"instances": label_3d(volume, (0.5, 1.0, 4.0))})
    assert isinstance(item["weight"], MetaTensor)
    assert item["weight"].dtype == torch.float32
    assert item["weight"].shape == (1, 8, 9, 4)
    np.testing.assert_array_equal(item["weight"][0].numpy(), border_weights(volume, spacing=(0.5, 1.0, 4.0)))
    section = BorderWeightsd(sigma=3.0)({"instances": torch.as_tensor(volume[None, :, :, 0])})
    np.testing.assert_array_equal(section["weight"][0].numpy(), border_weights(volume[:, :, 0], sigma=3.0))
    given = BorderWeightsd(spacing=[1, 1, 1])({"instances": torch.as_tensor(volume[None])})
    np.testing.assert_array_equal(given["weight"][0].numpy(), border_weights(volume))


def test_a_volume_without_an_affine_is_refused_with_its_case():
    with pytest.raises(DataError, match=r"case a: found a volume without an affine"):
        BorderWeightsd()({"case_id": "a", "instances": torch.zeros(1, 3, 3, 3)})


class Draw(RandomizableTrait):
    def __call__(self, item):
        return item


def test_the_dataset_keeps_it(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "pipeline.transforms.border_weights.border_weights",
        lambda *a, **k: calls.append(1) or border_weights(*a, **k),
    )
    items = [{"case_id": str(i), "instances": torch.as_tensor(scattered((9, 9), 3, i)[None])} for i in range(3)]
    dataset = CaseDataset(items, [BorderWeightsd(), Draw()], progress=False)
    first = [dataset[i]["weight"] for i in range(3)]
    again = [dataset[i]["weight"] for i in range(3)]
    assert len(calls) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
