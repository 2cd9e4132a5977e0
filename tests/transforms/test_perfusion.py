"""Perfusion maps that are changed after their normalisation, against the same change before it."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, DataError
from pipeline.transforms import NormalizeChannelsd, RandDispersiond, RandPerfusiond
from pipeline.transforms.smooth_field import smooth_field

CHANNELS = ["mtt", "cbf", "cbv"]  # not the usual order: channels are found by name
SCHEMES = {name: {"scheme": "percentile", "lower": 0.0, "upper": 100.0} for name in CHANNELS}


def maps(shape=(12, 14, 6)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    flow, volume = rng.uniform(5, 80, shape), rng.uniform(1, 6, shape)
    raw = {"cbf": flow, "cbv": volume, "mtt": 60 * volume / flow}
    for image in raw.values():
        image[:3] = 0  # outside the brain
    return raw


def normalised(raw: dict[str, np.ndarray]) -> dict:
    stack = torch.from_numpy(np.stack([raw[name] for name in CHANNELS]).astype(np.float32))
    image = MetaTensor(stack, affine=np.diag([2.0, 2.0, 6.0, 1.0]))
    return NormalizeChannelsd("image", CHANNELS, SCHEMES)({"case_id": "a", "image": image})


def physical(item: dict, like: dict) -> dict[str, np.ndarray]:
    """Back to units, by the mean and deviation that were taken off inside the brain."""
    inside = like["cbf"] != 0
    result = {}
    for channel, name in enumerate(CHANNELS):
        mean, std = like[name][inside].mean(), like[name][inside].std()
        result[name] = np.where(inside, item["image"][channel].numpy() * std + mean, 0)
    return result


def test_normalisation_says_where_zero_lies():
    raw = maps()
    item = normalised(raw)
    for channel, name in enumerate(CHANNELS):
        body = raw[name][raw[name] != 0]
        assert float(item["image_zero"][channel]) == pytest.approx(-body.mean() / body.std(), rel=1e-5)
    ct = NormalizeChannelsd("image", ["ct"], {"ct": {"scheme": "window", "lower_hu": -100, "upper_hu": 300}})
    result = ct({"image": torch.tensor([[[-200.0, 0.0], [100.0, 400.0]]])})
    assert float(result["image_zero"][0]) == float(result["image"][0, 0, 1]) == 0.25


@pytest.mark.parametrize("seed", range(3))
def test_transit_time_follows_from_flow_and_volume(seed):
    raw = maps()
    transform = RandPerfusiond("image", CHANNELS, prob=1.0, std=0.2, control_mm=20.0).set_random_state(seed)
    item = normalised(raw)
    result = transform(item)
    assert (result["image"][:, :3] == 0).all()
    after, inside = physical(result, raw), raw["cbf"] != 0
    np.testing.assert_allclose(after["mtt"][inside], 60 * after["cbv"][inside] / after["cbf"][inside], rtol=2e-3)
    drawn = transform.set_random_state(seed).draw_for(item)["image"]
    for name in ("cbf", "cbv"):
        factor = smooth_field(drawn[name], inside.shape, (2.0, 2.0, 6.0), 20.0, torch.zeros(1)).exp().numpy()
        assert factor.std() > 0.05
        np.testing.assert_allclose(after[name][inside], (raw[name] * factor)[inside], rtol=2e-3)


def test_it_is_what_the_same_change_before_normalisation_gives_up_to_the_scale():
    """A normalised map is only known up to its own mean and deviation: taken off once more, both are the same."""
    raw = maps()
    transform = RandPerfusiond("image", CHANNELS, prob=1.0, std=0.2, control_mm=20.0).set_random_state(0)
    result = transform(normalised(raw))["image"]
    drawn = transform.set_random_state(0).draw_for(normalised(raw))["image"]
    flow, volume = (
        smooth_field(drawn[name], raw["cbf"].shape, (2.0, 2.0, 6.0), 20.0, torch.zeros(1)).exp().numpy()
        for name in ("cbf", "cbv")
    )
    before = {"cbf": raw["cbf"] * flow, "cbv": raw["cbv"] * volume, "mtt": raw["mtt"] * volume / flow}
    expected = normalised(before)["image"]
    inside = torch.from_numpy(raw["cbf"] != 0)
    for ours, theirs in zip(result, expected, strict=True):
        values = ours[inside]
        values = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(values.as_tensor(), theirs[inside].as_tensor(), rtol=0, atol=1e-3)


def test_dispersion_prolongs_where_it_strikes_and_keeps_the_volume():
    raw = maps()
    transform = RandDispersiond("image", CHANNELS, prob=1.0, prolongation=0.3, radius_mm=8.0).set_random_state(0)
    item = normalised(raw)
    after, inside = physical(transform(item), raw), raw["cbf"] != 0
    drawn = transform.set_random_state(0).draw_for(item)["image"]
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in inside.shape], indexing="ij"), -1)
    distance = np.linalg.norm((grid - drawn["centre"]) * [2.0, 2.0, 6.0], axis=-1)
    factor = 1 + 0.3 * np.exp(-(distance**2) / (2 * 8.0**2))
    np.testing.assert_allclose(after["mtt"][inside], (raw["mtt"] * factor)[inside], rtol=2e-3)
    np.testing.assert_allclose(after["cbf"][inside], (raw["cbf"] / factor)[inside], rtol=2e-3)
    np.testing.assert_allclose(after["cbv"][inside], raw["cbv"][inside], rtol=1e-4)


def test_channels_by_name_and_what_must_stand_before():
    with pytest.raises(ConfigError, match="at least two of cbf, cbv and mtt"):
        RandPerfusiond("image", ["flair", "cbf"])
    with pytest.raises(DataError, match=r"case a: .*image_zero.*NormalizeChannelsd"):
        RandPerfusiond("image", CHANNELS)({"case_id": "a", "image": torch.rand(3, 4, 4), "spacing_mm": (1.0, 1.0)})


def test_an_absent_channel_stays_zero():
    raw = maps()
    item = normalised(raw)
    item["image"][0] = 0
    item["image_zero"][0] = 0
    result = RandPerfusiond("image", CHANNELS, prob=1.0, std=0.2)(item)["image"]
    assert (result[0] == 0).all()
    assert not torch.equal(result[1], item["image"][1])
