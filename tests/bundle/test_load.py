"""A bundle as a function: the same labels as `pipeline predict` writes, whatever form a case comes in."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bundle import find_bundle, load_bundle
from pipeline.bundle.inference import Inference
from pipeline.bundle.run import predict
from pipeline.data.phantom_dataset import write_dataset
from pipeline.errors import BundleError, ConfigError, DataError, GeometryError
from pipeline.geometry import Grid
from pipeline.io import read_volume

BUNDLE = "stroke_perfusion_segmentation"
CHANNELS = ("cbf", "cbv", "mtt")
ROOT = Path(__file__).parents[2]
AS_IT_IS = "runtime=float32"  # a cohort pays a probe of faster runtimes, one case does not: equal to some voxels then


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_dataset(folder, 2, seed=11, workers=0)
    return folder


@pytest.fixture(scope="module")
def segment():
    return load_bundle(BUNDLE, device="cpu", overrides=[AS_IT_IS])


def files(scans: Path, case: str = "sub-001") -> dict[str, Path]:
    return {name: scans / case / f"{case}_{name}.nii.gz" for name in CHANNELS}


@pytest.fixture(scope="module")
def volumes(scans):
    return {name: read_volume(path) for name, path in files(scans).items()}


def test_every_form_of_a_case_gives_what_predict_writes(scans, segment, volumes, tmp_path):
    assert predict(BUNDLE, scans, tmp_path / "out", overrides=["device#name=cpu", AS_IT_IS]).exit_code == 0
    written = read_volume(tmp_path / "out" / "sub-001" / "sub-001.nii.gz", np.uint8)
    assert written.array.any()
    arrays = {name: volume.array for name, volume in volumes.items()}
    grid = volumes["cbf"].grid
    forms = [(files(scans),), (scans / "sub-001",), (str(scans / "sub-001"),), (arrays, grid)]
    forms += [(np.stack([arrays[name] for name in CHANNELS]), grid)]
    for form in forms:
        labels, found = segment(*form)
        np.testing.assert_array_equal(labels, written.array)
        assert labels.dtype == np.uint8
        assert found.same_grid(written.grid)


def test_what_it_is_made_of_can_be_asked(segment):
    assert (segment.channels, segment.classes) == (CHANNELS, {1: "lesion"})
    assert segment.device == torch.device("cpu")


def test_weights_that_are_given_take_the_bundles_place_and_several_are_averaged(segment, scans):
    own = find_bundle(BUNDLE) / "models" / "model.pt"
    once = load_bundle(BUNDLE, weights=own)(scans / "sub-001").labels
    twice = load_bundle(BUNDLE, weights=[own, own])(scans / "sub-001").labels
    np.testing.assert_array_equal(once, segment(scans / "sub-001").labels)
    assert (once == twice).mean() > 0.9999  # rounding


def test_a_call_leaves_no_file_and_the_callers_random_numbers(segment, volumes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    load_bundle(BUNDLE)({name: volume.array for name, volume in volumes.items()}, volumes["cbf"].grid)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_judged_as_files_are(segment, volumes):
    grid = volumes["cbf"].grid
    arrays = {name: volume.array for name, volume in volumes.items()}

    def spoiled(**changed):
        return {**arrays, **changed}

    nan = arrays["cbv"].copy()
    nan[3, 4, 5] = np.nan
    with pytest.raises(DataError, match="1 NaN or infinite voxels in channel cbv"):
        segment(spoiled(cbv=nan), grid)
    with pytest.raises(DataError, match="no contrast: every voxel of channel mtt is 3"):
        segment(spoiled(mtt=np.full(grid.shape, 3.0)), grid)
    with pytest.raises(DataError, match="channel cbf as an array of float32, shape"):
        segment(spoiled(cbf=arrays["cbf"][1:]), grid)
    with pytest.raises(DataError, match="no mtt"):
        segment({name: arrays[name] for name in ("cbf", "cbv")}, grid)
    with pytest.raises(GeometryError, match="no volume"):
        segment(arrays, Grid(grid.shape, np.zeros((4, 4))))
    with pytest.raises(GeometryError, match=r"sides between 0\.01 and 30 mm"):
        segment(arrays, Grid(grid.shape, np.diag([40.0, 1, 1, 1])))
    zeroed = load_bundle(BUNDLE, overrides=["non_finite=zero"])
    np.testing.assert_array_equal(
        zeroed(spoiled(cbv=nan), grid).labels, zeroed(spoiled(cbv=np.nan_to_num(nan)), grid).labels
    )


def test_what_is_no_case_is_refused_with_the_form_it_should_have(segment, scans, volumes):
    with pytest.raises(ConfigError, match=r"one file for 3 channels; expected .*cbf"):
        segment(files(scans)["cbf"])
    with pytest.raises(DataError, match="a folder with 2 cases"):
        segment(scans)
    with pytest.raises(ConfigError, match=r"segment\(array, grid\)"):
        segment(volumes["cbf"].array)
    with pytest.raises(DataError, match="nowhere: found no such file or folder"):
        segment("nowhere")
    with pytest.raises(DataError, match=r"no such file"):
        segment(dict.fromkeys(CHANNELS, "nowhere.nii.gz"))
    with pytest.raises(ConfigError, match="arrays for 2 channels"):
        segment(np.zeros((2, 3, 3, 3)), Grid((3, 3, 3), np.eye(4)))


def test_a_bundle_that_is_none_or_not_this_is_refused():
    with pytest.raises(BundleError, match="stroke_perfusion_segmentation"):
        load_bundle("stroke_perfusion")
    with pytest.raises(BundleError, match="no trained weights"):
        load_bundle(BUNDLE, weights="nowhere.pt")
    with pytest.raises(ConfigError, match="weights that were trained otherwise"):
        load_bundle(BUNDLE, overrides=["spacing_mm=[1,1,1]"])


def test_the_room_is_entered_without_torch():
    code = "import sys; from pipeline.bundle import load_bundle; print(sorted({'torch', 'monai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_readmes_lines_run(scans, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(lines.splitlines()) <= 10
    (tmp_path / "sub-01").mkdir()
    for name, path in files(scans).items():
        (tmp_path / "sub-01" / f"sub-01_{name}.nii.gz").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(lines, names)
    assert read_volume("lesion.nii.gz").grid.same_grid(names["grid"])
    assert names["volume_ml"] > 0


@pytest.mark.parametrize("image", [None, 3, "scan.nii.gz", np.float32(1)])
def test_what_is_no_array_is_told_where_a_grid_is_given(segment, volumes, image):
    with pytest.raises(ConfigError, match="as image, with a grid"):
        segment(image, volumes["cbf"].grid)


def test_an_unknown_device_and_a_value_that_a_maker_does_not_take_are_told_in_words():
    with pytest.raises(ConfigError, match=r"device 'foo'.*cuda:1"):
        load_bundle(BUNDLE, device="foo")
    with pytest.raises(ConfigError, match=r"can't be made with inferer#overlap=many .*\(TypeError: "):
        load_bundle(BUNDLE, device="cpu", overrides=["inferer#overlap=many"])


def test_a_new_int8_network_is_something_else_that_results_are_made_with(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.inference.openvino_runtime.has_openvino", lambda: True)

    def made_with(runtime):
        return Inference(BUNDLE, overrides=[f"runtime={runtime}", f"quantized={tmp_path}"]).made_with()

    before = made_with("auto"), made_with("float32")
    (tmp_path / "quantized.json").write_text("{}")
    after = made_with("auto"), made_with("float32")
    assert (before[0] == after[0], before[1] == after[1]) == (False, True)
