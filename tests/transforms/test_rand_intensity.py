"""What all members of the family keep to; what each computes stands in test_intensity.py and beyond."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose

import pipeline.transforms as room
from pipeline.data import CaseDataset
from pipeline.errors import ConfigError, DataError
from pipeline.transforms import RandBlurd, RandBrightnessd, RandGammad, RandNoised, RandSpatialPatchd
from pipeline.transforms.rand_intensity import RandIntensityd

PERFUSION = {"channels": ["cbf", "cbv", "mtt"]}
MEMBERS = {
    name: PERFUSION if name in ("RandPerfusiond", "RandDispersiond") else {}
    for name in room.__all__
    if isinstance(getattr(room, name), type) and issubclass(getattr(room, name), RandIntensityd)
}
MEMBERS["RandBrightnessd"] = {"factor": [0.8, 1.2], "offset": [-0.1, 0.1]}
GRIDS = {"volume": ((9, 12, 7), (1.0, 0.8, 5.0)), "section": ((14, 11), (1.0, 1.0))}


def make(name: str, seed: int = 0, prob: float = 1.0, **more) -> RandIntensityd:
    return getattr(room, name)("image", prob=prob, **{**MEMBERS[name], **more}).set_random_state(seed)


def item(grid: str = "volume", seed: int = 0) -> dict:
    shape, spacing = GRIDS[grid]
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32))
    return {"case_id": "a", "image": image, "spacing_mm": torch.tensor(spacing), "image_zero": torch.full((3,), -2.5)}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", MEMBERS)
def test_a_batch_is_what_its_samples_are_alone(name, grid):
    items = [item(grid, seed) for seed in range(4)]
    items[3]["spacing_mm"] = items[3]["spacing_mm"] * 1.5
    drawing, applying = make(name, seed=3), make(name, seed=4)
    drawn = [drawing.draw_for(each)["image"] for each in items]
    drawn[1] = None
    drawn = json.loads(json.dumps(drawn))
    before = torch.stack([each["image"] for each in items])
    kept = before.clone()
    spacing = [each["spacing_mm"].tolist() for each in items]
    batch = applying.apply(before, drawn, spacing)
    assert torch.equal(before, kept)
    assert torch.equal(batch[1], before[1])
    for index, each in enumerate(items):
        alone = applying.apply(each["image"][None], [drawn[index]], [spacing[index]])[0]
        torch.testing.assert_close(batch[index], alone, rtol=0, atol=1e-5)
        assert index == 1 or not torch.equal(alone, each["image"])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", MEMBERS)
def test_the_seed_alone_decides_and_what_was_drawn_makes_it_again(name, grid):
    source = item(grid)
    first, again, other = make(name, 1)(source), make(name, 1)(source), make(name, 2)(source)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    key = f"{name}_parameters"
    replayed = make(name, 3).replay(item(grid), first[key])
    assert torch.equal(replayed["image"], first["image"])
    assert replayed[key] == first[key] != other[key]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", sorted(set(MEMBERS) - {"RandNoised", "RandBrightnessd", "RandSliceDropoutd"}))
def test_a_constant_image_stays_constant(name, grid):
    if name in ("RandPerfusiond", "RandDispersiond", "RandChannelDropoutd"):
        source = {**item(grid), "image": torch.zeros_like(item(grid)["image"])}
    else:
        source = {**item(grid), "image": torch.full_like(item(grid)["image"], 3.0)}
    for seed in range(3):
        torch.testing.assert_close(make(name, seed)(source)["image"], source["image"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MEMBERS)
def test_without_a_draw_nothing_changes_and_that_is_recorded(name):
    source = item()
    result = make(name, prob=0.0)(source)
    assert result["image"] is source["image"]
    assert result[f"{name}_parameters"] == '{"image": null}'
    assert make(name).replay(source, result[f"{name}_parameters"])["image"] is source["image"]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_single_voxel_across_passes(name):
    thin = item()
    thin["image"] = thin["image"][..., :1].contiguous()
    assert torch.isfinite(make(name)(thin)["image"]).all()


def test_probability():
    transform = RandNoised("image", prob=0.3).set_random_state(0)
    drawn = sum(transform.draw((1, 2, 2), (1.0, 1.0)) is not None for _ in range(2000))
    assert drawn == pytest.approx(600, abs=62)  # three deviations


def test_channel_wise_or_all_alike():
    shape, spacing = (4, 5, 5), (1.0, 1.0)
    alike = RandGammad("image", prob=1.0).set_random_state(0).draw(shape, spacing)["gamma"]
    own = RandGammad("image", prob=1.0, channel_wise=True).set_random_state(0).draw(shape, spacing)["gamma"]
    assert len(alike) == len(own) == 4
    assert len(set(alike)) == 1
    assert len(set(own)) == 4


def test_the_voxel_size_of_an_affine_and_none():
    affine = np.diag([2.0, 1.0, 5.0, 1.0])
    volume = MetaTensor(item()["image"], affine=affine)
    blur = RandBlurd("image", prob=1.0, sigma_mm=3.0)
    result = blur.set_random_state(0)({"image": volume})["image"]
    assert isinstance(result, MetaTensor)
    np.testing.assert_allclose(result.affine, affine)
    plain = blur({"image": item()["image"], "spacing_mm": (2.0, 1.0, 5.0)})["image"]
    torch.testing.assert_close(result.as_tensor(), plain)
    with pytest.raises(DataError, match=r"case a: found image without a voxel size.*spacing_mm"):
        blur({"case_id": "a", "image": item()["image"]})
    # Noise does not look at it.
    RandNoised("image", prob=1.0)({"image": item()["image"]})


def test_what_a_config_may_not_say():
    with pytest.raises(ConfigError, match=r"prob=1\.5"):
        RandNoised("image", prob=1.5)
    with pytest.raises(ConfigError, match=r"std=\[0.2, 0.1\]"):
        RandNoised("image", std=[0.2, 0.1])
    with pytest.raises(ConfigError, match="factor=-1"):
        RandBrightnessd("image", factor=-1)
    with pytest.raises(ConfigError, match="gamma above 0"):
        RandGammad("image", gamma=[0.0, 1.0])


def test_after_a_patch_in_a_dataset_whatever_the_order(tmp_path):
    """Each sample of `CaseDataset` depends on seed, index and epoch alone; all entries collate."""
    cases = [
        {"image": MetaTensor(torch.rand(1, 9, 8, 7) + n), "label": MetaTensor(torch.ones(1, 9, 8, 7))} for n in range(3)
    ]
    steps = [
        RandSpatialPatchd(["image", "label"], patch_size=[6, 6, 4]),
        *(make(n) for n in ("RandNoised", "RandBlurd")),
    ]
    dataset = CaseDataset(cases, Compose(steps), seed=5, progress=False)
    forwards, backwards = [dataset[i] for i in (0, 1, 2)], [dataset[i] for i in (2, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert one["RandNoised_parameters"] == other["RandNoised_parameters"]
        assert not isinstance(one["image"], MetaTensor)
    batch = list_data_collate(forwards)
    assert batch["image"].shape == (3, 1, 6, 6, 4)
    assert len(batch["RandBlurd_parameters"]) == 3
