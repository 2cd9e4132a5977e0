import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from pipeline.errors import ConfigError
from pipeline.losses import CrossEntropyLoss, DeepSupervision, DiceCrossEntropy
from pipeline.losses.deep_supervision import nearest


class Recorder(nn.Module):
    """A loss that returns 1, 10, 100... so that a sum shows the factors, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, logits, target, weight=None):
        self.calls.append((logits, target, weight))
        return torch.tensor(10.0 ** (len(self.calls) - 1))


def levels(*sizes):
    return [torch.zeros(1, 2, *size) for size in sizes]


def test_default_weights_halve_and_sum_to_one():
    target = torch.zeros(1, 1, 8, 8)
    value = DeepSupervision(Recorder())(levels((8, 8), (4, 4), (2, 2)), target)
    assert value.item() == pytest.approx(4 / 7 + 10 * 2 / 7 + 100 / 7)


def test_given_weights_stand_as_they_are():
    value = DeepSupervision(Recorder(), weights=[2, 0.5])(levels((4,), (2,)), torch.zeros(1, 1, 4))
    assert value.item() == 2 + 5
    with pytest.raises(ConfigError, match="1 deep-supervision weights for 2 levels"):
        DeepSupervision(Recorder(), weights=[1])(levels((4,), (2,)), torch.zeros(1, 1, 4))


def test_a_tensor_goes_straight_to_the_loss():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 1, 4, 4))
    assert DeepSupervision(CrossEntropyLoss(), weights=[0.3, 0.1])(logits, target) == CrossEntropyLoss()(logits, target)


def test_parts_are_those_of_full_resolution():
    torch.manual_seed(0)
    logits, target = [torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)], torch.randint(2, (1, 1, 4, 4))
    loss, plain = DeepSupervision(DiceCrossEntropy()), DiceCrossEntropy()
    loss(logits, target)
    plain(logits[0], target)
    assert loss.parts == plain.parts


def test_it_takes_a_loss_of_monai():
    torch.manual_seed(0)
    logits, target = [torch.randn(1, 3, 4, 4), torch.randn(1, 3, 2, 2)], torch.randint(3, (1, 1, 4, 4))
    loss = DeepSupervision(DiceCELoss(include_background=False, to_onehot_y=True, softmax=True))
    torch.testing.assert_close(loss(logits, target), DeepSupervision(DiceCrossEntropy())(logits, target))
    assert loss.parts == {}


def test_each_level_sees_the_full_resolution_target_at_its_own_voxels_centres():
    loss = Recorder()
    target = torch.arange(16)[None, None]
    weight = target + 100.0
    DeepSupervision(loss)(levels((16,), (8,), (4,), (2,)), target, weight)
    assert [call[1].flatten().tolist() for call in loss.calls[1:]] == [
        [1, 3, 5, 7, 9, 11, 13, 15],
        [2, 6, 10, 14],
        [4, 12],
    ]
    assert loss.calls[2][2].flatten().tolist() == [102, 106, 110, 114]


def test_an_axis_that_keeps_its_size_loses_nothing():
    target = torch.zeros(1, 1, 4, 4, 5, dtype=torch.long)
    target[..., 2] = 1  # a label one slice thick
    coarse = nearest(target, (2, 2, 5))
    assert coarse.sum(dim=(2, 3)).flatten().tolist() == [0, 0, 4, 0, 0]


@pytest.mark.parametrize(("fine", "coarse"), [(9, 3), (10, 5), (7, 3), (12, 3), (5, 2)])
def test_sampling_is_torchs_exact_nearest(fine, coarse):
    values = torch.arange(float(fine))[None, None]
    expected = torch.nn.functional.interpolate(values, size=coarse, mode="nearest-exact")
    assert torch.equal(nearest(values, [coarse]), expected)


def test_equal_weights_for_branches_of_one_resolution():
    value = DeepSupervision(Recorder(), weights="equal")(levels((4, 4), (4, 4)), torch.zeros(1, 1, 4, 4))
    assert value.item() == pytest.approx((1 + 10) / 2)
    with pytest.raises(ConfigError, match="halved, equal"):
        DeepSupervision(Recorder(), weights="mean")
