"""A bundle's inference config, with its parts made when they are asked for, and what a result of it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.bundle.build import resolve
from pipeline.bundle.find import find_bundle
from pipeline.bundle.refusals import refuse_foreign_to_weights, refuse_weights_of_other_settings
from pipeline.errors import ConfigError, PipelineError

PLACES = ("bundle_root", "output_dir", "dataset_dir", "checkpoint", "layout", "pseudonyms", "device")
"""Keys that say where things are and where to compute: a result does not depend on them."""


class Inference:
    """What ``pipeline predict`` and `pipeline.bundle.load_bundle` have in common.

    Args:
        bundle: a bundle's or a run's folder, or the name of a shipped bundle.
        weights: instead of those that the config names; several are averaged.
        overrides: ``KEY=VALUE`` strings.
        values: top-level values that are no matter of the bundle: places.

    Attributes:
        folder: the bundle's.
        config: resolved, not parsed.

    Raises:
        BundleError, ConfigError: no bundle, or overrides that it does not know or that its weights do not allow.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        weights: str | Path | Sequence[str | Path] | None = None,
        overrides: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_foreign_to_weights(overrides)
        self.folder, self._overrides = find_bundle(bundle), tuple(overrides)
        self.config = resolve(self.folder, "inference", overrides=overrides)
        self.config |= {"bundle_root": str(self.folder.resolve()), **(values or {})}
        if weights is not None:
            files = [weights] if isinstance(weights, str | Path) else weights
            paths = [str(Path(file).resolve()) for file in files]
            for path in paths:
                refuse_weights_of_other_settings(self.config, path)
            self.config["checkpoint"] = paths[0] if len(paths) == 1 else paths
        # before it is parsed, which writes to it
        self._config_sha256 = _digest({key: value for key, value in self.config.items() if key not in PLACES})
        self._parser: Any = None

    @property
    def parser(self) -> Any:
        """MONAI's parser of the config."""
        if self._parser is None:
            self._parser = parsed(self.config, self.folder / "configs" / "metadata.json")
        return self._parser

    def __getitem__(self, name: str) -> Any:
        """A part of the config, made: ``network``, ``inferer``, ``dataset#data``...

        Raises:
            PipelineError: what its maker has to say; MONAI wraps it into an error that names the maker alone.
            ConfigError: its maker fails, and there are overrides, which may be what it does not take.
        """
        return made(self.parser, name, self._overrides)

    def weights(self) -> list[Path]:
        """The files of the weights; a bundle from elsewhere may name none, and then has them in their usual place."""
        files = self["checkpoint"] if "checkpoint" in self.config else self.folder / "models" / "model.pt"
        return [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]

    def bundle_record(self) -> dict[str, Any]:
        """The bundle, its config and its weights, by name and digest."""
        from pipeline.data.file_digests import file_sha256

        return {
            "name": self.folder.name,
            "version": self.parser.get("_meta_", {}).get("version"),
            "config_sha256": self._config_sha256,
            "weights_sha256": [file_sha256(file) for file in self.weights() if file.is_file()],
        }

    def made_with(self) -> str:
        """A digest of all that a result depends on beside its inputs: config, weights, an int8 network that may stand
        for them, and this package's version."""
        record = self.bundle_record()
        return _digest([record["config_sha256"], record["weights_sha256"], *self._int8(), __version__])

    def _int8(self) -> list[str]:
        from pipeline.data.file_digests import file_sha256
        from pipeline.inference.openvino_runtime import has_openvino
        from pipeline.inference.quantized import RECORD
        from pipeline.inference.runtime import ALIASES, AUTO, INT8

        name = self.config.get("runtime", "")  # a bundle from elsewhere may have neither key
        if ALIASES.get(name, name) not in (AUTO, INT8) or not self.config.get("quantized") or not has_openvino():
            return []
        file = Path(self["quantized"]) / RECORD  # which names the network by its digest
        return [file_sha256(file)] if file.is_file() else []


def made(parser: Any, name: str, overrides: Sequence[str]) -> Any:
    """A part of a parsed config, made; see `Inference` for what is raised."""
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        from pipeline.data.case_error import lacks_memory

        cause: BaseException | None = error
        last: BaseException = error
        while cause is not None and not isinstance(cause, PipelineError):
            last = cause
            cause = last.__cause__
        if cause is not None:
            raise cause from None
        if not overrides or lacks_memory(last):  # a fault of the package, say: it stays visible
            raise
        raise ConfigError(
            f"that {name} can't be made with {' '.join(overrides)} ({type(last).__name__}: {last})",
            expected="values that it takes",
        ) from error


def parsed(config: dict[str, Any], metadata: Path) -> Any:
    """MONAI's parser of a config, with the bundle's metadata where it has any."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(config)
    if metadata.is_file():
        parser.read_meta(str(metadata))
    parser.parse()
    return parser


def run_section(parser: Any, section: str) -> None:
    """Run the expressions of a section one after the other, as ``python -m monai.bundle run`` does."""
    for index in range(len(parser.get(section, []))):
        parser.get_parsed_content(f"{section}#{index}")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
