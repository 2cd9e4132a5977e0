"""Regions that overlap: what takes classes to exclude each other can't be used beside them, and is refused."""

from __future__ import annotations

from typing import Any

from monai.transforms import Compose

from pipeline.errors import ConfigError
from pipeline.inference.ensemble import Ensemble
from pipeline.inference.restored import Restored
from pipeline.inference.runtime_memory import PLAIN


def require_for_regions(inferer: Any, network: Any, postprocessing: Any) -> None:
    """Refuse what would give wrong labels where ``Restored(regions=...)`` is in ``postprocessing``.

    An average of probabilities is taken over a softmax, skipped background is class 0, and a runtime is held to the
    most probable class. None of them means anything for regions, each of which has a sigmoid of its own.

    Raises:
        ConfigError: names all settings that have to change.
    """
    steps = postprocessing.transforms if isinstance(postprocessing, Compose) else (postprocessing,)
    if not any(isinstance(step, Restored) and step.regions is not None for step in steps):
        return
    runtime = getattr(inferer, "runtime", None)
    averages = [getattr(inferer, "average", "logits"), network.average if isinstance(network, Ensemble) else "logits"]
    fixes = {
        "average=logits": "probabilities" in averages,
        "skip_background=null": getattr(inferer, "background", None) is not None,
        f"runtime={PLAIN}": runtime is not None and runtime.name != PLAIN,
    }
    wrong = [fix for fix, needed in fixes.items() if needed]
    if wrong:
        names = " and ".join(fix.split("=")[0] for fix in wrong)
        raise ConfigError(
            f"regions that overlap, with {names} made for classes that exclude each other", fix=" ".join(wrong)
        )
