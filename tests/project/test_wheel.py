"""The wheel, installed (not editable) and used from another folder: it must carry the base configs and the bundles."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*words: str | Path, folder: Path) -> str:
    """Run a command without this checkout on its path; its output, or a failure that shows it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    answer = subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, f"{words}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; make test installs it")
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder, ROOT]
    run(sys.executable, "-m", "pip", *words, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that holds the wheel, and sees this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where, folder=folder).strip())
    # What a .pth adds comes after the environment's own packages; a .pth in there (an editable install) is not read.
    others = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    words = ["--python", python, "install", "--no-deps", "--no-index", "--quiet", "--ignore-installed", wheel]
    run(sys.executable, "-m", "pip", *words, folder=folder)
    found = run(python, "-c", "import pipeline; print(pipeline.__file__)", folder=folder).strip()
    assert Path(found).is_relative_to(packages)
    return programs


def test_the_wheel_carries_configs_bundles_and_license_and_no_tests(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {
        f"pipeline/_shipped/{path.relative_to(ROOT).as_posix()}"
        for folder in ("configs", "bundles")
        for path in (ROOT / folder).rglob("*.yaml")
    }
    assert shipped
    assert shipped <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} - {"pipeline"} == {
        next(name for name in names if ".dist-info/" in name).partition("/")[0]
    }


def test_the_installed_command_builds_and_trains_from_another_folder(scripts: Path, tmp_path: Path):
    command = scripts / "pipeline"
    assert "stroke_perfusion_segmentation: up to date" in run(command, "build", "--check", folder=tmp_path)
    run(command, "phantom", "scans", "--cases", "4", "--seed", "1", folder=tmp_path)
    small = ["spacing_mm=[3.0,3.0,-1.0]", "patch_size=[32,32,8]", "network_def#channels=[4,8,8,8]", "precision=float32"]
    words = ["stroke_perfusion_segmentation", "--data", "scans", "--out", "run", "max_epochs=1", *small]
    run(command, "train", *words, folder=tmp_path)
    assert list((tmp_path / "run").rglob("*.pt"))
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
