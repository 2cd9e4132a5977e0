import os

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_its_user(tmp_path_factory):
    """Runs of the test suite keep their prepared cases among its own temporary files."""
    before = os.environ.get("PIPELINE_CACHE")
    os.environ["PIPELINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["PIPELINE_CACHE"]
    else:
        os.environ["PIPELINE_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _on_the_cpu():
    """With a GPU as without: to the last bit, as many tests ask, results are the same on a CPU alone. See tests/gpu."""
    if not torch.cuda.is_available():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # of the commands that tests run
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture
def has_bfloat16(monkeypatch):
    """A CPU with kernels for bfloat16, whichever runs the tests: tiny networks can wait for torch's loops."""
    for module in ("pipeline.inference.means", "pipeline.engines.precision"):
        monkeypatch.setattr(f"{module}.half_types", lambda device: ["bfloat16"])
