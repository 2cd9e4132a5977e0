import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.io.journal import Journal, read_journal
from pipeline.io.sole_writer import sole_writer

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix's limits and locks")


def test_lines_come_back_in_their_order_whoever_wrote_them(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_journal(path) == []
    for number in range(3):
        journal = Journal(path)
        journal.append({"number": number, "name": os.fsdecode(b"a\xff")})
        assert len(read_journal(path)) == number + 1  # before it is closed
        journal.close()
    assert [line["number"] for line in read_journal(path)] == [0, 1, 2]
    assert read_journal(path)[0]["name"] == os.fsdecode(b"a\xff")


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_line_that_was_cut_anywhere_is_none_and_spoils_no_other(tmp_path, cut):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + b'{"n": 2222}\n'[:-cut])
    journal = Journal(path)
    journal.append({"n": 3})
    journal.close()
    whole = cut == 1  # the end of the line alone: its content is there
    assert [line["n"] for line in read_journal(path)] == ([1, 2222, 3] if whole else [1, 3])


@unix
def test_what_a_full_disk_did_not_take_is_cut_off_again(tmp_path):
    code = """
import resource, sys
from pipeline.errors import DataError
from pipeline.io.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
journal = Journal(sys.argv[1])
journal.append({"text": "a" * 20})
for _ in range(2):
    try:
        journal.append({"text": "b" * 40})
    except DataError as error:
        print(error.found)
journal.append({"text": "c"})
"""
    path = tmp_path / "a.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.stdout == "a file that can't be written (file too large)\n" * 2, done.stderr
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["a" * 20, "c"]


def test_a_journal_without_a_line_leaves_no_file(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    journal.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="can't be written"):
        Journal(tmp_path / "no such folder" / "a.jsonl").append({})


@unix
def test_a_folder_has_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "new"
    with sole_writer(folder), pytest.raises(DataError, match="another process is writing into"), sole_writer(folder):
        raise AssertionError
    with sole_writer(folder):
        pass
    assert list(folder.iterdir()) == []


@unix
def test_a_folder_is_free_again_however_its_writer_ended(tmp_path):
    code = """
import os, signal, sys
from pipeline.io.sole_writer import sole_writer
with sole_writer(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    with sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="can't be written"), sole_writer(tmp_path / "out"):
        raise AssertionError
