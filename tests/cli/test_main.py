"""Help, version, errors, interruptions and exit status of the whole command line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from pipeline import __version__
from pipeline.cli.main import app
from pipeline.errors import BundleError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume

COMMANDS = [command.name for command in app.registered_commands]
HEAVY = ("torch", "monai", "ignite", "numpy", "scipy", "nibabel", "matplotlib")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["train", "x", "--budget", "20"]])
def test_a_quick_answer_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom pipeline.cli.main import main\n"
        f"try:\n    main({words})\nfinally:\n    print('loaded:', [m for m in {HEAVY} if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_names_it_and_the_exit_status(pipeline, name):
    result = pipeline(name, "--help", COLUMNS="120")
    assert result.exit_code == 0
    examples, _, meanings = result.output.partition("Example")[2].partition("Exit status: 0 ")
    assert f"pipeline {name}" in examples
    assert "; 2 " in " ".join(meanings.split())


def test_an_option_of_several_commands_takes_the_same_everywhere():
    takes: dict[str, set[str | None]] = {}
    for command in get_command(app).commands.values():
        for option in command.params:
            if option.param_type_name == "option":
                takes.setdefault(option.opts[-1], set()).add(option.metavar)
    # What is written is a run, a folder of tables or one file; `train` resumes a run, `predict` resumes or not.
    expected = {"--out": {"RUN", "DIR", "FILE"}, "--resume": {"RUN", None}}
    assert {name: words for name, words in takes.items() if len(words) > 1} == expected


def test_help_lists_every_command_and_what_the_exit_status_means(pipeline):
    output = pipeline("--help", COLUMNS="200").output
    assert all(f" {name} " in output for name in COMMANDS)
    for meaning in ("0 all done", "1 failed", "2 the command line", "3 some cases were refused", "130 interrupted"):
        assert meaning in output


def test_the_help_of_train_lists_every_network(pipeline):
    files = (Path(__file__).parents[2] / "configs" / "networks").glob("*.yaml")
    listed = pipeline("train", "--help", COLUMNS="120").output.partition("Networks: ")[2].partition(".")[0]
    assert " ".join(listed.split()).split(", ") == sorted({file.stem.rpartition("_")[0] for file in files})


def test_version(pipeline):
    assert pipeline("--version").output == f"pipeline {__version__}\n"


@pytest.mark.parametrize(
    "words", [["tarin"], ["train"], ["train", "b", "--data", "d", "--epochs", "3"], ["phantom", "d"]]
)
def test_a_wrong_command_line_ends_with_2(pipeline, rooms, words):
    assert pipeline(*words).exit_code == 2
    assert {name for name, *_ in rooms.calls} <= {"nearest_keys"}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "b", "--data", "d", "--epochs", "3"], "without dashes: max_epochs=VALUE"),
        (["train", "b", "--data", "d", "--budgte", "3m"], "--budget"),
        (["train", "b"], "Missing option '--data'. For example: pipeline train "),
        (["predict", "b"], "Missing argument 'INPUT'. For example: pipeline predict "),
    ],
)
def test_a_wrong_command_line_says_what_may_have_been_meant(pipeline, rooms, words, meant):
    shown = pipeline(*words, COLUMNS="300").stderr
    assert meant in " ".join(shown.replace("│", " ").split())


def test_an_error_of_the_input_is_one_message_on_stderr(pipeline, rooms):
    rooms.answers["train"] = DataError("2 NaN voxels", case="sub-01", expected="finite values")
    result = pipeline("train", "b", "--data", "d")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: case sub-01: found 2 NaN voxels; expected finite values\n"


def test_an_error_of_the_input_is_found_behind_the_one_that_wraps_it(pipeline, rooms):
    wrapped = RuntimeError("applying transform <object at 0x7f>")
    wrapped.__cause__ = DataError("an empty file", case="sub-02")
    rooms.answers["train"] = wrapped
    result = pipeline("train", "b", "--data", "d")
    assert result.exit_code == 2
    assert result.stderr == "Error: case sub-02: found an empty file\n"


def test_a_fault_of_the_package_keeps_its_traceback(pipeline, rooms):
    rooms.answers["train"] = RuntimeError("a bug")
    result = pipeline("train", "b", "--data", "d")
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


def test_debug_shows_the_traceback(pipeline, rooms):
    rooms.answers["train"] = BundleError("no bundle")
    assert isinstance(pipeline("--debug", "train", "b", "--data", "d").exception, BundleError)
    assert isinstance(pipeline("train", "b", "--data", "d", PIPELINE_DEBUG="1").exception, BundleError)


def test_debug_may_stand_at_the_end():
    answer = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "b", "--data", "d", "--budget", "20", "--debug"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("pipeline.errors.ConfigError")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "b", "--data", "d", "--out", "r"], "no step was taken yet; give the same command again"),
        (["predict", "b", "scans", "lesions"], "lesions is whole"),
        (["evaluate", "b", "--data", "d"], "the same command again"),
        (["phantom", "scans", "--cases", "2"], "finished cases stay in scans"),
    ],
)
def test_an_interruption_ends_with_130_and_says_what_is_kept(pipeline, rooms, words, hint):
    function = "write_dataset" if words[0] == "phantom" else words[0]
    rooms.answers[function] = KeyboardInterrupt()
    result = pipeline(*words)
    assert result.exit_code == 130
    assert hint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there the signal ends a process at once")
def test_what_a_batch_system_sends_is_an_interruption(tmp_path):
    words = [sys.executable, "-m", "pipeline", "phantom", str(tmp_path / "scans"), "--cases", "1000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        limit = time.monotonic() + 60
        while not (tmp_path / "scans").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        process.terminate()
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "Interrupted: finished cases stay in" in said


def test_an_interruption_that_knows_what_is_kept_is_believed(pipeline, rooms):
    rooms.answers["train"] = KeyboardInterrupt("kept in runs/b/20260101; epoch 7 is whole")
    result = pipeline("train", "b", "--data", "d")
    assert result.stderr == "\nInterrupted: kept in runs/b/20260101; epoch 7 is whole\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_a_name_that_the_terminal_can_not_show_ends_no_command(tmp_path):
    case = tmp_path / "scans" / os.fsdecode(b"a\xff")
    write_volume(case / "t1.nii.gz", np.ones((4, 5, 6), np.float32), Grid((4, 5, 6), np.eye(4)))
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "PIPELINE_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "pipeline", "check", str(tmp_path / "scans")]
    said = subprocess.run(words, capture_output=True, env=strict, check=False)
    assert said.returncode in (0, 1), said.stderr
    assert b"Traceback" not in said.stderr
    assert rb"a\udcff" in said.stdout


def test_a_path_whose_quotes_are_missing_is_named_with_them(pipeline, rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my old scans").mkdir()
    for command in (["check", "my", "old", "scans"], ["measure", "their", "my", "old", "scans"]):
        shown = " ".join(pipeline(*command, COLUMNS="300").stderr.replace("│", " ").split())
        assert "put the path with spaces in quotes: 'my old scans'" in shown, command
    shown = pipeline("train", "bundle", "--data", "my", "old", "scans", COLUMNS="300").stderr
    assert "found the word 'old'" in shown
    assert "put the path with spaces in quotes: 'my old scans'" in shown
    assert "in quotes:" not in pipeline("check", "their", "scans", COLUMNS="300").stderr


def test_the_help_of_quantize_names_the_extra(pipeline):
    assert "monai-volume-pipeline[openvino]" in pipeline("quantize", "--help", COLUMNS="300").output
