"""MembraneMeasures and the pictures of sections, on a real evaluator."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from ignite.exceptions import NotComputableError
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from pipeline.engines import Evaluator
from pipeline.errors import DataError
from pipeline.handlers import CaseMeasures, MembraneMeasures, OverlayImages, ValidationLine
from pipeline.io import write_section
from pipeline.metrics import membrane_scores

SHAPE = (24, 20)


def section(number):
    label = np.ones(SHAPE, np.uint8)
    label[:, 8 + number] = 0
    label[12] = 0
    prediction = label.copy()
    if number:
        prediction[3:5] = 1  # a gap
    return prediction, label


def items(folder):
    for number in range(3):
        file = folder / f"{number:02d}.png"
        write_section(file, 40 * section(number)[1] + 100)
        meta = {"case_id": f"{number:02d}", "filename_or_obj": str(file)}
        prediction, label = (torch.from_numpy(array)[None] for array in section(number))
        yield {
            "image": MetaTensor(prediction.float(), meta=dict(meta)),
            "label": MetaTensor(label, affine=torch.eye(4, dtype=torch.float64), meta=dict(meta)),
        }


def evaluate(tmp_path, **options):
    measures = MembraneMeasures(**options)
    evaluator = Evaluator(
        torch.device("cpu"),
        DataLoader(Dataset(list(items(tmp_path)), None), batch_size=1),
        torch.nn.Identity(),
        key_val_metric={"dice": CaseMeasures({"1": "cell"})},
        additional_metrics={"v_rand": measures},
        val_handlers=[
            ValidationLine({"1": "cell"}, figures=["v_rand", "nowhere"]),
            OverlayImages(SummaryWriter(str(tmp_path / "events")), classes={"1": "cell"}),
        ],
        decollate=True,
    )
    evaluator.run()
    return evaluator, measures


def test_means_rows_and_tables_are_those_of_the_sections(tmp_path, capsys):
    evaluator, measures = evaluate(tmp_path, output_dir=tmp_path / "out")
    expected = {f"{number:02d}": membrane_scores(*section(number)) for number in range(3)}
    assert measures.scores == expected
    assert expected["00"].v_rand == 1
    assert expected["01"].v_rand < 0.9
    for name in ("v_rand", "v_info", "pixel_error"):
        mean = np.mean([getattr(scores, name) for scores in expected.values()])
        assert evaluator.state.metrics[name] == pytest.approx(mean)
    assert evaluator.state.metrics["dice"] > 0.9
    with (tmp_path / "out" / "membranes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == ["00", "01", "02"]
    assert float(rows[1]["v_info"]) == pytest.approx(expected["01"].v_info)
    summary = json.loads((tmp_path / "out" / "membranes.json").read_text(encoding="utf-8"))
    assert summary["v_rand"]["n"] == 3
    assert summary["v_rand"]["low"] <= summary["v_rand"]["mean"] <= summary["v_rand"]["high"]
    assert f"{summary['v_rand']['mean']:.4f}" in measures.table()
    said = capsys.readouterr().err
    assert f"v_rand {summary['v_rand']['mean']:.4f}, 3 cases" in said
    assert f"Hausdorff 95 {evaluator.state.metrics['hausdorff_95_mm']:.1f} px, v_rand" in said


def test_a_section_is_shown_as_it_is_stored(tmp_path):
    evaluate(tmp_path)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == [f"validate/{number:02d}" for number in range(3)]
    picture = np.asarray(Image.open(io.BytesIO(events.Images("validate/02")[0].encoded_image_string)))
    grey = picture[22:][: picture.shape[1] * SHAPE[0] // SHAPE[1], :, 0]  # below the heading
    dark_rows, dark_columns = (np.flatnonzero(grey.mean(axis) < 70) / grey.shape[1 - axis] for axis in (1, 0))
    assert dark_rows.mean() == pytest.approx(12.5 / 24, abs=0.05)
    assert dark_columns.mean() == pytest.approx(10.5 / 20, abs=0.05)


def test_a_reference_without_cells_leaves_a_gap_and_wrong_cases_are_refused(tmp_path):
    measures = MembraneMeasures()
    with pytest.raises(NotComputableError):
        measures.compute()
    empty = MetaTensor(torch.zeros(1, 4, 4, dtype=torch.uint8), meta={"case_id": "a"})
    measures.update(([empty], [empty]))
    assert np.isnan(measures.compute())
    assert measures.statistics["v_rand"].undefined == 1
    with pytest.raises(DataError, match=r"case a.*an earlier case"):
        measures.update(([empty], [empty]))
    volume = MetaTensor(torch.zeros(1, 4, 4, 2), meta={"case_id": "b"})
    with pytest.raises(DataError, match=r"case b.*sections"):
        measures.update(([volume], [volume]))
