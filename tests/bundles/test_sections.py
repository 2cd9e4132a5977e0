"""The membrane bundle as people run it, on small sections made here: from training to prediction, unpadded."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy import ndimage

from pipeline.bundle import find_bundle, resolve
from pipeline.data import CaseDataset
from pipeline.io import read_section, write_section
from tests.commands import command

BUNDLE = "membrane_em_segmentation"
SHAPE = (52, 61)  # no tile fits it
# Small enough for a test, and still unpadded: 44 voxels in, 28 labelled.
NETWORK = {"network_def#features": "4", "network_def#depth": "1", "patch_size": "[44,44]", "precision": "float32"}
TRAINING = NETWORK | {"max_epochs": "40", "val_interval": "40", "learning_rate": "0.003"}
TRAINING |= {"train#steps#spatial#elastic_std_mm": "0.5"}


def ours(settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def monais(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> Path:
    """Cells round random points, dark membranes where two points are equally near."""
    folder = tmp_path_factory.mktemp("data") / "sections"
    random = np.random.default_rng(0)
    pixels = np.argwhere(np.ones(SHAPE))
    for number in range(5):
        points = random.uniform(0, SHAPE, (14, 2))
        first, second = np.sort(np.linalg.norm(pixels[:, None] - points, axis=2), axis=1)[:, :2].T
        cell = (second - first > 2.5).reshape(SHAPE)
        image = ndimage.gaussian_filter(np.where(cell, 180.0, 60.0), 0.7) + random.normal(0, 8, SHAPE)
        write_section(folder / "images" / f"{number:02d}.png", image.clip(0, 255).astype(np.uint8))
        write_section(folder / "labels" / f"{number:02d}.png", 255 * cell)
    return folder


@pytest.fixture(scope="module")
def run(sections, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    command("pipeline", "train", BUNDLE, "--data", sections, "--out", folder, *ours(TRAINING))
    return folder


def test_the_training_chain_gives_tiles_with_their_surroundings_and_border_weights(sections):
    parser = ConfigParser(resolve(find_bundle(BUNDLE), "train", overrides=ours(TRAINING)))
    parser["dataset_dir"] = str(sections)
    parser.parse()
    dataset = parser.get_parsed_content("train#dataset")
    assert isinstance(dataset, CaseDataset)
    assert set(dataset[0]) >= {"image", "label", "weight"}
    assert "instances" not in dataset[0]
    for key in ("image", "label", "weight"):
        assert dataset[0][key].shape == (1, 44, 44)
    assert set(np.unique(dataset[0]["label"])) == {0, 1}
    # The border term is up to 10 beside class weights of about 1, largest between two cells.
    weight, label = dataset[0]["weight"], dataset[0]["label"]
    assert weight.max() > 8
    assert weight[label == 0].mean() > weight[label == 1].mean() > 1
    optimizer = parser.get_parsed_content("optimizer")
    assert (type(optimizer).__name__, optimizer.defaults["momentum"]) == ("SGD", 0.99)
    spatial = next(
        step for step in parser.get_parsed_content("train#preprocessing").transforms if hasattr(step, "margin")
    )
    assert (spatial.margin, spatial.elastic) == ((8, 8), "unet_2015")


def test_the_bundle_is_the_papers_experiment():
    """Tiles of 572 with 388 labelled, 31,030,658 parameters, batch 1: by the config as it is shipped."""
    config = resolve(find_bundle(BUNDLE), "train")
    assert (config["patch_size"], config["batch_size"], config["network_def"]["dropout"]) == ([572, 572], 1, 0.5)
    with torch.device("meta"):
        network = ConfigParser(config).get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == 31_030_658
    assert network.output_margin == (92, 92)


@pytest.mark.slow
def test_a_training_measures_what_the_challenge_measures(run):
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    with (run / "membranes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    assert float(last["v_rand"]) == pytest.approx(float(rows[0]["v_rand"]), rel=1e-5)
    # 160 steps of a small network: far from chance, and the whole section is predicted.
    assert float(last["pixel_error"]) < 0.25
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


@pytest.mark.slow
def test_a_prediction_is_a_png_beside_the_same_name_like_the_labels(run, sections, tmp_path):
    (tmp_path / "scans" / "fish").mkdir(parents=True)
    for number in (0, 1):
        shutil.copyfile(sections / "images" / f"{number:02d}.png", tmp_path / "scans" / "fish" / f"{number}.png")
    (tmp_path / "scans" / "broken.png").write_bytes(b"no image")
    answer = command("pipeline", "predict", run, tmp_path / "scans", tmp_path / "out", "--probabilities", status=3)
    assert "no PNG image" in answer.stdout
    for number in (0, 1):
        labels = read_section(tmp_path / "out" / "fish" / f"{number}.png").array
        assert labels.shape == SHAPE
        assert set(np.unique(labels)) == {0, 255}
        reference = read_section(sections / "labels" / f"{number:02d}.png").array
        assert (labels != reference).mean() < 0.25
        probability = read_section(tmp_path / "out" / "fish" / f"{number}_probability_cell.tif").array
        np.testing.assert_array_equal(probability > 0.5, labels == 255)
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["case"], row["status"]) for row in rows) == [("0", "done"), ("1", "done"), ("broken", "refused")]
    assert "cell_ml" not in rows[0]


@pytest.mark.slow
def test_plain_monai_evaluates_it(run, sections, tmp_path):
    arguments = ("monai.bundle", "run", "--config_file", find_bundle(BUNDLE) / "configs" / "evaluate.json")
    own = ("--bundle_root", run, "--dataset_dir", sections, "--output_dir", tmp_path, *monais(NETWORK))
    command(*arguments, *own)
    (table,) = tmp_path.rglob("membranes.csv")
    with table.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    with (run / "models" / "split.json").open(encoding="utf-8") as file:
        assert [row["case_id"]] == json.load(file)["validate"]
