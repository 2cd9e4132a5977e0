import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Rand3DElastic

from pipeline.errors import ConfigError, DataError, GeometryError
from pipeline.transforms import RandElasticd
from pipeline.transforms.elastic import displacement_mm
from pipeline.transforms.patch_map import SpatialPatchParameters
from pipeline.transforms.rand_elastic import bspline_of_smoothed_noise

AFFINE = torch.diag(torch.tensor([-1.0, 1.5, 3.0, 1.0], dtype=torch.float64))


def item(shape=(30, 24, 10)):
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    return {
        "case_id": "a",
        "image": MetaTensor(image, affine=AFFINE, meta={"case_id": "a"}),
        "label": MetaTensor((image[:1] > 0.5).to(torch.uint8), affine=AFFINE),
    }


def test_a_configuration_of_monais_runs_and_keeps_shape_meta_and_input():
    data = item()
    before = data["image"].clone()
    transform = RandElasticd(
        ["image", "label"], sigma_range=(5, 8), magnitude_range=(20, 50), prob=1.0, mode=("bilinear", "nearest")
    ).set_random_state(0)
    result = transform(data)
    assert result["image"].shape == data["image"].shape
    assert result["label"].dtype == torch.uint8
    assert result["image"].meta["case_id"] == "a"
    assert torch.equal(result["image"].affine, AFFINE)
    assert torch.equal(data["image"], before)
    assert not torch.equal(result["image"], before)
    assert torch.equal(transform.set_random_state(0)(data)["image"], result["image"])


def test_without_a_deformation_the_middle_is_cut_out_and_knows_where_it_is():
    data = item()
    result = RandElasticd("image", (5, 8), (20, 50), spatial_size=(10, -1, 6), prob=0.0)(data)
    assert torch.equal(result["image"].as_tensor(), data["image"].as_tensor()[:, 10:20, :, 2:8])
    np.testing.assert_allclose(result["image"].affine[:3, 3], [-10, 0, 6])


def test_as_strong_and_as_smooth_as_monais_at_one_millimetre():
    sigma, magnitude, shape = 6.0, 60.0, (64, 64, 64)
    peer = Rand3DElastic(sigma_range=(sigma, sigma + 1e-6), magnitude_range=(magnitude, magnitude + 1e-6), prob=1.0)
    transform = RandElasticd("image", (sigma, sigma), (magnitude, magnitude), prob=1.0).set_random_state(0)
    ours, theirs = [], []
    for seed in range(3):
        drawn = transform.randomize(shape, (1.0,) * 3)
        ours.append(displacement_mm(drawn.control, shape, (1.0,) * 3, drawn.control_spacing_mm))
        peer.set_random_state(seed).randomize(shape)
        noise = torch.as_tensor(peer.rand_offset)[None].float()
        gaussian = torch.exp(-(torch.arange(-24.0, 25) ** 2) / (2 * sigma**2))
        gaussian /= gaussian.sum()
        for axis in (2, 3, 4):
            kernel = gaussian.reshape([1, 1, *[-1 if axis == other else 1 for other in (2, 3, 4)]])
            noise = torch.nn.functional.conv3d(noise.transpose(0, 1), kernel, padding="same").transpose(0, 1)
        theirs.append(noise[0, :, 16:-16, 16:-16, 16:-16] * magnitude)
    ours, theirs = (torch.stack(fields) for fields in (ours, theirs))
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15)
    steepness = [float(field.diff(dim=2).std() / field.std()) for field in (ours, theirs)]
    assert steepness[0] == pytest.approx(steepness[1], rel=0.15)


def test_rand_2d_elastic_by_the_spacing_of_its_control_points():
    affine = torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64))
    section = {"image": MetaTensor(torch.rand(1, 50, 40), affine=affine)}
    transform = RandElasticd("image", spacing=(20, 30), magnitude_range=(1, 2), prob=1.0, padding_mode="border")
    result = transform.set_random_state(0)(section)
    assert result["image"].shape == (1, 50, 40)
    drawn = SpatialPatchParameters.from_json(result["elastic_parameters"])
    assert drawn.control_spacing_mm == (20, 30)
    assert 0.5 < drawn.control.std() < 2.5


def test_what_would_fold_is_cut_and_said(caplog):
    _, std_mm = bspline_of_smoothed_noise(5, 200)
    assert std_mm > 1
    transform = RandElasticd("image", (5, 5), (200, 200), prob=1.0).set_random_state(0)
    smallest = []
    for _ in range(5):
        drawn = transform.randomize((40, 40, 40), (1.0,) * 3)
        d = displacement_mm(drawn.control, (40, 40, 40), (1.0,) * 3, drawn.control_spacing_mm).numpy()
        gradient = np.stack([np.stack(np.gradient(d[i])) for i in range(3)])
        smallest.append(np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)).min())
    assert min(smallest) > 0
    assert len(caplog.records) == 1
    assert "would fold" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sigma_range": (5, 8), "spacing": 20},
        {"sigma_range": (0, 8)},
        {"sigma_range": (5, 8), "magnitude_range": (3, 1)},
        {"spacing": 0},
        {"spacing": 20, "mode": "bicubic"},
        {"spacing": 20, "padding_mode": "zeros"},
        {"spacing": 20, "prob": 2},
    ],
)
def test_refuses_contradictions(arguments):
    with pytest.raises(ConfigError):
        RandElasticd("image", **arguments)


def test_refuses_other_items():
    transform = RandElasticd(["image", "label"], (5, 8), (1, 2), prob=1.0)
    with pytest.raises(GeometryError, match="case a"):
        transform({**item(), "label": torch.zeros(1, 3, 3, 3)})
    with pytest.raises(DataError, match="without an affine"):
        transform({"image": torch.zeros(1, 9, 9, 9), "label": torch.zeros(1, 9, 9, 9)})
