"""What a GPU computes is what a CPU computes; skipped where torch sees no GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

_IS_AVAILABLE, _VISIBLE = torch.cuda.is_available, os.environ.get("CUDA_VISIBLE_DEVICES")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA GPU"))


@pytest.fixture(autouse=True)
def _on_the_gpu(monkeypatch):
    """Which all other tests are kept from."""
    monkeypatch.setattr(torch.cuda, "is_available", _IS_AVAILABLE)
    if _VISIBLE is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", _VISIBLE)


@pytest.fixture(autouse=True)
def _float32_as_on_a_cpu():
    """Without TF32, which rounds the factors of float32's convolutions to ten bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
