import copy
import re

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet, DynUNet

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


def test_same_weights_give_monai_dynunets_output_with_residual_blocks():
    torch.manual_seed(0)
    strides = [[1, 1, 1], [2, 2, 1], [2, 2, 2]]
    peer = DynUNet(3, 2, 3, [3] * 3, strides, strides[1:], filters=(4, 8, 16), res_block=True)
    for name, parameter in peer.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    theirs = peer.state_dict()
    state = {}
    blocks = {"encoder.0.0": "input_block", "encoder.1.0": "downsamples.0", "encoder.2.0": "bottleneck"}
    layers = {"first.conv": "conv1.conv", "first.norm": "norm1", "second.0": "conv2.conv", "second.1": "norm2"}
    layers |= {"shortcut.0": "conv3.conv", "shortcut.1": "norm3"}
    names = {f"{ours}.{o}": f"{block}.{t}" for ours, block in blocks.items() for o, t in layers.items()}
    for i in (0, 1):
        names[f"decoder.{i}.up"] = f"upsamples.{i}.transp_conv.conv"
        for j in (0, 1):
            names[f"decoder.{i}.convolve.{j}.conv"] = f"upsamples.{i}.conv_block.conv{j + 1}.conv"
            names[f"decoder.{i}.convolve.{j}.norm"] = f"upsamples.{i}.conv_block.norm{j + 1}"
    names["heads.0"] = "output_block.conv.conv"
    for ours, name in names.items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in theirs:
                state[f"{ours}.{kind}"] = theirs[f"{name}.{kind}"]
    network = UNet(
        3, 2, 3, channels=(4, 8, 16), strides=strides, encoder="residual", deep_supervision=False, norm="instance"
    )
    network.load_state_dict(state)
    x = torch.randn(2, 2, 16, 12, 6)
    torch.testing.assert_close(network.eval()(x), peer.eval()(x), atol=1e-5, rtol=1e-5)


def weights_of_basic_unet(network: BasicUNet) -> dict[str, torch.Tensor]:
    """MONAI's state dict under this project's names. Its decoder sees the skip first, ours the up-sampled features."""
    theirs = network.state_dict()
    blocks = {"encoder.0": "conv_0"} | {f"encoder.{i}.1": f"down_{i}.convs" for i in range(1, 5)}
    blocks |= {f"decoder.{i}.convolve": f"upcat_{4 - i}.convs" for i in range(4)}
    state = {}
    for ours, block in blocks.items():
        for j in (0, 1):
            weight = theirs[f"{block}.conv_{j}.conv.weight"]
            if j == 0 and "upcat" in block:
                skip = weight.shape[1] // 2
                weight = torch.cat([weight[:, skip:], weight[:, :skip]], dim=1)
            state[f"{ours}.{j}.conv.weight"] = weight
            for kind in ("weight", "bias"):
                state[f"{ours}.{j}.norm.{kind}"] = theirs[f"{block}.conv_{j}.adn.N.{kind}"]
    for i in range(4):
        state[f"decoder.{i}.up.weight"] = theirs[f"upcat_{4 - i}.upsample.deconv.weight"]
    return state | {f"heads.0.{kind}": theirs[f"final_conv.{kind}"] for kind in ("weight", "bias")}


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (32, 48)), (3, (32, 32, 16))])
def test_same_weights_give_monai_basic_unets_output(spatial_dims, size):
    torch.manual_seed(0)
    act = ("LeakyReLU", {"negative_slope": 0.01})
    peer = BasicUNet(spatial_dims, 2, 3, features=(4, 4, 8, 16, 32, 4), act=act)
    for name, parameter in peer.named_parameters():
        if ".N." in name:
            torch.nn.init.normal_(parameter)
        elif name.endswith("deconv.bias"):
            torch.nn.init.zeros_(parameter)  # ours has none
        elif name.endswith("conv.bias") and "final" not in name:
            torch.nn.init.normal_(parameter)  # ours has none either, but here the norm takes it away again
    ours = UNet(spatial_dims, 2, 3, channels=(4, 4, 8, 16, 32), downsampling="max_pool", deep_supervision=False)
    ours.load_state_dict(weights_of_basic_unet(peer))
    x = torch.randn(2, 2, *size)
    torch.testing.assert_close(ours.eval()(x), peer.eval()(x), atol=1e-5, rtol=1e-5)


OPTIONS = [
    {"encoder": "vgg", "downsampling": "max_pool", "upsampling": "linear", "skip": "add"},
    {"encoder": "residual", "downsampling": "space_to_depth", "upsampling": "pixel_shuffle", "norm": "group"},
    {"encoder": "dense", "upsampling": "nearest", "activation": "relu", "norm": "batch"},
]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o["encoder"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_every_option_trains_scripts_and_compiles(options, layout):
    torch.manual_seed(0)
    network = UNet(3, 2, 3, **SMALL, **options).to(memory_format=layout)
    x = torch.randn(2, 2, 16, 8, 4).contiguous(memory_format=layout)
    levels = network(x)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 16, 8, 4), (2, 3, 8, 4, 4)]
    sum((level * level.detach().cos()).sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    expected = network.eval()(x)
    torch.testing.assert_close(torch.jit.script(network)(x), expected, atol=1e-5, rtol=1e-5)
    if layout is torch.contiguous_format:
        torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), expected)
        torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", OPTIONS[:2], ids=lambda o: o["encoder"])
def test_interpolation_and_pixel_shuffle_give_the_same_logits_in_onnx(options, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network, x = UNet(3, 2, 3, **SMALL, **options).eval(), torch.randn(1, 2, 16, 8, 4)
    torch.onnx.export(network, (x,), str(tmp_path / "network.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(x).detach(), atol=1e-4, rtol=1e-4)


def test_depth_decides_the_channels_and_channels_the_depth():
    with torch.device("meta"):
        assert [stage[-1].conv.out_channels for stage in UNet(3, 1, 2, depth=5).encoder] == [32, 64, 128, 256, 320, 320]
        assert [stage[-1].conv.out_channels for stage in UNet(2, 1, 2, depth=5).encoder] == [32, 64, 128, 256, 512, 512]
        assert UNet(2, 1, 2, depth=1).total_stride == (2, 2)
        assert UNet(2, 1, 2).total_stride == (8, 8)
        assert UNet(2, 1, 2, channels=(4, 8)).total_stride == (2, 2)


def test_adding_the_skip_is_a_sum():
    torch.manual_seed(0)
    level = UNet(2, 1, 2, channels=(4, 8), skip="add").decoder[0]
    x, skip = torch.randn(1, 8, 4, 4), torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(level(x, skip), level.convolve(level.up(x) + skip))


def test_initial_slope_is_that_of_the_activation():
    torch.manual_seed(0)
    leaky, relu = (UNet(2, 64, 2, channels=(64, 64), activation=a) for a in ("leaky_relu", "relu"))
    for network, slope in ((leaky, 0.01), (relu, 0.0)):
        variance = network.encoder[0][0].conv.weight.var().item()
        assert variance == pytest.approx(2 / ((1 + slope**2) * 64 * 9), rel=0.03)


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


def test_convolutions_of_each_level():
    network = UNet(3, 1, 2, **SMALL, convolutions_per_stage=[1, 2, 3])
    assert [len(stage) for stage in network.encoder] == [1, 2, 3]
    assert [len(level.convolve) for level in network.decoder] == [2, 1]  # runs from the deepest level up
    with pytest.raises(ConfigError, match="one per level"):
        UNet(3, 1, 2, **SMALL, convolutions_per_stage=[1, 2])


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


def test_group_norm_takes_one_voxel_where_it_has_a_neighbour_in_its_group():
    assert UNet(2, 1, 2, channels=(4, 16), norm="group")(torch.randn(1, 1, 2, 2))[0].shape == (1, 2, 2, 2)
    with pytest.raises(ConfigError, match="one voxel"):
        UNet(2, 1, 2, channels=(4, 8), norm="group")(torch.randn(1, 1, 2, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": (4, 8, 16), "encoder": "dense"},  # its layers have 8 maps on the deepest level
        {"channels": (4, 8, 16), "strides": (1, 4, 1)},  # the level above the deepest has one voxel too, and 8 maps
        {"channels": (4, 16, 24), "encoder": "dense", "convolutions_per_stage": 3},
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_every_group_norm_on_the_deepest_grid_needs_a_neighbour(arguments, batch, training):
    network = UNet(2, 2, 3, norm="group", **arguments).train(training)
    with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
        network(torch.randn(batch, 2, 4, 4))
    logits = network(torch.randn(batch, 2, 4, 8))
    assert (logits[0] if training else logits).shape == (batch, 3, 4, 8)


def test_batch_norm_takes_one_voxel_but_not_one_alone_in_training():
    network = UNet(2, 1, 2, channels=(4, 8, 16), norm="batch")
    assert network(torch.randn(3, 1, 4, 4))[0].shape == (3, 2, 4, 4)
    with pytest.raises(ConfigError, match=r"one voxel at the network's deepest level.*use a patch or window of 8 x 8"):
        network(torch.randn(1, 1, 4, 4))
    assert network(torch.randn(1, 1, 8, 4))[0].shape == (1, 2, 8, 4)
    assert network.eval()(torch.randn(1, 1, 4, 4)).shape == (1, 2, 4, 4)


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
        ({"channels": None, "depth": 0}, "two levels"),
        ({"depth": 3}, "give one of the two"),
        ({"skip": "multiply"}, "concatenate, add"),
        ({"upsampling": "cubic"}, "pixel_shuffle"),
        ({"norm": "layer"}, "'instance', 'batch', 'group' or 'none'"),
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
