"""What every transform of the room keeps to: JSON-constructible, picklable, leaves its input alone, collates."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, MapTransform, Randomizable

import pipeline.transforms
from pipeline.geometry import Grid
from pipeline.io import write_volume

CONFIGS = {
    "LoadImageStackd": {"channels": ["cbf", "mtt"], "labels": {"1": "lesion"}},
    "NormalizeChannelsd": {
        "keys": "image",
        "channels": ["cbf", "mtt"],
        "normalization": {"cbf": {"scheme": "percentile"}, "mtt": {"scheme": "z_score"}},
    },
    "SeparateObjectsd": {},
    "BorderWeightsd": {"keys": "label"},
    "ForegroundIndicesd": {},
    "RandElasticd": {
        "keys": ["image", "label"],
        "sigma_range": [9, 13],
        "magnitude_range": [50, 100],
        "prob": 1.0,
        "mode": ["bilinear", "majority"],
    },
    "ZeroAbsentChannelsd": {"keys": "image"},
    "RandSpatialPatchd": {
        "keys": ["image", "label", "weight"],
        "patch_size": [8, 8, 4],
        "affine_probability": 1.0,
        "elastic_probability": 1.0,
    },
}
INTENSITY = {
    "RandPerfusiond": {"channels": ["cbf", "mtt"]},
    "RandDispersiond": {"channels": ["cbf", "mtt"]},
    "RandBiasFieldd": {"channel_wise": True},
    "RandMotiond": {},
    "RandGhostingd": {},
    "RandSpiked": {},
    "RandGammad": {},
    "RandContrastd": {"channel_wise": True},
    "RandBrightnessd": {"factor": [0.8, 1.2], "offset": [-0.1, 0.1]},
    "RandBlurd": {},
    "RandLowResolutiond": {},
    "RandNoised": {},
    "RandSliceDropoutd": {},
    "RandChannelDropoutd": {},
}
CONFIGS |= {name: {"keys": "image", "prob": 1.0, **config} for name, config in INTENSITY.items()}
GRID = Grid((13, 11, 5), np.diag([1.0, 1.1, 5.0, 1.0]))


def build(name: str) -> MapTransform:
    config = {"transform": {"_target_": f"pipeline.transforms.{name}", **json.loads(json.dumps(CONFIGS[name]))}}
    return ConfigParser(config).get_parsed_content("transform")


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cbf", "mtt", "lesion"):
        array = rng.integers(0, 2, GRID.shape) if name == "lesion" else rng.gamma(4, 15, GRID.shape)
        write_volume(tmp_path / f"a_{name}.nii.gz", array, GRID)
    return {
        "case_id": "a",
        "image": {name: str(tmp_path / f"a_{name}.nii.gz") for name in ("cbf", "mtt")},
        "label": str(tmp_path / "a_lesion.nii.gz"),
    }


def test_every_public_transform_is_in_this_suite():
    public = {n for n in pipeline.transforms.__all__ if issubclass_of(getattr(pipeline.transforms, n), MapTransform)}
    assert public == set(CONFIGS)


def issubclass_of(value, kind) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name, files):
    transform = pickle.loads(pickle.dumps(build(name)))
    item = files if name == "LoadImageStackd" else build("LoadImageStackd")(files)
    if name in ("RandPerfusiond", "RandDispersiond"):  # of a normalised image, which says where 0 lies
        item = build("NormalizeChannelsd")(item)
    before = copy.deepcopy(item)
    if isinstance(transform, Randomizable):
        transform.set_random_state(seed=0)
    result = transform(item)
    for key, value in before.items():
        assert torch.equal(item[key], value) if isinstance(value, torch.Tensor) else item[key] == value
    assert set(result) >= {"case_id", "image", "label"}
    assert result["image"].shape[0] == 2
    assert result["label"].shape == (1, *result["image"].shape[1:])
    assert result["image"].dtype == torch.float32
    assert torch.isfinite(result["image"]).all()
    assert set(result["label"].unique().tolist()) <= {0, 1}
    if not isinstance(transform, Randomizable):
        assert isinstance(result["image"], MetaTensor)
        assert result["image"].meta["case_id"] == "a"
        again = transform(item)
        assert torch.equal(result["image"], again["image"])


def test_the_whole_chain_through_a_loader_with_workers(files):
    chain = Compose([build(name) for name in CONFIGS])
    loader = DataLoader(Dataset([files] * 4, chain), batch_size=2, num_workers=1)
    batches = list(loader)
    assert [tuple(batch["image"].shape) for batch in batches] == [(2, 2, 8, 8, 4)] * 2
    assert [tuple(batch["label"].shape) for batch in batches] == [(2, 1, 8, 8, 4)] * 2
