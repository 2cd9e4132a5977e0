"""Multi-scale structural similarity of probabilities and target, as a loss: what a border looks like, not where it is.

Huang et al., UNet 3+, ICASSP 2020 (arXiv 2004.08790), section 2.2, eq. 2, after Wang, Simoncelli & Bovik, Multiscale
structural similarity for image quality assessment, Asilomar 2003 (sections 3 and 4: scales and their exponents), and
Wang et al., IEEE TIP 2004 (the Gaussian window).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.errors import ConfigError
from pipeline.losses.class_loss import check_class_weights, class_weight_tensor, mean_over_classes
from pipeline.losses.softmax_sums import checked

C1, C2 = 0.01**2, 0.03**2
"""What keeps the ratios finite; for values between 0 and 1."""

WINDOW, SIGMA = 11, 1.5
"""Side of the Gaussian window and its standard deviation, voxels."""

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang et al. 2003, section 4)."""

LOW = 0.05
"""Below this a scale's similarity, which may be negative, goes on as LOW exp(x / LOW - 1): a fractional power of a
negative number is none, and a clamp would leave the worst predictions without a gradient."""


def ms_ssim_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    scales: int = 5,
    luminance: str = "every_scale",
    include_background: bool = False,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    r"""One minus MS-SSIM, averaged over classes and over the samples of the batch.

    .. math:: L_k = 1 - \prod_{m=1}^M \left[ \overline{
        \frac{2 \mu_p \mu_g + C_1}{\mu_p^2 + \mu_g^2 + C_1} \cdot
        \frac{2 \sigma_{pg} + C_2}{\sigma_p^2 + \sigma_g^2 + C_2} } \right]^{\beta_m}

    with p the softmax probability of class k and g 1 where it is the target; mu, sigma^2 and sigma_pg their means,
    variances and covariance under a Gaussian window of 11 voxels a side, wherever it lies wholly inside; the bar is the
    mean over those places. From scale m to the next both are averaged over blocks of 2 voxels along every axis.

    **Scales.** Five, or as many as fit: at every scale the window must fit into each axis, so 5 scales need 176 voxels
    along the shortest axis, 4 need 88, 3 need 44, 2 need 22 (`scales_that_fit`). The exponents of those used are scaled
    to a sum of 1. Where an axis is shorter than the window, there is one scale, and the window is as long as the axis.

    **Weights.** A voxel's weight is a factor in every window that holds the voxel, in the means over blocks, and,
    summed over its window, of a place in the mean: a voxel of weight 0 is as if it were not there.

    Args:
        logits: (B, K, *S), 2D or 3D.
        target: class ids, (B, 1, *S).
        weight: per voxel, (B, 1, *S), 0 or above.
        scales: M, 1 to 5.
        luminance: the first of the two ratios at ``"every_scale"``, as UNet 3+ has it, or at the ``"last_scale"``
            alone, as Wang et al. and MONAI's metric have it.
        include_background: count class 0 as well.
        class_weights: one per class, (K,), 0 or above, the background included; the mean over classes is
            weighted by them.
        ignore_label: id of voxels that count for nothing.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ConfigError: scales out of range, an unknown luminance, shapes that do not fit together.

    >>> target = torch.zeros(1, 1, 16, 16)
    >>> target[:, :, 4:12, 4:12] = 1
    >>> right = 40 * torch.cat([0.5 - target, target - 0.5], dim=1)
    >>> round(ms_ssim_loss(right, target).item(), 4)
    0.0
    """
    _check(scales, luminance)
    check_class_weights(class_weights, logits.shape[1], include_background)
    logits, ids, voxel_weight, _ = checked(logits, target, weight, ignore_label)
    first, size = 0 if include_background else 1, logits.shape[2:]
    exact = torch.promote_types(logits.dtype, torch.float32)
    # Autocast would multiply matrices in half precision.
    with torch.autocast(logits.device.type, enabled=False):
        p = F.softmax(logits, dim=1, dtype=exact)[:, first:]
        classes = torch.arange(first, logits.shape[1], device=ids.device, dtype=ids.dtype)
        g = (ids[:, None] == classes[:, None]).to(exact).reshape(p.shape)
        w = None if voxel_weight is None else voxel_weight.reshape(len(p), 1, *size)
        similarity = _ms_ssim(p, g, w, min(scales, scales_that_fit(size)), luminance)
    return mean_over_classes(1 - similarity, True, None if class_weights is None else class_weights[first:])


def scales_that_fit(size: Sequence[int]) -> int:
    """Number of scales, 1 to 5, at which the window fits into every axis.

    >>> [scales_that_fit(size) for size in ((512, 512), (40, 56, 40), (128, 128, 9))]
    [5, 2, 1]
    """
    return next((m for m in range(len(EXPONENTS), 1, -1) if min(size) // 2 ** (m - 1) >= WINDOW), 1)


def _ms_ssim(p: torch.Tensor, g: torch.Tensor, w: torch.Tensor | None, scales: int, luminance: str) -> torch.Tensor:
    """(B, K, *S) twice, and (B, 1, *S) or None, -> (B, K)."""
    pool = F.avg_pool2d if p.ndim == 4 else F.avg_pool3d
    log_similarity = p.new_zeros(p.shape[:2])
    for scale in range(scales):
        if scale and w is None:
            p, g = pool(p, 2), pool(g, 2)
        elif scale and w is not None:
            coarse = pool(w, 2)
            p, g, w = _ratio(pool(p * w, 2), coarse), _ratio(pool(g * w, 2), coarse), coarse
        light = luminance == "every_scale" or scale == scales - 1
        similarity = _similarity(p, g, w, light)
        exponent = EXPONENTS[scale] / sum(EXPONENTS[:scales])
        low = LOW * torch.exp(similarity.clamp_max(LOW) / LOW - 1)
        log_similarity = log_similarity + exponent * torch.where(similarity > LOW, similarity, low).log()
    return log_similarity.exp()


def _similarity(p: torch.Tensor, g: torch.Tensor, w: torch.Tensor | None, light: bool) -> torch.Tensor:
    """The bar of the formula at one scale, (B, K); without the first ratio unless ``light``."""
    bands = [_band(n, p) for n in p.shape[2:]]
    around = None if w is None else _smooth(w, bands)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return _smooth(values, bands) if w is None or around is None else _ratio(_smooth(values * w, bands), around)

    mu_p, mu_g = mean(p), mean(g)
    variances = mean(p * p + g * g) - mu_p**2 - mu_g**2
    result = (2 * (mean(p * g) - mu_p * mu_g) + C2) / (variances + C2)
    if light:
        result = result * (2 * mu_p * mu_g + C1) / (mu_p**2 + mu_g**2 + C1)
    if around is None:
        return result.flatten(2).mean(2)
    places = around.flatten(2)
    total = places.sum(2)
    # Nothing counts: nothing is wrong.
    return torch.where(total > 0, _ratio((result.flatten(2) * places).sum(2), total), 1)


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a / b, 0 where b is."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


def _band(size: int, like: torch.Tensor) -> torch.Tensor:
    """The window along one axis as a matrix (places, size): on a CPU faster than a convolution with one channel."""
    window = min(WINDOW, size)
    taps = torch.arange(window, device=like.device, dtype=like.dtype) - (window - 1) / 2
    taps = torch.exp(-(taps**2) / (2 * SIGMA**2))
    rows = torch.arange(size - window + 1, device=like.device)[:, None]
    band = like.new_zeros((len(rows), size))
    band[rows, rows + torch.arange(window, device=like.device)] = taps / taps.sum()
    return band


def _smooth(values: torch.Tensor, bands: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weighted means of (B, K, *S) under the window, axis by axis, at every place where it fits."""
    batch, classes = values.shape[:2]
    done = batch * classes
    for axis, band in enumerate(bands, start=2):
        rest = values.shape[axis + 1 :].numel()
        shape = (*values.shape[:axis], len(band), *values.shape[axis + 1 :])
        flat = values.reshape(done, values.shape[axis], rest)
        values = (flat[..., 0] @ band.T if rest == 1 else band @ flat).reshape(shape)
        done *= len(band)
    return values


def _check(scales: int, luminance: str) -> None:
    if not 1 <= scales <= len(EXPONENTS):
        raise ConfigError(f"scales={scales}", expected=f"1 to {len(EXPONENTS)}")
    if luminance not in ("every_scale", "last_scale"):
        raise ConfigError(f"luminance={luminance!r}", expected="every_scale or last_scale")


class MSSSIMLoss(nn.Module):
    """:func:`ms_ssim_loss` as a module; ``parts`` holds its last value as ``ms_ssim``."""

    def __init__(
        self,
        scales: int = 5,
        luminance: str = "every_scale",
        include_background: bool = False,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        _check(scales, luminance)
        self.scales, self.luminance, self.include_background = scales, luminance, include_background
        self.class_weights: torch.Tensor | None
        self.register_buffer("class_weights", class_weight_tensor(class_weights, include_background), persistent=False)
        self.ignore_label = ignore_label
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        loss = ms_ssim_loss(
            logits,
            target,
            weight,
            scales=self.scales,
            luminance=self.luminance,
            include_background=self.include_background,
            class_weights=self.class_weights,
            ignore_label=self.ignore_label,
        )
        self.parts = {"ms_ssim": loss.detach()}
        return loss
