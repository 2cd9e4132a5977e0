"""A small base and a small bundle, written by hand: what the shipped ones look like, with MONAI's own classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

COMMON = """
bundle_root: .
dataset_dir: data
output_dir: $@bundle_root + '/runs'
device: cpu
spatial_dims: 3
channels: []
classes: {}
in_channels: 1
out_channels: 2
patch_size: [8, 8, 8]
learning_rate: 1.0e-3
max_epochs: 3
val_interval: 1
ema: null
network: "@network_def"
"""

NETWORK = """
network_def:
  _target_: monai.networks.nets.UNet
  spatial_dims: "@spatial_dims"
  in_channels: "@in_channels"
  out_channels: "@out_channels"
  channels: [4, 8]
  strides: [2]
"""

OTHER_NETWORK = """
network_def:
  _target_: monai.networks.nets.SegResNet
  spatial_dims: "@spatial_dims"
  in_channels: "@in_channels"
  out_channels: "@out_channels"
  init_filters: 8
"""

TRAIN = """
_base_: [common.yaml, network]
optimizer: {_target_: torch.optim.SGD, params: $@network.parameters(), lr: "@learning_rate"}
train:
  steps:
    tensor: {_target_: monai.transforms.EnsureTyped, keys: [image]}
    scale: {_target_: monai.transforms.ScaleIntensityd, keys: [image], minv: 0.0, maxv: 1.0}
    crop: {_target_: monai.transforms.RandSpatialCropd, keys: [image], roi_size: "@patch_size"}
  preprocessing: {_target_: monai.transforms.Compose, transforms: "@@train#steps"}
  dataset: {_target_: monai.data.Dataset, data: [], transform: "@train#preprocessing"}
  dataloader: {_target_: monai.data.DataLoader, dataset: "@train#dataset", batch_size: 1}
  inferer: {_target_: monai.inferers.SimpleInferer}
  handlers:
    validation:
      _target_: monai.handlers.ValidationHandler
      validator: "@validate#evaluator"
      interval: "@val_interval"
    stats: {_target_: monai.handlers.StatsHandler, iteration_log: false}
  trainer:
    _target_: monai.engines.SupervisedTrainer
    max_epochs: "@max_epochs"
    device: "@device"
    train_data_loader: "@train#dataloader"
    network: "@network"
    optimizer: "@optimizer"
    loss_function: {_target_: monai.losses.DiceCELoss, softmax: true, to_onehot_y: true}
    inferer: "@train#inferer"
    train_handlers: "@train#handlers"
validate:
  steps:
    tensor: {_target_: monai.transforms.EnsureTyped, keys: [image]}
  preprocessing: {_target_: monai.transforms.Compose, transforms: "@@validate#steps"}
  dataset: {_target_: monai.data.Dataset, data: [], transform: "@validate#preprocessing"}
  dataloader: {_target_: monai.data.DataLoader, dataset: "@validate#dataset"}
  inferer: {_target_: monai.inferers.SlidingWindowInferer, roi_size: "@patch_size", overlap: 0.5}
  handlers:
    stats: {_target_: monai.handlers.StatsHandler, iteration_log: false}
  evaluator:
    _target_: monai.engines.SupervisedEvaluator
    device: "@device"
    val_data_loader: "@validate#dataloader"
    network: "@network"
    inferer: "@validate#inferer"
    val_handlers: "@validate#handlers"
initialize: []
run: [$@train#trainer.run()]
"""

INFERENCE = """
_base_: [common.yaml, network]
steps:
  tensor: {_target_: monai.transforms.EnsureTyped, keys: [image]}
preprocessing: {_target_: monai.transforms.Compose, transforms: "@@steps"}
dataset: {_target_: monai.data.Dataset, data: [], transform: "@preprocessing"}
dataloader: {_target_: monai.data.DataLoader, dataset: "@dataset"}
inferer: {_target_: monai.inferers.SlidingWindowInferer, roi_size: "@patch_size", overlap: 0.5}
postprocessing:
  _target_: monai.transforms.Compose
  transforms: [{_target_: monai.transforms.AsDiscreted, keys: pred, argmax: true}]
handlers:
  stats: {_target_: monai.handlers.StatsHandler, iteration_log: false}
evaluator:
  _target_: monai.engines.SupervisedEvaluator
  device: "@device"
  val_data_loader: "@dataloader"
  network: "@network"
  inferer: "@inferer"
  postprocessing: "@postprocessing"
  val_handlers: "@handlers"
run: [$@evaluator.run()]
"""

BUNDLE = """
network: small
channels: [cbf, mtt]
classes: {1: lesion}
in_channels: 2
learning_rate: 2.0e-3
network_def: {channels: [4, 8, 8], strides: [2, 2], num_res_units: 1}
train#trainer#amp: false
"""

TENSOR = {"type": "image", "format": "hounsfield", "dtype": "float32", "value_range": [0, 1], "is_patch_data": True}
METADATA = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
    "version": "0.2.0",
    "changelog": {"0.2.0": "second", "0.1.0": "first"},
    "monai_version": "1.6.0",
    "pytorch_version": "2.8.0",
    "numpy_version": "2.0.0",
    "required_packages_version": {"monai-volume-pipeline": "0.1.0"},
    "task": "lesions",
    "description": "a bundle for tests",
    "authors": "tests",
    "copyright": "none",
    "network_data_format": {
        "inputs": {
            "image": {
                **TENSOR,
                "num_channels": 2,
                "spatial_shape": ["8*n", "8*n", "8*n"],
                "channel_def": {"0": "cbf", "1": "mtt"},
            }
        },
        "outputs": {
            "pred": {
                **TENSOR,
                "num_channels": 2,
                "spatial_shape": ["8*n", "8*n", "8*n"],
                "channel_def": {"0": "background", "1": "lesion"},
            }
        },
    },
}


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A folder of base configs: five kinds, two networks in 3D and one in 2D."""
    folder = tmp_path / "configs"
    (folder / "networks").mkdir(parents=True)
    for name, text in {
        "common": COMMON,
        "train": TRAIN,
        "evaluate": "_base_: [inference.yaml]\nrun: [$@evaluator.run()]",
        "inference": INFERENCE,
        "multi_gpu_train": "_base_: [train.yaml]\ntrain#handlers#stats: null",
        "multi_gpu_evaluate": "_base_: [evaluate.yaml]",
        "networks/small_3d": NETWORK,
        "networks/small_2d": NETWORK.replace("[4, 8]", "[2, 4]"),
        "networks/residual_3d": OTHER_NETWORK,
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A complete bundle, not yet built."""
    folder = tmp_path / "bundles" / "tiny_perfusion_segmentation"
    (folder / "configs").mkdir(parents=True)
    (folder / "docs").mkdir()
    (folder / "configs" / "bundle.yaml").write_text(BUNDLE)
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
        (folder / name).write_text("text")
    return folder


@pytest.fixture
def delta(bundle: Path):
    """Adds lines to the bundle's delta and returns the bundle."""

    def add(text: str) -> Path:
        file = bundle / "configs" / "bundle.yaml"
        file.write_text(file.read_text() + text + "\n")
        return bundle

    return add
