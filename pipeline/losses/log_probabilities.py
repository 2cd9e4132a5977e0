"""What every loss on class ids starts from: log-probabilities and the target, flattened and checked once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from pipeline.errors import ConfigError


class LogProbabilities(NamedTuple):
    """Log-softmax of the logits beside the target; N voxels of each of B samples, K classes.

    Attributes:
        of_classes: log p, (B, K, N), float32 or float64.
        of_target: log p of the target's class, (B, N).
        target: class ids, (B, N), int64; 0 where a voxel is ignored.
        weight: weight of each voxel, 0 where it is ignored, (B, N); None where all count 1.
    """

    of_classes: torch.Tensor
    of_target: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None


def log_probabilities(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_label: int | None
) -> LogProbabilities:
    """Prepare a loss: float32 or better under any autocast, so that sums over a volume neither overflow nor round away.

    Args:
        logits: (B, K, *S), K two or more, the background being class 0.
        target: (B, 1, *S), integer-valued of any dtype.
        weight: per voxel, (B, 1, *S), or None.
        ignore_label: id of voxels that count for nothing, or None.

    Raises:
        ConfigError: shapes that do not fit together, or a single class, over which a softmax is 1 whatever the logit.
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
    logits, ids = logits.as_subclass(torch.Tensor), target.as_subclass(torch.Tensor).flatten(1).long()
    voxel_weight = None if weight is None else weight.as_subclass(torch.Tensor).flatten(1)
    if ignore_label is not None:
        keep = ids != ignore_label
        ids = torch.where(keep, ids, 0)
        voxel_weight = keep.to(torch.float32) if voxel_weight is None else voxel_weight * keep
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    of_classes = F.log_softmax(exact.flatten(2), dim=1)
    if voxel_weight is not None:
        voxel_weight = voxel_weight.to(of_classes.dtype)
    return LogProbabilities(of_classes, -F.nll_loss(of_classes, ids, reduction="none"), ids, voxel_weight)


def class_weight_tensor(class_weights: list[float] | torch.Tensor | None) -> torch.Tensor | None:
    """Weights as a float32 tensor (K,), from a config's list."""
    return None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)


def check_class_weights(class_weights: torch.Tensor | None, classes: int) -> None:
    """Raises ConfigError unless there is one weight per class, the background included."""
    if class_weights is not None and class_weights.shape != (classes,):
        raise ConfigError(
            f"class_weights of shape {tuple(class_weights.shape)}",
            expected=f"{classes} of them, one per class, the background included",
        )
