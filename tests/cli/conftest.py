"""The rooms that the commands call, replaced by recorders: these tests are about words, exit status and messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.main import app


@dataclass
class Rooms:
    """Records each call as ``(function, args, kwargs)``; ``answers`` says what a function returns or raises."""

    answers: dict[str, Any]
    calls: list[tuple[str, tuple, dict[str, Any]]] = field(default_factory=list)

    def function(self, name: str) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return record


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    def summary() -> SimpleNamespace:
        return SimpleNamespace(run_dir=Path("runs/one"), metrics={}, table="lesion 0.83", seconds=61.4, refused=[])

    fake = Rooms(
        {
            "train": summary(),
            "evaluate": summary(),
            "predict": SimpleNamespace(
                exit_code=0, outcomes=(), counts={"done": 2, "refused": 0, "failed": 0}, unwritten=""
            ),
            "quantize": SimpleNamespace(
                table="core 0.8",
                record=SimpleNamespace(largest_loss=0.0011, validation_cases=4),
                accepted=True,
                models=Path("bundles/one/models"),
                seconds=84.0,
            ),
            "publish": Path("bundles/one/models/model.pt"),
            "find_bundle": lambda name: Path("bundles") / name,
            "shipped_bundles": None,
            "is_bundle": True,
            "nearest_keys": ["max_epochs"],
            "build": SimpleNamespace(changed=()),
            "verify": [],
            "write_dataset": None,
            "preview_case": SimpleNamespace(
                case_id="sub-07", bundle="b", channel=("mtt", 2), preview=SimpleNamespace(rows={})
            ),
            "augmentation_figure": None,
        }
    )
    names = {
        "pipeline.bundle.run": ("train", "evaluate", "predict"),
        "pipeline.bundle.publish": ("publish",),
        "pipeline.bundle.quantize": ("quantize",),
        "pipeline.bundle": ("find_bundle", "shipped_bundles", "is_bundle", "nearest_keys", "build", "verify"),
        "pipeline.data.phantom_dataset": ("write_dataset",),
        "pipeline.bundle.preview": ("preview_case",),
        "pipeline.report.augmentation": ("augmentation_figure",),
    }
    for module_name, functions in names.items():
        module: Any = ModuleType(module_name)
        for function in functions:
            setattr(module, function, fake.function(function))
        monkeypatch.setitem(sys.modules, module_name, module)
    sys.modules["pipeline.bundle"].run = sys.modules["pipeline.bundle.run"]  # type: ignore[attr-defined]
    return fake


@pytest.fixture
def pipeline(rooms: Rooms) -> Callable[..., Result]:
    """Runs ``pipeline`` with the words given, the other rooms replaced."""

    def run(*words: str, **environment: str) -> Result:
        return CliRunner().invoke(app, list(words), env=environment, prog_name="pipeline")

    return run
