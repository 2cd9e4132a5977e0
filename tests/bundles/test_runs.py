"""Bundles as people run them: our commands and plain MONAI's, on real files, with everything they leave read back."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pipeline.bundle
from pipeline.bundle import find_bundle, shipped_bundles
from pipeline.data.file_digests import file_digest
from pipeline.io import read_grid, read_volume
from pipeline.metrics import read_cases
from tests.bundles.conftest import BUNDLE, SMALL
from tests.commands import command, fresh_python, python, ranks

pytestmark = pytest.mark.slow


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def losses(run: Path) -> list[float]:
    return [event.value for event in events(run).Scalars("train/loss")]


def test_a_run_leaves_all_that_is_needed_to_know_it_later(run, split):
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["seed"], record["epochs"]) == ("completed", 0, 2)
    assert record["versions"]["torch"] == torch.__version__
    assert record["precision"]["chosen"] == "float32"
    assert len(split["train"]) + len(split["validate"]) == 6
    assert not set(split["train"]) & set(split["validate"])
    config = json.loads((run / "configs" / "train.json").read_text(encoding="utf-8"))
    assert config["patch_size"] == [32, 32, 8]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[-1]["dice"]) <= 1
    with (run / "cases.csv").open(encoding="utf-8") as file:
        assert [row["case_id"] for row in csv.DictReader(file)] == split["validate"]


def test_a_run_can_be_verified(run, phantoms, tmp_path):
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (record["kind"], record["bundle"]["name"]) == ("train", BUNDLE)
    assert record["commands"][0][1:3] == ["train", BUNDLE]
    written = {"models/model.pt", "models/trained_on.json", "configs/train.json", "cases.csv", "metrics.csv"}
    assert written <= set(record["files"])
    assert json.loads((run / "models" / "trained_on.json").read_text(encoding="utf-8"))["cases"] == 6
    assert len(record["inputs"]) == 6
    copy, scans = tmp_path / "run", tmp_path / "scans"
    shutil.copytree(run, copy)
    shutil.copytree(phantoms, scans)
    same = command("pipeline", "verify-run", copy, "--data", scans).stdout
    assert "24 inputs as recorded, 0 differ" in same
    (scans / "sub-003" / "sub-003_cbv.nii.gz").write_bytes(b"another")
    shutil.rmtree(scans / "sub-004")
    (copy / "models" / "model.pt").write_bytes(b"another")
    said = command("pipeline", "verify-run", copy, "--data", scans, status=1).stderr
    for text in ("models/model.pt", "case sub-003, cbv: another", "case sub-004: not in the dataset"):
        assert text in said


def test_evaluations_and_predictions_can_be_verified(run, phantoms, tmp_path):
    command("pipeline", "evaluate", run, "--data", phantoms, "--out", tmp_path / "e", "overlap=0.0")
    command("pipeline", "predict", run, phantoms, tmp_path / "p")
    for kind, inside in (("evaluate", "configs/evaluate.json"), ("predict", "sub-001/sub-001.nii.gz")):
        folder = tmp_path / kind[0]
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert (record["kind"], record["status"]) == (kind, "completed")
        assert inside in record["files"]
        [weights] = record["weights"]
        assert weights["digest"] == file_digest(run / "models" / "model.pt")
        said = command("pipeline", "verify-run", folder, "--data", phantoms).stdout
        assert "0 differ" in said
        assert "1 weights" in said
    measured = tmp_path / "m"
    command("pipeline", "measure", tmp_path / "p", phantoms, "--bundle", run, "--out", measured)
    own, by_evaluate = (
        {row.case_id: row.result for row in read_cases(folder)} for folder in (measured, tmp_path / "e")
    )
    assert set(by_evaluate) <= set(own)
    assert len(own) == 6


def test_tensorboard_has_the_curves_and_the_pictures(run, split):
    accumulator = events(run)
    wanted = {"train/loss", "train/loss_dice", "train/loss_cross_entropy", "train/learning_rate"}
    wanted |= {"train/seconds_per_iteration", "train/data_wait_share", "train/gradient_norm"}
    wanted |= {"validate/dice", "validate/dice_lesion", "validate/iou", "validate/missed", "validate/cases"}
    assert wanted <= set(accumulator.Tags()["scalars"])
    iterations = [event.step for event in accumulator.Scalars("train/loss")]
    assert iterations == list(range(1, len(iterations) + 1))
    assert [event.step for event in accumulator.Scalars("validate/dice")] == [iterations[-1] // 2, iterations[-1]]
    assert {f"validate/{case}" for case in split["validate"]} <= set(accumulator.Tags()["images"])
    rates = [event.value for event in accumulator.Scalars("train/learning_rate")]
    assert max(rates) > 2 * rates[-1]
    assert [event.step for event in accumulator.Histograms("cases/dice_lesion")] == [
        iterations[-1] // 2,
        iterations[-1],
    ]
    assert {"experiment", "session_start_info", "session_end_info"} <= {
        tag.removeprefix("_hparams_/") for tag in accumulator.PluginTagToContent("hparams")
    }
    [text] = accumulator.Tensors("config/text_summary")
    config = json.loads(text.tensor_proto.string_val[0])
    assert config == json.loads((run / "configs" / "train.json").read_text(encoding="utf-8"))


def test_the_same_seed_gives_the_same_run_and_plain_monai_gives_it_too(run, phantoms, tmp_path):
    """With workers as without, and whether patches are made in the loader or a batch at a time."""
    config = run / "configs" / "train.json"
    again = tmp_path / "again"
    arguments = ("monai.bundle", "run", "--config_file", config, "--output_dir", again, "--dataset_dir", phantoms)
    others = ("--bundle_root", run, "--num_workers", "2", "--augment_on", "device")
    command(*arguments, *others, PIPELINE_CACHE="")  # nothing prepared is kept
    (again,) = again.iterdir()  # a folder of its own, named after the moment
    assert losses(again) == losses(run)
    first, second = (torch.load(folder / "models" / "model_last.pt", weights_only=True) for folder in (run, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_generated_config_of_a_bundle_runs_under_plain_monai(phantoms, tmp_path):
    bundle = find_bundle(BUNDLE)
    small = ("--spacing_mm", "[3.0,3.0,-1.0]", "--patch_size", "[32,32,8]", "--overlap", "0.0")
    small += ("--network_def#channels", "[4,8,8,8]", "--precision", "float32")
    arguments = ("monai.bundle", "run", "--config_file", bundle / "configs" / "train.json", "--bundle_root", bundle)
    command(*arguments, "--dataset_dir", phantoms, "--output_dir", tmp_path, "--max_epochs", "1", *small)
    (folder,) = tmp_path.iterdir()  # named after the moment: no run writes over another
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["epochs"] == 1
    shutil.copytree(bundle / "configs", tmp_path / "bundle" / "configs")
    shutil.copytree(folder / "models", tmp_path / "bundle" / "models")
    for kind, inside in (("evaluate", "cases.csv"), ("inference", "sub-001/sub-001.nii.gz")):
        out = tmp_path / kind
        arguments = ("monai.bundle", "run", "--config_file", tmp_path / "bundle" / "configs" / f"{kind}.json")
        own = ("--bundle_root", tmp_path / "bundle", "--dataset_dir", phantoms, "--output_dir", out)
        command(*arguments, *own, *small)
        assert list(out.rglob(inside)), kind


@pytest.mark.parametrize(("network", "target"), [("unet_plus_plus", "UNetPlusPlus"), ("unet_3plus", "UNet3Plus")])
def test_another_network_trains_by_its_name(network, target, phantoms, tmp_path):
    named = (f"network={network}", "network_def#dropout=0.1", "max_epochs=1")
    command("pipeline", "train", BUNDLE, "--data", phantoms, "--out", tmp_path, *named, *SMALL)
    own = json.loads((find_bundle(BUNDLE) / "configs" / "train.json").read_text(encoding="utf-8"))["network_def"]
    for kind in pipeline.bundle.KINDS:  # all of the run's configs are of this network, with the bundle's own levels
        config = json.loads((tmp_path / "configs" / f"{kind}.json").read_text(encoding="utf-8"))["network_def"]
        assert config["_target_"] == f"pipeline.networks.{target}"
        assert (config["channels"], config["dropout"]) == ([4, 8, 8, 8], 0.1)
        assert (config["strides"], config["kernel_sizes"]) == (own["strides"], own["kernel_sizes"])
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_a_resumed_run_ends_where_the_uninterrupted_ends(run, phantoms, tmp_path):
    part = tmp_path / "part"
    # The schedule of the whole run, stopped after its first epoch as by Ctrl-C.
    script = """
import sys
from ignite.engine import Events
from pipeline.bundle import run
from pipeline.engines import Trainer
made = Trainer.__init__
def stopping(self, *args, **kwargs):
    made(self, *args, **kwargs)
    @self.on(Events.EPOCH_COMPLETED(once=1))
    def stop(engine):
        raise KeyboardInterrupt
Trainer.__init__ = stopping
try:
    run.train(sys.argv[1], sys.argv[2], out=sys.argv[3], overrides=sys.argv[4:])
except KeyboardInterrupt:
    print("interrupted")
"""
    stopped = python("-c", script, BUNDLE, phantoms, part, "max_epochs=2", "val_interval=1", *SMALL)
    assert "interrupted" in stopped.stdout, stopped.stderr[-4000:]
    assert json.loads((part / "run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    command("pipeline", "train", BUNDLE, "--data", phantoms, "--resume", part)
    whole, resumed = (torch.load(folder / "models" / "model_last.pt", weights_only=True) for folder in (run, part))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert json.loads((part / "run.json").read_text(encoding="utf-8"))["epochs"] == 2


def test_a_budget_ends_the_run_on_time_with_its_last_weights_measured(phantoms, tmp_path):
    """By a clock on which a step takes one second and a validation two, whatever else the machine does."""
    out = tmp_path / "budget"
    script = """
import sys
from pipeline.bundle import training
from pipeline.engines import Evaluator, Trainer, schedule
from pipeline.handlers import validation
class Clock:
    now = 1000.0
    def time(self):
        return self.now
    perf_counter = time
clock = Clock()
def taking(seconds, work):
    def timed(*args, **kwargs):
        clock.now += seconds
        return work(*args, **kwargs)
    return timed
Trainer._iteration = taking(1, Trainer._iteration)
Evaluator.run = taking(2, Evaluator.run)
training.time = schedule.time = validation.time = clock
training.compile_ahead = lambda: 0.0
training.train(sys.argv[1], sys.argv[2], out=sys.argv[3], budget_s=45, overrides=sys.argv[4:])
"""
    python("-c", script, BUNDLE, phantoms, out, *SMALL)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "completed"
    with (out / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, last = (int(row["iteration"]) for row in rows)
    assert first == 18  # nine iterations for each of the two cases that are validated
    assert last == record["iterations"] == 41  # 45 s, less the two of the first validation and 2.2 s for the second
    rate = events(out).Scalars("train/learning_rate")[-1].value
    assert rate == pytest.approx(0.25 * 0.006)  # it has fallen to its end


def test_an_evaluation_counts_unseen_cases_only(run, split, phantoms, tmp_path):
    command("pipeline", "evaluate", run, "--data", phantoms, "--out", tmp_path / "unseen")
    with (tmp_path / "unseen" / "cases.csv").open(encoding="utf-8") as file:
        assert [row["case_id"] for row in csv.DictReader(file)] == split["validate"]
    command("pipeline", "evaluate", run, "--data", phantoms, "--out", tmp_path / "all", "part=all")
    with (tmp_path / "all" / "cases.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_prediction_lies_on_its_cases_own_grid_and_a_broken_case_stops_nothing(run, phantoms, tmp_path):
    scans = tmp_path / "scans"
    shutil.copytree(phantoms, scans)
    for case in ("sub-004", "sub-005", "sub-006"):
        shutil.rmtree(scans / case)
    broken = scans / "sub-002" / "sub-002_cbv.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    everything = ("--probabilities", "minimum_component_ml=0.0")
    result = command("pipeline", "predict", run, scans, tmp_path / "out", *everything, status=3)
    assert "sub-002" in result.stdout
    assert "2 done" in result.stdout
    for case in ("sub-001", "sub-003"):
        written = tmp_path / "out" / case / f"{case}.nii.gz"
        own = read_grid(scans / case / f"{case}_cbf.nii.gz")
        assert read_grid(written).same_grid(own)
        labels = np.asarray(nibabel.load(written).dataobj)
        assert labels.dtype == np.uint8
        probability = read_volume(written.with_name(f"{case}_probability_lesion.nii.gz")).array
        decided = np.abs(probability - 0.5) > 1e-6  # at a tie, rounding decides which of the two is the larger
        np.testing.assert_array_equal((probability > 0.5)[decided], (labels == 1)[decided])
        assert decided.mean() > 0.999
    assert not (tmp_path / "out" / "sub-002").exists()
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        status = {row["case"]: row["status"] for row in csv.DictReader(file)}
    assert status == {"sub-001": "done", "sub-002": "refused", "sub-003": "done"}
    runtime = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))["runtime"]
    assert runtime["trials"][runtime["runtime"]]["agreement"] >= 0.999


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("nncf") is None, reason="the extra openvino is not installed"
)  # importing it would report
def test_a_run_is_quantised_and_its_predictions_may_use_it(run, phantoms, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(run, bundle)
    limits = ("--cases", "2", "--most-lost", "1")  # what two epochs have trained says nothing about the loss
    result = command("pipeline", "quantize", bundle, "--data", phantoms, *limits)
    assert "Accepted: " in result.stdout
    record = json.loads((bundle / "models" / "quantized.json").read_text(encoding="utf-8"))
    assert record["calibration"]["cases"] == 2
    case = phantoms / "sub-001"
    command("pipeline", "predict", bundle, case, tmp_path / "out", "runtime=openvino_int8")
    runtime = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))["runtime"]
    assert (runtime["runtime"], runtime["reason"]) == ("openvino_int8", "as asked for")
    shutil.copyfile(bundle / "models" / "model.pt", tmp_path / "model.pt")
    other = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({name: tensor * 1.5 for name, tensor in other.items()}, tmp_path / "model.pt")
    words = ("--weights", tmp_path / "model.pt", "runtime=openvino_int8")
    result = command("pipeline", "predict", bundle, case, tmp_path / "refused", *words, status=1)
    assert "an int8 network that was made from other weights" in result.stdout


def test_two_processes_train_as_one(phantoms, tmp_path, run):
    config = find_bundle(BUNDLE) / "configs" / "multi_gpu_train.json"
    small = ("--spacing_mm", "[3.0,3.0,-1.0]", "--patch_size", "[32,32,8]", "--overlap", "0.0")
    small += ("--network_def#channels", "[4,8,8,8]", "--precision", "float32")
    arguments = ("-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", phantoms, "--max_epochs", "1")
    for out, cache in (("without", ""), ("new", str(tmp_path / "cache")), ("found", str(tmp_path / "cache"))):
        others = ("--num_workers", "0" if out == "new" else "1")
        others += ("--augment_on", "device" if out == "found" else "loader")
        words = (*arguments, *small, "--output_dir", tmp_path / out, *others)
        if out == "without":
            torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
            fresh_python(*torchrun, *words, PIPELINE_CACHE=cache)
        else:
            ranks(2, *words, PIPELINE_CACHE=cache)
    (folder,) = (tmp_path / "without").iterdir()  # both processes in one folder, written by the first alone
    for out in ("new", "found"):
        (other,) = (tmp_path / out).iterdir()
        assert losses(other) == losses(folder), f"prepared cases: {out}"
    assert len(list((tmp_path / "cache").rglob("*.case"))) == 6
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (record["processes"], record["status"]) == (2, "completed")
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        cases = [row["case_id"] for row in csv.DictReader(file)]
    assert cases == sorted(set(cases))
    assert len(losses(folder)) == record["iterations"]


@pytest.mark.parametrize("bundle", sorted(shipped_bundles().iterdir()), ids=lambda bundle: bundle.name)
def test_monais_own_checks_pass(bundle):
    schema = Path(pipeline.bundle.__file__).parent / "schema" / "meta_schema_20240725.json"
    metadata = bundle / "configs" / "metadata.json"
    command("monai.bundle", "verify_metadata", "--meta_file", metadata, "--filepath", schema)
    config = ("--config_file", bundle / "configs" / "inference.json", "--meta_file", metadata, "--bundle_root", bundle)
    command("monai.bundle", "verify_net_in_out", "network_def", *config)


def test_an_unknown_key_is_refused_with_the_nearest(phantoms, tmp_path):
    arguments = ("pipeline", "train", BUNDLE, "--data", phantoms, "--out", tmp_path / "x", "max_epoch=7")
    assert "max_epochs" in command(*arguments, status=2).stderr
    assert not (tmp_path / "x").exists()


def test_a_result_never_takes_the_place_of_an_image(phantoms, tmp_path):
    scan = tmp_path / "a.nii.gz"
    shutil.copyfile(phantoms / "sub-001" / "sub-001_cbf.nii.gz", scan)
    before = scan.read_bytes()
    answer = command("pipeline", "predict", "hippocampus_mri_segmentation", tmp_path, tmp_path, status=2)
    assert "take the place of a.nii.gz" in answer.stderr
    assert scan.read_bytes() == before


def test_what_a_command_says_by_an_option_is_refused_as_an_override(phantoms, tmp_path):
    arguments = ("pipeline", "train", BUNDLE, "--data", phantoms, "--out", tmp_path / "x", "budget_s=60")
    assert "--budget" in command(*arguments, status=2).stderr


def test_a_completed_run_is_not_trained_again_by_a_resume(run, phantoms):
    result = command("pipeline", "train", BUNDLE, "--data", phantoms, "--resume", run, status=2)
    assert "completed its 2 epochs" in result.stderr
