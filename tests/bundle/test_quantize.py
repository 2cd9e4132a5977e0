"""What is accepted as a bundle's int8 network, and what becomes of it. The quantisation itself: tests/inference."""

import json

import pytest

from pipeline.bundle import quantize as room
from pipeline.bundle.quantize import quantize
from pipeline.bundle.run import RunSummary
from pipeline.errors import BundleError, ConfigError
from pipeline.inference.quantized import Quantized, model_digest

FILES = ("quantized.json", "quantized.xml", "quantized.bin")


@pytest.fixture
def weighed(tmp_path, monkeypatch):
    """A bundle with weights, and a quantisation of it that costs as much Dice as ``costs`` says."""
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text("{}")
    (folder / "models").mkdir()
    (folder / "models" / "split.json").write_text("{}")
    costs, asked = {"core": 0.0015, "rim": -0.01}, []

    def quantised(bundle, data, staged, cases, overrides):
        (staged / "quantized.xml").write_text("<net/>")
        (staged / "quantized.bin").write_bytes(b"int8")
        return Quantized("state", "weights", model_digest(staged), [8, 8, 8], {"cases": cases, "windows": 5}, 0, {})

    def evaluate(bundle, data, *, out, overrides):
        asked.append(overrides)
        lost = costs if "runtime=openvino_int8" in overrides else dict.fromkeys(costs, 0.0)
        dice = {f"dice_{name}": 0.8 - loss for name, loss in lost.items()}
        return RunSummary(out, {"dice": sum(dice.values()) / 2, "iou": 0.5, "cases": 4} | dice, "", 0.0)

    monkeypatch.setattr(room, "_quantised", quantised)
    monkeypatch.setattr(room, "evaluate", evaluate)
    monkeypatch.setattr("pipeline.inference.openvino_runtime.nncf", lambda: None)
    return folder, costs, asked


def test_what_loses_little_in_every_class_is_kept_with_its_table(weighed):
    folder, _, asked = weighed
    summary = quantize(folder, "data", cases=3, overrides=["layout=bids"])
    assert summary.accepted
    assert summary.table.splitlines()[1].split() == ["core", "0.8000", "0.7985", "-0.0015"]
    assert all((folder / "models" / name).is_file() for name in FILES)
    record = json.loads((folder / "models" / "quantized.json").read_text())
    assert record["dice"]["rim"] == {"float32": 0.8, "int8": 0.81}
    assert (record["validation_cases"], record["largest_loss"], record["calibration"]["cases"]) == (4, 0.0015, 3)
    assert [set(words) >= {"part=validate", "layout=bids"} for words in asked] == [True, True]
    assert sorted(path.name for path in (folder / "models").iterdir()) == sorted([*FILES, "split.json"])


def test_what_loses_more_in_one_class_leaves_the_bundle_as_it_was(weighed):
    folder, costs, _ = weighed
    costs["core"] = 0.0021  # while the mean of both classes gains
    summary = quantize(folder, "data")
    assert not summary.accepted
    assert summary.record.largest_loss == pytest.approx(0.0021)
    assert [path.name for path in (folder / "models").iterdir()] == ["split.json"]
    assert quantize(folder, "data", most_lost=0.003).accepted


def test_without_a_split_there_are_no_cases_to_measure_on(weighed):
    folder, _, asked = weighed
    (folder / "models" / "split.json").unlink()
    with pytest.raises(BundleError, match="not known what they were trained on"):
        quantize(folder, "data")
    with pytest.raises(ConfigError, match=r"part=all on the command line"):
        quantize(folder, "data", overrides=["part=all"])
    assert not asked


def test_what_is_missing_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'monai-volume-pipeline\[openvino\]'"):
        quantize("hippocampus_mri_segmentation", tmp_path)
