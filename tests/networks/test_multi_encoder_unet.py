import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.networks import MultiEncoderUNet
from pipeline.networks.multi_encoder_unet import (
    FUSIONS,
    AttendToModalities,
    ConcatenateModalities,
    MeanOfModalities,
    drop_modalities,
)


def small(fusion="concatenate", **options):
    torch.manual_seed(0)
    settings = {"channels": (4, 8), "groups": [1, 2], "modality_dropout": 0.0} | options
    return MultiEncoderUNet(2, 3, 2, fusion=fusion, **settings)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_channels_of_zeros_are_a_missing_modality_and_its_encoder_reaches_no_logit(fusion):
    network = small(fusion)
    x = torch.randn(2, 3, 8, 8)
    x[1, 1:] = 0
    marked = torch.tensor([[True, True], [True, False]])
    network.eval()
    torch.testing.assert_close(network(x), network(x, present=marked))
    # Whatever stands in the channels of a modality that is marked as missing, nothing changes.
    other = x.clone()
    other[1, 1:] = torch.randn(2, 8, 8)
    torch.testing.assert_close(network(other, present=marked), network(x))
    assert not torch.allclose(network(other)[1], network(x)[1], atol=1e-3)
    # One channel of a group of two is no missing modality.
    half = torch.randn(1, 3, 8, 8)
    half[:, 2] = 0
    torch.testing.assert_close(network(half), network(half, present=torch.tensor([[True, True]])))

    network.zero_grad()
    network(x[1:]).square().sum().backward()
    for level in network.encoder:
        assert all(p.grad.abs().sum() > 0 for p in level.stages[0].parameters())
        assert all(p.grad is None or not p.grad.any() for p in level.stages[1].parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_pure_air_is_an_image_not_a_missing_one(fusion):
    network = small(fusion).eval()
    air = torch.zeros(1, 3, 8, 8)
    logits = network(air)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, network(air, present=torch.tensor([[True, True]])))


def test_mean_by_hand():
    features = [torch.full((2, 1, 1, 1), v) for v in (3.0, 5.0, 10.0)]
    present = torch.tensor([[True, True, True], [True, False, True]])
    assert MeanOfModalities()(features, present).flatten().tolist() == pytest.approx([6.0, 6.5])


def test_attention_weights_by_hand():
    fuse = AttendToModalities(2, 1, 3)
    for score, weight in zip(fuse.scores, (0.0, 1.0, 2.0), strict=True):
        torch.nn.init.constant_(score.weight, weight)
        torch.nn.init.zeros_(score.bias)
    features = [torch.full((2, 1, 1, 1), v) for v in (3.0, 1.0, 1.0)]
    present = torch.tensor([[True, True, True], [True, False, True]])
    # Scores 0, 1 and 2: weights e^0, e^1, e^2 over their sum, among those present.
    e = 2.718281828459045
    expected = [(3 + e + e**2) / (1 + e + e**2), (3 + e**2) / (1 + e**2)]
    assert fuse(features, present).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_concatenation_sees_zeros_for_the_missing():
    torch.manual_seed(0)
    fuse = ConcatenateModalities(2, 2, 2, "instance", "leaky_relu")
    a, b = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    present = torch.tensor([[True, False]])
    torch.testing.assert_close(fuse([a, b], present), fuse.join(torch.cat([a, torch.zeros_like(b)], dim=1)))


def test_modality_dropout_leaves_each_out_as_often_as_asked_and_never_the_last():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, False]]).expand(100_000, 3)
    kept = drop_modalities(present, 0.3)
    assert not kept[:, 2].any()
    assert kept.any(dim=1).all()
    # Left out with 0.3, except where both would be (0.09), of which one stays.
    rate = 1 - kept[:, :2].float().mean(dim=0)
    assert rate.tolist() == pytest.approx([0.3 - 0.09 / 2] * 2, abs=0.01)


def test_modality_dropout_acts_in_training_alone():
    network = small(modality_dropout=0.9, deep_supervision=False)
    x = torch.randn(1, 3, 8, 8)
    training = torch.stack([network.train()(x) for _ in range(8)])
    assert not torch.allclose(training, training[:1].expand_as(training))
    network.eval()
    torch.testing.assert_close(network(x), network(x), atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_scripts_and_compiles_with_modality_dropout(fusion):
    network = small(fusion, modality_dropout=0.5)
    x = torch.randn(2, 3, 8, 8)
    assert torch.jit.script(network)(x).shape == (2, 2, 8, 8)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = network(x)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(x), expected)
    torch.compiler.reset()


def test_one_encoder_per_channel_by_default():
    network = MultiEncoderUNet(3, 3, 2, depth=2)
    assert [[stage[0].conv.in_channels for stage in level.stages] for level in network.encoder] == [
        [1, 1, 1],
        [16, 16, 16],
        [32, 32, 32],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": [1, 1]}, "add up to 3"),
        ({"groups": [3, 0]}, "1 or more"),
        ({"modality_dropout": 1.0}, "below 1"),
        ({"fusion": "product"}, "concatenate, add, attention"),
        ({"skip": "none"}, "concatenate, add"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        small(**arguments)


def test_a_present_of_another_shape_is_refused():
    with pytest.raises(ConfigError, match="one for each sample and modality"):
        small()(torch.zeros(2, 3, 8, 8), present=torch.ones(2, 3, dtype=torch.bool))


def test_one_voxel_alone_is_refused_to_a_norm_that_cannot_take_it():
    batch = MultiEncoderUNet(2, 2, 2, channels=(4, 8, 16), norm="batch")
    assert batch(torch.randn(2, 2, 4, 4))[0].shape == (2, 2, 4, 4)
    with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
        batch(torch.randn(1, 2, 4, 4))
    assert batch.eval()(torch.randn(1, 2, 4, 4)).shape == (1, 2, 4, 4)
    dense = MultiEncoderUNet(2, 2, 2, channels=(4, 8, 16), norm="group", encoder="dense").eval()
    with pytest.raises(ConfigError, match="use a patch or window of 8 x 8"):
        dense(torch.randn(1, 2, 4, 4))
