from __future__ import annotations

import pytest

from pipeline.bundle.strict_yaml import parse, read
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1.0e-4", {"a": 1e-4}),
        ("a: '1e-4'", {"a": "1e-4"}),
        ("a: -0.5", {"a": -0.5}),
        ("a: true\nb: null\nc: [1, x]", {"a": True, "b": None, "c": [1, "x"]}),
        ("1: lesion\n2: other", {"1": "lesion", "2": "other"}),
        ("a#b: 1\na::c: 2\na: {d: 3}", {"a": {"b": 1, "c": 2, "d": 3}}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: 'no'", {"a": "no"}),
    ],
)
def test_reads(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1e-4", "1e-4 in line 1.*write 1.0e-4"),
        ("lr: [1.5e3]", r"write 1.5e\+3"),
        ("a: no", "no in line 1"),
        ("a: ON", "ON in line 1"),
        ("time: 1:30", "1:30 in line 1"),
        ("a: 010", "010 in line 1"),
        ("a: 0x10", "0x10 in line 1"),
        ("a: 1_000", "1_000"),
        ("a: 2024-01-01", "quotes around a date"),
        ("a: .nan", "nan at a"),
        ("a: {b: [.inf]}", "inf at a#b"),
        ("a: 1\na: 2", r"'a' twice in one block \(line 2\)"),
        ("1: a\n'1': b", "'1' twice"),
        ("a#b: 1\na: {b: 2}", "two values for a#b"),
        ("a: 1\na#b: 2", "a#b beside a value for a"),
        ("a##b: 2", "write names between"),
        ("true: 1", "the key true"),
        ("a: &x {b: 1}\nc: {<<: *x}", "merge key"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: !!set {x, y}", "a set at a"),
        ("a: !!binary aGk=", "a bytes at a"),
        ("a: [1", r"no YAML in line 1, column 6: expected ',' or '\]'.*close every bracket"),
    ],
)
def test_refuses(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "bundle.yaml")
    assert str(caught.value).startswith("file bundle.yaml: found ")


def test_files(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "list.yaml").write_text("[1]")
    assert read(tmp_path / "empty.yaml") == {}
    with pytest.raises(ConfigError, match="keys and values"):
        read(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "missing.yaml")
