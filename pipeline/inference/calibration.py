"""int8 from a trained network: windows of real cases, and the quantisation that takes its ranges from them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm

from pipeline.errors import DataError
from pipeline.inference.margin import output_margin
from pipeline.inference.openvino_runtime import converted, nncf, save_model
from pipeline.inference.quantized import MODEL


def windows_of(
    images: Sequence[torch.Tensor],
    network: nn.Module,
    inferer: Inferer,
    most: int,
    seed: int = 0,
    progress: bool = True,
) -> list[torch.Tensor]:
    """Windows (1, C, *window) as the inferer cuts them, about as many from each image, drawn at random.

    Args:
        images: prepared ones, (C, *S), one after the other.
        network: asked for its margin and its stride, and not run.
        inferer: a sliding window.
        most: windows in all.
        seed: of the draw.
        progress: show a bar.

    Raises:
        DataError: no windows: there are no images, or nothing in them but constants.
    """
    draw, found = random.Random(seed), []
    of_each = max(1, most // max(1, len(images)))
    for image in tqdm(images, desc="calibration", unit="case", disable=not progress):
        seen = _Recorder(network)
        plain = image.as_tensor() if hasattr(image, "as_tensor") else image
        inferer(plain[None], seen)
        found += draw.sample(seen.windows, min(of_each, len(seen.windows)))
    if not found:
        raise DataError("no windows to calibrate with", expected="at least one training case with content")
    return found[:most]


class _Recorder:
    """What an inferer takes for a network: keeps the windows, and answers zero."""

    def __init__(self, network: nn.Module) -> None:
        self.module = network  # where its margin and stride are looked for
        self.windows: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.windows += [one.clone().cpu() for one in x.split(1)]
        margin = output_margin(self.module, x.ndim - 2)
        return x.new_zeros((len(x), 2, *(n - 2 * m for n, m in zip(x.shape[2:], margin, strict=True))))


def quantise(network: nn.Module, windows: Sequence[torch.Tensor], folder: Path) -> None:
    """Write ``network`` in int8 (OpenVINO) into ``folder``.

    Post-training quantisation by NNCF: 8-bit weights per channel, 8-bit activations in the ranges that the windows
    give, with its fast bias correction. What a leaky rectifier leaves is not symmetric: activations have a zero point
    (preset ``mixed``).

    Args:
        network: in eval mode, on the CPU.
        windows: all of one size, (1, C, *window).

    Raises:
        ConfigError: OpenVINO or NNCF is not installed.
    """
    tool: Any = nncf()
    model = converted(network, windows[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = tool.Dataset([window.contiguous().numpy() for window in windows])
        int8 = tool.quantize(model, data, subset_size=len(windows), preset=tool.QuantizationPreset.MIXED)
    save_model(int8, folder / MODEL)
