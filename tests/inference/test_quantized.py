"""A bundle's int8 network: the record that ties it to its weights, and the network itself."""

import json

import pytest
import torch
from torch import nn

from pipeline.errors import BundleError, DataError
from pipeline.inference import Runtime, SlidingWindowInferer
from pipeline.inference.calibration import quantise, windows_of
from pipeline.inference.openvino_runtime import has_openvino
from pipeline.inference.quantized import Quantized, model_digest, read_quantized, state_digest

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="the extra openvino is not installed")


def network():
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.LeakyReLU(0.1), nn.Conv3d(8, 3, 1)]
    return nn.Sequential(*layers).eval()


def record_of(net, folder, **changes):
    dice = {"tumour": {"float32": 0.9, "int8": 0.899}, "mean": {"float32": 0.8, "int8": 0.8005}}
    values = {"state_sha256": state_digest(net), "weights_sha256": "", "model_sha256": model_digest(folder)}
    values |= {"window": [8, 8, 8], "calibration": {"cases": 1, "windows": 4}, "validation_cases": 3, "dice": dice}
    return Quantized(**values | changes)


@pytest.fixture
def folder(tmp_path):
    """A folder with a model that nothing here has to run."""
    (tmp_path / "quantized.xml").write_text("<net/>")
    (tmp_path / "quantized.bin").write_bytes(b"weights")
    return tmp_path


def test_the_record_says_what_int8_costs(folder):
    record = record_of(network(), folder)
    assert record.largest_loss == pytest.approx(0.001)
    record.write(folder)
    assert json.loads((folder / "quantized.json").read_text())["largest_loss"] == 0.001
    assert read_quantized(folder, network()) == folder / "quantized.xml"


def test_it_is_refused_beside_other_weights_damaged_or_without_its_record(folder):
    net = network()
    with pytest.raises(BundleError, match="no quantised network"):
        read_quantized(folder, net)
    record_of(net, folder).write(folder)
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0, 0] += 1
    with pytest.raises(BundleError, match=r"from other weights.*pipeline quantize BUNDLE"):
        read_quantized(folder, net)
    (folder / "quantized.bin").write_bytes(b"weights, and more")
    with pytest.raises(BundleError, match="a damaged int8 network"):
        read_quantized(folder, network())
    (folder / "quantized.json").write_text("{}")
    with pytest.raises(BundleError, match="a record that can't be read"):
        read_quantized(folder, network())


def test_auto_goes_on_without_an_int8_network_of_other_weights_and_says_so(folder, caplog):
    if not has_openvino():
        pytest.skip("the extra openvino is not installed")
    record_of(network(), folder, state_sha256="another").write(folder)
    runtime = Runtime(quantized=folder, cache_dir=None)
    SlidingWindowInferer((8, 8, 8), runtime=runtime)(torch.randn(1, 1, 8, 8, 8), network())
    assert runtime.record["runtime"] == "float32"  # one window ahead pays no probe
    assert "the int8 network is not used: file" in caplog.text


def test_calibration_sees_the_windows_of_prediction_and_a_share_of_each_case():
    images = [torch.full((1, 16, 8, 8), float(i)) + torch.rand(1, 16, 8, 8) / 2 for i in range(4)]
    windows = windows_of(images, network(), SlidingWindowInferer((8, 8, 8)), most=8, progress=False)
    assert [int(window.min()) for window in windows] == [0, 0, 1, 1, 2, 2, 3, 3]
    cut = {0: slice(0, 8), 1: slice(4, 12), 2: slice(8, 16)}
    for window in windows:
        image = images[int(window.min())]
        assert any(torch.equal(window[0], image[:, place]) for place in cut.values())
    with pytest.raises(DataError, match="no windows to calibrate with"):
        windows_of([], network(), SlidingWindowInferer((8, 8, 8)), most=8, progress=False)


@needs_openvino
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_int8_gives_the_labels_of_float32_on_what_it_was_calibrated_for(tmp_path):
    net = network()
    windows = [torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    quantise(net, windows, tmp_path)
    record_of(net, tmp_path).write(tmp_path)
    runtime = Runtime("openvino_int8", quantized=tmp_path, cache_dir=None)
    x = torch.cat(windows, dim=2)
    inferer = SlidingWindowInferer((8, 8, 8), overlap=0, runtime=runtime)
    int8, plain = inferer(x, net), SlidingWindowInferer((8, 8, 8), overlap=0)(x, net)
    assert 0 < float((int8 - plain).abs().mean()) < 0.03  # rounded, and no more than that
    assert float((int8.argmax(1) == plain.argmax(1)).float().mean()) > 0.97
    assert runtime.record["runtime"] == "openvino_int8"
    # Another size of window than it was made for: the network itself.
    smaller = SlidingWindowInferer((8, 8, 4), runtime=Runtime(quantized=tmp_path, work=range(9999), cache_dir=None))
    assert smaller(x, net).shape == plain.shape
    assert "found a network made for windows of" in str(smaller.runtime.record["trials"]["openvino_int8"]["refused"])
