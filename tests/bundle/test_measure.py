"""`pipeline measure` and `pipeline compare` on files: figures, refusals, tables, pseudonyms, exit status."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.bundle.measure import measure
from pipeline.cli.main import app
from pipeline.data.splits import TRAINED_ON
from pipeline.errors import ConfigError
from pipeline.geometry import Grid
from pipeline.io import write_section, write_volume
from pipeline.metrics import measure_case, read_cases

SHAPE, SPACING = (8, 7, 6), (1.0, 2.0, 5.0)
GRID = Grid(SHAPE, np.diag([*SPACING, 1.0]))
MOVED = Grid(SHAPE, np.diag([*SPACING, 1.0]) + np.eye(4, k=3) * 4)


def maps(seed):
    reference = np.zeros(SHAPE, np.uint8)
    reference[2:5, 2:5, 1:4] = 1
    if seed == 2:
        reference[7, 6, 5] = 2
    return np.roll(reference, seed % 3, axis=0), reference


@pytest.fixture
def folders(tmp_path):
    """Five references: good, shifted, with a second class; moved by 4 mm, without a prediction."""
    for number, case in enumerate("abcde"):
        prediction, reference = maps(number)
        write_volume(tmp_path / "r" / f"{case}_label.nii.gz", reference, GRID)
        if case != "e":
            write_volume(tmp_path / "p" / f"{case}_pred.nii.gz", prediction, MOVED if case == "d" else GRID)
    return tmp_path / "p", tmp_path / "r"


def recorded(folder: Path, **of_each) -> None:
    """What `pipeline predict` leaves beside its results a and b."""
    cases = [{"case": case, "repairs": [], "instances": None} | of_each for case in "ab"]
    (folder / "predictions.json").write_text(json.dumps({"cases": cases}))


def test_predictions_of_training_cases_are_said_to_be_some(folders, caplog):
    recorded(folders[0])
    measure(*folders)
    assert not caplog.text
    recorded(folders[0], repairs=["unlike the training cases", TRAINED_ON])
    measure(*folders)
    assert "2 of 5 cases are some that the weights were trained on" in caplog.text
    (folders[0] / "predictions.json").write_text("of another program")
    assert measure(*folders).counts["done"] == 3


def test_results_that_number_objects_are_not_measured_as_classes(folders):
    recorded(folders[0], instances=7)
    with pytest.raises(ConfigError, match="results that number objects") as caught:
        measure(*folders)
    assert "--bundle nuclei_microscopy_segmentation" in str(caught.value)
    assert measure(*folders, classes={1: "cell", 2: "other"}).counts["done"] == 3


def test_of_a_mask_per_channel_the_one_is_measured_on_which_was_predicted(tmp_path):
    for number, case in enumerate("ab"):
        prediction, reference = maps(number)
        write_volume(tmp_path / "p" / f"{case}.nii.gz", prediction, GRID)
        for channel, grid in (("ct", MOVED), ("mr", GRID)):
            write_volume(tmp_path / "r" / case / f"{channel}_image.nii.gz", reference.astype(np.float32), grid)
            write_volume(tmp_path / "r" / case / f"{channel}_mask.nii.gz", reference, grid)
    nobody_knows = measure(tmp_path / "p", tmp_path / "r")
    assert nobody_knows.counts["refused"] == 2
    assert "--bundle BUNDLE takes that of the bundle's first channel" in nobody_knows.outcomes[0].reason
    recorded(tmp_path / "p", inputs={"mr": "0" * 64, "ct": "1" * 64})
    measured = measure(tmp_path / "p", tmp_path / "r")
    assert measured.counts["done"] == 2
    assert [row.result.dice for row in measured.rows] == [1.0, pytest.approx(2 / 3)]  # the second is shifted by a third


def test_every_pair_is_measured_and_a_bad_one_stops_none(folders, tmp_path):
    steps = []
    found = measure(*folders, out=tmp_path / "out", progress=lambda *step: steps.append(step))
    assert found.counts == {"done": 3, "refused": 1, "no_prediction": 1, "failed": 0}
    assert (found.exit_code, steps) == (3, [(n, 5) for n in range(1, 6)])
    reasons = {outcome.case_id: outcome.reason for outcome in found.outcomes}
    assert "another grid" in reasons["d"]
    rows = {(row.case_id, row.result.class_name): row.result for row in found.rows}
    assert len(rows) == 6
    assert rows["a", "2"].status == "absent"
    for number, case in enumerate("abc"):
        expected = measure_case(*maps(number), SPACING, {1: "1", 2: "2"})
        assert [str(rows[case, name]) for name in "12"] == [str(result) for result in expected]
    assert [row.case_id for row in read_cases(tmp_path / "out")] == list("aabbcc")
    with (tmp_path / "out" / "pairs.csv").open(encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * 3 + ["refused", "no_prediction"]
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert set(record["inputs"]["a"]) == {"prediction", "label"}
    assert set(record["files"]) == {"cases.csv", "cases.json", "pairs.csv", "summary.csv", "summary.json"}


def test_a_prediction_stored_in_another_axis_order_is_the_same(folders):
    prediction, _ = maps(1)
    flipped = Grid(SHAPE[::-1], np.array([[0, 0, 1, 0], [0, 2, 0, 0], [-5, 0, 0, 25], [0, 0, 0, 1.0]]))
    write_volume(folders[0] / "b_pred.nii.gz", prediction.transpose(2, 1, 0)[::-1], flipped)
    found = measure(*folders)
    [row] = [row for row in found.rows if (row.case_id, row.result.class_id) == ("b", 1)]
    assert str(row.result) == str(measure_case(*maps(1), SPACING, {1: "1"})[0])
    assert any("axes reordered" in remark for outcome in found.outcomes for remark in outcome.remarks)


def test_named_classes_refuse_other_ids(folders):
    found = measure(*folders, classes={1: "core"})
    assert {row.result.class_name for row in found.rows} == {"core"}
    assert found.counts["refused"] == 2  # the case with another id, and the one on another grid
    assert measure(*folders, classes={1: "core", 2: "rim"}).counts["done"] == 3
    by_bundle = measure(*folders, bundle="hippocampus_mri_segmentation")
    assert {row.result.class_name for row in by_bundle.rows} == {"anterior", "posterior"}


def test_a_stray_id_of_a_prediction_does_not_make_the_mean_better(folders):
    before = measure(*folders)
    prediction, _ = maps(0)
    prediction[7, 0, 0] = 9
    write_volume(folders[0] / "a_pred.nii.gz", prediction, GRID)
    found = measure(*folders)
    assert found.summary.mean == before.summary.mean
    assert found.summary.outside_mean == ("9",)
    [stray] = [line for line in found.summary.classes if line.class_name == "9"]
    assert (stray.false_alarms, stray.absent) == (1, 2)
    assert measure(*folders, classes={1: "core", 2: "rim", 9: "edge"}).summary.outside_mean == ()


def test_where_no_reference_holds_anything_a_mean_is_left(tmp_path):
    write_volume(tmp_path / "p" / "a.nii.gz", maps(0)[0], GRID)
    write_volume(tmp_path / "r" / "a.nii.gz", np.zeros(SHAPE, np.uint8), GRID)
    summary = measure(tmp_path / "p", tmp_path / "r").summary
    assert (summary.mean.measures["dice"].mean, summary.mean.false_alarms, summary.outside_mean) == (0, 1, ())


def test_images_in_the_place_of_label_maps_are_refused(folders):
    image = np.arange(8 * 7 * 6, dtype=np.int16).reshape(SHAPE)
    write_volume(folders[0] / "a_pred.nii.gz", image, GRID)
    (folders[0] / "b_pred.nii.gz").write_bytes(b"")
    reasons = {outcome.case_id: outcome.reason for outcome in measure(*folders).outcomes if outcome.status == "refused"}
    assert set(reasons) == {"a", "b", "d"}
    assert "different ids" in reasons["a"]


def numbered(tmp_path, offsets: list[int]) -> tuple[Path, Path]:
    """Two sections, and as many objects of one pixel in each, their numbers from an offset on; found as they are."""
    for name, offset in zip("ab", offsets, strict=True):
        section = np.zeros((24, 24), np.uint16)
        section[::2, ::2] = np.arange(144).reshape(12, 12) % 70 + 1 + offset
        for role in ("p", "r"):
            write_section(tmp_path / role / f"{name}.png", section)
    return tmp_path / "p", tmp_path / "r"


def test_more_ids_than_classes_are_not_taken_for_classes(tmp_path):
    folders = numbered(tmp_path, [0, 70])  # 70 in each, which are 140 together
    with pytest.raises(ConfigError, match="140 different ids in the references, from 1 to 140") as caught:
        measure(*folders)
    assert "--bundle nuclei_microscopy_segmentation" in str(caught.value)
    section = np.arange(144, dtype=np.uint8).reshape(12, 12)
    for folder in folders:
        write_section(folder / "a.png", section)
    with pytest.raises(ConfigError, match="143 different ids in a reference") as caught:
        measure(*folders)
    assert (caught.value.case, caught.value.file) == ("a", str(folders[1] / "a.png"))
    names = tmp_path / "names.csv"
    names.write_text("id,pseudonym\na,one\nb,two\n")
    with pytest.raises(ConfigError, match="143 different ids") as caught:
        measure(*folders, pseudonyms=names)
    assert caught.value.case == "one"
    assert str(tmp_path) not in str(caught.value)


def test_objects_are_one_class_by_a_bundle_and_as_many_as_named_classes_may_be(tmp_path):
    folders = numbered(tmp_path, [0, 20])
    found = measure(*folders, bundle="nuclei_microscopy_segmentation").summary
    assert [line.class_name for line in found.classes] == ["nucleus"]
    assert found.length_unit == "px"
    found = measure(*folders, classes={number: f"c{number}" for number in range(1, 91)}).summary
    assert len(found.classes) == 90


def test_nothing_in_any_of_them(tmp_path):
    for folder in ("p", "r"):
        write_volume(tmp_path / folder / "a.nii.gz", np.zeros(SHAPE, np.uint8), GRID)
    found = measure(tmp_path / "p", tmp_path / "r")
    assert (found.rows, found.summary, found.exit_code) == ((), None, 0)


def test_a_setting_that_is_none_ends_all(folders):
    with pytest.raises(ConfigError, match="tolerance"):
        measure(*folders, tolerance_mm=float("nan"))


def test_under_pseudonyms_no_name_is_left(folders, tmp_path):
    people = ["smith", "doe", "roe", "poe", "moe"]
    for case, name in zip("abcde", people, strict=True):
        for folder, ending in zip(folders, ("pred", "label"), strict=True):
            if (folder / f"{case}_{ending}.nii.gz").exists():
                (folder / f"{case}_{ending}.nii.gz").rename(folder / f"{name}_{ending}.nii.gz")
    names = tmp_path / "names.csv"
    names.write_text("id,pseudonym\n" + "".join(f"{name},P{i}\n" for i, name in enumerate(people)), encoding="utf-8")
    arguments = ["measure", *map(str, folders), "--pseudonyms", str(names), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    written = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "out").iterdir())
    assert "P3" in written
    assert not [name for name in people if name in written + result.output]


def test_the_commands(folders, tmp_path):
    def run(*words, status=0):
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == status, result.output
        return result.output

    said = run("measure", *folders, "--out", tmp_path / "one", "--classes", "1=core,2=rim", status=3)
    assert "refused  d: file" in said
    assert "Without a prediction, in no figure above: e" in said
    assert "3 done, 1 refused, 1 no prediction, 0 failed" in said
    shutil.copyfile(folders[1] / "b_label.nii.gz", folders[0] / "b_pred.nii.gz")
    (folders[0] / "c_pred.nii.gz").unlink()
    run("measure", *folders, "--out", tmp_path / "two", "--classes", "1=core,2=rim", status=3)
    said = run("compare", tmp_path / "one", tmp_path / "two", "--measure", "dice", "--out", tmp_path / "compared")
    assert "Only in the first, not compared: c" in said
    with (tmp_path / "compared" / "comparison.csv").open(encoding="utf-8") as file:
        core = next(csv.DictReader(file))
    assert (core["class_name"], core["n"], core["wins"], core["ties"]) == ("core", "2", "1", "1")
    with (tmp_path / "compared" / "comparison_cases.csv").open(encoding="utf-8") as file:
        assert [row["outcome"] for row in csv.DictReader(file) if row["class_name"] == "core"] == ["tie", "win"]
    assert "Error" in run("compare", tmp_path / "one", status=2)
    assert "no cases.csv" in run("compare", tmp_path / "one", tmp_path, status=2)
    run("measure", folders[0], tmp_path / "nowhere", status=2)
    write_volume(tmp_path / "q" / "a.nii.gz", maps(0)[0], MOVED)
    run("measure", tmp_path / "q", folders[1], status=1)
