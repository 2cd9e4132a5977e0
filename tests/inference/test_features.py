"""Windows blended before a network's last convolution, against the same network that does not name it."""

import pytest
import torch
from torch import nn

from pipeline import networks
from pipeline.inference import Runtime, SlidingWindowInferer
from pipeline.inference.features import Features, has_fewer_features
from pipeline.networks import MultiEncoderUNet, UNet


class Nameless(nn.Module):
    """The network, which does not say that it ends in a convolution."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


class Counted(nn.Module):
    """The network; how many values each of its answers has."""

    last_convolution = "network.heads.0"

    def __init__(self, network):
        super().__init__()
        self.network, self.values = network, []

    def forward(self, x):
        answer = self.network(x)
        self.values.append(answer.shape[1])
        return answer


def network(classes=20, spatial_dims=3):
    torch.manual_seed(0)
    return UNet(spatial_dims, 1, classes, channels=[4, 8]).eval()


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "kind", [kind for kind in map(networks.__dict__.get, networks.__all__) if hasattr(kind, "last_convolution")]
)
def test_the_named_convolution_is_the_last_thing_that_a_network_does(kind, spatial_dims):
    torch.manual_seed(0)
    net, x = kind(spatial_dims, 2, 9, channels=[4, 8]).eval(), torch.randn(1, 2, *(8, 12, 4)[:spatial_dims])
    features = Features(net)
    assert features(x).shape[1] == 4
    assert torch.equal(features.logits(features(x)), net(x))


@pytest.mark.parametrize("settings", [{}, {"mirror_axes": [0, 2]}, {"scales": [1.0, 0.75]}, {"overlap": 0.0}])
def test_the_logits_are_those_of_blended_logits(settings):
    net, image = network(), torch.randn(2, 1, 21, 18, 30)
    inferer = SlidingWindowInferer((16, 16, 8), **settings)
    torch.testing.assert_close(inferer(image, net), inferer(image, Nameless(net).eval()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory_mib", [512, 0])
def test_slabs_are_the_same_bit_by_bit(memory_mib):
    net, image = network(), torch.randn(1, 1, 21, 18, 30)
    inferer = SlidingWindowInferer((16, 16, 8), memory_mib=memory_mib)
    whole = inferer(image, net)[0]
    for place, piece in inferer.slabs(image, net):
        assert torch.equal(piece, whole[(slice(None), *place)])


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({}, {4}),
        ({"mirror_axes": [1]}, {4}),
        ({"mirror_axes": [1], "average": "probabilities"}, {20}),  # no linear function of the features
        ({"background": 0.1}, {20}),  # skipped windows have logits, and no features
    ],
)
def test_features_are_blended_only_where_that_is_the_same(settings, values):
    counted = Counted(network()).eval()
    SlidingWindowInferer(16, **settings)(torch.randn(1, 1, 16, 16, 24), counted)
    assert set(counted.values) == values


def test_few_classes_are_blended_themselves():
    counted = Counted(network(classes=3)).eval()
    SlidingWindowInferer(16)(torch.randn(1, 1, 16, 16, 24), counted)
    assert set(counted.values) == {3}
    assert not has_fewer_features(network().train())
    assert has_fewer_features(MultiEncoderUNet(3, 2, 20, channels=[4, 8]).eval())


def test_the_network_stays_what_it_was_and_new_weights_are_seen():
    net, image = network(), torch.randn(1, 1, 16, 16, 24)
    before = net(image[..., :16])
    inferer = SlidingWindowInferer(16)
    first = inferer(image, net)
    assert torch.equal(net(image[..., :16]), before)
    assert isinstance(net.heads[0], nn.Conv3d)
    net.load_state_dict({name: 2 * value for name, value in net.state_dict().items()})
    torch.testing.assert_close(inferer(image, net), inferer(image, Nameless(net).eval()), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(inferer(image, net), first)


def test_the_last_convolution_is_in_float32_whatever_the_windows_are():
    net, x = network(), torch.randn(1, 1, 16, 16, 16)
    features = Features(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = features(x)
        logits = features.logits(answer)
    assert answer.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, nn.Conv3d.forward(net.heads[0], answer.float()), atol=1e-6, rtol=1e-5)


def test_runtimes_are_compared_by_the_labels_that_the_features_give(has_bfloat16):
    """Rounded features are other numbers in most voxels; their labels are nearly all the same."""
    net, image = network(), torch.randn(1, 1, 16, 16, 24)
    inferer = SlidingWindowInferer(16, runtime=Runtime("bfloat16", cache_dir=None))
    logits, plain = inferer(image, net), SlidingWindowInferer(16)(image, net)
    same = (logits.argmax(1) == plain.argmax(1)).float().mean()
    assert inferer.runtime.record["label_agreement"] == pytest.approx(float(same), abs=0.02)
    assert 0.9 < same < 1


def test_an_int8_network_is_taken_as_a_whole(tmp_path):
    assert not Runtime("auto", quantized=tmp_path).has_int8
    (tmp_path / "quantized.json").write_text("{}")
    counted = Counted(network()).eval()
    runtime = Runtime("auto", quantized=tmp_path, cache_dir=None)
    assert runtime.has_int8
    SlidingWindowInferer(16, runtime=runtime)(torch.randn(1, 1, 16, 16, 24), counted)
    assert set(counted.values) == {20}
