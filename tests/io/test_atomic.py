"""What is left of a file that could not be written, whatever the reason."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.geometry import Grid
from pipeline.io import read_volume, write_section, write_volume
from pipeline.io.atomic import write_text
from tests.commands import python

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START = """
import os, sys
import numpy as np
from pipeline.geometry import Grid
from pipeline.io import write_volume
array = np.random.default_rng(0).integers(0, 999, (60, 50, 40)).astype(np.int16)
grid = Grid(array.shape, np.eye(4))
path = sys.argv[1]
"""

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix's rights and limits")


@unix
def test_a_process_that_is_killed_leaves_a_hidden_file_at_most(tmp_path):
    path = tmp_path / "a.nii.gz"
    code = "os.replace = lambda *names: (print('ready', flush=True), sys.stdin.read())\nwrite_volume(path, array, grid)"
    with subprocess.Popen(
        [sys.executable, "-c", START + code, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    left = [file.name for file in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".unfinished-")
    assert not list(tmp_path.glob("[!.]*"))
    array = np.ones((3, 4, 5), np.uint8)
    write_volume(path, array, Grid(array.shape, np.eye(4)))
    np.testing.assert_array_equal(read_volume(path).array, array)


@unix
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_disk_that_takes_no_more(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000)); write_volume(path, array, grid)"
    errors = python("-c", START + code, path, status=1).stderr
    assert f"DataError: file {path}: found a file that can't be written (file too large)" in errors
    assert list(tmp_path.iterdir()) == []


@unix
def test_a_folder_without_the_right_to_write(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    folder.chmod(0o555)
    code = "os.geteuid() or os.setuid(65534); write_volume(path, array, grid)"
    errors = python("-c", START + code, folder / "a.nii", status=1).stderr
    folder.chmod(0o755)
    assert "permission denied); to fix it: choose a folder for which you have the rights" in errors
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.png"])
def test_a_full_disk_and_an_interruption_leave_the_older_file(tmp_path, monkeypatch, error, name):
    def write(value: int) -> None:
        if name.endswith("png"):
            write_section(tmp_path / name, np.full((4, 5), value, np.uint8))
        else:
            write_volume(tmp_path / name, np.full((4, 5, 6), value, np.uint8), Grid((4, 5, 6), np.eye(4)))

    write(1)
    before = (tmp_path / name).read_bytes()

    def stop(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", stop)
    if isinstance(error, OSError):
        with pytest.raises(DataError, match=r"no space left.*make room on the disk"):
            write(2)
    else:
        with pytest.raises(KeyboardInterrupt):
            write(2)
    assert (tmp_path / name).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x" * 300, "a\ud800b", "a\0b"])
def test_names_that_can_not_be_stored(tmp_path, name):
    array = np.ones((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match=r"can't (be written|store)"):
        write_volume(tmp_path / f"{name}.nii.gz", array, Grid((2, 2, 2), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(DataError, match="can't be written"):
        write_volume(tmp_path / "a.nii", np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii"]


def test_a_text_keeps_what_utf8_has_no_letter_for(tmp_path):
    name = os.fsdecode(b"a\xff") if os.name != "nt" else "a\udcff"
    write_text(tmp_path / "deep" / "a.csv", f"läs,{name}\r\n")
    assert (tmp_path / "deep" / "a.csv").read_bytes() == "läs,a\\udcff\r\n".encode()
    write_text(tmp_path / "deep" / "a.csv", json.dumps([name], ensure_ascii=False))
    assert json.loads((tmp_path / "deep" / "a.csv").read_bytes()) == [name]
    assert os.listdir(tmp_path / "deep") == ["a.csv"]


@unix
@pytest.mark.parametrize(
    "code",
    [
        "from pipeline.io.atomic import write_text; write_text(sys.argv[1], 'x' * 99999)",
        "import torch; from pathlib import Path; from pipeline.handlers.checkpoints import save_atomically;"
        "save_atomically(torch.ones(9999), Path(sys.argv[1]))",
    ],
)
def test_a_text_or_a_checkpoint_without_room_leaves_the_older_one(tmp_path, code):
    (tmp_path / "a").write_text("older")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    said = python("-c", START + limit + code, tmp_path / "a", status=1).stderr
    assert "DataError" in said.splitlines()[-1]
    assert "a file that can't be written (file too large)" in said
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "older"
