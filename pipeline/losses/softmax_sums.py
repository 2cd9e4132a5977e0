"""What the losses on softmax probabilities are made of, from one pass over the logits and one over their gradient.

Dice, IoU, Tversky and their relatives are ratios of a few sums per class; cross-entropy and focal loss are sums of a
function of the target's own probability. `softmax_sums` gives both, so that any of them, or several at once, cost one
log-softmax and one pass of gradient, where one-hot targets and products of whole volumes would cost a dozen. On a CPU
memory traffic is what such a loss costs; so both passes go through the volume in blocks that stay in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError, LabelError

_BLOCK = 2**18
"""Probabilities in a block: 1 MiB of them as float32, about half of a core's second-level cache. Up to four times as
many go through in one: blocks of so few would cost more than they save."""


class SoftmaxSums(NamedTuple):
    """Sums over the N voxels i of each of B samples, with p_ik the softmax probability of class k, g_ik 1 where the
    target is k and else 0, w_i the voxel's weight. All float32, or float64 for float64 logits.

    Attributes:
        log_p: log of the target's own probability, (B, N).
        target: class ids, (B, N), integers of any type; 0 where a voxel is ignored.
        weight: w, (B, N), 0 where a voxel is ignored; None where all are 1.
        counted: voxels that are not ignored, of the whole batch, a scalar.
        overlap: sum of w p g, (B, K).
        predicted: sum of w p, (B, K).
        reference: sum of w g, (B, K).
        overlap_squared: sum of w p^2 g, (B, K); zeros unless asked for, as the next.
        predicted_squared: sum of w p^2, (B, K).
    """

    log_p: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    counted: torch.Tensor
    overlap: torch.Tensor
    predicted: torch.Tensor
    reference: torch.Tensor
    overlap_squared: torch.Tensor
    predicted_squared: torch.Tensor


def softmax_sums(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    ignore_label: int | None = None,
    *,
    ratios: bool = True,
    squares: bool = False,
) -> SoftmaxSums:
    """The sums, in float32 or better under any autocast, so that they neither overflow nor round away.

    Args:
        logits: (B, K, *S), K two or more, the background being class 0.
        target: (B, 1, *S), integer-valued of any dtype.
        weight: per voxel, (B, 1, *S), 0 or above, or None; no gradient reaches it.
        ignore_label: id of voxels that count for nothing, or None.
        ratios: whether the sums per class are needed; without, they are zeros.
        squares: whether those of squared probabilities are.

    Raises:
        ConfigError: shapes that do not fit together, or a single class, over which a softmax is 1 whatever the logit.
        LabelError: on a CPU, a class id that has no logits.
    """
    logits, ids, weight, counted = checked(logits, target, weight, ignore_label)
    flat = logits.flatten(2)
    try:
        sums = _SoftmaxSums.apply(flat, ids, weight, ratios or squares, squares)
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error):
            raise
        raise LabelError(
            f"class ids from {ids.min().item():g} to {ids.max().item():g}",
            expected=f"0 to {logits.shape[1] - 1}: there are {logits.shape[1]} channels of logits",
            fix="set out_channels to the number of classes, or ignore_label",
        ) from error
    return SoftmaxSums(sums[0], ids, weight, counted, *sums[1:])


def checked(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_label: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Logits (B, K, *S), class ids (B, N), weight (B, N) or None, number of voxels that count.

    Raises:
        ConfigError: as `softmax_sums`.
    """
    if target.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ConfigError(
            f"logits of shape {tuple(logits.shape)} with a target of shape {tuple(target.shape)}",
            expected="logits (B, K, *S) and class ids (B, 1, *S)",
        )
    if weight is not None and weight.shape != target.shape:
        raise ConfigError(f"a weight of shape {tuple(weight.shape)}", expected=f"the target's, {tuple(target.shape)}")
    if logits.shape[1] < 2:
        raise ConfigError("logits with one channel", expected="one channel per class, the background included")

    # A subclass (MONAI's MetaTensor) would pass through its own Python code at every operation.
    logits, ids = logits.as_subclass(torch.Tensor), target.as_subclass(torch.Tensor).flatten(1)
    exact = torch.promote_types(logits.dtype, torch.float32)
    weights = None if weight is None else weight.detach().as_subclass(torch.Tensor).flatten(1).to(exact)
    if ignore_label is None:
        return logits, ids, weights, torch.tensor(float(ids.numel()), device=ids.device, dtype=exact)
    keep = ids.long() != ignore_label  # in a type of few bits, -1 would be 255
    weights = keep.to(exact) if weights is None else weights * keep
    return logits, torch.where(keep, ids, 0), weights, keep.sum(dtype=exact)


class _SoftmaxSums(torch.autograd.Function):
    """(B, K, N) logits -> `SoftmaxSums`'s log_p, overlap, predicted, reference, overlap_squared, predicted_squared.

    With L the loss, h_i = dL/d log_p_i, t the target's class of voxel i, and a_k, b_k, c_k, d_k the derivatives by
    class k's overlap, predicted, overlap_squared and predicted_squared:

        u_i  = h_i + w_i (a_t p_it + 2 c_t p_it^2)
        v_ik = w_i (b_k + 2 d_k p_ik)
        dL/dz_ik = p_ik (v_ik - u_i - sum_j p_ij v_ij) + g_ik u_i
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, ids: torch.Tensor, weight: Any, ratios: bool, squares: bool) -> Any:
        batch, classes, voxels = logits.shape
        exact = torch.promote_types(logits.dtype, torch.float32)
        # overlap, predicted, reference, overlap_squared, predicted_squared. A CPU adds up the sums of many blocks: in
        # float64, so that it rounds nothing away.
        in_blocks = torch.float64 if logits.device.type == "cpu" else exact
        sums = logits.new_zeros((5, batch, classes), dtype=in_blocks)
        ctx.block = _block(logits)
        in_one = ctx.block >= voxels  # then nothing is copied together
        p = logits.new_empty((0,) if in_one else logits.shape, dtype=exact)
        log_p = p.new_empty((0,) if in_one else (batch, voxels))
        # Autocast would multiply matrices in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            for start in range(0, voxels, ctx.block):
                part = slice(start, start + ctx.block)
                target = ids[:, part].long()
                all_log_p = F.log_softmax(logits[:, :, part], dim=1, dtype=exact)
                own_log_p = all_log_p.gather(1, target[:, None])[:, 0]
                block_p = all_log_p.exp_()
                if in_one:
                    p, log_p = block_p, own_log_p
                else:
                    p[:, :, part], log_p[:, part] = block_p, own_log_p
                if ratios:
                    w = None if weight is None else weight[:, part]
                    own = own_log_p.exp()
                    weighted = own if w is None else own * w
                    sums[0] += _per_class(weighted, target, classes)
                    sums[1] += _over_voxels(block_p, w)
                    sums[2] += _per_class(torch.ones_like(own) if w is None else w, target, classes)
                    if squares:
                        sums[3] += _per_class(weighted * own, target, classes)
                        sums[4] += _over_voxels(block_p**2, w)
        ctx.ratios, ctx.squares, ctx.kind = ratios, squares, logits.dtype
        ctx.save_for_backward(p, log_p, ids, weight)
        outputs = (log_p, *(each.to(exact, copy=True) for each in sums))
        ctx.mark_non_differentiable(outputs[3])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, h: torch.Tensor, *of_sums: torch.Tensor) -> Any:
        p, log_p, ids, weight = ctx.saved_tensors
        a, b, _, c, d = of_sums
        in_one = ctx.block >= p.shape[2]
        gradient = p.new_empty((0,) if in_one else p.shape, dtype=ctx.kind)
        with torch.autocast(p.device.type, enabled=False):
            for start in range(0, p.shape[2], ctx.block):
                part = slice(start, start + ctx.block)
                block_p, target = p[:, :, part], ids[:, part].long()
                u = h[:, part]
                if not ctx.ratios:
                    block = -u[:, None] * block_p
                else:
                    w = None if weight is None else weight[:, None, part]
                    own = log_p[:, part].exp()
                    of_own = a.gather(1, target).mul_(own)
                    v = b[:, :, None]
                    if ctx.squares:
                        of_own.addcmul_(c.gather(1, target).mul_(own), own, value=2)
                        v = torch.addcmul(v, d[:, :, None], block_p, value=2)
                    if w is not None:
                        of_own.mul_(w[:, 0])
                        v = v * w
                    u = of_own.add_(u)
                    # Where v is the same in every voxel, the mean over classes is a product of matrices.
                    same = w is None and not ctx.squares
                    mean = torch.bmm(b[:, None], block_p) if same else (block_p * v).sum(1, keepdim=True)
                    block = torch.sub(v, mean.add_(u[:, None])).mul_(block_p)
                block.scatter_add_(1, target[:, None], u[:, None])
                if in_one:
                    gradient = block.to(ctx.kind)
                else:
                    gradient[:, :, part] = block
        return gradient, None, None, None, None


def _block(logits: torch.Tensor) -> int:
    """Voxels of a block: few enough for a CPU's cache; all of them on a GPU, where each operation costs its start."""
    batch, classes, voxels = logits.shape
    if logits.device.type != "cpu" or logits.numel() <= 4 * _BLOCK:
        return max(1, voxels)
    return max(4096, _BLOCK // (batch * classes))


def _per_class(values: torch.Tensor, target: torch.Tensor, classes: int) -> torch.Tensor:
    """Sum of (B, n) values over the voxels of each class, (B, K)."""
    if values.device.type == "cpu":
        # One after the other: in float32, half a million of them would be wrong by 0.5 %.
        zeros = values.new_zeros((len(values), classes), dtype=torch.float64)
        return zeros.scatter_add_(1, target, values.double())
    # Many threads adding to few numbers would wait for each other, and in an order that no run repeats.
    return torch.stack([(values * (target == k)).sum(1) for k in range(classes)], dim=1)


def _over_voxels(values: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Sum of (B, K, n) values over the voxels, each times its weight, (B, K)."""
    if weight is None:
        return values.sum(2)
    if values.device.type == "cpu":
        # Torch's sum adds pairs of pairs; a product of matrices adds one after the other, and is no faster.
        return (values * weight[:, None]).sum(2)
    return torch.bmm(values, weight[:, :, None])[:, :, 0]
