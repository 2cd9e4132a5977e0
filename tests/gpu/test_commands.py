"""Commands on a GPU, as people give them: training, prediction beside the CPU's, and what a full GPU does."""

import json

import numpy as np
import pytest
import torch

from pipeline.bundle import find_bundle
from pipeline.data.phantom_dataset import write_dataset
from pipeline.inference.means import half_types
from pipeline.io import read_volume
from tests.commands import command, fresh_python, python

pytestmark = pytest.mark.slow

BUNDLE = "stroke_perfusion_segmentation"
SMALL = ("spacing_mm=[3.0,3.0,-1.0]", "patch_size=[32,32,8]", "overlap=0.0", "network_def#channels=[4,8,8,8]")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_dataset(folder, 6, seed=3, workers=0)
    return folder


def labels(folder):
    return {path.name: read_volume(path, np.uint8).array for path in sorted(folder.glob("*/*.nii.gz"))}


def record(folder):
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("precision", ["auto", "float16", "bfloat16+channels_last"])
def test_a_training_is_stopped_resumed_and_used(phantoms, tmp_path, precision):
    if precision.partition("+")[0] not in ("auto", *half_types(torch.device("cuda"))):
        pytest.skip(f"this GPU has no {precision}")
    run = tmp_path / "run"
    asked = ("train", BUNDLE, "--data", phantoms, "val_interval=1", f"precision={precision}", *SMALL)
    command("pipeline", *asked, "--out", run, "max_epochs=1")
    first = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert first["precision"]["chosen"].startswith("" if precision == "auto" else precision)
    assert torch.cuda.get_device_name() in json.dumps(first)
    command("pipeline", "train", BUNDLE, "--data", phantoms, "--resume", run, "max_epochs=3")
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True, map_location="cpu")
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["epochs"] == 3
    assert saved
    done = command("pipeline", "predict", run, phantoms, tmp_path / "out")
    assert len(labels(tmp_path / "out")) == 6, done.stderr


def test_labels_are_those_of_a_cpu(phantoms, tmp_path):
    for device in ("cuda", "cpu"):
        command("pipeline", "predict", BUNDLE, phantoms, tmp_path / device, f"device#name={device}")
    on_gpu, on_cpu = (labels(tmp_path / device) for device in ("cuda", "cpu"))
    assert on_gpu.keys() == on_cpu.keys()
    assert any(array.any() for array in on_cpu.values())
    for name, array in on_gpu.items():
        assert (array == on_cpu[name]).mean() > 0.999, name
    assert record(tmp_path / "cuda")["device"].startswith("cuda")


def test_a_gpu_that_is_too_small_leaves_no_case_undone(phantoms, tmp_path):
    """With ever less of its memory, down to hardly more than the weights: then the CPU predicts."""
    code = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]) / torch.cuda.get_device_properties(0).total_memory)
from pipeline.cli.main import main
sys.argv[1:] = sys.argv[2:]
main()
"""
    remarks = set()
    for mebibytes in (4096, 256, 64, 24, 8):
        out = tmp_path / str(mebibytes)
        words = ("predict", BUNDLE, phantoms, out, "runtime=float32", "inferer#sw_batch_size=8")
        python("-c", code, str(mebibytes * 2**20), *words)
        assert len(labels(out)) == 6
        remarks |= {remark for case in record(out)["cases"] for remark in case["repairs"]}
    assert any("on the CPU" in remark for remark in remarks), remarks


def test_torchrun_on_one_gpu(phantoms, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m")
    out = tmp_path / "run"
    fresh_python(*launcher, "pipeline", "predict", BUNDLE, phantoms, tmp_path / "out")
    assert len(labels(tmp_path / "out")) == 6
    config = find_bundle(BUNDLE) / "configs" / "multi_gpu_train.json"
    words = ("--config_file", config, "--dataset_dir", phantoms, "--output_dir", out, "--max_epochs", "1")
    fresh_python(*launcher, "monai.bundle", "run", *words)
    assert list(out.glob("*/models/model_last.pt"))
