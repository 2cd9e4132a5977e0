"""`pipeline verify-run` on a measurement and on records that are no records; trainings are in tests/bundles."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.bundle.measure import measure
from pipeline.bundle.verify_run import verify_run
from pipeline.cli.main import app
from pipeline.data.file_digests import file_digest
from pipeline.errors import BundleError, ConfigError
from pipeline.geometry import Grid
from pipeline.io import write_volume

GRID = Grid((3, 4, 5), np.diag([1.0, 1.0, 2.0, 1.0]))


@pytest.fixture
def measured(tmp_path):
    both = tmp_path / "both"
    for number, case in enumerate("ab"):
        for folder in ("p", "r"):
            labels = np.zeros(GRID.shape, np.uint8)
            labels[number, folder == "p", 1:3] = 1
            write_volume(both / folder / f"{case}.nii.gz", labels, GRID)
    measure(both / "p", both / "r", out=tmp_path / "run", bundle="stroke_perfusion_segmentation")
    return tmp_path / "run", both


def test_what_is_as_it_was(measured):
    run, both = measured
    check = verify_run(run, both)
    assert (check.differs, check.same) == ([], {"files": 5, "weights": 0, "inputs": 4})
    assert check.remarks == []
    assert verify_run(run).remarks == ["inputs of 2 cases not checked (--data DATASET)"]


def test_whatever_differs_is_said(measured):
    run, both = measured
    with (run / "cases.csv").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    (run / "summary.json").unlink()
    (run / "later.csv").write_text("x", encoding="utf-8")
    (both / "p" / "a.nii.gz").unlink()
    check = verify_run(run, both)
    assert sorted(check.differs) == [
        "case a, prediction: is gone",
        "cases.csv: another content than the run recorded",
        "summary.json: is gone",
    ]
    assert check.same == {"files": 3, "weights": 0, "inputs": 3}
    assert check.remarks == ["written after the run: later.csv"]
    result = CliRunner().invoke(app, ["verify-run", str(run), "--data", str(both)])
    assert result.exit_code == 1
    assert "3 files, 3 inputs as recorded, 3 differ" in result.output


def test_the_build_of_torch_is_compared_where_it_was_recorded(measured):
    run, both = measured
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    build = record["versions"]["torch"]
    for recorded, remarks in ((build.partition("+")[0], 0), (build, 0), ("2.8.0+cu126", 1), (None, 1)):
        record["versions"]["torch"] = recorded
        (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
        assert len([r for r in verify_run(run, both).remarks if r.startswith(f"torch {recorded} then")]) == remarks


def test_what_went_on_is_a_remark(measured, tmp_path):
    run, _ = measured
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["versions"]["numpy"] = "1.0"
    record["bundle"]["configs"]["evaluate.json"] = "another"
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    record["weights"] = [{"file": str(weights), "digest": file_digest(weights)}]
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    check = verify_run(run)
    assert check.differs == []
    assert check.same["weights"] == 1
    assert any("numpy 1.0 then" in remark for remark in check.remarks)
    assert any("has other configs now" in remark and remark.endswith("evaluate.json") for remark in check.remarks)
    weights.write_bytes(b"other weights")
    assert len(verify_run(run).differs) == 1
    record |= {"weights": [{"file": "w.pt", "digest": "1"}], "bundle": record["bundle"] | {"name": "nobody's"}}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert [remark for remark in verify_run(run).remarks if "not where they were" in remark or "no bundle" in remark]


def test_what_can_not_be_checked(measured, tmp_path):
    run, both = measured
    with pytest.raises(BundleError, match=r"no run\.json"):
        verify_run(tmp_path)
    with pytest.raises(ConfigError, match="a folder that holds the label maps"):
        verify_run(run, both / "p" / "b.nii.gz")
    for text, message in (
        ("{", "a damaged record"),
        ('{"status": "running"}', "of a run that is running"),
        ("[]", "damaged"),
    ):
        (run / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(BundleError, match=message):
            verify_run(run)
    assert CliRunner().invoke(app, ["verify-run", str(run)]).exit_code == 2


def test_a_run_as_bundle_is_found_by_its_weights(measured, tmp_path):
    run, _ = measured
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    trained = tmp_path / "runs" / "trained"
    for folder in ("configs", "models"):
        (trained / folder).mkdir(parents=True)
    (trained / "configs" / "train.json").write_text("{}", encoding="utf-8")
    weights = trained / "models" / "model.pt"
    weights.write_bytes(b"weights")
    record["weights"] = [{"file": str(weights), "digest": file_digest(weights)}]
    digest = file_digest(trained / "configs" / "train.json")
    record["bundle"] = {"name": "trained", "version": None, "configs": {"train.json": digest}}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert [remark for remark in verify_run(run).remarks if "bundle" in remark] == []
    (trained / "configs" / "train.json").write_text("{ }", encoding="utf-8")
    assert any("bundle trained has other configs now" in remark for remark in verify_run(run).remarks)
