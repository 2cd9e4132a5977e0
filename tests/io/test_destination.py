"""A place that takes no results is known before the work, and nothing is left there."""

import pytest

from pipeline.errors import DataError
from pipeline.io.destination import require_file, require_folder


def test_a_place_that_takes_results_is_left_as_it_was(tmp_path):
    require_folder(tmp_path)
    require_folder(tmp_path / "new" / "newer")
    require_file(tmp_path / "new" / "page.html")
    (tmp_path / "page.html").write_text("older")
    require_file(tmp_path / "page.html")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "older"


def test_a_file_in_a_folders_place_and_the_other_way_round(tmp_path):
    (tmp_path / "a").touch()
    for folder in ("a", "a/b/c"):
        with pytest.raises(DataError, match="found a file; expected a folder for results") as caught:
            require_folder(tmp_path / folder)
        assert caught.value.file == str(tmp_path / "a")
    with pytest.raises(DataError, match="found a folder; expected a file to write"):
        require_file(tmp_path)


def test_a_place_that_takes_no_file(tmp_path, monkeypatch):
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("pipeline.io.destination.TemporaryFile", refused)  # who runs the tests may be allowed all
    with pytest.raises(DataError, match=r"can't be written \(permission denied\)") as caught:
        require_folder(tmp_path / "new")
    assert caught.value.file == str(tmp_path / "new")
