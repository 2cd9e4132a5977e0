"""The same command again: what holds is kept, what does not is made, and nobody's work is written over."""

import csv
import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose

from pipeline.engines.cohort_history import History
from pipeline.errors import DataError
from pipeline.inference import Restored, SaveImageOnGridd, SlidingWindowInferer
from pipeline.io import read_volume, write_section
from pipeline.io.sole_writer import sole_writer
from pipeline.transforms import LoadImageStackd
from tests.engines.small_cohort import AFFINE, BROKEN, SHAPE, Sign, predict, volume, whole, write_cases


@pytest.fixture
def items(tmp_path):
    return write_cases(tmp_path / "scans", 3)


@pytest.fixture
def out(items, tmp_path) -> Path:
    """A folder into which the three cases have been predicted."""
    assert predict(items, tmp_path / "out").exit_code == 0
    return tmp_path / "out"


def again(items, out, **options):
    """The cases for which the network was run, and the result."""
    network = Sign()
    result = predict(items, out, network, **options)
    made = [outcome.case for outcome in result.outcomes if outcome.status == "done" and not outcome.kept]
    assert network.calls == len(made)
    return made, result


def correct(path: Path) -> bytes:
    """Somebody draws all over a result."""
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), path)
    return path.read_bytes()


def test_results_that_hold_are_kept_with_all_that_is_known_of_them(items, out):
    table = (out / "predictions.csv").read_text()
    first = json.loads((out / "predictions.json").read_text())
    made, result = again(items, out)
    assert made == []
    assert result.exit_code == 0
    assert (out / "predictions.csv").read_text() == table
    second = json.loads((out / "predictions.json").read_text())
    assert all(case.pop("kept") for case in second["cases"])
    assert not any(case.pop("kept") for case in first["cases"])
    assert second == first
    assert sorted(path.name for path in out.iterdir()) == [
        "case-0.nii.gz",
        "case-1.nii.gz",
        "case-2.nii.gz",
        "predictions.csv",
        "predictions.json",
    ]


def test_the_record_names_files_by_their_content(items, out):
    case = json.loads((out / "predictions.json").read_text())["cases"][1]
    digests = [
        hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in (items[1]["image"]["ct"], out / "case-1.nii.gz")
    ]
    assert case["inputs"] == {"ct": digests[0]}
    assert case["files"] == {"case-1.nii.gz": digests[1]}
    assert case["volumes_ml"]["lesion"] == pytest.approx((volume(1) > 0).sum() * 6 / 1000)
    assert case["grid"] == {"shape": list(SHAPE), "affine": AFFINE.tolist()}


def test_another_input_is_predicted_and_the_others_are_kept(items, out):
    nibabel.save(nibabel.Nifti1Image(-volume(1), AFFINE), items[1]["image"]["ct"])
    assert again(items, out)[0] == ["case-1"]
    np.testing.assert_array_equal(nibabel.load(out / "case-1.nii.gz").get_fdata(), volume(1) < 0)


def test_a_case_that_has_come_in_is_predicted_alone(items, out, tmp_path):
    more = write_cases(tmp_path / "scans", 5)
    assert again(more, out)[0] == ["case-3", "case-4"]


@pytest.mark.parametrize("options", [{"made_with": "other weights"}, {"redo": True}, {"made_with": ""}])
def test_another_bundle_or_a_wish_makes_all_again(items, out, options):
    assert again(items, out, **options)[0] == ["case-0", "case-1", "case-2"]


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_result_that_is_none_any_more_is_made_again(items, out, harm):
    path = out / "case-1.nii.gz"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    assert again(items, out)[0] == ["case-1"]
    assert whole(path, 1)


def test_a_corrected_result_is_kept_and_its_volume_is_not_claimed(items, out):
    path = out / "case-1.nii.gz"
    corrected = correct(path)
    for _ in range(2):
        made, result = again(items, out)
        assert made == []
        assert path.read_bytes() == corrected
        assert result.outcomes[1].reason.startswith("changed by somebody since it was written, and kept")
        with (out / "predictions.csv").open() as file:
            assert [row["lesion_ml"] == "" for row in csv.DictReader(file)] == [False, True, False]


@pytest.mark.parametrize(
    ("shape", "shift_mm"), [((5, 6, 3), 0.0), (SHAPE, 0.02), ((*SHAPE, 2), 0.0)], ids=["cropped", "shifted", "series"]
)
def test_a_correction_that_is_not_on_the_grid_any_more_is_not_written_over(items, out, shape, shift_mm):
    path, affine = out / "case-1.nii.gz", AFFINE.copy()
    affine[0, 3] += shift_mm
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), path)
    corrected = path.read_bytes()
    for _ in range(2):
        made, result = again(items, out)
        assert (made, result.outcomes[1].status) == ([], "refused")
        assert "is no longer one on the case's grid" in result.outcomes[1].reason
        assert path.read_bytes() == corrected
    assert "case-1" in again(items, out, redo=True)[0]


def test_a_correction_that_was_undone_leaves_the_result_as_it_was_written(items, out):
    path, table = out / "case-1.nii.gz", (out / "predictions.csv").read_text()
    written = path.read_bytes()
    correct(path)
    for _ in range(2):
        assert again(items, out)[0] == []
    path.write_bytes(written)
    assert again(items, out)[0] == []
    assert (out / "predictions.csv").read_text() == table


@pytest.mark.parametrize("at", ["read", "predicted", "written"])
def test_a_redo_that_is_interrupted_costs_no_correction(items, out, at):
    """At whichever stage: what it has not come to write over is as safe after it as before."""

    def interrupted(item):
        raise KeyboardInterrupt

    class Interrupted(Sign):
        def forward(self, images):
            raise KeyboardInterrupt

    corrected = [correct(out / f"case-{number}.nii.gz") for number in range(3)]
    stage = {
        "read": {"preprocessing": interrupted},
        "predicted": {"network": Interrupted()},
        "written": {"postprocessing": Compose([Restored(), interrupted])},
    }[at]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            predict(items, out, redo=True, **stage)
    made, result = again(items, out)
    assert made == []
    assert [(out / f"case-{number}.nii.gz").read_bytes() for number in range(3)] == corrected
    assert all(outcome.reason.startswith("changed by somebody") for outcome in result.outcomes)


def test_a_file_that_no_run_has_written_is_written_over_by_wish_alone(items, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    foreign = correct(out / "case-1.nii.gz")
    for _ in range(2):
        made, result = again(items, out)
        assert "case-1" not in made
        assert result.outcomes[1].status == "refused"
        assert "that no run on record has written" in result.outcomes[1].reason
        assert (out / "case-1.nii.gz").read_bytes() == foreign
    assert "case-1" in again(items, out, redo=True)[0]
    assert again(items, out)[0] == []


@pytest.mark.parametrize("others", [False, True])
def test_what_a_killed_run_has_written_just_before_is_its_own(items, tmp_path, others):
    """Its file is there, the line in the journal is not. What lay there when the case was begun is another matter."""
    out = tmp_path / "out"
    out.mkdir()
    correct(out / "case-0.nii.gz")
    history = History(out)
    digest = hashlib.sha256((out / "case-0.nii.gz").read_bytes()).hexdigest()
    history.begin((".", "case-0"), {"case-0.nii.gz": digest} if others else {})
    history.close()
    Path(items[1]["image"]["ct"]).write_bytes(BROKEN)

    def interrupted(item):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # a run that does not come to it does not forget it
        predict(items, out, preprocessing=interrupted)
    made, result = again(items, out)
    assert made == (["case-2"] if others else ["case-0", "case-2"])
    assert (result.outcomes[0].status == "refused") is others


def test_a_case_that_fails_after_its_labels_are_written_is_tried_again(items, out):
    def full_disk(item):
        raise OSError(28, "No space left on device")

    chain = Compose([Restored(), SaveImageOnGridd(output_dir=out), full_disk])
    for earlier in (True, False):
        if not earlier:
            for path in out.iterdir():
                path.unlink()
        assert predict(items, out, postprocessing=chain, made_with="other weights").counts["failed"] == 3
        assert again(items, out, made_with="other weights")[0] == ["case-0", "case-1", "case-2"]


@pytest.mark.parametrize(
    "harm",
    [
        {"cases": [1]},
        {"cases": [{}]},
        {"cases": [{"case": "case-1"}]},
        {"cases": [{"case": "case-1", "status": "done", "repairs": None}]},
        {"cases": [{"case": "case-1", "status": "done", "files": ["case-1.nii.gz"]}]},
        {"cases": [{"case": "case-1", "status": "done", "grid": {"shape": [7, 6, 3], "affine": [[1]]}}]},
        {"cases": [{"case": "case-1", "status": "done", "grid": {"shape": [7, 6, 3]}}]},
        {"cases": [], "earlier": 3},
    ],
    ids=str,
)
def test_a_damaged_table_is_told_before_any_work(items, tmp_path, harm):
    (tmp_path / "predictions.json").write_text(json.dumps(harm))
    with pytest.raises(DataError, match="damaged since"):
        predict(items, tmp_path)


def test_a_corrected_result_is_not_written_over_but_by_wish(items, out):
    path = out / "case-1.nii.gz"
    corrected = correct(path)
    for _ in range(2):
        made, result = again(items, out, made_with="other weights")
        assert "case-1" not in made
        assert (result.exit_code, result.outcomes[1].status) == (3, "refused")
        assert "somebody has changed since it was written" in result.outcomes[1].reason
        assert "--redo" in result.outcomes[1].reason
        assert path.read_bytes() == corrected
    assert again(items, out, redo=True)[0] == ["case-0", "case-1", "case-2"]
    assert whole(path, 1)


def test_a_case_that_is_refused_now_says_that_its_old_result_is_there(items, out):
    file = Path(items[1]["image"]["ct"])
    good = file.read_bytes()
    file.write_bytes(BROKEN)
    for _ in range(2):
        _, result = again(items, out)
        assert result.outcomes[1].status == "refused"
        assert result.outcomes[1].reason.endswith("the result of an earlier run still lies in case-1.nii.gz")
    file.write_bytes(good)
    assert again(items, out)[0] == ["case-1"]


def test_what_another_cohort_has_left_in_the_folder_is_remembered(items, out):
    assert again(items[:1], out)[0] == []
    assert len(json.loads((out / "predictions.json").read_text())["earlier"]) == 2
    assert again(items, out)[0] == []
    assert "earlier" not in json.loads((out / "predictions.json").read_text())


def test_an_interruption_forgets_nothing_of_earlier_runs(items, out):
    def interrupted(item):
        raise KeyboardInterrupt

    Path(items[0]["image"]["ct"]).write_bytes(BROKEN)  # the first one has to be read
    with pytest.raises(KeyboardInterrupt):
        predict(items, out, preprocessing=interrupted)
    assert json.loads((out / "predictions.json").read_text())["complete"] is False
    assert again(items, out)[0] == []


def test_under_pseudonyms_nothing_of_an_earlier_run_with_ids_is_taken_along(items, out):
    renamed = [{**item, "case_id": f"P{n}", "pseudonymous": True} for n, item in enumerate(items)]
    written = []

    def looked_at(item):
        written.append((out / "predictions.0.jsonl").read_text())
        return item

    chain = Compose([Restored(), SaveImageOnGridd(output_dir=out), looked_at])
    predict(renamed, out, postprocessing=chain)
    predict(renamed[:1], out, postprocessing=chain)
    assert len(written) == 3
    kept = [*written, *(path.read_text() for path in out.glob("predictions.*"))]
    assert not [text for text in kept if "case-" in text or "scans" in text]
    assert "P2" in (out / "predictions.json").read_text()  # of the same cohort, and known by its pseudonym


def test_a_folder_that_another_run_writes_into_is_refused(items, out):
    with sole_writer(out), pytest.raises(DataError, match="another process is writing into"):
        predict(items, out)


def test_a_table_of_another_kind_is_not_written_over(items, tmp_path):
    table = tmp_path / "out" / "predictions.json"
    table.parent.mkdir()
    table.write_text("[1, 2]")
    with pytest.raises(DataError, match="no prediction has written"):
        predict(items, tmp_path / "out")
    assert table.read_text() == "[1, 2]"


def test_what_a_killed_run_was_at_comes_last_and_its_unfinished_files_go(items, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".unfinished-0123456789ab.nii.gz").write_bytes(b"half")
    history = History(out)
    history.begin((".", "case-0"), {})
    history.close()
    begun = []

    def noted(item):
        begun.append(item["case_id"])
        raise DataError("no more is needed")

    predict(items, out, preprocessing=noted)
    assert begun == ["case-1", "case-2", "case-0"]
    assert not list(out.glob(".unfinished*"))
    with (out / "predictions.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["case-0", "case-1", "case-2"]


def test_sections_are_kept_too(tmp_path):
    picture = np.random.default_rng(0).integers(1, 255, (8, 9)).astype(np.uint8)
    write_section(tmp_path / "a.png", picture)
    cases = [{"case_id": "a", "image": {"em": str(tmp_path / "a.png")}}]
    chain = {"preprocessing": Compose([LoadImageStackd("image", channels=["em"])]), "inferer": SlidingWindowInferer(0)}
    for calls in (1, 0):
        network = Sign()
        assert predict(cases, tmp_path / "out", network, **chain).exit_code == 0
        assert network.calls == calls


def test_a_probability_that_is_lost_makes_its_case_again(items, tmp_path):
    out = tmp_path / "out"
    save = SaveImageOnGridd(output_dir=out, probabilities_key="p", classes={1: "lesion"})
    chain = Compose([Restored(probabilities_key="p"), save])
    predict(items, out, postprocessing=chain)
    assert again(items, out, postprocessing=chain)[0] == []
    (out / "case-2_probability_lesion.nii.gz").unlink()
    assert again(items, out, postprocessing=chain)[0] == ["case-2"]
    assert read_volume(out / "case-2_probability_lesion.nii.gz").array.shape == SHAPE


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_where_the_output_folder_should_be_is_said_so(items, tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="found a file where a folder of this path should be"):
        predict(items, tmp_path / "file" / below)
