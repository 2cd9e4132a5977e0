"""What the project's own files promise to each other."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.cli.main import main

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CODE = sorted((ROOT / "pipeline").rglob("*.py"))


def test_the_console_command_is_the_main_function():
    module, _, function = PROJECT["scripts"]["pipeline"].partition(":")
    assert (module, function) == (main.__module__, main.__name__)


def test_what_a_config_can_name_is_no_module():
    """Since Python 3.12 ``_target_: pipeline.data.items`` would find the module of that name in place of a function."""
    for room in ("data", "engines", "handlers", "inference", "io", "losses", "metrics", "networks", "transforms"):
        package = importlib.import_module(f"pipeline.{room}")
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(package.__all__), room


def test_constraints_pin_a_torch_that_the_package_accepts():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {r.name: r for r in (Requirement(line) for line in lines if line and not line.startswith("#"))}
    (pin,) = pins["torch"].specifier
    assert pin.operator == "=="
    (accepted,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "torch"]
    assert accepted.specifier.contains(pin.version)


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", "constraints.txt"])
def test_set_up_leaves_the_choice_of_registry_to_pip(name):
    assert not re.search(r"https?://", (ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "check", "build", "clean"])
def test_make_knows_its_targets_and_lists_them(target):
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {target} " in listed
    planned = subprocess.run(
        ["make", "-n", target, "VENV=nowhere"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "nowhere" in planned.stdout


def test_torch_index_reaches_the_installation_of_torch_alone():
    words = ["make", "-n", "demo", "VENV=nowhere", "TORCH_INDEX=file:///wheels"]
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[-1] for line in lines if "--index-url file:///wheels" in line] == ["torch"]


def test_license_is_apache_2_and_complete():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_no_drawer_for_odds_and_ends():
    assert not [path for path in CODE if path.stem in {"utils", "helpers", "common", "misc"}]


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_holds_one_concept(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
