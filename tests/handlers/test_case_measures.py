"""CaseMeasures on real MONAI evaluators: values, files, TensorBoard, several processes."""

import csv
import json
from pathlib import Path

import pytest
import torch
from ignite.exceptions import NotComputableError
from monai.bundle import ConfigParser
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import TensorBoardStatsHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import DataError, GeometryError
from pipeline.handlers import CaseMeasures
from tests.commands import ranks

AFFINE = torch.diag(torch.tensor([-1.0, 2.0, 5.0, 1.0], dtype=torch.float64))
CLASSES = {"1": "anterior", "2": "posterior part"}


def item(case_id: str, prediction: torch.Tensor, label: torch.Tensor, affine=AFFINE, **meta) -> dict:
    meta = meta or {"case_id": case_id}
    return {
        "image": MetaTensor(prediction[None].float(), affine=AFFINE, meta=dict(meta)),
        "label": MetaTensor(label[None].float(), affine=affine, meta=dict(meta)),
    }


def two_cases() -> list[dict]:
    """In "a" class 1 is found two voxels (4 mm) to the side of where it is, class 2 is right; "b" misses class 2."""
    label = torch.zeros(5, 6, 3)
    label[1, 1, 1], label[3, :, 2] = 1, 2
    moved = torch.where(label == 2, 2, 0)
    moved[1, 3, 1] = 1
    return [item("b", torch.where(label == 1, 1, 0), label), item("a", moved, label)]


def evaluator(items: list[dict], metric, handlers=(), name: str = "dice", batch_size: int = 1) -> SupervisedEvaluator:
    """Hands the image through as the prediction."""
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=batch_size),
        network=torch.nn.Identity(),
        key_val_metric={name: metric},
        val_handlers=list(handlers),
    )


@pytest.mark.parametrize("batch_size", [1, 2])
def test_figures_in_the_engine(batch_size):
    metric = CaseMeasures(CLASSES)
    engine = evaluator(two_cases(), metric, batch_size=batch_size)
    engine.run()
    assert engine.state.best_metric == pytest.approx(0.5)
    diagonal = (5**2 + 12**2 + 15**2) ** 0.5
    assert engine.state.metrics == pytest.approx(
        {
            "dice": 0.5,
            "dice_anterior": 0.5,
            "dice_posterior part": 0.5,
            "iou": 0.5,
            "iou_anterior": 0.5,
            "iou_posterior part": 0.5,
            "hausdorff_95_mm": 1.0,
            "hausdorff_95_mm_anterior": 2.0,
            "hausdorff_95_mm_posterior part": 0.0,
            "hausdorff_95_mm_penalised": (2.0 + diagonal / 2) / 2,
            "hausdorff_95_mm_penalised_anterior": 2.0,
            "hausdorff_95_mm_penalised_posterior part": diagonal / 2,
            "lesion_f1": 0.5,
            "lesion_f1_anterior": 0.5,
            "lesion_f1_posterior part": 0.5,
            "absolute_volume_difference_ml": 0.015,
            "absolute_volume_difference_ml_anterior": 0.0,
            "absolute_volume_difference_ml_posterior part": 0.03,
            "missed": 1,
            "missed_anterior": 0,
            "missed_posterior part": 1,
            "false_alarms": 0,
            "false_alarms_anterior": 0,
            "false_alarms_posterior part": 0,
            "cases": 2,
        }
    )
    assert [(row.case_id, row.result.status) for row in engine.state.case_rows] == [
        ("a", "ok"),
        ("a", "ok"),
        ("b", "ok"),
        ("b", "missed"),
    ]
    assert engine.state.summary is metric.summary
    assert metric.rows[0].result.volume_reference_ml == pytest.approx(0.01)


def test_the_key_metric_may_have_another_name():
    engine = evaluator(two_cases(), CaseMeasures(CLASSES), name="val_mean_dice")
    engine.run()
    assert engine.state.metrics["val_mean_dice"] == pytest.approx(0.5)
    assert "dice" not in engine.state.metrics


def test_from_a_config_with_files_and_tensorboard(tmp_path):
    config = {"_target_": "pipeline.handlers.CaseMeasures", "classes": CLASSES, "output_dir": str(tmp_path / "out")}
    metric = ConfigParser({"metric": config}).get_parsed_content("metric")
    writer = TensorBoardStatsHandler(log_dir=str(tmp_path / "events"), iteration_log=False)
    evaluator(two_cases(), metric, [writer]).run()
    writer.close()

    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok", "ok", "ok", "missed"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["mean"]["measures"]["dice"]["mean"] == pytest.approx(0.5)

    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Scalars("hausdorff_95_mm_anterior")[0].value == pytest.approx(2.0)
    assert events.Scalars("missed")[0].value == 1


def test_a_distance_that_no_longer_exists_leaves_the_metrics():
    """The second epoch misses every lesion: no stale distance may stand beside its Dice of 0."""
    label = torch.zeros(4, 4, 2)
    label[1, 1, 0] = 1
    items = [item("a", label, label)]
    engine = evaluator(items, CaseMeasures({1: "lesion"}))
    engine.run()
    assert engine.state.metrics["hausdorff_95_mm"] == 0
    items[0] = item("a", torch.zeros_like(label), label)
    engine.run()
    assert engine.state.metrics["dice"] == 0
    assert "hausdorff_95_mm" not in engine.state.metrics
    assert engine.state.metrics["hausdorff_95_mm_penalised"] == pytest.approx((4**2 + 8**2 + 10**2) ** 0.5)
    assert engine.state.best_metric == 1


def test_a_2d_case_without_an_id_is_named_after_its_file():
    label = torch.zeros(4, 6)
    label[1, 1] = 1
    prediction = torch.roll(label, 2, dims=1)
    metric = CaseMeasures({1: "cell"})
    engine = evaluator([item("", prediction, label, filename_or_obj="/data/sub-01/label.nii.gz")], metric)
    engine.run()
    assert metric.rows[0].case_id == "sub-01/label"
    assert metric.rows[0].result.hausdorff_mm == pytest.approx(4.0)


def test_refusals_name_the_case():
    label = torch.ones(3, 3, 3)
    metric = CaseMeasures({1: "lesion"})

    def update(prediction, reference):
        metric.update(([prediction["image"]], [reference["label"]]))

    with pytest.raises(DataError, match=r"case x: found a prediction with 27 fractional values"):
        update(item("x", label * 0.4, label), item("x", label, label))
    with pytest.raises(DataError, match=r"case x: found a prediction of shape \(2, 3, 3\)"):
        update(item("x", label[1:], label), item("x", label, label))
    shifted = AFFINE.clone()
    shifted[0, 3] += 3
    with pytest.raises(GeometryError, match=r"case x: found a prediction 3 mm away from its label"):
        update(item("x", label, label), item("x", label, label, affine=shifted))
    with pytest.raises(DataError, match=r"case x: found a label without an affine"):
        metric.update(([item("x", label, label)["image"]], [label[None]]))
    with pytest.raises(DataError, match="a label without an id"):
        metric.update(([label[None]], [label[None]]))
    update(item("x", label, label), item("x", label, label))
    with pytest.raises(DataError, match="case x: found the id of an earlier case"):
        update(item("x", label, label), item("x", label, label))
    with pytest.raises(NotComputableError):
        CaseMeasures({1: "lesion"}).compute()


@pytest.mark.slow
def test_two_processes_count_every_case_once(tmp_path):
    """Five cases on two ranks: the sampler repeats one to fill up, and no figure counts it twice."""
    ranks(2, Path(__file__).with_name("evaluate_distributed.py"), tmp_path)
    expected_dice = {f"case-{i}": 2 * (5 - i) / (10 - i) for i in range(5)}
    for rank in range(2):
        report = json.loads((tmp_path / f"rank-{rank}.json").read_text(encoding="utf-8"))
        assert report["seen"] == 3
        assert report["dice"] == pytest.approx(expected_dice)
        assert report["metrics"]["cases"] == 5
        assert list(report["matched_iou"]) == list(expected_dice)
        assert report["matched_iou"]["case-2"] == pytest.approx(3 / 5)
        assert report["metrics"]["dice"] == pytest.approx(sum(expected_dice.values()) / 5)
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert [row["case_id"] for row in csv.DictReader(file)] == list(expected_dice)
