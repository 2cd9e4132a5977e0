"""Which channel becomes the reference, of small datasets whose channels lie on grids of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data import describe_on_best_grid
from pipeline.geometry import Grid
from pipeline.io import write_volume


def _write(folder: Path, name: str, shape: tuple[int, int, int], spacing_mm: float, start_mm: float = 0.0) -> None:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = start_mm
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) % 7
    write_volume(folder / f"{name}.nii.gz", array, Grid(shape, affine))


def test_the_channel_inside_the_others(tmp_path):
    """MR lies in the middle of CT and PET: they cover it, it does not cover them. Each has a mask of its own."""
    for case in ("p1", "p2"):
        for kind in ("image", "mask"):
            _write(tmp_path / case, f"ct_{kind}", (20, 20, 20), 1.0)
            _write(tmp_path / case, f"mr_t1_{kind}", (8, 8, 8), 1.0, start_mm=6.0)
            _write(tmp_path / case, f"pet_{kind}", (5, 5, 5), 4.0, start_mm=1.5)
    description, why = describe_on_best_grid(tmp_path)
    assert description.channel_names == ("mr_t1", "ct", "pet")
    assert {case.label.name for case in description.cases if case.label} == {"mr_t1_mask.nii.gz"}
    assert why == ("mr_t1 is the reference channel: 100% of the cases can be brought onto its grid, onto that of ct 0%")


def test_the_channel_on_whose_grid_the_label_lies(tmp_path):
    for case in ("p1", "p2"):
        _write(tmp_path / case, "adc", (10, 10, 10), 2.0)
        _write(tmp_path / case, "dwi", (20, 20, 20), 1.0, start_mm=-0.5)
        _write(tmp_path / case, "label", (20, 20, 20), 1.0, start_mm=-0.5)
    description, why = describe_on_best_grid(tmp_path)
    assert description.channel_names == ("dwi", "adc")
    assert why is not None


def test_one_grid_keeps_the_datasets_order(tmp_path):
    for case in ("p1", "p2"):
        for name in ("cbf", "cbv", "label"):
            _write(tmp_path / case, name, (10, 10, 10), 2.0)
    assert describe_on_best_grid(tmp_path)[0].channel_names == ("cbf", "cbv")
    assert describe_on_best_grid(tmp_path)[1] is None


def test_a_file_that_is_none_is_left_to_the_doctor(tmp_path):
    for case in ("p1", "p2", "p3"):
        for name in ("cbf", "cbv", "label"):
            _write(tmp_path / case, name, (10, 10, 10), 2.0)
    (tmp_path / "p3" / "cbf.nii.gz").write_bytes(b"<html>")
    description, _ = describe_on_best_grid(tmp_path)
    assert [case.case_id for case in description.cases] == ["p1", "p2", "p3"]
