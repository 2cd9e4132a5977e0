import os

import pytest


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


@pytest.fixture
def has_bfloat16(monkeypatch):
    """A CPU with kernels for bfloat16, whichever runs the tests: tiny networks can wait for torch's loops."""
    for module in ("pipeline.inference.means", "pipeline.engines.precision"):
        monkeypatch.setattr(f"{module}.half_types", lambda device: ["bfloat16"])
