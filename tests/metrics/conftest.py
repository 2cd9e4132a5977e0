"""Both ways in which cases are measured: by the compiled loops, and by SciPy where numba does not run."""

import pytest

from pipeline.metrics.loops import compiled_loops


@pytest.fixture(params=["compiled", "scipy"])
def implementation(request, monkeypatch) -> str:
    if request.param == "scipy":
        for module in ("surface", "lesions", "class_boxes"):
            monkeypatch.setattr(f"pipeline.metrics.{module}.compiled_loops", lambda: None)
    elif compiled_loops() is None:
        pytest.skip("numba does not run here")
    return request.param
