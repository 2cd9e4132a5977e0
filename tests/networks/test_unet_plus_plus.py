import re

import pytest
import torch
from monai.networks.nets import BasicUNetPlusPlus

from pipeline.errors import ConfigError
from pipeline.networks import UNetPlusPlus

# Instance norm has no running state: eval and training mode compute the same features.
SMALL = {"channels": (4, 8, 8, 8), "norm": "instance"}


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_published_ones_at_every_depth():
    """Zhou 2018: 9.04 M, of which the authors' code says 9,041,601; L^1 to L^3 by hand from the same formula."""
    network = UNetPlusPlus(2, 1, 1, norm="none", deep_supervision=False)
    assert parameters(network) == 9_041_601
    k = [32, 64, 128, 256, 512]

    def two(into, out):
        return 9 * into * out + out + 9 * out * out + out

    for depth in range(1, 5):
        encoder = sum(two(into, out) for into, out in zip([1, *k], k[: depth + 1], strict=False))
        decoder = sum(
            4 * k[i + 1] * k[i] + k[i] + two((j + 1) * k[i], k[i])
            for i in range(depth)
            for j in range(1, depth - i + 1)
        )
        count = encoder + decoder + 33
        supervised = UNetPlusPlus(2, 1, 1, norm="none").prune(depth)
        assert parameters(supervised) == count + 33 * (depth - 1)
        assert round(count / 1e6, 2) == [0.10, 0.51, 2.20, 9.04][depth - 1]
    assert count == 9_041_601


def weights_of_monai(network: BasicUNetPlusPlus) -> dict[str, torch.Tensor]:
    """MONAI's state dict under this project's names."""
    theirs, state = network.state_dict(), {}

    def stage(ours, block):
        for k in (0, 1):
            state[f"{ours}.{k}.conv.weight"] = theirs[f"{block}.conv_{k}.conv.weight"]
            state[f"{ours}.{k}.norm.weight"] = theirs[f"{block}.conv_{k}.adn.N.weight"]
            state[f"{ours}.{k}.norm.bias"] = theirs[f"{block}.conv_{k}.adn.N.bias"]

    stage("encoder.0", "conv_0_0")
    for i in range(1, 5):
        stage(f"encoder.{i}.1", f"conv_{i}_0.convs")
    for i in range(4):
        for j in range(1, 5 - i):
            stage(f"nodes.X_{i}_{j}.convolve", f"upcat_{i}_{j}.convs")
            state[f"nodes.X_{i}_{j}.up.weight"] = theirs[f"upcat_{i}_{j}.upsample.deconv.weight"]
    for j in range(1, 5):
        for kind in ("weight", "bias"):
            state[f"heads.{j - 1}.{kind}"] = theirs[f"final_conv_0_{j}.{kind}"]
    return state


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (32, 48)), (3, (32, 16, 32))])
def test_same_weights_give_monais_output_at_every_branch(spatial_dims, size):
    torch.manual_seed(0)
    # MONAI up-samples to as many channels as this network only if its last two rows have equal ones.
    peer = BasicUNetPlusPlus(spatial_dims, 2, 3, (8, 8, 16, 32, 64, 8), deep_supervision=True, act="relu")
    for name, parameter in peer.named_parameters():
        if ".N." in name:  # at their initial 1 and 0 a swapped pair of norms would not show
            torch.nn.init.normal_(parameter)
        if name.endswith("deconv.bias"):  # this network's have none
            torch.nn.init.zeros_(parameter)
    ours = UNetPlusPlus(spatial_dims, 2, 3, channels=(8, 8, 16, 32, 64), norm="instance")
    ours.load_state_dict(weights_of_monai(peer))
    x = torch.randn(2, 2, *size)
    for mine, theirs in zip(ours(x), reversed(peer(x)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_node_sees_its_row_as_the_papers_variants_say():
    for skips, seen in (("dense", lambda j: j), ("short", lambda j: 1), ("long", lambda j: 1)):
        network = UNetPlusPlus(2, 1, 2, skip_connections=skips, **SMALL)
        assert list(network.nodes) == ["X_0_1", "X_1_1", "X_0_2", "X_2_1", "X_1_2", "X_0_3"]
        for name, node in network.nodes.items():
            i, j = int(name[2]), int(name[4])
            assert node.convolve[0].conv.in_channels == (seen(j) + 1) * SMALL["channels"][i]


def nodes_without_gradient(network: UNetPlusPlus, logits: list[torch.Tensor]) -> set[str]:
    network.zero_grad(set_to_none=True)
    sum(level.square().sum() for level in logits).backward()
    encoder = {f"X_{i}_0": stage for i, stage in enumerate(network.encoder)}
    nodes = encoder | dict(network.nodes.items())
    return {name for name, node in nodes.items() if all(p.grad is None for p in node.parameters())}


@pytest.mark.parametrize(
    ("skips", "untouched"),
    [
        # Every node has a path to X^{0,3}: to the right by a skip, up by the up-sampling.
        ("dense", set()),
        ("short", set()),
        # The shallower U-Nets of the ensemble share nothing but the encoder with the deepest.
        ("long", {"X_0_1", "X_1_1", "X_0_2"}),
    ],
)
def test_which_nodes_the_last_branch_alone_reaches_and_that_deep_supervision_reaches_all(skips, untouched):
    network = UNetPlusPlus(2, 1, 2, skip_connections=skips, **SMALL)
    x = torch.randn(1, 1, 16, 16)
    assert nodes_without_gradient(network, network(x)[:1]) == untouched
    assert nodes_without_gradient(network, network(x)) == set()
    # The first branch is a U-Net of two levels, in all three variants.
    below = {"X_2_0", "X_3_0", "X_1_1", "X_0_2", "X_2_1", "X_1_2", "X_0_3"}
    assert nodes_without_gradient(network, network(x)[-1:]) == below


@pytest.mark.parametrize("skips", ["dense", "short", "long"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_pruned_networks_equal_their_branch_exactly(skips, depth):
    torch.manual_seed(0)
    network = UNetPlusPlus(3, 2, 3, skip_connections=skips, strides=[1, [2, 2, 1], 2, 2], **SMALL)
    x = torch.randn(2, 2, 16, 8, 8)
    branch = network(x)[3 - depth]
    pruned = network.eval().prune(depth)
    assert not pruned.training
    assert torch.equal(pruned(x), branch)
    assert pruned.total_stride == [(2, 2, 1), (4, 4, 2), (8, 8, 4)][depth - 1]
    assert all(p.data_ptr() in {q.data_ptr() for q in network.parameters()} for p in pruned.parameters())

    # The same by configuration: the full network answers by this branch...
    chosen = UNetPlusPlus(
        3,
        2,
        3,
        skip_connections=skips,
        strides=[1, [2, 2, 1], 2, 2],
        inference_depth=depth,
        inference_mode="fast",
        **SMALL,
    )
    chosen.load_state_dict(network.state_dict())
    ran = []
    for name, node in chosen.nodes.items():
        node.register_forward_hook(lambda *_, name=name: ran.append(name))
    assert torch.equal(chosen.eval()(x), branch)
    assert all(int(name[2]) + int(name[4]) <= depth for name in ran)
    assert len(ran) == (depth if skips == "long" else depth * (depth + 1) // 2)
    # ... and the smaller network, built as such, loads the pruned weights.
    small = UNetPlusPlus(
        3,
        2,
        3,
        channels=SMALL["channels"][: depth + 1],
        strides=[1, [2, 2, 1], 2, 2][: depth + 1],
        norm="instance",
        skip_connections=skips,
        inference_mode="fast",
    )
    small.load_state_dict(pruned.state_dict())
    assert torch.equal(small.eval()(x), branch)


def test_pruning_keeps_the_convolutions_of_each_row():
    torch.manual_seed(0)
    network = UNetPlusPlus(2, 1, 2, convolutions_per_stage=[1, 2, 1, 3], **SMALL)
    x = torch.randn(2, 1, 16, 16)
    branch = network(x)[1]
    pruned = network.eval().prune(2)
    assert [len(pruned.nodes[name].convolve) for name in ("X_0_1", "X_1_1", "X_0_2")] == [1, 2, 1]
    assert torch.equal(pruned(x), branch)


def test_training_the_pruned_network_trains_the_whole_one():
    network = UNetPlusPlus(2, 1, 2, **SMALL)
    network.prune(1)(torch.randn(1, 1, 16, 16))[0].sum().backward()
    assert network.nodes["X_0_1"].up.weight.grad.abs().sum() > 0
    assert network.nodes["X_0_2"].up.weight.grad is None


@pytest.mark.parametrize(("classes", "depth"), [(3, 3), (3, 2), (1, 3)])
def test_accurate_mode_averages_the_probabilities_of_the_branches(classes, depth):
    torch.manual_seed(0)
    network = UNetPlusPlus(2, 1, classes, inference_depth=depth, **SMALL)
    x = torch.randn(2, 1, 16, 8)

    def probabilities(logits):
        return logits.softmax(1) if classes > 1 else logits.sigmoid()

    expected = torch.stack([probabilities(branch) for branch in network(x)[3 - depth :]]).mean(0)
    torch.testing.assert_close(probabilities(network.eval()(x)), expected)


def test_without_deep_supervision_there_is_one_head_and_one_tensor():
    network = UNetPlusPlus(2, 1, 2, deep_supervision=False, **SMALL)
    assert len(network.heads) == 1
    x = torch.randn(1, 1, 16, 16)
    logits = network(x)
    assert logits.shape == (1, 2, 16, 16)
    assert torch.equal(network.eval()(x), logits)
    assert torch.equal(network.prune(3)(x), logits)
    with pytest.raises(ConfigError, match=r"L\^2 .*without deep supervision.*one of 3"):
        network.prune(2)


@pytest.mark.parametrize("encoder", ["vgg", "residual", "dense"])
def test_the_encoder_is_replaceable(encoder):
    network = UNetPlusPlus(3, 1, 2, encoder=encoder, **SMALL)
    x = torch.randn(1, 1, 16, 16, 16)
    assert [tuple(logits.shape) for logits in network(x)] == [(1, 2, 16, 16, 16)] * 3
    assert torch.equal(network.prune(2)(x)[0], network(x)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "2 or 3"),
        ({"channels": [4]}, "two levels"),
        ({"strides": [2, 2, 2, 2]}, "first level"),
        ({"norm": "layer"}, "norm 'layer'"),
        ({"activation": "gelu"}, "activation 'gelu'"),
        ({"skip_connections": "all"}, "dense, short, long"),
        ({"inference_mode": "slow"}, "accurate, fast"),
        ({"inference_depth": 4}, "one of 1, 2, 3"),
        ({"inference_depth": 2, "deep_supervision": False}, "one of 3: those that have a head"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        UNetPlusPlus(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2} | SMALL | arguments)
    assert message in str(caught.value)


def test_a_size_that_it_cannot_take_is_refused_with_the_size_to_use():
    network = UNetPlusPlus(3, 1, 2, **SMALL)
    with pytest.raises(ConfigError) as caught:
        network(torch.zeros(1, 1, 20, 16, 16))
    assert re.search("16 x 16 x 16 or 24 x 16 x 16", str(caught.value)), caught.value


def test_one_voxel_in_the_last_row_needs_a_batch_for_batch_norm_to_train_on():
    network = UNetPlusPlus(2, 1, 2, channels=(4, 8))
    assert network(torch.randn(2, 1, 2, 2))[0].shape == (2, 2, 2, 2)
    assert network.eval()(torch.randn(1, 1, 2, 2)).shape == (1, 2, 2, 2)
    with pytest.raises(ConfigError, match="use a patch or window of 4 x 4"):
        network.train()(torch.randn(1, 1, 2, 2))


def test_group_norm_with_one_map_in_a_group_of_the_last_rows_takes_no_single_voxel():
    for arguments in ({"encoder": "dense"}, {"strides": (1, 4, 1)}):
        network = UNetPlusPlus(2, 1, 2, channels=(4, 8, 16), norm="group", **arguments).eval()
        with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
            network(torch.randn(1, 1, 4, 4))
        assert network(torch.randn(1, 1, 8, 4)).shape == (1, 2, 8, 4)
