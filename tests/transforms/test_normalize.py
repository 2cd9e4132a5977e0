import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, DataError
from pipeline.transforms import NormalizeChannelsd
from pipeline.transforms.normalize import body_mask, percentile_scale, window, z_score

RNG = np.random.default_rng(0)


def brain(shape=(21, 22, 9)) -> np.ndarray:
    image = RNG.gamma(4, 15, shape).astype(np.float32)
    image[:6] = 0
    return image


def test_body_is_what_is_not_zero_where_zero_means_outside():
    image = brain()
    np.testing.assert_array_equal(body_mask(image[None]), image != 0)
    few = RNG.normal(size=(20, 20, 20))
    few[0, 0, :3] = 0
    assert body_mask(few[None]).all()


def test_tissue_without_flow_lies_inside_the_body():
    flow, volume = brain(), brain()
    core = (slice(8, 12), slice(9, 13), slice(3, 6))
    assert (flow[core] != 0).all()
    inside = flow != 0
    flow[core] = volume[core] = 0
    mask = body_mask(np.stack([flow, volume]))
    np.testing.assert_array_equal(mask, inside)
    # far below the tissue's mean, which is 0
    assert (z_score(flow, inside=mask)[core] < -1.5).all()


def test_z_score_inside_the_body():
    image = brain()
    result = z_score(image)
    inside = image != 0
    assert result.dtype == np.float32
    assert (result[~inside] == 0).all()
    assert result[inside].mean() == pytest.approx(0, abs=1e-5)
    assert result[inside].std() == pytest.approx(1, abs=1e-5)
    # linear between the clips, so it correlates perfectly with the input there
    middle = inside & (image > np.percentile(image[inside], 1)) & (image < np.percentile(image[inside], 99))
    assert np.corrcoef(image[middle], result[middle])[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(z_score(image * 3 + 0), result, atol=1e-4)


def test_percentile_scale_clips_inside_the_body():
    image = brain()
    inside = image != 0
    low, high = np.percentile(image[inside], [0.5, 99], method="nearest")
    clipped = np.clip(image[inside], low, high)
    expected = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(percentile_scale(image)[inside], expected, atol=0.01)


# Of 125 voxels the absurd one takes a share of the tail along; unclipped, it would be the only one left.
@pytest.mark.parametrize(("shape", "limit"), [((5, 5, 5), 1.0), ((30, 30, 30), 0.2)])
@pytest.mark.parametrize("scheme", [z_score, percentile_scale])
def test_one_absurd_voxel_changes_next_to_nothing(scheme, shape, limit):
    image = np.random.default_rng(5).normal(100, 10, shape).astype(np.float32)
    damaged = image.copy()
    damaged[2, 2, 2] = 1e30
    difference = np.abs(scheme(damaged) - scheme(image))
    difference[2, 2, 2] = 0
    assert difference.max() < limit


def test_window():
    image = np.array([-1000.0, 0, 40, 80, 3000]).reshape(5, 1, 1)
    np.testing.assert_allclose(window(image, 0, 80).ravel(), [0, 0, 0.5, 1, 1])
    with pytest.raises(DataError, match="Hounsfield"):
        window(np.full((3, 3, 3), -1024.0), 0, 80)


def test_each_channel_by_its_scheme_in_the_order_of_the_stack():
    stack = np.stack([brain(), brain(), RNG.normal(40, 30, (21, 22, 9))]).astype(np.float32)
    image = MetaTensor(torch.from_numpy(stack), meta={"case_id": "a"})
    transform = NormalizeChannelsd(
        "image",
        ["cbf", "mri", "ct"],
        {
            "ct": {"scheme": "window", "lower_hu": 0, "upper_hu": 80},
            "cbf": {"scheme": "percentile", "lower": 1, "upper": 98},
            "MRI": {"scheme": "z_score"},
        },
    )
    result = transform({"image": image})["image"]
    assert isinstance(result, MetaTensor)
    assert result.meta["case_id"] == "a"
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result[0], percentile_scale(stack[0], 1, 98))
    np.testing.assert_allclose(result[1], z_score(stack[1]))
    np.testing.assert_allclose(result[2], window(stack[2], 0, 80))
    np.testing.assert_array_equal(image, stack)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_channel_is_refused_by_name(value):
    image = torch.full((2, 5, 5, 5), value)
    image[0] = torch.rand(5, 5, 5)
    transform = NormalizeChannelsd("image", ["cbf", "cbv"], {name: {"scheme": "z_score"} for name in ("cbf", "cbv")})
    with pytest.raises(DataError, match=r"case sub-01: found no contrast.*in channel cbv"):
        transform({"image": image, "case_id": "sub-01"})
    with pytest.raises(DataError, match="3 channels"):
        transform({"image": torch.rand(3, 5, 5, 5)})


@pytest.mark.parametrize(
    ("normalization", "found"),
    [
        ({"cbf": {"scheme": "zscore"}}, "did you mean z_score"),
        ({"cbf": {"scheme": "percentile", "uper": 99}}, "did you mean upper"),
        ({"cbv": {"scheme": "z_score"}}, "did you mean cbf"),
        ({}, "no normalization for cbf"),
        ({"cbf": {"scheme": "window", "lower_hu": 80, "upper_hu": 0}}, "lower_hu < upper_hu"),
        ({"cbf": {"scheme": "window", "lower_hu": 80}}, "lower_hu < upper_hu"),
    ],
)
def test_refuses_unknown_names(normalization, found):
    with pytest.raises(ConfigError, match=found):
        NormalizeChannelsd("image", ["cbf"], normalization)
