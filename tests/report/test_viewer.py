"""What the page gives to the 3D viewer, and what it says without one."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys

import nibabel
import numpy as np
import pytest

from pipeline.data.case_volumes import CaseVolumes
from pipeline.geometry import Grid
from pipeline.report import viewer as module
from pipeline.report.viewer import viewer
from tests.report.conftest import CLASSES, GRID

WIDGET = 'class q{};function f(){{console.log("Creating new Niivue instance");a=new q(B)}};export{f as default};'


def unpacked(base64_text: str) -> bytes:
    return gzip.decompress(base64.b64decode(base64_text))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of the viewer's name, which stands in for the five megabytes of the real one."""
    static = tmp_path / "ipyniivue" / "static"
    static.mkdir(parents=True)
    (static / "widget.js").write_text(WIDGET)
    (static.parent / "__init__.py").touch()  # or a real one that is installed would win
    info = tmp_path / "ipyniivue-2.4.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ipyniivue\nVersion: 2.4.9\n")
    (info / "LICENSE").write_text("Copyright of others")
    (info / "RECORD").write_text("ipyniivue-2.4.9.dist-info/LICENSE,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ipyniivue", raising=False)
    return static / "widget.js"


def shown(html: str) -> dict:
    content = re.search(r'<script type="application/json" id="viewer-cases">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(content)


def test_volumes_arrive_as_they_are(installed, volumes):
    case = volumes["half"]
    html = viewer([("worst: </script>", case)], CLASSES)
    [one] = shown(html)["cases"]
    assert one["label"] == "worst: </script>"
    assert html.count("</script>") == 2
    image = nibabel.Nifti1Image.from_bytes(unpacked(one["image"]))
    assert np.abs(image.get_fdata() - case.image).max() <= np.ptp(case.image) / 65000
    assert (image.affine == GRID.affine).all()
    for role in ("reference", "prediction"):
        found = nibabel.Nifti1Image.from_bytes(unpacked(one[role]))
        assert (np.asarray(found.dataobj) == getattr(case, role)).all()
        assert shown(html)["colours"][role]["I"] == [0, 1, 2]
    script = unpacked(re.search(r'id="niivue">(.*?)</script>', html)[1]).decode()
    assert script == f"{WIDGET}\nexport {{ q as Niivue }};\n"
    assert "Copyright of others" in html


def test_a_large_volume_is_thinned_and_the_page_says_so(installed, monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", 1000)
    image = np.arange(21 * 20 * 11, dtype=np.float32).reshape(21, 20, 11)
    case = CaseVolumes("a", "t1", image, Grid(image.shape, GRID.affine), None, (image > 9).astype(np.uint8))
    html = viewer([("worst: a", case)], CLASSES)
    [one] = shown(html)["cases"]
    found = nibabel.Nifti1Image.from_bytes(unpacked(one["prediction"]))
    assert found.shape == (11, 10, 6)
    assert found.header.get_zooms() == (2, 4, 8)
    assert one["reference"] is None
    assert "only every 2. voxel" in html


def test_without_the_package_the_page_says_how_to_get_it(monkeypatch, volumes):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    html = viewer([("worst", volumes["half"])], CLASSES)
    assert "pip install" in html
    assert "[viewer]" in html
    assert "<script" not in html


def test_another_form_of_the_package_is_said_and_not_guessed(installed, volumes):
    installed.write_text("export default 1")
    assert "in another form" in viewer([("worst", volumes["half"])], CLASSES)


def test_sections_have_no_third_dimension():
    case = CaseVolumes("a", "t1", np.ones((4, 4)), Grid((4, 4), np.eye(4)))
    assert viewer([("worst", case)], CLASSES) == ""
