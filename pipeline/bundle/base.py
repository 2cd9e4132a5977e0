"""The shared base: ``configs/<kind>.yaml``, what it builds on, and the network's own file.

``_base_: [common.yaml, network]`` at the top of a base file lists what is merged first, in order: files beside it, and
``network``, which stands for ``networks/<NAME>_<spatial_dims>d.yaml``. The file itself comes last.
"""

from __future__ import annotations

from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.bundle.find import shipped_configs
from pipeline.bundle.merge import Merge
from pipeline.bundle.strict_yaml import read
from pipeline.errors import ConfigError

KINDS = ("train", "evaluate", "inference", "multi_gpu_train", "multi_gpu_evaluate")
"""The five configs of a bundle."""


class Base:
    """The base files in a folder; each is read once.

    Args:
        configs: the folder with ``train.yaml``, ``evaluate.yaml``... and ``networks/``.
    """

    def __init__(self, configs: Path) -> None:
        self.configs = configs
        self._files: dict[Path, dict[str, Any]] = {}

    def load(self, kind: str, network: str | None, spatial_dims: int | None = None) -> dict[str, Any]:
        """The merged base of one kind, handlers and steps still named.

        Args:
            network: name of the network's file; None leaves the network out.
            spatial_dims: 2 or 3; by default what the base's own files say.

        Raises:
            ConfigError: a file is missing, contradicts another, or includes itself; an unknown network.
        """
        file = None
        if network is not None:
            dims = spatial_dims or self.load(kind, None).get("spatial_dims")
            file = self._network_file(network, dims)
        return self._merged(self.configs / f"{kind}.yaml", file, ())

    def networks(self) -> list[str]:
        """The names that ``network`` may take, with their dimensions: ``["unet_2d", "unet_3d"]``."""
        return sorted(file.stem for file in (self.configs / "networks").glob("*.yaml"))

    def _network_file(self, name: str, spatial_dims: Any) -> Path:
        stem = f"{name}_{spatial_dims}d"
        if stem not in self.networks():
            end = f"_{spatial_dims}d"
            names = [known.removesuffix(end) for known in self.networks() if known.endswith(end)]
            near = get_close_matches(name.removesuffix(end), names, n=3)
            raise ConfigError(
                f"no network {name!r} for {spatial_dims} dimensions"
                + (f" (nearest: {', '.join(near)})" if near else ""),
                expected=f"one of {', '.join(names) or 'no network file is there'}",
                file=self.configs / "networks",
            )
        return self.configs / "networks" / f"{stem}.yaml"

    def _merged(self, file: Path, network: Path | None, stack: tuple[Path, ...]) -> dict[str, Any]:
        if file in stack:
            raise ConfigError(f"_base_ of {' -> '.join(f.name for f in (*stack, file))}", file=stack[0])
        content = self._read(file)
        names = content.pop("_base_", [])
        if not isinstance(names, list):
            raise ConfigError(f"_base_: {names!r}", expected="a list of file names", file=file)
        merged: dict[str, Any] = {}
        for name in names:
            if name != "network":
                below = self._merged(self.configs / str(name), network, (*stack, file))
            elif network is not None:
                below = self._merged(network, None, (*stack, file))
            else:
                continue
            merged = Merge(file=self.configs / str(name), define=True)(merged, below)
        return Merge(file=file, define=True)(merged, content)

    def _read(self, file: Path) -> dict[str, Any]:
        if file not in self._files:
            self._files[file] = read(file)
        return deepcopy(self._files[file])


def nearest_keys(word: str) -> list[str]:
    """The named values of the base that look like ``word``, the nearest first.

    >>> nearest_keys("epochs")[0]
    'max_epochs'
    """
    values = Base(shipped_configs()).load("train", None)
    return get_close_matches(word, values, n=3)
