"""The demo: phantoms kept only when whole, the comparison, and all of it with a network that knows the answer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from pipeline.cli import demo
from pipeline.cli.demo_table import Comparison, DemoCase, Method, _figure_case, load_cases
from pipeline.cli.main import app
from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.metrics import measure_case


def result(tp: int, fp: int, fn: int):
    """Measures of a lesion whose prediction has these voxels right, too many, too few."""
    prediction, reference = np.zeros((2, 12, 3, 3), np.uint8)
    flat_prediction, flat_reference = prediction.reshape(-1), reference.reshape(-1)
    flat_prediction[: tp + fp] = 1
    flat_reference[:tp] = flat_reference[tp + fp : tp + fp + fn] = 1
    return measure_case(prediction, reference, (1, 1, 5), {1: "lesion"})[0]


def test_a_missed_lesion_counts_as_0_and_healthy_cases_do_not_count():
    cases = {"a": result(6, 2, 2), "missed": result(0, 0, 5), "healthy": result(0, 0, 0), "alarm": result(0, 3, 0)}
    method = Method("network", cases)
    assert method.dice == pytest.approx((2 * 6 / 16 + 0) / 2)
    assert (method.count("missed"), method.count("false_alarm")) == (1, 1)


def test_the_table_has_a_line_per_method():
    methods = [Method("network", {"a": result(6, 2, 2)}), Method("best global rule", {"a": result(0, 0, 4)})]
    head, network, rule = Comparison(methods, lesions=1, healthy=0).table().splitlines()
    assert "lesion Dice" in head
    assert network.split() == ["network", "0.750", "0", "0"]
    assert rule.split() == ["best", "global", "rule", "0.000", "1", "0"]
    assert len({len(network), len(rule)}) == 1


def test_volumes_are_turned_to_ras_for_the_picture():
    # axes of the array: down, right, back
    affine = np.array([[0, 2.0, 0, 0], [0, 0, -3.0, 0], [-5.0, 0, 0, 0], [0, 0, 0, 1]])
    cbf = np.zeros((4, 6, 8), np.float32)
    cbf[0, 5, 0] = 7  # top, right, front
    label = (cbf > 0).astype(np.uint8)
    drawn = _figure_case("case", DemoCase("case", cbf, cbf, cbf, label, Grid(cbf.shape, affine)), label)
    assert list(drawn.spacing_mm) == [2, 3, 5]
    assert drawn.channels["cbf"].shape == (6, 8, 4)
    assert drawn.channels["cbf"][5, 7, 3] == 7
    assert drawn.reference[5, 7, 3]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": demo.Part(1, 0.0, 0), "test": demo.Part(2, 0.5, 9)}
    monkeypatch.setattr(demo, "PARTS", parts)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, small: None) -> list[Path]:
    """Phantoms without content; the folders asked for."""
    asked: list[Path] = []

    def write(folder: Path, cases: int, seed: int, **options: object) -> None:
        asked.append(folder)
        folder.mkdir(parents=True)
        (folder / "phantom.json").write_text(f"{cases} {seed}", encoding="utf-8")

    module = ModuleType("phantom_dataset")
    module.write_dataset = write  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.data.phantom_dataset", module)
    return asked


def test_phantoms_are_made_once(tmp_path, writes):
    folder = demo.phantoms(tmp_path, 3)
    assert folder == tmp_path / "phantom-seed3"
    assert (folder / "train" / "phantom.json").read_text(encoding="utf-8") == "1 3"
    assert (folder / "test" / "phantom.json").read_text(encoding="utf-8") == "2 12"
    assert demo.phantoms(tmp_path, 3) == folder
    assert len(writes) == 2
    assert demo.phantoms(tmp_path, 4) != folder
    assert len(writes) == 4


def test_unfinished_phantoms_leave_nothing(tmp_path, writes, monkeypatch):
    whole = sys.modules["pipeline.data.phantom_dataset"].write_dataset

    def interrupted(folder, cases, seed, **options):
        whole(folder, cases, seed, **options)
        if folder.name == "test":
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["pipeline.data.phantom_dataset"], "write_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.phantoms(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["another version", "another folder"])
def test_other_phantoms_are_refused_not_overwritten(tmp_path, writes, damage):
    made = demo.phantoms(tmp_path, 0) / "demo.json"
    if damage == "another version":
        made.write_text(json.dumps({**json.loads(made.read_text(encoding="utf-8")), "phantom_version": -1}))
    else:
        made.unlink()
    with pytest.raises(DataError, match="other phantoms") as raised:
        demo.phantoms(tmp_path, 0)
    assert "--out" in raised.value.fix
    assert len(writes) == 2


def test_a_phantom_without_a_prediction_is_named():
    outcome = SimpleNamespace(case="sub-002", status="refused", reason="4D", output="")
    with pytest.raises(DataError) as raised:
        demo.predicted(SimpleNamespace(outcomes=(outcome,)), Path("p"))
    assert str(raised.value) == "case sub-002: found no prediction (refused: 4D)"


def test_predictions_are_found_below_their_folder():
    outcome = SimpleNamespace(case="sub-001", status="done", reason="", output="sub-001/sub-001_cbf.nii.gz")
    found = demo.predicted(SimpleNamespace(outcomes=(outcome,)), Path("p"))
    assert found == {"sub-001": Path("p/sub-001/sub-001_cbf.nii.gz")}


@pytest.mark.slow
def test_the_whole_demo_with_a_network_that_knows_the_answer(tmp_path, small, monkeypatch):
    def train(bundle, data, *, out, budget_s, overrides):
        assert (bundle, budget_s, len(load_cases(data))) == ("stroke_perfusion_segmentation", 1.0, 1)
        return SimpleNamespace(table="trained")

    def predict(bundle, source, target):
        assert bundle.parent == tmp_path / "runs"  # the run's folder is a bundle
        outcomes = []
        for case in load_cases(source):
            label = source / case.case_id / f"{case.case_id}_label.nii.gz"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(label, target / label.name)
            outcomes.append(SimpleNamespace(case=case.case_id, status="done", reason="", output=label.name))
        return SimpleNamespace(outcomes=tuple(outcomes))

    run = ModuleType("run")
    run.train, run.predict = train, predict  # type: ignore[attr-defined]
    bundle = ModuleType("bundle")
    bundle.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.bundle", bundle)
    answer = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--budget", "1s"], catch_exceptions=False)
    assert answer.exit_code == 0
    assert [f"[{step}/5]" in answer.output for step in range(1, 6)] == [True] * 5
    lines = [line.split() for line in answer.output.splitlines() if line.startswith(("network", "best"))]
    assert lines[0] == ["network", "1.000", "0", "0"]
    assert [line[:-3] for line in lines[1:]] == [["best", "global", "rule"], ["best", "mirrored", "side", "rule"]]
    assert all(0 <= float(line[-3]) < 1 for line in lines[1:])
    assert "pipeline predict " in answer.output
    assert imread(tmp_path / "result.png").shape[1] > 1000
