"""Intensities on a scale that a network can learn from: one scheme per kind of image, robust against absurd voxels."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from scipy import ndimage

from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.transforms.absent_channels import PRESENT

LEAST_BACKGROUND_SHARE = 0.05
"""From this share of voxels that are exactly 0 on, zero is taken for "outside the body" (air, or a brain mask)."""

_MOST_SAMPLES = 1_000_000


def zero_key(key: Hashable) -> str:
    """Entry of an item, (C,) float32: what an original intensity of 0 has become in each channel of image ``key``.

    >>> zero_key("image")
    'image_zero'
    """
    return f"{key}_zero"


def has_background(channel: np.ndarray) -> bool:
    """Whether 0 stands for "outside the body" in a channel (H, W[, D]): where many voxels are exactly 0."""
    return bool(1 - np.count_nonzero(channel) / channel.size >= LEAST_BACKGROUND_SHARE)


def body_mask(stack: np.ndarray) -> np.ndarray:
    """Which voxels (H, W, D) of a stack (C, H, W, D), or pixels (H, W) of a section, lie inside the body.

    Those that are not 0 in some channel that has a background, and what they enclose within a slice: tissue without any
    flow is 0 in a perfusion map. All, where no channel has a background.
    """
    masked = [channel != 0 for channel in stack if has_background(channel)]
    if not masked:
        return np.ones(stack.shape[1:], bool)
    inside = np.logical_or.reduce(masked)
    if inside.ndim == 2:
        return ndimage.binary_fill_holes(inside)
    return np.stack([ndimage.binary_fill_holes(inside[..., k]) for k in range(inside.shape[-1])], axis=-1)


def z_score(
    channel: np.ndarray, lower: float = 0.05, upper: float = 99.95, inside: np.ndarray | None = None
) -> np.ndarray:
    """(x - mean) / std inside the body, for images without a unit such as MR; the background becomes 0.

    Values are first clipped at two extreme percentiles of the body, so that one damaged voxel can't set the scale.

    Args:
        channel: (H, W, D).
        lower, upper: percentiles, 0..100.
        inside: (H, W, D) which voxels are the body's; by default the channel's own `body_mask`.

    Returns:
        float32 (H, W, D); mean 0 and standard deviation 1 inside the body.

    Raises:
        DataError: a constant channel.
    """
    return _z_score_and_zero(channel, lower, upper, inside)[0]


def _z_score_and_zero(
    channel: np.ndarray, lower: float = 0.05, upper: float = 99.95, inside: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """`z_score`, and where 0 lies on its scale: -mean / std."""
    if inside is None:
        inside = body_mask(channel[None])
    values = channel[inside]
    # A regular sample finds the percentiles of a large volume as well, in a fraction of the time.
    sample = values[:: max(1, values.size // _MOST_SAMPLES)]
    low = high = 0.0
    if sample.size:
        # The voxels next to the percentiles on the inner side: even of a tiny volume the most extreme voxel is left
        # out.
        low = float(np.percentile(sample, lower, method="higher"))
        high = float(np.percentile(sample, upper, method="lower"))
    if not high - low > 1e-6 * max(abs(low), abs(high)):
        where = "the body" if inside.any() and not inside.all() else "the volume"
        raise DataError(
            f"no contrast: {upper - lower:.4g}% of {where} is {low:.6g}",
            expected="an image",
            fix="export the channel again, or leave the case out",
        )
    values = np.clip(values, low, high)
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    result = np.zeros(channel.shape, np.float32)
    result[inside] = (values - mean) / std
    return result, float(-mean / std)


def percentile_scale(
    channel: np.ndarray, lower: float = 0.5, upper: float = 99.0, inside: np.ndarray | None = None
) -> np.ndarray:
    """`z_score` with a tight clip, for perfusion maps, whose vessels and edges reach many times the tissue's values.

    Mean 0 and std 1 inside the brain rather than [0, 1]: with [0, 1] the background and a lesion without flow would
    both be 0; so the background stands at the tissue's mean and makes no false edge.

    Raises:
        DataError: a constant channel.
    """
    return z_score(channel, lower, upper, inside)


def window(channel: np.ndarray, lower_hu: float, upper_hu: float) -> np.ndarray:
    """Clip CT to a window and scale it to [0, 1].

    Raises:
        DataError: nothing inside the window.
    """
    result = ((np.clip(channel, lower_hu, upper_hu) - lower_hu) / (upper_hu - lower_hu)).astype(np.float32)
    if result.min() == result.max():
        raise DataError(
            f"values from {channel.min():.6g} to {channel.max():.6g}",
            expected=f"Hounsfield units around the window {lower_hu:g} to {upper_hu:g}",
            fix="check the rescale slope and intercept of the export",
        )
    return result


def _window_and_zero(channel: np.ndarray, lower_hu: float, upper_hu: float) -> tuple[np.ndarray, float]:
    return window(channel, lower_hu, upper_hu), (0 - lower_hu) / (upper_hu - lower_hu)


_SCHEMES: dict[str, tuple[Callable[..., tuple[np.ndarray, float]], dict[str, float | None]]] = {
    "z_score": (_z_score_and_zero, {"lower": 0.05, "upper": 99.95}),
    "percentile": (_z_score_and_zero, {"lower": 0.5, "upper": 99.0}),  # `percentile_scale`
    "window": (_window_and_zero, {"lower_hu": None, "upper_hu": None}),
}


class NormalizeChannelsd(MapTransform):
    """Normalise each channel of a stack by its own scheme; channels that the case lacks stay 0.

    Where 0 of the original unit has come to lie is kept beside the image, under `zero_key`: what multiplies original
    intensities later, such as `RandPerfusiond`, must know it.

    Args:
        keys: images (C, H, W, D) or (C, H, W).
        channels: the names of the C channels, in order.
        normalization: per channel ``{"scheme": "z_score" | "percentile" | "window", ...}`` with the arguments of
            `z_score`, `percentile_scale` or `window`.

    Raises:
        ConfigError: a channel without a scheme, an unknown scheme or argument, limits in the wrong order.
        DataError: a channel without contrast, naming case and channel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Sequence[str],
        normalization: Mapping[str, Mapping[str, Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = [name.lower() for name in channels]
        schemes = {name.lower(): dict(scheme) for name, scheme in normalization.items()}
        for name in schemes:
            _refuse_unknown("channel", name, self.channels)
        missing = [name for name in self.channels if name not in schemes]
        if missing:
            raise ConfigError(f"no normalization for {', '.join(missing)}", expected="a scheme for every channel")
        self.schemes = [_parsed(name, schemes[name]) for name in self.channels]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            meta = image.meta if isinstance(image, MetaTensor) else {}
            case_id, file = str(item.get("case_id", meta.get("case_id", ""))), meta.get("filename_or_obj")
            if len(image) != len(self.channels):
                raise DataError(f"{len(image)} channels", case=case_id, file=file, expected=", ".join(self.channels))
            array = np.asarray(image, dtype=np.float32)
            result = np.zeros(array.shape, np.float32)
            zeros = np.zeros(len(array), np.float32)
            present = np.broadcast_to(np.asarray(item.get(PRESENT, True), dtype=bool), len(array))
            inside = body_mask(array[present])
            for index, (name, (scheme, arguments)) in enumerate(zip(self.channels, self.schemes, strict=True)):
                if not present[index]:
                    continue
                try:
                    own: dict[str, Any] = dict(arguments)
                    if scheme is not _window_and_zero and has_background(array[index]):
                        own["inside"] = inside
                    result[index], zeros[index] = scheme(array[index], **own)
                except PipelineError as error:
                    raise DataError(
                        f"{error.found} in channel {name}",
                        case=case_id,
                        file=file,
                        expected=error.expected,
                        fix=error.fix,
                    ) from error
            item[key] = convert_to_dst_type(torch.from_numpy(result), dst=image, dtype=torch.float32)[0]
            item[zero_key(key)] = torch.from_numpy(zeros)
        return item


def _parsed(channel: str, scheme: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    name = str(scheme.pop("scheme", ""))
    _refuse_unknown("normalization scheme", name, _SCHEMES)
    function, defaults = _SCHEMES[name]
    for argument in scheme:
        _refuse_unknown(f"argument of {name}", argument, defaults)
    arguments = {key: scheme.get(key, default) for key, default in defaults.items()}
    low, high = arguments.values()
    if low is None or high is None or not low < high:
        raise ConfigError(f"{channel}: {arguments}", expected=f"{' < '.join(arguments)}")
    return function, {key: float(value) for key, value in arguments.items() if value is not None}


def _refuse_unknown(kind: str, name: str, known: Any) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"{kind} {name!r}",
            expected=f"one of {', '.join(known)}",
            fix=f"did you mean {close[0]}?" if close else None,
        )
