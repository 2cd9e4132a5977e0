"""Digests and what a record says; that nothing in it names a machine or, under pseudonyms, a path."""

import hashlib
import json
import platform
import sys
from types import SimpleNamespace

import torch

from pipeline.data.provenance import (
    bundle_identity,
    command_line,
    environment,
    input_digests,
    run_digests,
    weights_identity,
)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def test_inputs_by_case_and_channel(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"image")
    (tmp_path / "stack.tif").write_bytes(b"stack")
    items = [
        {"case_id": "x", "image": {"ct": str(tmp_path / "a.nii")}, "label": str(tmp_path / "gone.nii")},
        {"case_id": "y", "image": {"em": f"{tmp_path / 'stack.tif'}#3of30"}},
    ]
    found = input_digests(items)
    assert found["y"] == {"em": sha(b"stack")}
    assert found["x"]["ct"] == sha(b"image")
    assert found["x"]["label"].startswith("unreadable (No such file")


def test_a_run_s_own_files(tmp_path):
    for name in ("run.json", "cases.csv", "configs/train.json", "models/model.pt", "tensorboard/events", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert run_digests(tmp_path) == {
        name: sha(name.encode()) for name in ("cases.csv", "configs/train.json", "models/model.pt")
    }
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "1.2.3"}', encoding="utf-8")
    identity = bundle_identity(tmp_path)
    assert (identity["name"], identity["version"]) == (tmp_path.name, "1.2.3")
    assert identity["configs"]["train.json"] == sha(b"configs/train.json")
    file = tmp_path / "models" / "model.pt"
    digest = sha(b"models/model.pt")
    assert weights_identity(file, pseudonymous=True) == [{"file": "model.pt", "digest": digest}]
    gone = tmp_path / "gone.pt"
    assert weights_identity([file, str(gone)])[1] == {"file": str(gone), "digest": None}


def test_commands(monkeypatch, tmp_path):
    data = tmp_path / "smith"
    data.mkdir()
    words = ["train", "bundle", "--data", str(data), "--budget", "5m", f"patients={data}", f"--out={data}", "smith"]
    monkeypatch.setattr(sys, "argv", ["/elsewhere/bin/pipeline", *words])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert command_line() == ["pipeline", *words]
    monkeypatch.chdir(tmp_path)  # where the word `smith` is a folder
    hidden = ["train", "bundle", "--data", "<path>", "--budget", "5m", "patients=<path>", "--out=<path>", "<path>"]
    assert command_line(pseudonymous=True) == ["pipeline", *hidden]
    for module, program in (
        ("pipeline.__main__", ["pipeline"]),
        ("monai.bundle.__main__", ["python", "-m", "monai.bundle"]),
    ):
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name=module))
        assert command_line() == [*program, *words]


def test_torchs_build_is_part_of_its_version():
    assert environment()["versions"]["torch"] == torch.__version__


def test_an_environment_names_no_machine():
    text = json.dumps(environment())
    assert environment()["versions"]["python"] == platform.python_version()
    assert platform.node() not in text or len(platform.node()) < 4
