"""The other losses: figures of the papers, values by hand, and MONAI's and torch's where the definition is the same."""

import math

import monai.losses
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.metrics.regression import MultiScaleSSIMMetric, SSIMMetric

from pipeline.errors import ConfigError, LabelError
from pipeline.losses import (
    BinaryCrossEntropyLoss,
    CodedDiceLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceCrossEntropy,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    IoULoss,
    MSSSIMLoss,
    TverskyLoss,
    binary_cross_entropy_loss,
    coded_dice_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    generalized_dice_loss,
    iou_loss,
    ms_ssim_loss,
    tversky_loss,
)
from pipeline.losses.ms_ssim import EXPONENTS
from pipeline.losses.softmax_sums import softmax_sums


def example(classes=3, size=(5, 4, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, *size, generator=generator)
    return logits, torch.randint(classes, (2, 1, *size), generator=generator)


def of_probability(p):
    """Logits of one voxel whose class 1 has probability p."""
    return torch.tensor([[[0.0], [math.log(p / (1 - p))]]], dtype=torch.float64)


def one_hot(target, classes=3):
    return F.one_hot(target[:, 0], classes).movedim(-1, 1).float()


ONE = torch.tensor([[[1]]])
MONAIS = {"to_onehot_y": True, "softmax": True}


# Cross-entropy's normalization


def test_what_the_sum_is_divided_by():
    # p of the target: 1/2 with weight 1, 3/4 with weight 3; the third voxel is ignored.
    logits = torch.tensor([[[0.0, 0.0, 5.0], [0.0, math.log(3), 0.0]]])
    target, weight = torch.tensor([[[0, 1, 9]]]), torch.tensor([[[1.0, 3.0, 100.0]]])
    total = math.log(2) + 3 * math.log(4 / 3)
    for normalization, divisor in (("weights", 4), ("voxels", 2), ("sum", 1)):
        value = cross_entropy_loss(logits, target, weight, ignore_label=9, normalization=normalization)
        assert value.item() == pytest.approx(total / divisor)
        module = CrossEntropyLoss(ignore_label=9, normalization=normalization)
        assert module(logits, target, weight) == value


def test_all_voxels_ignored_is_zero_whatever_it_is_divided_by():
    logits, target = example()
    for normalization in ("weights", "voxels", "sum"):
        for function in (cross_entropy_loss, focal_loss, binary_cross_entropy_loss):
            ignored = torch.full_like(target, 9)
            assert function(logits, ignored, ignore_label=9, normalization=normalization).item() == 0


@pytest.mark.parametrize("loss", [CrossEntropyLoss, FocalLoss, BinaryCrossEntropyLoss, DiceCrossEntropy])
def test_an_unknown_normalization_is_refused(loss):
    with pytest.raises(ConfigError, match="weights, voxels or sum"):
        loss(normalization="mean")


# Focal


@pytest.mark.parametrize(("p", "expected"), [(0.9, 0.001054), (0.1, 1.865094)])
def test_focal_has_the_papers_figures(p, expected):
    assert focal_loss(of_probability(p), ONE).item() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("class_weights", [None, [0.2, 1.0, 3.0]])
def test_focal_at_gamma_0_is_cross_entropy_exactly(class_weights):
    logits, target = example()
    weight = torch.rand(target.shape)
    expected = CrossEntropyLoss(class_weights)(logits, target, weight)
    assert FocalLoss(0, class_weights)(logits, target, weight) == expected


def test_a_negative_gamma_is_refused():
    with pytest.raises(ConfigError, match="gamma=-1"):
        FocalLoss(gamma=-1)
    with pytest.raises(ConfigError, match="gamma=nan"):
        focal_loss(*example(), gamma=math.nan)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.7])
def test_focal_is_monais(gamma):
    logits, target = example()
    # MONAI's divides by the classes as well, though a voxel has one term alone.
    expected = 3 * monai.losses.FocalLoss(gamma=gamma, to_onehot_y=True, use_softmax=True)(logits, target)
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma), expected)


def test_focal_with_a_small_gamma_has_a_gradient_where_it_is_sure():
    logits = torch.tensor([[[90.0, 1.0], [-90.0, 0.0]]], requires_grad=True)
    focal_loss(logits, torch.tensor([[[0, 0]]]), gamma=0.3).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[..., 0] == 0).all()
    assert (logits.grad[..., 1] != 0).all()


# Binary cross-entropy


@pytest.mark.parametrize("include_background", [True, False])
def test_binary_cross_entropy_is_torchs_on_one_hot_targets(include_background):
    logits, target = example()
    first = 0 if include_background else 1
    expected = F.binary_cross_entropy_with_logits(logits[:, first:], one_hot(target)[:, first:])
    value = binary_cross_entropy_loss(logits, target, include_background=include_background)
    torch.testing.assert_close(value, expected)


def test_binary_cross_entropy_weighs_classes_and_voxels():
    logits, target = example()
    weight, of_class = torch.rand(target.shape), torch.tensor([1.0, 2.0, 5.0])
    each = F.binary_cross_entropy_with_logits(logits, one_hot(target), reduction="none")
    expected = (each * of_class.view(1, 3, 1, 1, 1) * weight).sum() / 8 / weight.sum()
    torch.testing.assert_close(binary_cross_entropy_loss(logits, target, weight, class_weights=of_class), expected)


# Dice and its relatives


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_ratios_are_monais(include_background, batch):
    logits, target = example()
    options = {**MONAIS, "include_background": include_background, "batch": batch}
    ours = {"include_background": include_background}
    pairs = [
        (
            dice_loss(logits, target, squared=True, batch_dice=batch, **ours),
            monai.losses.DiceLoss(squared_pred=True, **options),
        ),
        # MONAI's smoothing is of the order of one over the volume, ours of a voxel.
        (
            generalized_dice_loss(logits, target, smooth=0, batch_dice=batch, **ours),
            monai.losses.GeneralizedDiceLoss(smooth_nr=0, smooth_dr=0, **options),
        ),
        # MONAI's ratio is 2 I / 2 U: its smoothing is twice ours.
        (
            iou_loss(logits, target, smooth=5e-6, batch_iou=batch, **ours),
            monai.losses.DiceLoss(jaccard=True, **options),
        ),
        (
            tversky_loss(logits, target, batch_tversky=batch, **ours),
            monai.losses.TverskyLoss(alpha=0.3, beta=0.7, **options),
        ),
    ]
    for value, theirs in pairs:
        torch.testing.assert_close(value, theirs(logits, target))


def test_tversky_between_dice_and_iou():
    logits, target = example()
    dice = dice_loss(logits, target, smooth=2e-3)
    torch.testing.assert_close(tversky_loss(logits, target, alpha=0.5, beta=0.5, smooth=1e-3), dice)
    torch.testing.assert_close(tversky_loss(logits, target, alpha=1, beta=1), iou_loss(logits, target))
    with pytest.raises(ConfigError, match="alpha=-1"):
        TverskyLoss(alpha=-1)


def test_generalised_dice_lets_a_small_class_count_as_much_as_a_large_one():
    target = torch.ones(1, 1, 10, 10, dtype=torch.long)
    target[0, 0, 0, 0] = 2
    logits = 40 * one_hot(target) - 20
    logits[0, :, 0, 0] = torch.tensor([-20.0, 20.0, -20.0])  # the one voxel of class 2 is taken for class 1
    plain, generalised = dice_loss(logits, target), generalized_dice_loss(logits, target)
    # Class 1: 2 * 99 / (100 + 99), class 2: 0. Generalised: class 2 weighs 1, class 1 1 / 99^2.
    assert plain.item() == pytest.approx((2 - 198 / 199) / 2, abs=1e-4)
    assert generalised.item() == pytest.approx(1 - (198 / 99**2) / (199 / 99**2 + 1), abs=1e-4)


@pytest.mark.parametrize("n", [4, 16, 64])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.0, 1e-6])])
def test_generalised_dice_of_a_missed_object_is_one_however_large_it_is(n, class_weights):
    target, nothing = torch.ones(1, 1, n, n, n, dtype=torch.uint8), torch.zeros(1, 2, n, n, n)
    nothing[:, 0] = 20
    assert generalized_dice_loss(nothing, target, class_weights=class_weights).item() == pytest.approx(1, abs=1e-4)


def test_generalised_dice_smooths_by_voxels_as_dice_does():
    logits, target = example(classes=2)
    for smooth in (0.1, 3.0):
        one_class = generalized_dice_loss(logits, target, smooth=smooth)
        torch.testing.assert_close(one_class, dice_loss(logits, target, smooth=smooth))


def test_generalised_dice_of_an_empty_target_still_sees_false_voxels():
    logits, target = example()
    logits.requires_grad_()
    loss = generalized_dice_loss(logits, torch.zeros_like(target))
    loss.backward()
    assert loss.item() > 0.99
    assert torch.count_nonzero(logits.grad) == logits.numel()


# Dice coded in [-1, 1]


def sure(size, value):
    """Logits that are sure of class ``value`` of two, everywhere."""
    return torch.tensor([200.0, -200.0]).mul(1 - 2 * value)[None, :, None, None].expand(1, 2, *size)


@pytest.mark.parametrize(("predicted", "target", "expected"), [(0, 0, 0.0), (1, 0, 2.0), (1, 1, 0.0), (0, 1, 2.0)])
def test_coded_dice_of_empty_and_full(predicted, target, expected):
    target = torch.full((1, 1, 7, 5), target)
    assert coded_dice_loss(sure((7, 5), predicted), target).item() == pytest.approx(expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_coded_dice_by_its_definition(weighted):
    logits, target = example()
    weight = torch.rand(target.shape) if weighted else torch.ones(target.shape)
    p, g = logits.softmax(1), one_hot(target)
    u = torch.where(g > 0, 0.8, 0.2)
    x, y = u * (2 * p - 1), u * (2 * g - 1)
    axes = (2, 3, 4)
    expected = 1 - 2 * (weight * x * y).sum(axes) / (weight * (x**2 + y**2)).sum(axes)
    value = coded_dice_loss(logits, target, weight if weighted else None, include_background=True)
    torch.testing.assert_close(value, expected.mean())
    u = torch.where(g > 0, 0.6, 0.1)
    x, y = u * (2 * p - 1), u * (2 * g - 1)
    expected = 1 - 2 * (x * y).sum((0, *axes)) / (x**2 + y**2).sum((0, *axes))
    value = coded_dice_loss(logits, target, positive_weight=0.6, negative_weight=0.1, batch_dice=True)
    torch.testing.assert_close(value, expected[1:].mean())


def test_coded_dice_of_an_undecided_network_is_one_and_needs_positive_weights():
    assert coded_dice_loss(torch.zeros(1, 2, 3, 3), torch.ones(1, 1, 3, 3)).item() == pytest.approx(1)
    with pytest.raises(ConfigError, match="negative_weight=0"):
        CodedDiceLoss(negative_weight=0)


# MS-SSIM


def smooth_example(size, seed=0):
    """Discs or balls, and logits that are right but for noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    distance = torch.stack(axes).norm(dim=0)
    target = ((distance < 0.8).long() + (distance < 0.4).long())[None, None].repeat(2, *([1] * (len(size) + 1)))
    logits = 3 * one_hot(target) + torch.randn(2, 3, *size, generator=generator)
    return logits, target


@pytest.mark.parametrize(("size", "scales"), [((181, 190), 5), ((50, 47), 3), ((24, 25, 23), 2)])
def test_ms_ssim_is_monais(size, scales):
    logits, target = smooth_example(size)
    exponents = [e / sum(EXPONENTS[:scales]) for e in EXPONENTS[:scales]]
    theirs = MultiScaleSSIMMetric(len(size), data_range=1.0, kernel_size=11, kernel_sigma=1.5, weights=exponents)
    p, g = logits.softmax(1), one_hot(target)
    # Class by class: MONAI's averages over channels before it takes the powers.
    expected = 1 - torch.stack([theirs(p[:, k : k + 1], g[:, k : k + 1]) for k in (1, 2)]).mean()
    value = ms_ssim_loss(logits, target, luminance="last_scale")
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 41), (20, 21, 14)])
def test_one_scale_is_monais_ssim(size):
    logits, target = smooth_example(size)
    theirs = SSIMMetric(len(size), data_range=1.0, win_size=11, kernel_sigma=1.5)
    expected = 1 - theirs(logits.softmax(1)[:, 1:], one_hot(target)[:, 1:]).mean()
    torch.testing.assert_close(ms_ssim_loss(logits, target, scales=1), expected, rtol=1e-4, atol=1e-5)


def test_luminance_at_every_scale_by_its_definition():
    logits, target = smooth_example((50, 47))
    expected, p, g = torch.ones(2, 2), logits.softmax(1)[:, 1:], one_hot(target)[:, 1:]
    for exponent in EXPONENTS[:3]:
        each = SSIMMetric(2, data_range=1.0, win_size=11, kernel_sigma=1.5)
        of_class = torch.cat([each(p[:, k : k + 1], g[:, k : k + 1]) for k in range(2)], dim=1)
        expected = expected * of_class ** (exponent / sum(EXPONENTS[:3]))
        p, g = F.avg_pool2d(p, 2), F.avg_pool2d(g, 2)
    torch.testing.assert_close(ms_ssim_loss(logits, target), 1 - expected.mean(), rtol=1e-4, atol=1e-5)


def test_ms_ssim_sees_nothing_of_ignored_voxels_at_any_scale():
    logits, target = smooth_example((50, 47))
    marked = target.clone()
    marked[..., 20:30, :] = 9
    other = logits.clone()
    other[..., 20:30, :] = 7 * torch.randn(2, 3, 10, 47)
    loss = MSSSIMLoss(ignore_label=9)
    torch.testing.assert_close(loss(logits, marked), loss(other, marked))
    assert not torch.isclose(loss(logits, target), loss(other, target))
    assert loss(logits, torch.full_like(target, 9)).item() == 0


def test_ms_ssim_of_less_than_nothing_still_pulls():
    target = smooth_example((24, 25))[1]
    logits = (-20 * one_hot(target)).requires_grad_()
    loss = ms_ssim_loss(logits, target)
    loss.backward()
    assert 0.9 < loss.item() < 1
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("options", [{"scales": 0}, {"scales": 6}, {"luminance": "none"}])
def test_ms_ssim_refuses_what_has_no_meaning(options):
    with pytest.raises(ConfigError):
        MSSSIMLoss(**options)


# Compounds

NAMED = {
    "BCE + Dice": (["BinaryCrossEntropyLoss", "DiceLoss"], [BinaryCrossEntropyLoss(), DiceLoss()]),
    "Dice + focal": (["DiceLoss", "FocalLoss"], [DiceLoss(), FocalLoss()]),
    "Dice + MS-SSIM + focal": (["DiceLoss", "MSSSIMLoss", "FocalLoss"], [DiceLoss(), MSSSIMLoss(), FocalLoss()]),
    "IoU + MS-SSIM + focal": (["IoULoss", "MSSSIMLoss", "FocalLoss"], [IoULoss(), MSSSIMLoss(), FocalLoss()]),
    "Dice + CE": (["DiceLoss", "CrossEntropyLoss"], [DiceLoss(), CrossEntropyLoss()]),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_compound_from_a_config_is_the_sum_of_its_terms(name, weighted):
    names, terms = NAMED[name]
    config = {
        "loss": {
            "_target_": "pipeline.losses.CompoundLoss",
            "terms": [{"_target_": f"pipeline.losses.{term}"} for term in names],
            "factors": [1, 0.5, 2][: len(names)],
        }
    }
    loss = ConfigParser(config).get_parsed_content("loss")
    logits, target = smooth_example((24, 25))
    weight = torch.rand(target.shape) if weighted else None
    logits.requires_grad_()
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    expected = sum(f * term(logits, target, weight) for f, term in zip((1, 0.5, 2), terms, strict=False))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    parts = {key: part for term in terms for key, part in term.parts.items()}
    torch.testing.assert_close(loss.parts, parts)


def test_dice_and_cross_entropy_is_the_compound_of_the_two():
    logits, target = example()
    assert DiceCrossEntropy()(logits, target) == CompoundLoss([DiceLoss(), CrossEntropyLoss()])(logits, target)


def test_terms_may_ignore_different_labels_and_come_from_monai():
    logits, target = example()
    target[:, :, 0] = 3
    terms = [DiceLoss(ignore_label=3), FocalLoss(ignore_label=3)]
    expected = sum(term(logits, target) for term in terms)
    assert CompoundLoss(terms)(logits, target) == expected
    target.clamp_(max=2)
    theirs = monai.losses.DiceLoss(include_background=False, **MONAIS)
    mixed = CompoundLoss([theirs, FocalLoss()])
    torch.testing.assert_close(mixed(logits, target), theirs(logits, target) + FocalLoss()(logits, target))
    assert set(mixed.parts) == {"DiceLoss", "focal"}


@pytest.mark.parametrize(("terms", "factors"), [([], None), ([DiceLoss()], [1, 2]), ([DiceLoss(), DiceLoss()], None)])
def test_a_compound_without_a_meaning_is_refused(terms, factors):
    with pytest.raises(ConfigError):
        CompoundLoss(terms, factors)


# The pass that they share


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(24, 25, 20), (9001,)])
def test_blocks_of_the_pass_give_the_gradient_of_the_whole(monkeypatch, weighted, size):
    monkeypatch.setattr("pipeline.losses.softmax_sums._BLOCK", 1)  # the smallest: 4096 voxels
    logits, target = example(size=size)
    target = target.to(torch.uint8)
    logits = logits.double().requires_grad_()
    weight = torch.rand(target.shape).double() if weighted else torch.ones(target.shape).double()
    loss = CompoundLoss([CodedDiceLoss(include_background=True), DiceLoss(squared=True), CrossEntropyLoss()], [1, 2, 3])
    (gradient,) = torch.autograd.grad(loss(logits, target, weight if weighted else None), logits)

    p, g = logits.softmax(1).flatten(2), one_hot(target.long()).double().flatten(2)
    w = weight.flatten(2)
    u = torch.where(g > 0, 0.8, 0.2)
    x, y = u * (2 * p - 1), u * (2 * g - 1)
    coded = 1 - 2 * (w * x * y).sum(2) / (w * (x**2 + y**2)).sum(2)
    squared = 1 - (2 * (w * p * g).sum(2) + 1e-5) / ((w * p * p).sum(2) + (w * g).sum(2) + 1e-5)
    entropy = -(w * g * p.log()).sum() / w.sum()
    naive = coded.mean() + 2 * squared[:, 1:].mean() + 3 * entropy
    torch.testing.assert_close(gradient, torch.autograd.grad(naive, logits)[0])


def test_the_sums_are_what_they_are_called():
    logits, target = example()
    weight = torch.rand(target.shape)
    sums = softmax_sums(logits, target, weight, squares=True)
    p, g, w = logits.softmax(1), one_hot(target), weight
    axes = (2, 3, 4)
    torch.testing.assert_close(sums.overlap, (w * p * g).sum(axes))
    torch.testing.assert_close(sums.predicted, (w * p).sum(axes))
    torch.testing.assert_close(sums.reference, (w * g).sum(axes))
    torch.testing.assert_close(sums.overlap_squared, (w * p * p * g).sum(axes))
    torch.testing.assert_close(sums.predicted_squared, (w * p * p).sum(axes))
    torch.testing.assert_close(sums.log_p, (p * g).sum(1).flatten(1).log())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("voxels", [2**19, 2**22 + 5])
def test_sums_of_many_voxels_do_not_round(weighted, voxels):
    """One block and many: p = 0.3 in every voxel, all of them of the class."""
    logits = torch.tensor([math.log(0.7), math.log(0.3)])[None, :, None].repeat(1, 1, voxels)
    target = torch.ones(1, 1, voxels, dtype=torch.uint8)
    weight = torch.full((1, 1, voxels), 0.7) if weighted else None
    sums = softmax_sums(logits, target, weight, squares=True)
    each = 0.7 if weighted else 1.0
    for found, expected in (
        (sums.overlap[0, 1], 0.3),
        (sums.predicted[0, 1], 0.3),
        (sums.predicted[0, 0], 0.7),
        (sums.reference[0, 1], 1.0),
        (sums.overlap_squared[0, 1], 0.09),
        (sums.predicted_squared[0, 0], 0.49),
    ):
        assert found.item() / voxels == pytest.approx(each * expected, rel=3e-6)
    assert dice_loss(logits, target, weight).item() == pytest.approx(1 - 2 * 0.3 / 1.3, abs=1e-5)


@pytest.mark.parametrize(("ignore_label", "kept"), [(-1, 255), (257, 1), (256, 0)])
def test_an_ignore_label_that_the_targets_type_cannot_hold_ignores_nothing(ignore_label, kept):
    logits, target = example()
    marked = target.clone()
    marked[:, :, 0] = kept
    marked = marked.to(torch.uint8)
    if kept == 255:
        with pytest.raises(LabelError, match="class ids from 0 to 255"):
            DiceCrossEntropy(ignore_label=ignore_label)(logits, marked)
    else:
        found = DiceCrossEntropy(ignore_label=ignore_label)(logits, marked)
        torch.testing.assert_close(found, DiceCrossEntropy()(logits, marked))


def test_a_class_without_logits_is_refused():
    logits, target = example()
    target[0, 0, 0, 0, 0] = 3
    with pytest.raises(LabelError, match=r"class ids from 0 to 3; expected 0 to 2"):
        DiceCrossEntropy()(logits, target)


@pytest.mark.parametrize("loss", [GeneralizedDiceLoss, IoULoss, TverskyLoss, CodedDiceLoss, FocalLoss, MSSSIMLoss])
def test_class_weights_need_one_per_class(loss):
    logits, target = example()
    with pytest.raises(ConfigError, match="class_weights"):
        loss(class_weights=[1.0, 2.0])(logits, target)


ALL = [
    BinaryCrossEntropyLoss,
    CodedDiceLoss,
    CrossEntropyLoss,
    DiceCrossEntropy,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    IoULoss,
    MSSSIMLoss,
    TverskyLoss,
]


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [1.0, math.nan], [math.inf, 1.0]])
@pytest.mark.parametrize("loss", ALL)
def test_class_weights_below_zero_or_not_finite_are_refused(loss, weights):
    with pytest.raises(ConfigError, match=r"class_weights .*expected finite numbers, 0 or above"):
        loss(class_weights=weights)


@pytest.mark.parametrize("loss", ALL)
def test_class_weights_need_one_above_zero_among_the_classes_that_count(loss):
    with pytest.raises(ConfigError, match="expected a weight above 0 for a class that counts"):
        loss(class_weights=[0.0, 0.0])
    logits, target = example(classes=2)
    if loss in (CrossEntropyLoss, FocalLoss):
        assert torch.isfinite(loss(class_weights=[1.0, 0.0])(logits, target))
        return
    with pytest.raises(ConfigError, match="without the background; expected a weight above 0"):
        loss(class_weights=[1.0, 0.0], include_background=False)
    assert torch.isfinite(loss(class_weights=[1.0, 0.0], include_background=True)(logits, target))
    assert torch.isfinite(loss(class_weights=[0.0, 1.0], include_background=False)(logits, target))


@pytest.mark.parametrize("function", [binary_cross_entropy_loss, dice_loss, generalized_dice_loss, ms_ssim_loss])
def test_functions_refuse_class_weights_that_leave_nothing(function):
    logits, target = example(classes=2)
    with pytest.raises(ConfigError, match="a weight above 0"):
        function(logits, target, include_background=False, class_weights=torch.tensor([1.0, 0.0]))
    with pytest.raises(ConfigError, match="0 or above"):
        function(logits, target, class_weights=torch.tensor([-1.0, 3.0]))
