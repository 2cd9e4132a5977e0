"""Muon: what it does to matrices, against singular values and torch's own; what is no matrix is AdamW's to the bit."""

import copy

import pytest
import torch

from pipeline.engines import Muon
from pipeline.engines.muon import orthogonal
from pipeline.errors import ConfigError

SHAPES = [(8, 27), (32, 864), (96, 64), (16, 16), (2, 16), (24, 1)]


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 8, 3), torch.nn.InstanceNorm3d(8, affine=True), torch.nn.ReLU(), torch.nn.Conv3d(8, 2, 1)
    )


def step(net, optimizer, seed=0):
    optimizer.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    net(torch.randn(2, 1, 6, 6, 6, generator=generator)).square().mean().backward()
    optimizer.step()


def after_five_rounds(matrix):
    """By singular values, where the gram matrix is never formed."""
    u, s, v = torch.linalg.svd(matrix.double() / matrix.norm(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_pass_through_the_quintic_and_the_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    (result,) = orthogonal([matrix])
    assert result.shape == shape
    torch.testing.assert_close(result.double(), after_five_rounds(matrix), atol=2e-4, rtol=0)


def test_a_gradient_of_few_directions_becomes_one_of_all():
    generator = torch.Generator().manual_seed(2)
    directions = torch.linalg.qr(torch.randn(432, 16, generator=generator))[0].T
    matrix = torch.logspace(0, -2, 16)[:, None] * directions
    (result,) = orthogonal([matrix])
    values = torch.linalg.svdvals(result)
    assert values.max() / values.min() < 2
    torch.testing.assert_close(result.double(), after_five_rounds(matrix), atol=2e-3, rtol=0)


def test_matrices_in_a_batch_are_what_they_are_alone_whatever_their_size():
    generator = torch.Generator().manual_seed(3)
    matrices = [torch.randn(shape, generator=generator) * 10.0**i for i, shape in enumerate(SHAPES * 2)]
    for together, matrix in zip(orthogonal(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonal([matrix])[0], atol=1e-5, rtol=0)


def test_no_gradient_is_no_step_and_a_tiny_one_is_a_whole_step():
    zero, tiny = orthogonal([torch.zeros(4, 9), torch.full((1, 4), 1e-12)])
    assert torch.equal(zero, torch.zeros(4, 9))
    assert tiny.norm().item() == pytest.approx(1, abs=0.35)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has a Muon for matrices from 2.9 on")
def test_matrices_go_where_torch_takes_them():
    ours = torch.nn.Parameter(torch.randn(24, 96, generator=torch.Generator().manual_seed(4)))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimizers = [
        Muon([ours], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    start = ours.detach().clone()
    for i in range(5):
        gradient = torch.randn(24, 96, generator=torch.Generator().manual_seed(i))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    way, their_way = ours.detach() - start, theirs.detach() - start
    assert torch.cosine_similarity(way.flatten(), their_way.flatten(), 0) > 0.999  # theirs iterates in bfloat16
    assert way.norm().item() == pytest.approx(their_way.norm().item(), rel=0.02)


def test_biases_norms_and_the_last_weights_are_adamws_to_the_last_bit():
    ours, theirs = network(), network()
    optimizer = Muon(ours.parameters(), lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for i in range(3):
        step(ours, optimizer, i)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.grad = a.grad.clone()
        adamw.step()
    same = {name: torch.equal(a, b) for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True)}
    assert same == {"0.weight": False} | dict.fromkeys(("0.bias", "1.weight", "1.bias", "3.weight", "3.bias"), True)


def test_a_rare_direction_is_learned_as_early_as_common_ones():
    """Rows of inputs differ a hundredfold in size: the smallest is what AdamW has not learned when Muon has."""
    generator = torch.Generator().manual_seed(5)
    mixing = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    inputs = mixing @ (torch.logspace(0, -2, 16)[:, None] * torch.randn(16, 256, generator=generator))
    wanted = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]

    def error(make):
        weight = torch.nn.Parameter(torch.zeros(16, 16))
        optimizer = make([weight])
        for i in range(200):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - i / 200)
            optimizer.zero_grad()
            ((weight - wanted) @ inputs).square().mean().backward()
            optimizer.step()
        return torch.linalg.norm(weight.detach() - wanted).item()

    muon = error(lambda p: Muon(p, lr=0.05, weight_decay=0.0))
    adamw = error(lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0))
    assert muon < 0.5 * adamw


def test_a_resumed_optimizer_goes_on_to_the_last_bit():
    net = network()
    optimizer = Muon(net.parameters(), lr=0.01)
    step(net, optimizer)
    again = network(seed=9)
    again.load_state_dict(net.state_dict())
    resumed = Muon(again.parameters(), lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for i in (1, 2):
        step(net, optimizer, i)
        step(again, resumed, i)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_weight_that_learns_nothing_does_not_drift_on_its_momentum():
    weight = torch.nn.Parameter(torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(6)))
    optimizer = Muon([weight], lr=0.01, weight_decay=0.0)
    weight.grad = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(7))
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(weight, before)


def test_the_layout_of_weights_in_memory_changes_no_step():
    nets = [network(), network().to(memory_format=torch.channels_last_3d)]
    assert nets[1][0].weight.shape == nets[0][0].weight.shape
    for net in nets:
        optimizer = Muon(net.parameters(), lr=0.01)
        for i in range(3):
            step(net, optimizer, i)
    torch.testing.assert_close(nets[1][0].weight, nets[0][0].weight, atol=1e-5, rtol=0)


def test_what_got_no_gradient_stays_and_a_closure_is_answered():
    net = network()
    frozen = net[0].weight.requires_grad_(False)
    before = frozen.detach().clone()
    optimizer = Muon(net.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(1, 1, 5, 5, 5)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert torch.equal(frozen, before)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1), ("momentum", 1.0), ("betas", (0.9, 1.0)), ("betas", [0.9]), ("weight_decay", -0.1)]
)
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        Muon(network().parameters(), **{name: value})
