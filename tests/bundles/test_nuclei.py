"""The nuclei bundle as people run it, on small images made here: touching discs, in colour and in grey."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from scipy import ndimage

from pipeline.bundle import find_bundle, load_bundle, resolve
from pipeline.data.splits import TRAINED_ON, read_split
from pipeline.inference import number_instances
from pipeline.io import read_section, write_section
from tests.commands import command

BUNDLE = "nuclei_microscopy_segmentation"
SHAPE = (61, 76)
SMALL = {"network_def#channels": "[16,16]", "patch_size": "[32,32]", "precision": "float32"}
# On images as few as these the borders want a higher rate than the bundle's, and one that falls to its end.
TRAINING = SMALL | {"max_epochs": "100", "val_interval": "100", "learning_rate": "0.02"}
TRAINING |= {"schedule#floor": "0.01", "ema_decay": "0.9"}


def ours(settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Pairs of bright discs that touch, a darker line where they do; image 00 is in colour."""
    folder = tmp_path_factory.mktemp("data") / "nuclei"
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for number in range(5):
        centres = [(r + shift, c + random.uniform(-1, 1)) for r in (15, 45) for c in (18, 54) for shift in (-6.0, 6.0)]
        distances = np.array([np.hypot(rows - r, columns - c) for r, c in centres])
        nearest, second = np.sort(distances, axis=0)[:2]
        label = np.where(nearest <= 7.5, 40 * distances.argmin(0) + 3, 0)  # numbers with gaps, above 255
        bright = np.where((label > 0) & (second - nearest > 1.5), 200.0, 60.0)
        image = ndimage.gaussian_filter(bright, 0.5) + random.normal(0, 6, SHAPE)
        image = image.clip(0, 255).astype(np.uint8)
        write_section(folder / "labels" / f"{number:02d}.png", label)
        write_section(folder / "images" / f"{number:02d}.png", image)
        if number == 0:
            colours = np.dstack([image, image, image // 2])
            Image.fromarray(colours).save(folder / "images" / "00.png")
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    command("pipeline", "train", BUNDLE, "--data", images, "--out", folder, *ours(TRAINING))
    return folder


def test_a_training_sees_borders_of_background_between_nuclei_that_touch(images):
    parser = ConfigParser(resolve(find_bundle(BUNDLE), "train", overrides=ours(TRAINING)))
    parser["dataset_dir"] = str(images)
    parser.parse()
    steps = parser.get_parsed_content("train#preprocessing").transforms
    before = steps[: [type(step).__name__ for step in steps].index("RandSpatialPatchd")]
    item = next(iter(parser.get_parsed_content("train#dataset#data")))
    for step in before:
        item = step(item)
    assert set(item) >= {"image", "label", "weight"}
    assert "label_instances" not in item
    stored = read_section(images / "labels" / f"{item['case_id']}.png").array
    assert ndimage.label(stored > 0)[1] == 4
    assert ndimage.label(item["label"][0].numpy())[1] == 8
    border = (stored > 0) & (item["label"][0].numpy() == 0)
    weight = item["weight"][0].numpy()
    assert weight[border].min() > 8  # of 11: d_1 + d_2 is 1 or 2 there
    assert np.median(weight[stored == 0]) < weight[border].min()
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert type(network).__name__ == "UNetPlusPlus"


@pytest.mark.slow
def test_a_training_measures_its_instances(run):
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    with (run / "instances.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["instances_reference"] for row in rows] == ["8"]
    assert float(last["f1_50"]) == pytest.approx(float(rows[0]["f1_50"]), rel=1e-5)
    assert float(last["f1_50"]) > 0.6  # one disc for two that touch would give 0
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


@pytest.mark.slow
def test_a_prediction_numbers_the_nuclei_and_python_gives_the_same(run, images, tmp_path):
    command("pipeline", "predict", run, images / "images", tmp_path / "out", "runtime=float32")
    command("pipeline", "predict", run, images / "images", tmp_path / "classes", "runtime=float32", "instances=null")
    segment = load_bundle(run, device="cpu")
    for number in range(5):
        name = f"{number:02d}.png"
        numbers = read_section(tmp_path / "out" / name).array
        assert numbers.shape == SHAPE
        assert numbers.max() >= 5  # 4 where none comes apart
        classes = read_section(tmp_path / "classes" / name).array
        assert set(np.unique(classes)) == {0, 1}
        np.testing.assert_array_equal(numbers, number_instances(classes.astype(np.uint8), minimum_voxels=20))
        np.testing.assert_array_equal(segment(images / "images" / name).labels, numbers)
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert "microscopy: RGB in colour taken as its brightness" in rows["00"]["repairs"]
    trained = {case_id for case_id, row in rows.items() if TRAINED_ON in row["repairs"]}
    assert trained == set(read_split(run / "models" / "split.json").train)
    assert 0 < len(trained) < 5
    for case_id, row in rows.items():
        numbers = np.unique(read_section(tmp_path / "out" / f"{case_id}.png").array)
        assert int(row["instances"]) == len(numbers) - 1
    said = command("pipeline", "measure", tmp_path / "out", images / "labels", "--bundle", run).stdout
    assert "nucleus" in said


@pytest.mark.slow
def test_the_commands_on_data_and_plain_monai_evaluate_it(run, images, tmp_path):
    assert "5 cases" in command("pipeline", "check", images, "--bundle", BUNDLE).stdout
    said = command("pipeline", "evaluate", run, "--data", images, "--out", tmp_path / "own").stdout
    assert "F1 at IoU 0.5" in said
    arguments = ("monai.bundle", "run", "--config_file", run / "configs" / "evaluate.json")
    command(*arguments, "--bundle_root", run, "--dataset_dir", images, "--output_dir", tmp_path / "monai")
    (table,) = (tmp_path / "monai").rglob("instances.csv")
    assert table.read_text(encoding="utf-8") == (tmp_path / "own" / "instances.csv").read_text(encoding="utf-8")
