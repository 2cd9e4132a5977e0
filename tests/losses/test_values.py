"""Values of the losses: by hand, and beside torch's and MONAI's where the definition is the same."""

import math

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.losses import DiceLoss as MonaiDiceLoss

from pipeline.errors import ConfigError
from pipeline.losses import CrossEntropyLoss, DiceCrossEntropy, DiceLoss, cross_entropy_loss, dice_loss


def example(classes=3, size=(5, 4, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, *size, generator=generator)
    return logits, torch.randint(classes, (2, 1, *size), generator=generator)


@pytest.mark.parametrize("size", [(5, 4, 3), (7, 6)])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_dice_is_monais(size, include_background, batch):
    logits, target = example(size=size)
    options = {"include_background": include_background, "to_onehot_y": True, "softmax": True, "batch": batch}
    ours = dice_loss(logits, target, include_background=include_background, batch_dice=batch)
    torch.testing.assert_close(ours, MonaiDiceLoss(**options)(logits, target))
    both = DiceCrossEntropy(include_background=include_background, batch_dice=batch)(logits, target)
    torch.testing.assert_close(both, DiceCELoss(**options)(logits, target))


@pytest.mark.parametrize("ignore_label", [None, 1, 255])
@pytest.mark.parametrize("class_weights", [None, [0.2, 1.0, 3.0]])
def test_cross_entropy_is_torchs(ignore_label, class_weights):
    logits, target = example()
    if ignore_label == 255:
        target[:, :, 0] = 255
    weights = None if class_weights is None else torch.tensor(class_weights)
    ignored = {} if ignore_label is None else {"ignore_index": ignore_label}
    expected = F.cross_entropy(logits, target[:, 0], weight=weights, **ignored)
    module = CrossEntropyLoss(class_weights=class_weights, ignore_label=ignore_label)
    torch.testing.assert_close(module(logits, target), expected)


def test_voxel_weights_by_hand():
    # p of the target: 1/2 with weight 1, 3/4 with weight 3.
    logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]])
    target, weight = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]])
    expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
    assert cross_entropy_loss(logits, target, weight).item() == pytest.approx(expected)
    # Class 1: overlap 3 * 3/4, probabilities 1/2 + 3 * 3/4, reference 3.
    assert dice_loss(logits, target, weight, smooth=0).item() == pytest.approx(1 - 2 * 2.25 / (2.75 + 3))
    # Class 0: overlap 1/2, probabilities 1/2 + 3/4, reference 1; the mean weighted 1 to 3.
    both = dice_loss(
        logits, target, weight, smooth=0, include_background=True, class_weights=torch.tensor([1.0, 3.0])
    )
    assert both.item() == pytest.approx(((1 - 1 / 2.25) + 3 * (1 - 4.5 / 5.75)) / 4)


def test_whole_number_weights_count_like_repeated_voxels():
    logits, target = example(size=(6,))
    weight = torch.tensor([1, 2, 1, 3, 1, 1.0]).expand(2, 1, 6)
    times = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5])
    loss = DiceCrossEntropy()
    torch.testing.assert_close(loss(logits, target, weight), loss(logits[..., times], target[..., times]))


@pytest.mark.parametrize("function", [cross_entropy_loss, dice_loss])
def test_an_ignored_voxel_is_as_if_it_were_not_there(function):
    logits, target = example(size=(6, 5))
    marked = target.clone()
    marked[..., 4:] = 7
    expected = function(logits[..., :4], target[..., :4])
    torch.testing.assert_close(function(logits, marked, ignore_label=7), expected)
    weight = torch.ones_like(target, dtype=torch.float32)
    weight[..., 4:] = 0
    torch.testing.assert_close(function(logits, target, weight), expected)


def test_batch_dice_forgives_a_sample_without_the_class():
    target = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    target[0, 0, :2] = 1
    logits = 20 * F.one_hot(target[:, 0], 2).movedim(-1, 1).float() - 10
    logits[1, 1, 0, 0] = 30  # one false voxel in the empty sample: per sample 1, as one volume 1 - 16/17
    assert dice_loss(logits, target).item() == pytest.approx(0.5, abs=1e-3)
    assert dice_loss(logits, target, batch_dice=True).item() == pytest.approx(1 - 16 / 17, abs=1e-3)


def test_absent_class_costs_nothing_only_when_it_is_not_predicted():
    target = torch.zeros(1, 1, 4, 4)
    absent = torch.tensor([200.0, -200.0])[None, :, None, None].expand(1, 2, 4, 4)
    assert dice_loss(absent, target).item() == 0
    assert dice_loss(-absent, target).item() == pytest.approx(1)
    # One false voxel against smooth 1: 1 - 1 / (1 + 1).
    one = absent.clone()
    one[0, :, 0, 0] *= -1
    assert dice_loss(one, target, smooth=1.0).item() == pytest.approx(0.5)


def test_all_voxels_ignored_costs_no_cross_entropy():
    logits, target = example()
    logits.requires_grad_()
    loss = cross_entropy_loss(logits, torch.full_like(target, 9), ignore_label=9)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_parts_are_those_of_the_functions_and_the_sum_has_their_factors():
    logits, target = example()
    loss = DiceCrossEntropy(dice_weight=2.0, cross_entropy_weight=0.5)
    value = loss(logits.requires_grad_(), target)
    assert set(loss.parts) == {"dice", "cross_entropy"}
    assert not any(part.requires_grad for part in loss.parts.values())
    torch.testing.assert_close(loss.parts["dice"], dice_loss(logits, target).detach())
    torch.testing.assert_close(loss.parts["cross_entropy"], cross_entropy_loss(logits, target).detach())
    torch.testing.assert_close(value.detach(), 2 * loss.parts["dice"] + 0.5 * loss.parts["cross_entropy"])


def test_a_float_metatensor_is_a_target_like_any_other():
    logits, target = example()
    value = DiceCrossEntropy()(logits, MetaTensor(target.float()))
    assert type(value) is torch.Tensor
    assert value == DiceCrossEntropy()(logits, target)


@pytest.mark.parametrize(
    ("logits", "target", "weight", "message"),
    [
        ((2, 3, 4, 4), (2, 4, 4), None, r"class ids (B, 1, *S)"),
        ((2, 3, 4, 4), (2, 1, 4, 5), None, "(2, 1, 4, 5)"),
        ((2, 3, 4, 4), (2, 1, 4, 4), (2, 4, 4), "weight of shape"),
        ((2, 1, 4, 4), (2, 1, 4, 4), None, "one channel per class"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, target, weight, message):
    with pytest.raises(ConfigError) as caught:
        DiceCrossEntropy()(torch.zeros(logits), torch.zeros(target), None if weight is None else torch.ones(weight))
    assert message in str(caught.value)


@pytest.mark.parametrize("loss", [DiceLoss, CrossEntropyLoss, DiceCrossEntropy])
def test_class_weights_need_one_per_class(loss):
    logits, target = example()
    with pytest.raises(ConfigError, match="class_weights"):
        loss(class_weights=[1.0, 2.0])(logits, target)
