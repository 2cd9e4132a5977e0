"""Whether values are numbers: what a network says from broken weights, or beyond what half precision holds, is none."""

from __future__ import annotations

import torch


def all_finite(values: torch.Tensor) -> bool:
    """No NaN and no infinity, for the price of a sum; each value is looked at only where that is not finite.

    >>> all_finite(torch.tensor([1e38, 3e38])), all_finite(torch.tensor([0.0, float("nan")]))
    (True, False)
    """
    return bool(values.sum(dtype=torch.float32).isfinite()) or bool(values.isfinite().all())
