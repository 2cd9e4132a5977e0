import numpy as np
import pytest

from pipeline.transforms.elastic import control_shape, sample_control_vectors
from pipeline.transforms.patch_map import SpatialPatchParameters, patch_map, source_coordinates


def drawn(random, patch, spacing, control_mm, std_mm, elastic):
    dims = len(patch)
    if elastic == "unet_2015":
        control = random.normal(0, std_mm, (dims, 3, 3)).astype(np.float32)
    elif elastic:
        control = sample_control_vectors(random, control_shape(patch, spacing, control_mm), std_mm, control_mm)
        control *= random.choice([1.0, 10.0])  # also what folds
    angles = tuple(random.uniform(-40, 40, 3 if dims == 3 else 1))
    return SpatialPatchParameters(
        tuple(random.randint(-9, 9, dims).tolist()),
        tuple((random.rand(dims) < 0.5).tolist()),
        angles,
        tuple(random.uniform(0.7, 1.4, dims)),
        control if elastic else None,
        None if elastic == "unet_2015" else control_mm,
        tuple(0.3 * angle for angle in angles),
    )


@pytest.mark.parametrize("elastic", [None, "bspline", "unet_2015"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_coordinate_lies_in_the_range_and_b_splines_nearly_fill_it(dims, elastic):
    if (dims, elastic) == (3, "unet_2015"):
        pytest.skip("of sections alone")
    random, wasted = np.random.RandomState(0), []
    for _ in range(60):
        patch = tuple(random.randint(1, 50, dims).tolist())
        spacing, control_mm = tuple(random.uniform(0.5, 4, dims)), tuple(random.uniform(3, 40, dims))
        parameters = drawn(random, patch, spacing, control_mm, 0.1 * min(control_mm), elastic)
        where = source_coordinates(parameters, patch, spacing).numpy().reshape(dims, -1)
        bounds = patch_map(parameters, patch, spacing)
        low, high = np.array(bounds.low[-dims:]), np.array(bounds.high[-dims:])
        assert (where.min(1) >= low + 0.99).all()  # one voxel to spare
        assert (where.max(1) <= high - 0.99).all()
        extent = np.ptp(where, axis=1)
        wasted += ((high - low - 4 - extent) / (extent + 4)).tolist()
    assert elastic == "unet_2015" or np.mean(wasted) < 0.05
