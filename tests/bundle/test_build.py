from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch

from pipeline.bundle import KINDS, build, find_bundle, resolve
from pipeline.errors import BundleError, ConfigError

# Ignite's own import, on torch >= 2.13.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def test_writes_five_files_that_stand_alone(bundle, configs):
    result = build(bundle, configs=configs)
    assert [file.name for file in result.files] == [f"{kind}.json" for kind in KINDS]
    assert result.changed == result.files
    train = json.loads((bundle / "configs" / "train.json").read_text())
    assert train["learning_rate"] == 2e-3
    assert train["classes"] == {"1": "lesion"}
    assert train["network"] == "@network_def"
    assert train["network_def"] == {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": "@spatial_dims",
        "in_channels": "@in_channels",
        "out_channels": "@out_channels",
        "channels": [4, 8, 8],
        "strides": [2, 2],
        "num_res_units": 1,  # not in the base, but in the signature
    }
    assert train["train"]["preprocessing"]["transforms"] == [
        "@train#steps#tensor",
        "@train#steps#scale",
        "@train#steps#crop",
    ]
    assert train["train"]["trainer"]["amp"] is False
    assert [h["_target_"].rsplit(".")[-1] for h in train["train"]["handlers"]] == ["ValidationHandler", "StatsHandler"]
    # A handler that a base file removes from the base below it.
    multi = json.loads((bundle / "configs" / "multi_gpu_train.json").read_text())
    assert [h["_target_"] for h in multi["train"]["handlers"]] == ["monai.handlers.ValidationHandler"]


def test_bytes_are_deterministic_and_keep_the_order_of_the_base(bundle, configs):
    build(bundle, configs=configs)
    first = {kind: (bundle / "configs" / f"{kind}.json").read_bytes() for kind in KINDS}
    assert build(bundle, configs=configs).changed == ()
    for content in first.values():
        assert content.endswith(b"\n}\n")
        assert b"\r" not in content
    keys = list(json.loads(first["inference"]))
    assert keys[:3] == ["bundle_root", "dataset_dir", "output_dir"]
    assert keys[-1] == "run"


def test_check_names_stale_files_and_the_fix(bundle, configs, delta):
    with pytest.raises(BundleError, match=r"stale train.json.*pipeline build .*tiny_perfusion_segmentation"):
        build(bundle, check=True, configs=configs)
    build(bundle, configs=configs)
    build(bundle, check=True, configs=configs)
    delta("train#steps#scale: {maxv: 2.0}")
    with pytest.raises(BundleError, match=r"stale train.json, multi_gpu_train.json;"):
        build(bundle, check=True, configs=configs)


def test_real_monai_runs_the_generated_lists_of_references(bundle, configs):
    from monai.bundle import ConfigParser

    build(bundle, configs=configs)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    chain = parser.get_parsed_content("train#preprocessing")
    assert [type(t).__name__ for t in chain.transforms] == ["EnsureTyped", "ScaleIntensityd", "RandSpatialCropd"]
    patch = chain({"image": torch.arange(2000.0).reshape(2, 10, 10, 10)})["image"]
    assert patch.shape == (2, 8, 8, 8)
    assert float(patch.min()) >= 0.0
    assert float(patch.max()) <= 1.0
    assert chain.transforms[2] is parser.get_parsed_content("train#steps#crop")
    trainer = parser.get_parsed_content("train#trainer")
    assert trainer.state.max_epochs == 3
    assert trainer.optimizer.defaults["lr"] == 2e-3


def test_plain_monai_runs_a_generated_file_with_an_override_of_a_step(bundle, configs):
    from monai.bundle import ConfigWorkflow

    build(bundle, configs=configs)
    items = [{"image": torch.rand(2, 8, 8, 8)} for _ in range(2)]
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"), workflow_type="infer", logging_file=False,
        **{"dataset#data": items, "steps#tensor#dtype": None},
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    output = workflow.evaluator.state.output[0]
    assert output["pred"].shape == (1, 8, 8, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 7", r"bundle.yaml: found the unknown key epochs; .*nearest: max_epochs"),
        ("train#steps#crop#num_sample: 2", r"unknown key train#steps#crop#num_sample"),
        ("train#steps#corp: {roi_size: 3}", r"unknown key train#steps#corp.*nearest: train#steps#crop"),
        ("train#steps#scale#max_v: 3", r"unknown key train#steps#scale#max_v.*nearest: train#steps#scale#maxv"),
        ("network_def#featurs: 3", "unknown key network_def#featurs"),
        ("train#steps#scale: {_target_: monai.transforms.Flipd, keys: image}", "_replace_: true"),
        ("train#steps#scale: {_replace_: true, keys: image}", "without _target_"),
        ("train#steps#flip: {_target_: monai.transforms.Flipd, keys: image, axis: 0}", r"'axis'.*spatial_axis"),
        ("train#steps#bad: {_target_: os.system, command: id}", "_target_: os.system"),
        ("validate: 3", "3 in place of a dict at validate"),
        ("optimizer: 3", "3 in place of a dict at optimizer"),
        (
            "train#steps#crop: {_after_: nothing}",
            r"_after_: 'nothing' at train#steps#crop; expected one of tensor, scale",
        ),
        ("train#steps#crop: null\nema: '@train#steps#crop'", r"@train#steps#crop at ema.*nearest"),
        ("train#steps#scale: {_disabled_: true}", "set train#steps#scale to null"),
        ("ema: 1e-4", r"1e-4 in line \d+.*write 1.0e-4"),
        ("max_epochs: 1\nmax_epochs: 2", "'max_epochs' twice"),
        ("optimizer#lr: 1\noptimizer: {lr: 2}", "two values for optimizer#lr"),
        ("ema: $__import__('os')", "expected a reference"),
    ],
)
def test_refuses(delta, configs, text, message):
    file_texts = delta(text)
    with pytest.raises((ConfigError, BundleError), match=message) as caught:
        build(file_texts, configs=configs)
    assert str(file_texts) in str(caught.value)
    assert not (file_texts / "configs" / "train.json").exists()


def test_a_delta_inserts_moves_removes_and_replaces_steps_and_handlers(delta, configs):
    bundle = delta(
        """
train#steps#flip: {_target_: monai.transforms.RandFlipd, keys: [image], prob: 0.5, _after_: tensor}
train#steps#scale: null
train#steps#crop: {_before_: tensor}
train#handlers#stats: null
train#handlers#loss: {_target_: monai.handlers.StatsHandler, tag_name: loss}
inferer: {_replace_: true, _target_: monai.inferers.SimpleInferer}
validate#inferer: "@train#inferer"
"""
    )
    train = resolve(bundle, "train", configs=configs)
    assert train["train"]["preprocessing"]["transforms"] == [f"@train#steps#{s}" for s in ("crop", "tensor", "flip")]
    assert train["train"]["steps"]["flip"] == {
        "_target_": "monai.transforms.RandFlipd",
        "keys": ["image"],
        "prob": 0.5,
    }
    assert [h.get("tag_name") for h in train["train"]["handlers"]] == [None, "loss"]
    assert train["validate"]["inferer"] == "@train#inferer"
    assert resolve(bundle, "inference", configs=configs)["inferer"] == {"_target_": "monai.inferers.SimpleInferer"}


def test_a_key_applies_to_every_kind_that_knows_it(delta, configs):
    bundle = delta("val_interval: 5\ninferer#overlap: 0.25")
    assert resolve(bundle, "train", configs=configs)["val_interval"] == 5
    assert "overlap" not in resolve(bundle, "train", configs=configs)["train"]["inferer"]
    assert resolve(bundle, "evaluate", configs=configs)["inferer"]["overlap"] == 0.25


def test_overrides_by_name_and_by_yaml_value(bundle, configs):
    config = resolve(
        bundle,
        "train",
        overrides=(
            "max_epochs=7",
            "train#steps#crop#random_center=false",
            "train::steps::scale=null",
            "patch_size=[4, 4, 8]",
            "train#handlers#stats#tag_name=loss",
            "output_dir=/tmp/a=b",
            "ema={_target_: monai.inferers.SimpleInferer}",
            ("dataset_dir", "/data: [1]"),
        ),
        configs=configs,
    )
    assert config["max_epochs"] == 7
    assert config["train"]["steps"]["crop"]["random_center"] is False
    assert "@train#steps#scale" not in config["train"]["preprocessing"]["transforms"]
    assert config["patch_size"] == [4, 4, 8]
    assert config["train"]["handlers"][1]["tag_name"] == "loss"
    assert config["output_dir"] == "/tmp/a=b"
    assert config["dataset_dir"] == "/data: [1]"
    assert not (bundle / "configs" / "train.json").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=7", r"train.json: found the unknown key epoch;.*nearest: max_epochs"),
        ("train#trainer#max_epoch=7", r"unknown key train#trainer#max_epoch;.*nearest: train#trainer#max_epochs"),
        ("num_samples", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        (("dataset_dir", "/data/#1"), "no # in text"),
        ("max_epochs=ten", "the text 'ten' at max_epochs"),
        ("max_epochs=2.5", "2.5 at max_epochs; expected a whole number"),
        ("learning_rate=0,003", "the text '0,003' at learning_rate; expected a number, with a decimal point"),
        ("max_epochs={a: 1}", "a dict in place of 3 at max_epochs"),
        ("patch_size={a: 1}", "a dict in place of a list at patch_size"),
        ("patch_size=[4, 4]", r"patch_size \[4, 4\]; expected 3 numbers, one per axis"),
        ("patch_size=4", "expected 3 numbers, one per axis"),
        ("train#trainer#network#channels=3", "unknown key train#trainer#network#channels"),
        ("learning_rate=1e-4", "write 1.0e-4"),
        ("train#handlers#0#interval=2", "unknown key train#handlers#0"),
        ("network=unt", r"no network 'unt' for 3 dimensions.*one of residual, small"),
        ("run=[$@train#trainer.run(1)]", "expected a reference"),
    ],
)
def test_refused_overrides(bundle, configs, override, message):
    with pytest.raises((ConfigError, BundleError), match=message):
        resolve(bundle, "train", overrides=(override,), configs=configs)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flip_axes=null", r"flip_axes null; expected a list; \[\] is none"),
        ("flip_axes=0", "flip_axes 0; expected a list"),
        ("channels=null", "channels null"),
        ("fill_holes=null", "fill_holes null"),
        ("spacing_limits_mm=null", "spacing_limits_mm null"),
        ("spacing_limits_mm=[1.0]", "expected two lengths"),
        ("spatial_dims=null", "spatial_dims None; expected 2 or 3"),
        ("largest_component=[1, 7]", r"largest_component \[1, 7\]; expected class ids, of 1, 2"),
        ("fill_holes=[0]", r"fill_holes \[0\]; expected class ids"),
    ],
)
def test_what_no_component_can_use_is_refused_before_one_meets_it(override, message):
    with pytest.raises(ConfigError, match=message):
        resolve(find_bundle("hippocampus_mri_segmentation"), "train", overrides=(override,))


def test_sizes_that_contradict_in_the_delta_are_said_of_it(bundle, configs):
    delta = bundle / "configs" / "bundle.yaml"
    delta.write_text(f"{delta.read_text()}\npatch_size: [4, 4]\n")
    with pytest.raises(ConfigError, match="one per axis") as refused:
        build(bundle, configs=configs)
    assert refused.value.file == str(delta)


def test_what_sections_do_not_have_and_classes_that_there_are_are_told_apart():
    with pytest.raises(ConfigError, match=r"minimum_component_ml 0\.5 of sections"):
        resolve(find_bundle("nuclei_microscopy_segmentation"), "inference", overrides=("minimum_component_ml=0.5",))
    taken = ("minimum_component_ml=0.5", "largest_component=[1, 2]", "fill_holes=[]", "flip_axes=[0]")
    config = resolve(find_bundle("hippocampus_mri_segmentation"), "inference", overrides=taken)
    assert (config["minimum_component_ml"], config["largest_component"]) == (0.5, [1, 2])


def test_another_network_leaves_out_what_was_written_for_the_bundles_own(bundle, configs, caplog):
    with caplog.at_level(logging.WARNING):
        config = resolve(bundle, "train", overrides=("network=residual", "network_def#init_filters=4"), configs=configs)
    assert "written for small: left out for residual" in caplog.text
    assert config["network_def"] == {
        "_target_": "monai.networks.nets.SegResNet",
        "spatial_dims": "@spatial_dims",
        "in_channels": "@in_channels",
        "out_channels": "@out_channels",
        "init_filters": 4,
    }
    assert config == resolve(bundle, "train", "residual", ("network_def#init_filters=4",), configs=configs)
    with pytest.raises(ConfigError, match="expected one network"):
        resolve(bundle, "train", "small", ("network=residual",), configs=configs)


def test_another_network_takes_what_the_files_of_both_name(bundle, configs, caplog):
    (configs / "networks" / "twin_3d.yaml").write_text(
        (configs / "networks" / "small_3d.yaml").read_text() + "  bias: false\n"
    )
    with caplog.at_level(logging.WARNING):
        network = resolve(bundle, "train", overrides=("network=twin",), configs=configs)["network_def"]
    assert (network["channels"], network["strides"], network["bias"]) == ([4, 8, 8], [2, 2], False)
    assert "num_res_units" not in network  # in no network's file: the bundle's own knows it by its signature alone
    assert "network_def (num_res_units)" in caplog.text
    assert "written for small: left out for twin" in caplog.text


def test_a_copy_can_be_built_of_another_network_and_the_bundles_own_files_cannot(bundle, configs, tmp_path):
    with pytest.raises(ConfigError, match=r"write network: residual there, or build a copy .*--out DIR"):
        build(bundle, network="residual", configs=configs)
    out = tmp_path / "copy"
    files = build(bundle, network="residual", out=out, configs=configs).files
    assert {file.name for file in files} == {*(f"{kind}.json" for kind in KINDS), "metadata.json"}
    written = json.loads((out / "configs" / "inference.json").read_text())
    assert written == resolve(bundle, "inference", "residual", configs=configs)
    assert not (bundle / "configs" / "inference.json").exists()
    assert build(bundle, network="residual", out=out, configs=configs).changed == ()
    (out / "configs" / "train.json").write_text('{"mine": 1}')
    with pytest.raises(BundleError, match=r"other contents than these would get: train\.json"):
        build(bundle, network="residual", out=out, configs=configs)
    assert (out / "configs" / "train.json").read_text() == '{"mine": 1}'


def test_a_copy_is_a_bundle_to_be_changed_without_the_weights(bundle, configs, tmp_path):
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt", "models/model.pt"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(name)
    mine = tmp_path / "mine"
    build(bundle, out=mine, configs=configs)
    names = {file.relative_to(mine).as_posix() for file in mine.rglob("*") if file.is_file()}
    own = {"configs/bundle.yaml", "configs/metadata.json", "LICENSE", "docs/README.md", "docs/data_license.txt"}
    assert names == {*own, *(f"configs/{kind}.json" for kind in KINDS)}
    assert "FILL IN" in (mine / "docs" / "data_license.txt").read_text()  # its data are others
    delta = mine / "configs" / "bundle.yaml"
    delta.write_text(delta.read_text().replace("learning_rate: 2.0e-3", "learning_rate: 0.25"))
    assert resolve(mine, "train", configs=configs)["learning_rate"] == 0.25
    assert mine / "configs" / "train.json" in build(mine, configs=configs).changed
    with pytest.raises(BundleError, match="found a bundle, or a run"):
        build(bundle, out=mine, configs=configs)


def test_a_copy_is_not_mixed_with_what_lies_there(bundle, configs, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "LICENSE").write_text("mine")
    with pytest.raises(BundleError, match="expected a new or empty folder"):
        build(bundle, out=tmp_path / "project", configs=configs)
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["LICENSE"]


@pytest.mark.parametrize("own", ["configs/bundle.yaml", "models/model.pt"])
def test_a_copy_takes_no_place_of_another_bundle_or_a_run(bundle, configs, tmp_path, own):
    mine = tmp_path / "mine"
    for name in ("configs/metadata.json", own):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("{}")
    with pytest.raises(BundleError, match=r"mine: found a bundle, or a run.*choose another name for --out"):
        build(bundle, network="residual", out=mine, configs=configs)
    assert (mine / "configs" / "metadata.json").read_text() == "{}"
    assert not (mine / "configs" / "train.json").exists()


@pytest.mark.parametrize("network", ["unet", "unet_plus_plus", "unet_3plus"])
@pytest.mark.parametrize("name", ["hippocampus_mri_segmentation", "stroke_perfusion_segmentation"])
def test_each_shipped_bundle_gives_its_levels_to_each_network(name, network, caplog):
    with caplog.at_level(logging.WARNING):
        own, other = (resolve(find_bundle(name), "train", chosen)["network_def"] for chosen in (None, network))
    assert not caplog.records
    assert [own[key] for key in ("channels", "strides", "kernel_sizes")] == [
        other[key] for key in ("channels", "strides", "kernel_sizes")
    ]
    target = {"unet": "UNet", "unet_plus_plus": "UNetPlusPlus", "unet_3plus": "UNet3Plus"}[network]
    assert other["_target_"] == f"pipeline.networks.{target}"


def test_the_number_of_dimensions_picks_the_networks_file(delta, configs):
    bundle = delta("spatial_dims: 2\npatch_size: [8, 8]")
    (bundle / "configs" / "bundle.yaml").write_text("network: small\nspatial_dims: 2\npatch_size: [8, 8]")
    assert resolve(bundle, "train", configs=configs)["network_def"]["channels"] == [2, 4]
    config = resolve(bundle, "train", overrides=("spatial_dims=3", "patch_size=[8, 8, 8]"), configs=configs)
    assert config["network_def"]["channels"] == [4, 8]
    (bundle / "configs" / "bundle.yaml").write_text("spatial_dims: 2")
    with pytest.raises(ConfigError, match=r"no network.*network: NAME, of residual_3d, small_2d, small_3d"):
        build(bundle, configs=configs)


def test_a_base_that_includes_itself_is_refused(bundle, configs):
    (configs / "common.yaml").write_text("_base_: [train.yaml]")
    with pytest.raises(ConfigError, match=r"train.yaml -> common.yaml -> train.yaml"):
        build(bundle, configs=configs)


def test_a_foreign_bundle_is_read_from_its_json(bundle, configs):
    build(bundle, configs=configs)
    built = resolve(bundle, "train", configs=configs)
    (bundle / "configs" / "bundle.yaml").unlink()
    assert resolve(bundle, "train", configs=configs) == built
    changed = resolve(bundle, "train", overrides=("train#handlers#1#tag_name=x", "max_epochs=1"))
    assert changed["train"]["handlers"][1]["tag_name"] == "x"
    with pytest.raises(ConfigError, match="unknown key train#handlers#2"):
        resolve(bundle, "train", overrides=("train#handlers#2#tag_name=x",))
    with pytest.raises(BundleError, match=r"no configs/bundle.yaml"):
        build(bundle, configs=configs)
    (bundle / "configs" / "train.json").write_text('{"imports": ["$import os"]}')
    with pytest.raises(BundleError, match=r"imports#0: found \$import os"):
        resolve(bundle, "train")


def test_what_an_override_removes_from_a_json_is_gone_from_its_lists(bundle, configs):
    build(bundle, configs=configs)
    scale = "train#steps#scale=null"
    as_built = resolve(bundle, "train", overrides=(scale, "train#handlers#stats=null"), configs=configs)
    (bundle / "configs" / "bundle.yaml").unlink()
    assert resolve(bundle, "train", overrides=(scale, "train#handlers#1=null")) == as_built
    # A value that is null is a value; what is there and still referred to is refused in words.
    assert resolve(bundle, "train", overrides=("val_interval=null",))["val_interval"] is None
    file = bundle / "configs" / "train.json"
    config = json.loads(file.read_text())
    config["own"] = {"_target_": "monai.transforms.Compose", "transforms": "@train#steps#scale"}
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"steps#scale=null, to which @train#steps#scale at own#transforms refers"):
        resolve(bundle, "train", overrides=(scale,))


def test_importing_the_room_loads_neither_monai_nor_torch():
    code = (
        "import pipeline.bundle, sys; print([m for m in ('monai', 'torch', 'numpy', 'jsonschema') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
