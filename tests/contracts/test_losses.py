"""What every loss promises. A new one is listed once, in MEMBERS."""

import pytest
import torch
from torch import nn

from pipeline import losses
from pipeline.losses import (
    BinaryCrossEntropyLoss,
    CodedDiceLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DeepSupervision,
    DiceCrossEntropy,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    IoULoss,
    MSSSIMLoss,
    TverskyLoss,
)

MEMBERS = {
    "BinaryCrossEntropyLoss": BinaryCrossEntropyLoss,
    "CodedDiceLoss": CodedDiceLoss,
    "CompoundLoss": lambda **o: CompoundLoss(
        [DiceLoss(squared=True, **o), FocalLoss(**o), BinaryCrossEntropyLoss(**o)], [1, 2, 0.5]
    ),
    "CrossEntropyLoss": CrossEntropyLoss,
    "DeepSupervision": lambda **o: DeepSupervision(DiceCrossEntropy(**o)),
    "DiceCrossEntropy": DiceCrossEntropy,
    "DiceLoss": DiceLoss,
    "FocalLoss": FocalLoss,
    "GeneralizedDiceLoss": GeneralizedDiceLoss,
    "IoULoss": IoULoss,
    "MSSSIMLoss": MSSSIMLoss,
    "TverskyLoss": TverskyLoss,
}


@pytest.fixture(params=MEMBERS)
def loss(request):
    return MEMBERS[request.param]()


def example(size=(5, 4, 3), classes=3):
    torch.manual_seed(0)
    return torch.randn(2, classes, *size), torch.randint(classes, (2, 1, *size))


def right(target, classes=3, scale=30.0):
    """Logits that are sure of the target."""
    one_hot = torch.nn.functional.one_hot(target[:, 0], classes).movedim(-1, 1)
    return scale * (2 * one_hot - 1).float()


def test_every_public_loss_is_listed():
    assert set(MEMBERS) == {name for name in losses.__all__ if isinstance(getattr(losses, name), type)}


@pytest.mark.parametrize("size", [(7, 6), (5, 4, 3)])
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(loss, size):
    _, target = example(size)
    assert loss(right(target), target).item() == pytest.approx(0, abs=1e-5)
    assert loss(right((target + 1) % 3), target).item() > 0.9


def test_it_is_a_scalar_that_backpropagates_to_every_logit(loss):
    logits, target = example()
    value = loss(logits.requires_grad_(), target)
    value.backward()
    assert value.shape == ()
    assert torch.count_nonzero(logits.grad) == logits.numel()


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_numerically(loss, weighted):
    logits, target = example((3, 2, 2))
    weight = torch.rand(2, 1, 3, 2, 2, dtype=torch.float64) + 0.1 if weighted else None
    assert torch.autograd.gradcheck(lambda z: loss(z, target, weight), logits.double().requires_grad_())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 6e4])
@pytest.mark.parametrize("fill", [None, 0, 1])
def test_half_precision_is_finite_and_close(loss, kind, scale, fill):
    logits, target = example((24, 24, 24))
    logits = (logits.clamp(-1, 1) * scale).to(kind)
    if fill is not None:
        target.fill_(fill)
    half = logits.clone().requires_grad_()
    with torch.autocast("cpu", kind):
        value = loss(half, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(half.grad).all()
    torch.testing.assert_close(value, loss(logits.float(), target))


def test_equal_weights_change_nothing_and_a_weight_of_zero_hides_a_voxel(loss):
    logits, target = example()
    weight = torch.ones(target.shape)
    torch.testing.assert_close(loss(logits, target, weight), loss(logits, target))
    weight[0, 0, 0, 0, 0] = 0
    other = logits.clone()
    other[0, :, 0, 0, 0] = torch.tensor([9.0, -9.0, 3.0])
    torch.testing.assert_close(loss(logits, target, weight), loss(other, target, weight))


@pytest.mark.parametrize("name", MEMBERS)
def test_an_ignored_voxel_is_hidden_and_its_id_needs_no_logits(name):
    loss = MEMBERS[name](ignore_label=255)
    logits, target = example()
    target[:, :, 1:3, :2] = 255
    other = logits.clone()
    other[:, :, 1:3, :2] = 40 * torch.randn(2, 3, 2, 2, 3)
    value = loss(logits.requires_grad_(), target)
    value.backward()
    torch.testing.assert_close(value, loss(other, target))
    assert (logits.grad[:, :, 1:3, :2] == 0).all()
    everything = loss(logits.detach(), torch.full_like(target, 255))
    assert torch.isfinite(everything)


def test_target_of_any_dtype(loss):
    logits, target = example()
    expected = loss(logits, target)
    for kind in (torch.uint8, torch.int32, torch.float32):
        assert loss(logits, target.to(kind)) == expected


def test_channels_last_logits(loss):
    logits, target = example()
    torch.testing.assert_close(loss(logits.to(memory_format=torch.channels_last_3d), target), loss(logits, target))


def test_parts_are_detached_scalars(loss):
    logits, target = example()
    loss(logits.requires_grad_(), target)
    assert loss.parts
    assert all(part.shape == () and not part.requires_grad for part in loss.parts.values())


def test_it_has_no_state_that_a_checkpoint_would_carry(loss):
    assert isinstance(loss, nn.Module)
    assert loss.state_dict() == {}


def test_a_linear_network_learns_by_it(loss):
    _, target = example((8, 8))
    image = torch.nn.functional.one_hot(target[:, 0], 3).movedim(-1, 1).float()
    torch.manual_seed(1)
    network = nn.Conv2d(3, 3, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss(network(image), target).backward()
        optimiser.step()
    assert (network(image).argmax(1) == target[:, 0]).all()
