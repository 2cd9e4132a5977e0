import copy
import re

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DynUNet

from pipeline.errors import ConfigError
from pipeline.networks import UNet

SMALL = {"channels": (4, 8, 16), "kernel_sizes": [[3, 3, 1], 3, 3], "strides": [1, [2, 2, 1], 2]}


def weights_of_dynunet(network: DynUNet) -> dict[str, torch.Tensor]:
    """MONAI's state dict under this project's names."""
    state = {}
    blocks = {"encoder.0": "input_block", "encoder.1": "downsamples.0", "encoder.2": "bottleneck"}
    blocks |= {f"decoder.{i}.convolve": f"upsamples.{i}.conv_block" for i in (0, 1)}
    theirs = network.state_dict()
    for ours, block in blocks.items():
        for j in (0, 1):
            state[f"{ours}.{j}.conv.weight"] = theirs[f"{block}.conv{j + 1}.conv.weight"]
            state[f"{ours}.{j}.norm.weight"] = theirs[f"{block}.norm{j + 1}.weight"]
            state[f"{ours}.{j}.norm.bias"] = theirs[f"{block}.norm{j + 1}.bias"]
    for i in (0, 1):
        state[f"decoder.{i}.up.weight"] = theirs[f"upsamples.{i}.transp_conv.conv.weight"]
    for i, head in ((0, "output_block"), (1, "deep_supervision_heads.0")):
        for kind in ("weight", "bias"):
            state[f"heads.{i}.{kind}"] = theirs[f"{head}.conv.conv.{kind}"]
    return state


@pytest.mark.parametrize(
    ("spatial_dims", "kernel", "strides", "size"),
    [
        (3, [3, 3, 1], [[1, 1, 1], [2, 2, 1], [2, 2, 2]], (16, 12, 6)),
        (2, [5, 3], [[1, 1], [2, 1], [2, 2]], (12, 10)),
    ],
)
def test_same_weights_give_monai_dynunets_output(spatial_dims, kernel, strides, size):
    kernels = [kernel] * 3  # one for all: DynUNet's decoder has the kernel of the level below, ours its own level's
    torch.manual_seed(0)
    peer = DynUNet(
        spatial_dims, 2, 3, kernels, strides, strides[1:], filters=(4, 8, 16), deep_supervision=True, deep_supr_num=1
    )
    for name, parameter in peer.named_parameters():
        if "norm" in name:  # at their initial 1 and 0 a swapped pair of norms would not show
            torch.nn.init.normal_(parameter)
    ours = UNet(spatial_dims, 2, 3, channels=(4, 8, 16), kernel_sizes=kernels, strides=strides)
    ours.load_state_dict(weights_of_dynunet(peer))
    x = torch.randn(2, 2, *size)
    torch.testing.assert_close(ours.eval()(x), peer.eval()(x), atol=1e-5, rtol=1e-5)

    fine, coarse = ours.train()(x)
    stacked = peer.train()(x)
    torch.testing.assert_close(fine, stacked[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.nn.functional.interpolate(coarse, size), stacked[:, 1], atol=1e-5, rtol=1e-5)


def test_parameter_count_by_hand():
    # Encoder: per level 27 (in + out) out convolution weights, and scale and shift of two norms, 4 out.
    encoder = 27 * (2 + 4) * 4 + 16 + 27 * (4 + 8) * 8 + 32
    # Decoder: up-convolution 2^3 x 8 -> 4, then 27 (8 + 4) 4 for the concatenated 8 and 4 channels.
    decoder = 8 * 8 * 4 + 27 * (8 + 4) * 4 + 16
    head = 4 * 3 + 3
    network = UNet(3, 2, 3, channels=(4, 8))
    assert sum(p.numel() for p in network.parameters()) == encoder + decoder + head == 4871


def test_convolutions_per_stage_and_total_stride():
    network = UNet(3, 1, 2, **SMALL, convolutions_per_stage=3)
    assert [len(stage) for stage in network.encoder] == [3, 3, 3]
    assert [len(level.convolve) for level in network.decoder] == [3, 3]
    assert network.total_stride == (4, 4, 2)


def test_deep_supervision_reaches_every_parameter_and_eval_returns_its_first_level():
    torch.manual_seed(0)
    network = UNet(3, 1, 2, **SMALL)
    x = torch.randn(2, 1, 8, 8, 4)
    levels = network(x)
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 8, 4), (4, 4, 4)]
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    torch.testing.assert_close(network.eval()(x), levels[0])  # instance norm has no running state


def test_without_deep_supervision_training_returns_a_tensor():
    network = UNet(2, 1, 2, channels=(4, 8), deep_supervision=False)
    assert len(network.heads) == 1
    assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)


def test_activations_keep_their_variance_at_initialisation():
    torch.manual_seed(0)
    network = UNet(3, 1, 2, channels=(32, 64, 128))
    seen = {}
    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: seen.__setitem__(name, out.var().item()))
        for name, module in network.named_modules()
        if name.endswith(".up") or name.startswith("heads.")
    ]
    network(torch.randn(1, 1, 16, 16, 16))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 4
    assert all(0.5 < variance < 2 for variance in seen.values()), seen


def test_dropout_drops_whole_channels_in_training_only():
    network = UNet(2, 1, 2, channels=(16, 32), dropout=0.5)
    features = []
    network.encoder[0].register_forward_hook(lambda m, _, out: features.append(out))
    x = torch.randn(1, 1, 8, 8)
    torch.manual_seed(0)
    network(x)
    network.eval()(x)
    zero = [(f == 0).flatten(2).all(2) for f in features]
    some = (features[0] == 0).flatten(2).any(2)
    assert 0 < zero[0].sum() < 16
    assert torch.equal(zero[0], some)
    assert zero[1].sum() == 0


def test_batch_norm_takes_one_voxel_at_the_deepest_level():
    network = UNet(2, 1, 2, channels=(4, 8), norm="batch")
    assert network(torch.randn(3, 1, 2, 2))[0].shape == (3, 2, 2, 2)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((9, 8, 4), "9 x 8 x 4 voxels.*total stride 4 x 4 x 2.*8 x 8 x 4 or 12 x 8 x 4"),
        ((3, 8, 5), "use a patch or window of 4 x 8 x 4 or 4 x 8 x 6"),
        ((3, 4, 2), "use a patch or window of 4 x 4 x 2$"),
        ((4, 4, 2), "one voxel at the network's deepest level.*8 x 8 x 4"),
        ((8, 8), "2 spatial axes"),
    ],
)
def test_a_size_that_it_cannot_take_is_refused_with_the_size_to_use(size, message):
    network = UNet(3, 1, 2, **SMALL)
    for mode in (True, False):
        with pytest.raises(ConfigError) as caught:
            network.train(mode)(torch.zeros(2, 1, *size))
        assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "2 or 3"),
        ({"channels": [4]}, "two levels"),
        ({"kernel_sizes": [3, 3]}, "3 of them"),
        ({"strides": [1, [2, 2], 2]}, "3 numbers"),
        ({"strides": [2, 2, 2]}, "first level"),
        ({"kernel_sizes": [3, 2, 3]}, "odd"),
        ({"norm": "layer"}, "'instance', 'batch' or 'group'"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        UNet(**{"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8, 16]} | arguments)
    assert message in str(caught.value)


def test_copies_are_independent():
    network = UNet(2, 1, 2, channels=(4, 8)).eval()
    average = copy.deepcopy(network)  # how an average of weights is kept
    x = torch.randn(1, 1, 4, 4)
    before = network(x)
    with torch.no_grad():
        for p in average.parameters():
            p.zero_()
    torch.testing.assert_close(network(x), before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_metatensor_trains_as_a_plain_tensor_does(layout):
    torch.manual_seed(0)
    network = UNet(3, 1, 2, **SMALL).to(memory_format=layout)
    x = torch.randn(2, 1, 8, 8, 4).contiguous(memory_format=layout)
    gradients = []
    for image in (x, MetaTensor(x).contiguous(memory_format=layout)):
        network.zero_grad()
        sum(level.square().mean() for level in network(image)).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain)
