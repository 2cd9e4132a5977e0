"""`load_bundle`: a bundle as a function, for notebooks and servers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.bundle.inference import Inference
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from pipeline.geometry import Grid


class Segmentation(NamedTuple):
    """A result.

    Args:
        labels: class ids (H, W, D), uint8 (int16 above 256 classes); of a section (H, W). Of a bundle of ``instances``
            the numbers of the objects, int32.
        grid: the grid of the image, on which they are.
    """

    labels: np.ndarray
    grid: Grid


def load_bundle(
    bundle: str | PathLike[str],
    *,
    weights: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> Segmenter:
    """A bundle with its weights, ready to segment.

    >>> import numpy as np
    >>> from pipeline.geometry import Grid
    >>> segment = load_bundle("hippocampus_mri_segmentation", device="cpu")
    >>> segment.channels, segment.classes
    (('mri',), {1: 'anterior', 2: 'posterior'})
    >>> crop = np.random.default_rng(0).normal(size=(30, 40, 30))
    >>> labels, grid = segment(crop, Grid(crop.shape, np.diag([1.0, 1.0, 1.0, 1.0])))
    >>> labels.shape, labels.dtype
    ((30, 40, 30), dtype('uint8'))

    Args:
        bundle: a bundle's or a run's folder, or the name of a shipped bundle.
        weights: instead of the bundle's ``models/model.pt``; several files are averaged.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        overrides: ``KEY=VALUE`` strings, as on the command line.

    Raises:
        BundleError: no such bundle, or no weights in it.
        ConfigError: an override that does not exist, or that the weights do not allow.
    """
    asked = () if device == "auto" else (f"device#name={device}",)
    files = [Path(file) for file in ([weights] if isinstance(weights, str | PathLike) else weights or ())]
    return Segmenter(Inference(fspath(bundle), weights=files or None, overrides=(*overrides, *asked)))


class Segmenter:
    """``labels, grid = segment(image)``: what ``pipeline predict`` writes, by the bundle's own chain.

    Threads may share one; they take turns on the network.

    Attributes:
        channels: names, in the order of the network's input.
        classes: id -> name.
        device: where the network runs.
    """

    def __init__(self, inference: Inference) -> None:
        from monai.transforms import Compose
        from torch.random import fork_rng

        from pipeline.bundle.data_rules import data_rules
        from pipeline.engines.cohort_case import CasePredictor
        from pipeline.engines.devices import keep_freed_memory
        from pipeline.inference import SaveImageOnGridd
        from pipeline.inference.fitting import require_window

        self._rules, self._layout = data_rules(inference.config), inference.config.get("layout")
        self.channels, self.classes = self._rules.channels, self._rules.classes
        keep_freed_memory()  # of all that the config's `initialize` does: random numbers are the caller's own
        self.device = inference["device"]
        self._preprocessing = inference["preprocessing"]
        steps = [step for step in inference["postprocessing"].transforms if not isinstance(step, SaveImageOnGridd)]
        with fork_rng(devices=()):
            network = inference["network"]
        require_window(inference["inferer"], network, len(self.channels), self._rules.spatial_dims)
        self._predictor = CasePredictor(network, inference["inferer"], Compose(steps), self.device)
        self._turn = threading.Lock()

    def __call__(self, image: Any, grid: Grid | None = None) -> Segmentation:
        """Segment one case.

        Args:
            image: a file, for a bundle of one channel; or a folder with the files of one case; or channel -> file.
                With ``grid`` channel -> array (H, W, D); or one array, of the only channel, or (C, H, W, D) in the
                order of ``channels``. Of sections without the D.
            grid: where the voxels of arrays lie: their shape, and voxel index -> mm, RAS+.

        Raises:
            DataError, GeometryError: a case that can't be used, and what to do about it.
        """
        from pipeline.data.case_error import case_error
        from pipeline.geometry import Grid

        item = self._item(image, grid)
        try:
            prepared = self._preprocessing(item, threading=True)
            with self._turn:
                result = self._predictor.predict(prepared, again=lambda: self._preprocessing(item, threading=True))
        except Exception as error:
            raise case_error(error, item) from error
        labels = result.get("pred_instances", result["pred"])
        return Segmentation(labels[0].cpu().numpy(), Grid(tuple(labels.shape[1:]), labels.affine.cpu().numpy()))

    def _item(self, image: Any, grid: Grid | None) -> dict[str, Any]:
        """What the bundle's chain begins with."""
        if grid is not None:
            return {"image": self._stack(image, grid)}
        if isinstance(image, Mapping) and all(isinstance(path, str | PathLike) for path in image.values()):
            return {"image": {str(name): fspath(path) for name, path in image.items()}}
        if not isinstance(image, str | PathLike):
            raise ConfigError(
                f"{type(image).__name__} as image",
                expected="a path, channel -> path, or arrays with the grid on which they lie: segment(array, grid)",
            )
        from pipeline.io import section_of

        if not section_of(image)[0].exists():
            raise DataError("no such file or folder", file=image, expected="one case", fix="check the path")
        if not Path(image).is_dir():
            if len(self.channels) > 1:
                names = ", ".join(f'"{name}": path' for name in self.channels)
                raise ConfigError(f"one file for {len(self.channels)} channels", expected=f"{{{names}}}, or a folder")
            return {"image": {self.channels[0]: fspath(image)}}
        from pipeline.data import data_list

        dims, missing = self._rules.spatial_dims, self._rules.stack.missing_channels
        items = data_list(
            image, self.channels, spatial_dims=dims, layout=self._layout, missing_channels=missing, require_label=False
        )
        if len(items) > 1:
            raise DataError(
                f"a folder with {len(items)} cases", file=image, expected="one", fix="use pipeline predict for a cohort"
            )
        return items[0]

    def _stack(self, image: Any, grid: Grid) -> Any:
        from pipeline.data.array_stack import stack_arrays

        if isinstance(image, Mapping):
            arrays = {str(name).lower(): array for name, array in image.items()}
        elif not getattr(image, "ndim", hasattr(image, "__len__")) or isinstance(
            image, str | bytes
        ):  # no arrays at all
            raise ConfigError(
                f"{type(image).__name__} as image, with a grid",
                expected=f"arrays of its shape for {', '.join(self.channels)}; of files, no grid: segment(path)",
            )
        elif getattr(image, "ndim", 0) == len(grid.shape) and len(self.channels) == 1:
            arrays = {self.channels[0]: image}
        elif len(image) == len(self.channels):
            arrays = dict(zip(self.channels, image, strict=True))
        else:
            raise ConfigError(
                f"arrays for {len(image)} channels", expected=f"one for each of {', '.join(self.channels)}, by name"
            )
        return stack_arrays(arrays, self.channels, grid, self._rules.stack)
