"""CalibrationScores and InstanceScores on a real evaluator, from a config: means, tables, refusals."""

import csv
import json

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from pipeline.errors import DataError
from pipeline.handlers import CaseMeasures
from pipeline.metrics import calibration_measures, instance_measures


def items():
    generator = torch.Generator().manual_seed(0)
    for case in ("b", "a"):
        label = torch.zeros(1, 6, 7)
        label[0, 1:3, 1:3] = label[0, 4:, 4:] = 1
        shown = torch.rand(1, 6, 7, generator=generator)
        meta = {"case_id": case}
        affine = torch.eye(4, dtype=torch.float64)
        yield {
            "image": MetaTensor(torch.cat([1 - shown, shown]), affine=affine, meta=dict(meta)),
            "label": MetaTensor(label, affine=affine, meta=dict(meta)),
        }


class Labels(torch.nn.Module):
    def forward(self, image):
        return image.argmax(dim=1, keepdim=True)


def evaluate(metric, network):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(list(items()), None), batch_size=1),
        network=network,
        key_val_metric={"dice": CaseMeasures({"1": "cell"}, output_transform=labels_twice)},
        additional_metrics={"further": metric},
    )
    evaluator.run()
    return evaluator.state.metrics


labels_twice = from_engine(["label", "label"])


def configured(name, **options):
    config = {"_target_": f"pipeline.handlers.{name}", **options}
    return ConfigParser({"metric": config}).get_parsed_content("metric")


def test_calibration_of_every_case(tmp_path):
    metric = configured("CalibrationScores", output_dir=str(tmp_path), bins=5)
    metric._output_transform = from_engine(["pred", "label"])  # here the network itself gives probabilities
    metrics = evaluate(metric, torch.nn.Identity())
    expected = [calibration_measures(item["image"].as_tensor(), item["label"].as_tensor()[0], 5) for item in items()]
    assert metrics["ece"] == metrics["further"] == pytest.approx(sum(e.ece for e in expected) / 2)
    assert metrics["brier"] == pytest.approx(sum(e.brier for e in expected) / 2)
    with (tmp_path / "calibration.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == ["a", "b"]
    assert float(rows[1]["brier"]) == pytest.approx(expected[0].brier)
    assert "calibration error" in metric.table()


def test_instances_of_every_case(tmp_path):
    metric = configured("InstanceScores", output_dir=str(tmp_path))
    metrics = evaluate(metric, Labels())
    from scipy import ndimage

    found = []
    for item in items():
        maps = [ndimage.label(m.numpy() == 1)[0] for m in (item["image"].argmax(0), item["label"][0])]
        found.append(instance_measures(*maps))
    expected = sum(measures.mean_average_precision for measures in found) / 2
    assert metrics["mean_average_precision"] == metrics["further"] == pytest.approx(expected)
    assert metrics["instances_reference"] == 2
    summary = json.loads((tmp_path / "instances.json").read_text(encoding="utf-8"))
    assert summary["f1_50"]["n"] == 2
    assert metric.table().splitlines()[0].split()[:3] == ["cases", "F1", "at"]


def test_numbers_that_a_case_brings_along_are_its_instances():
    """Two touching objects, found apart: components alone would be one against one."""
    numbers = torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    meta = {"case_id": "a"}
    case = {"pred": numbers > 0, "label": MetaTensor((numbers > 0).int(), meta=meta)}
    metric = configured("InstanceScores")
    for given, counted in (({}, (1, 1)), ({"label_instances": MetaTensor(numbers, meta=meta)}, (1, 2))):
        metric.reset()
        metric.update(metric._output_transform([case | given]))
        metric.compute()
        scores = metric.scores["a"]
        assert (scores.instances_prediction, scores.instances_reference) == counted
    metric.reset()
    both = {key: MetaTensor(numbers, meta=meta) for key in ("label_instances", "pred_instances")}
    metric.update(metric._output_transform([case | both]))
    assert metric.compute() == 1


def test_refusals_name_the_case():
    first, *_ = items()
    metric = configured("CalibrationScores")
    with pytest.raises(DataError, match=r"case b: found probabilities from"):
        metric.update(([first["image"] * 3], [first["label"]]))
    metric.update(([first["image"]], [first["label"]]))
    with pytest.raises(DataError, match=r"case b: found the id of an earlier case"):
        metric.update(([first["image"]], [first["label"]]))
