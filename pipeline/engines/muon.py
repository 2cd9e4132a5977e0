"""Muon: momentum whose direction is made orthogonal, matrix by matrix, before it moves the weights.

Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024 (kellerjordan.github.io/posts/muon); the
length of a step is that of Liu et al., Muon is Scalable for LLM Training, 2025 (arXiv 2502.16982), section 2.2.

A gradient of a convolution is dominated by few directions, those that the first features share; Adam evens out single
weights and leaves that as it is. An orthogonal step goes as far in every direction, so that rare features are learned
as early as common ones. Where a training lasts hundreds of steps, as on a CPU, that decides how good it gets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw

from pipeline.errors import ConfigError

# Jordan's quintic a s + b s^3 + c s^5: five times over, it brings singular values from 0.0015 to 1 into 0.68 to 1.21.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_FEWEST_ROWS = 8  # and columns: what has fewer has few directions, so there is nothing among them to even out
_ADAMW_RMS = 0.2  # of AdamW's usual step per weight, which an orthogonal step is scaled to (Liu 2025, equation 4)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions and linear layers, AdamW for biases, norms and matrices of few rows.

    A weight (out, in, *kernel) counts as a matrix of ``out`` rows. With fewer than 8 rows or columns (nearly always the
    last convolutions, one row per class, which Jordan leaves to AdamW too) it is AdamW's. ``torch.optim.Muon`` takes
    2D matrices alone.

    A step is as long as one of AdamW at the same learning rate. Two to three times AdamW's best rate is a good one.

    Args:
        params: parameters, ``network.parameters()``.
        lr: learning rate of both.
        weight_decay: decoupled from the gradient: each step shrinks every parameter by ``lr * weight_decay`` of itself.
        momentum: of Muon, 0 to 1 (Nesterov's).
        betas: of AdamW.

    Raises:
        ConfigError: a number outside its range.

    >>> network = torch.nn.Conv3d(1, 8, 3)
    >>> optimizer = Muon(network.parameters(), lr=0.01, weight_decay=0.0)
    >>> before = network.weight.detach().clone()
    >>> network(torch.randn(1, 1, 8, 8, 8)).square().mean().backward()
    >>> optimizer.step()
    >>> step = (network.weight - before).detach()
    >>> round(step.square().mean().sqrt().item() / 0.01, 1)  # as long as one of AdamW
    0.2
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 0.005,
        weight_decay: float = 0.001,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ConfigError(f"the optimizer's {name} {value}", expected="0 or more")
        if not 0 <= momentum < 1:
            raise ConfigError(f"the optimizer's momentum {momentum}", expected="from 0 to below 1")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"the optimizer's betas {betas}", expected="two numbers from 0 to below 1")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": tuple(betas),
            "orthogonal": False,
        }
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for parameter in params:
            (matrices if is_matrix(parameter) else others).append(parameter)
        groups = [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; returns what ``closure``, which computes them, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                (self._orthogonal_step if group["orthogonal"] else self._adamw_step)(weights, group)
        return loss

    def _orthogonal_step(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        gradients = [_gradient(weight) for weight in weights]
        momenta = [self._state(weight, "momentum_buffer") for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
        steps = orthogonal([direction.flatten(1) for direction in directions])
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        # Where nothing was learned (the encoder of an absent channel), old momentum would go on at full length.
        learned = [norm.ne(0).to(norm.dtype) for norm in torch._foreach_norm(gradients)]
        for weight, step, moved in zip(weights, steps, learned, strict=True):
            # An orthogonal matrix has an RMS of 1 / sqrt(its longer side).
            length = group["lr"] * _ADAMW_RMS * max(step.shape) ** 0.5
            weight.addcmul_(step.view_as(weight), moved, value=-length)

    def _adamw_step(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for weight in weights:
            self.state[weight].setdefault("step", torch.tensor(0.0))
        adamw(
            weights,
            [_gradient(weight) for weight in weights],
            [self._state(weight, "exp_avg") for weight in weights],
            [self._state(weight, "exp_avg_sq") for weight in weights],
            [],
            [self.state[weight]["step"] for weight in weights],
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )

    def _state(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        state = self.state[weight]
        if name not in state:
            state[name] = torch.zeros_like(weight)
        return state[name]


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether a parameter is stepped as a matrix.

    >>> [is_matrix(torch.empty(shape)) for shape in [(16, 3, 3, 3, 1), (2, 16, 1, 1, 1), (64,), (64, 1, 3, 3, 1)]]
    [True, False, False, True]
    """
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= _FEWEST_ROWS


def orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each matrix with its singular values brought close to 1 (those below 0.0015 of its norm to less).

    Jordan's iteration is an odd polynomial of a matrix M: q(M M') M. So its five rounds are made on the small M M', and
    M itself, of a convolution easily thirty times as long as wide, is multiplied twice. What has the same shorter side
    goes in one batch: the matrices of a network are small and many.

    Args:
        matrices: (rows, columns) each.

    Returns:
        Matrices of the same shapes; zero where a matrix was.

    >>> step, = orthogonal([torch.randn(16, 432)])
    >>> values = torch.linalg.svdvals(step)
    >>> bool(values.min() > 0.6), bool(values.max() < 1.2)
    (True, True)
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    alike: dict[int, list[int]] = defaultdict(list)
    for i, matrix in enumerate(wide):
        alike[matrix.shape[0]].append(i)
    factors: dict[int, torch.Tensor] = {}
    for places in alike.values():
        factors |= zip(places, _factors(torch.stack([wide[i] @ wide[i].T for i in places])), strict=True)
    steps = [factors[i] @ matrix for i, matrix in enumerate(wide)]
    return [step if step.shape == matrix.shape else step.T for step, matrix in zip(steps, matrices, strict=True)]


def _factors(gram: torch.Tensor) -> torch.Tensor:
    """q(M M' / |M|^2) / |M| of a batch of M M', (N, n, n)."""
    dtype = gram.dtype
    if gram.is_cuda:
        # With TF32 in these products, where it is on, small eigenvalues become negative, and those grow without bound.
        gram = gram.double()
    a, b, c = _QUINTIC
    # Of no gradient at all the step is none; the squares of smaller numbers are not float32's.
    norm = gram.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()[:, None, None].clamp_min(1e-18)
    gram = gram / norm / norm
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)

    def quintic(gram: torch.Tensor) -> torch.Tensor:
        return a * identity + b * gram + c * (gram @ gram)

    factor = quintic(gram)
    latest = factor
    for _ in range(_ITERATIONS - 1):
        gram = latest @ gram @ latest
        latest = quintic(gram)
        factor = latest @ factor
    return (factor / norm).to(dtype)


def _gradient(weight: torch.Tensor) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad
