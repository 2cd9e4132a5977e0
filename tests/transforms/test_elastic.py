import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from pipeline.transforms.elastic import (
    bicubic_bound_mm,
    bicubic_displacement_mm,
    bspline_weights,
    control_shape,
    displacement_mm,
    max_std_mm,
    sample_control_vectors,
    unet_2015,
)

PATCH, SPACING, CONTROL = (17, 24, 7), (1.0, 0.8, 5.0), (12.0, 16.0, 20.0)


def field(seed: int, std_mm: float, patch=PATCH, spacing=SPACING, control=CONTROL) -> torch.Tensor:
    vectors = sample_control_vectors(
        np.random.RandomState(seed), control_shape(patch, spacing, control), std_mm, control
    )
    return displacement_mm(vectors, patch, spacing, control)


def test_weights_are_the_cubic_bspline():
    positions = np.linspace(1, 5, 41)
    weights = bspline_weights(positions, 7)
    for point in range(7):
        expected = np.nan_to_num(BSpline.basis_element(np.arange(point - 2, point + 3), extrapolate=False)(positions))
        np.testing.assert_allclose(weights[:, point], expected, atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_field_equals_the_sum_over_control_points():
    """Brute force, voxel by voxel, with the patch in the middle of the control points."""
    shape = control_shape(PATCH, SPACING, CONTROL)
    assert shape == (5, 5, 5)
    vectors = np.random.RandomState(0).normal(size=(3, *shape)).astype(np.float32)
    result = displacement_mm(vectors, PATCH, SPACING, CONTROL)
    assert result.shape == (3, *PATCH)
    for voxel in ((0, 0, 0), (16, 23, 6), (5, 11, 3)):
        weights = []
        for axis in range(3):
            middle = (shape[axis] - 1) / 2
            offset = (voxel[axis] - (PATCH[axis] - 1) / 2) * SPACING[axis] / CONTROL[axis]
            weights.append(bspline_weights(np.array([middle + offset]), shape[axis])[0])
        expected = np.einsum("cijk,i,j,k->c", vectors, *weights)
        np.testing.assert_allclose(result[(slice(None), *voxel)], expected, atol=1e-5)


def test_constant_control_vectors_move_everything_alike():
    vectors = np.ones((3, *control_shape(PATCH, SPACING, CONTROL)), np.float32) * np.float32(2.5)
    torch.testing.assert_close(displacement_mm(vectors, PATCH, SPACING, CONTROL), torch.full((3, *PATCH), 2.5))


def test_no_deviation_is_the_identity():
    assert not field(0, 0.0).any()


def test_displacement_has_the_standard_deviation_asked_for():
    std = max_std_mm(min(CONTROL)) / 2
    fields = torch.stack([field(seed, std) for seed in range(100)])
    assert fields.mean().abs() < 0.05 * std
    assert fields.std().item() == pytest.approx(std, rel=0.04)


def test_never_folds_at_the_largest_deviation():
    """The Jacobian determinant of u + d(u) by central differences, on a patch much finer than the control grid."""
    patch, spacing, control = (25, 25, 13), (1.0, 1.0, 2.0), (8.0, 8.0, 8.0)
    smallest = []
    for seed in range(60):
        d = field(seed, max_std_mm(8.0), patch, spacing, control).numpy()
        gradient = np.stack([np.stack(np.gradient(d[i], *spacing)) for i in range(3)])
        jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)
        smallest.append(np.linalg.det(jacobian).min())
    assert 0 < min(smallest) < 0.7  # it deforms, and does not fold


def test_the_bound_holds_even_where_every_vector_reaches_it():
    vectors = sample_control_vectors(np.random.RandomState(0), (5, 5, 5), 100.0, CONTROL)
    for axis in range(3):
        assert np.abs(vectors[axis]).max() == pytest.approx(0.4 * CONTROL[axis])


def test_two_dimensions_equal_the_sum_over_control_points():
    patch, spacing, control = (17, 24), (1.0, 0.8), (12.0, 16.0)
    shape = control_shape(patch, spacing, control)
    vectors = np.random.RandomState(0).normal(size=(2, *shape)).astype(np.float32)
    result = displacement_mm(vectors, patch, spacing, control)
    for pixel in ((0, 0), (16, 23), (5, 11)):
        weights = []
        for axis in range(2):
            offset = (pixel[axis] - (patch[axis] - 1) / 2) * spacing[axis] / control[axis]
            weights.append(bspline_weights(np.array([(shape[axis] - 1) / 2 + offset]), shape[axis])[0])
        expected = np.einsum("cij,i,j->c", vectors, *weights)
        np.testing.assert_allclose(result[(slice(None), *pixel)], expected, atol=1e-5)
    fields = [field(seed, 0.5, patch, spacing, control) for seed in range(200)]
    assert torch.stack(fields).std().item() == pytest.approx(0.5, rel=0.04)


def test_the_first_unets_deformation_is_torchs_bicubic_interpolation():
    vectors = np.random.RandomState(0).normal(size=(2, 3, 3)).astype(np.float32)
    for size in ((61, 40), (3, 3), (1, 5)):
        result = bicubic_displacement_mm(vectors, size)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(vectors)[None], size=size, mode="bicubic", align_corners=True
        )[0]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    assert bicubic_displacement_mm(vectors, (61, 41))[:, 30, 20].tolist() == pytest.approx(vectors[:, 1, 1].tolist())


def test_the_first_unets_vectors_are_the_papers():
    tile = (572, 572)
    assert bicubic_bound_mm(tile, (1.0, 1.0)) > 40  # four deviations: clipping changes next to nothing
    random = np.random.RandomState(0)
    vectors = np.stack([unet_2015(random, tile, (1.0, 1.0)) for _ in range(500)])
    assert vectors.shape == (500, 2, 3, 3)
    assert vectors.std() == pytest.approx(10, rel=0.03)
    assert abs(vectors.mean()) < 0.3


def test_the_bicubic_bound_excludes_folding_and_is_not_idle():
    patch, spacing = (41, 33), (1.0, 0.7)
    bound = bicubic_bound_mm(patch, spacing)
    random = np.random.RandomState(0)
    smallest = []
    for factor in (1.0, 3.0):
        determinants = []
        for _ in range(300):
            vectors = (factor * bound * random.choice([-1, 1], size=(2, 3, 3))).astype(np.float32)
            d = bicubic_displacement_mm(vectors, patch).numpy()
            jacobian = np.stack([np.stack(np.gradient(d[i], *spacing)) for i in range(2)])
            determinants.append(np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)) + np.eye(2)).min())
        smallest.append(min(determinants))
    assert smallest[0] > 0 > smallest[1]
    assert np.abs(unet_2015(random, patch, spacing, std_mm=1000)).max() == pytest.approx(bound)
