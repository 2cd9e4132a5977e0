"""Each command hands its words to one function, prints what comes back, and turns it into an exit status."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import BundleError


def test_train_hands_over_everything(pipeline, rooms):
    words = [
        "b",
        "--data",
        "d",
        "--budget",
        "1h30m",
        "--out",
        "r",
        "--resume",
        "q",
        "network=unet",
        "optimizer#lr=1e-3",
    ]
    result = pipeline("train", *words)
    assert result.exit_code == 0
    assert rooms.calls == [
        (
            "train",
            ("b", Path("d")),
            {
                "out": Path("r"),
                "budget_s": 5400.0,
                "resume": Path("q"),
                "overrides": ("network=unet", "optimizer#lr=1e-3"),
            },
        )
    ]
    assert "lesion 0.83" in result.output
    assert f"tensorboard --logdir {Path('runs/one')}" in result.output


def test_train_leaves_to_the_bundle_what_is_not_said(pipeline, rooms):
    pipeline("train", "b", "--data", "d")
    assert rooms.calls[0][2] == {"out": None, "budget_s": None, "resume": None, "overrides": ()}


def test_evaluate_hands_over_everything(pipeline, rooms):
    pipeline("evaluate", "b", "--data", "d", "--weights", "w.pt", "--out", "o", "batch=2")
    expected = {"weights": Path("w.pt"), "out": Path("o"), "overrides": ("batch=2",)}
    assert rooms.calls == [("evaluate", ("b", Path("d")), expected)]


def test_quantize_hands_over_everything(pipeline, rooms):
    result = pipeline("quantize", "b", "--data", "d", "--cases", "5", "--most-lost", "0.01", "--layout", "bids")
    expected = {"cases": 5, "most_lost": 0.01, "overrides": ('layout="bids"',)}
    assert rooms.calls == [("quantize", ("b", Path("d")), expected)]
    assert result.output.splitlines() == [
        "core 0.8",
        f"Accepted: 0.0011 of Dice lost at most, on 4 validation cases (84 s); {Path('bundles/one/models')}",
    ]


def test_quantize_fails_where_it_is_not_accepted(pipeline, rooms):
    rooms.answers["quantize"].accepted = False
    result = pipeline("quantize", "b", "--data", "d")
    assert result.exit_code == 1
    assert "Not accepted: 0.0011 of Dice lost at most, on 4 validation cases" in result.output


def test_predict_hands_over_everything(pipeline, rooms):
    result = pipeline("predict", "b", "scans", "lesions", "overlap=0.25", "--weights", "w.pt", "--probabilities")
    expected = {"weights": [Path("w.pt")], "probabilities": True, "resume": True, "overrides": ("overlap=0.25",)}
    assert rooms.calls == [("predict", ("b", Path("scans"), Path("lesions")), expected)]
    assert result.output == f"2 done, 0 refused, 0 failed; every case: {Path('lesions/predictions.csv')}\n"


@pytest.mark.parametrize(("words", "resume"), [(["--resume"], True), (["--redo"], False)])
def test_predict_keeps_results_unless_all_are_to_be_redone(pipeline, rooms, words, resume):
    pipeline("predict", "b", "i", "o", *words)
    assert rooms.calls[0][2]["resume"] is resume


def test_of_the_processes_of_torchrun_the_first_speaks(pipeline, rooms):
    rooms.answers["predict"].exit_code = 3
    assert pipeline("predict", "b", "i", "o", RANK="0").exit_code == 3
    result = pipeline("predict", "b", "i", "o", RANK="1")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("status", [0, 1, 3])
def test_predict_ends_with_the_status_of_its_cohort(pipeline, rooms, status):
    rooms.answers["predict"].exit_code = status
    assert pipeline("predict", "b", "i", "o").exit_code == status


def test_predict_gives_the_reason_for_every_case_that_is_not_done(pipeline, rooms):
    outcomes = [
        ("a", "done", "", ("cbv: resampled",), False),
        ("k", "done", "", (), True),
        ("b", "refused", "2 NaN voxels", (), False),
        ("c", "failed", "RuntimeError", (), False),
    ]
    names = ("case", "status", "reason", "repairs", "kept")
    rooms.answers["predict"] = SimpleNamespace(
        exit_code=3,
        outcomes=[SimpleNamespace(**dict(zip(names, values, strict=True))) for values in outcomes],
        counts={"done": 2, "refused": 1, "failed": 1},
        unwritten="",
    )
    lines = pipeline("predict", "b", "i", "o").output.splitlines()
    assert lines[:2] == ["refused  b: 2 NaN voxels", "failed  c: RuntimeError"]
    assert lines[2].startswith("1 done with remarks")
    assert lines[3].startswith("1 of the done ones are of an earlier run")
    assert lines[4].startswith("2 done, 1 refused, 1 failed; ")


def test_tables_that_could_not_be_written_leave_the_closing_table(pipeline, rooms):
    rooms.answers["predict"].unwritten, rooms.answers["predict"].exit_code = "no space left on device", 1
    result = pipeline("predict", "b", "i", "o")
    assert result.exit_code == 1
    assert result.output == "2 done, 0 refused, 0 failed; the tables could not be written\n"


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_refused_cases_end_with_3(pipeline, rooms, command):
    rooms.answers[command].refused = ["sub-09: 4D"]
    result = pipeline(command, "b", "--data", "d")
    assert result.exit_code == 3
    assert "lesion 0.83" in result.output


def test_build_of_named_bundles(pipeline, rooms):
    rooms.answers["build"] = SimpleNamespace(changed=(Path("configs/train.json"),))
    result = pipeline("build", "one", "two")
    built = [(args, options) for name, args, options in rooms.calls if name == "build"]
    options = {"check": False, "network": None, "out": None}
    assert built == [((Path("bundles/one"),), options), ((Path("bundles/two"),), options)]
    assert result.output == "one: wrote train.json\ntwo: wrote train.json\n"


def test_build_of_a_copy_with_another_network(pipeline, rooms):
    rooms.answers["build"] = SimpleNamespace(changed=(Path("copy/configs/train.json"),))
    result = pipeline("build", "one", "network=unet_plus_plus", "--out", "copy")
    assert result.exit_code == 0
    assert result.output == f"one: wrote train.json to {Path('copy/configs')}\n"
    options = {"check": False, "network": "unet_plus_plus", "out": Path("copy")}
    assert [call[1:] for call in rooms.calls if call[0] == "build"] == [((Path("bundles/one"),), options)]


@pytest.mark.parametrize("words", [["one", "two", "--out", "copy"], ["network=unet"], ["one", "patch_size=[8, 8, 8]"]])
def test_build_refuses_what_it_cannot_copy(pipeline, rooms, words):
    assert pipeline("build", *words).exit_code == 2
    assert not rooms.calls or {name for name, *_ in rooms.calls} <= {"find_bundle"}


def test_build_of_all_shipped_bundles_skips_what_is_none(pipeline, rooms, tmp_path):
    for name in ("b_bundle", "a_bundle", "stray_folder"):
        (tmp_path / name).mkdir()
    rooms.answers["shipped_bundles"] = tmp_path
    rooms.answers["is_bundle"] = lambda folder: folder.name.endswith("_bundle")
    result = pipeline("build", "--check")
    assert result.output == "a_bundle: up to date\nb_bundle: up to date\n"
    assert {options["check"] for name, _, options in rooms.calls if name == "build"} == {True}


def test_a_stale_bundle_ends_with_2(pipeline, rooms):
    rooms.answers["build"] = BundleError("stale train.json", fix="pipeline build one")
    result = pipeline("build", "one", "--check")
    assert result.exit_code == 2
    assert "pipeline build one" in result.stderr


def test_verify_prints_each_problem_and_ends_with_1(pipeline, rooms):
    rooms.answers["verify"] = ["LICENSE is missing", "docs/README.md is missing"]
    result = pipeline("verify", "one")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "LICENSE is missing\ndocs/README.md is missing\n"


def test_verify_of_a_bundle_in_order(pipeline, rooms):
    result = pipeline("verify", "one")
    assert (result.exit_code, result.stderr) == (0, "")


def test_publish_hands_over_run_and_bundle(pipeline, rooms):
    result = pipeline("publish", "runs/one", "b")
    assert rooms.calls == [("publish", (Path("runs/one"), "b"), {})]
    assert str(Path("bundles/one/models/model.pt")) in result.output


def test_preview_hands_over_everything(pipeline, rooms):
    words = ["--case", "sub-07", "--channel", "mtt", "--seed", "3", "--out", "p.jpg", "train#steps#noise#std=0.3"]
    result = pipeline("preview", "b", "--data", "d", *words)
    assert result.exit_code == 0
    (_, given, options), (_, drawn, _) = rooms.calls
    assert given == ("b", Path("d"))
    assert options == {"case": "sub-07", "channel": "mtt", "seed": 3, "overrides": ("train#steps#noise#std=0.3",)}
    assert drawn == (rooms.answers["preview_case"].preview, 2, "b: mtt of case sub-07, augmented", Path("p.jpg"))
    assert "p.jpg" in result.output


def test_phantom_hands_over_everything(pipeline, rooms):
    pipeline(
        "phantom", "scans", "--cases", "5", "--seed", "7", "--penumbra", "--healthy", "0.2", "--lesion-ml", "1", "2.5"
    )
    name, args, options = rooms.calls[0]
    assert (name, args) == ("write_dataset", (Path("scans"), 5, 7))
    options.pop("progress")(1, 5)  # what it is for: it must be callable with (done, total)
    assert options == {"penumbra": True, "healthy_share": 0.2, "lesion_ml": (1.0, 2.5)}


@pytest.mark.parametrize(
    "words", [["--cases", "0"], ["--cases", "2", "--healthy", "1.5"], ["--cases", "2", "--seed", "-1"]]
)
def test_phantom_refuses_numbers_out_of_range(pipeline, rooms, words):
    assert pipeline("phantom", "scans", *words).exit_code == 2
    assert rooms.calls == []


def test_phantoms_take_no_files_place(pipeline, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    said = pipeline("phantom", str(tmp_path / "notes.txt"), "--cases", "1")
    assert said.exit_code == 2
    assert "Traceback" not in said.stderr
    assert "found a file" in said.stderr


@pytest.mark.parametrize(
    "words", [("train", "b", "--data", "d"), ("evaluate", "b", "--data", "d"), ("predict", "b", "d", "o")]
)
def test_options_of_the_dataset_stand_for_keys(pipeline, rooms, words):
    pipeline(*words, "--layout", "bids", "--pseudonyms", "my names: all.csv")
    assert rooms.calls[0][2]["overrides"] == ('layout="bids"', 'pseudonyms="my names: all.csv"')


def test_what_is_printed_can_be_pasted(pipeline, rooms):
    rooms.answers["train"].run_dir = Path("my runs/one")
    assert "tensorboard --logdir 'my runs/one'" in pipeline("train", "b", "--data", "d").output


@pytest.mark.parametrize(("out", "said"), [("p.xyz", "a name that ends in .png"), ("afile/p.png", "a folder for")])
def test_a_picture_that_can_not_be_written_is_refused_before_the_work(pipeline, rooms, tmp_path, out, said):
    (tmp_path / "afile").touch()
    result = pipeline("preview", "b", "--data", "d", "--out", str(tmp_path / out))
    assert result.exit_code == 2
    assert said in result.stderr
    assert rooms.calls == []


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_page_that_can_not_be_written_is_refused_before_cases_are_read(option, tmp_path):
    result = CliRunner().invoke(app, ["check", str(tmp_path / "nowhere"), option, str(tmp_path)])
    assert result.exit_code == 2
    assert "expected a file to write" in result.stderr
