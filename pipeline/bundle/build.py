"""Base + ``bundle.yaml`` -> the complete, standalone JSON files that plain MONAI reads.

A bundle's ``configs/bundle.yaml`` is one delta for all five kinds of config: a key applies to every kind whose base
knows it, and a key that none knows is refused. ``network: NAME`` in it picks the base file of the network. How a delta
merges stands in ``merge.py``; how named steps and handlers turn into MONAI's lists, in ``standalone.py``; what a
config may hold at all, in ``audit.py``.

A bundle without ``bundle.yaml`` (from elsewhere: JSON only) is read as it is and can't be built.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.bundle.audit import read_json, require_data_only
from pipeline.bundle.base import KINDS, Base
from pipeline.bundle.find import shipped_configs
from pipeline.bundle.merge import KeyPath, Merge, nearest
from pipeline.bundle.overrides import Override, is_network_name, parse_override, take_network
from pipeline.bundle.signature import SPECIAL_KEYS
from pipeline.bundle.standalone import standalone, without_removed
from pipeline.bundle.strict_yaml import read
from pipeline.errors import BundleError, ConfigError

_logger = logging.getLogger(__name__)


class UnknownKeyError(ConfigError):
    """A key that a config does not know."""


@dataclass(frozen=True)
class BuildResult:
    """What `build` did: the bundle's folder, its generated files, and those of them whose content changed."""

    bundle: Path
    files: tuple[Path, ...]
    changed: tuple[Path, ...]


def build(
    bundle: Path,
    *,
    check: bool = False,
    configs: Path | None = None,
    network: str | None = None,
    out: Path | None = None,
) -> BuildResult:
    """Writes ``configs/<kind>.json`` of a bundle for each of the five `KINDS`: the same bytes for the same input.

    With ``out`` a copy of the bundle is written there, to be changed: all of it but its weights and its data's licence.
    Of another network, the copy is the generated files alone: ``bundle.yaml`` is written for the bundle's own.

    Args:
        bundle: the bundle's folder.
        check: compare instead of writing.
        configs: the base configs; by default the shipped ones.
        network: name of another network's base file (see `resolve`), for a copy at ``out``: the bundle's own files
            say what its ``bundle.yaml`` says.
        out: folder of the copy.

    Raises:
        BundleError: the bundle has no ``bundle.yaml``, holds more than data, or (with ``check``) has stale files;
            another bundle or a run lies at ``out``.
        ConfigError: a key or a value that the base does not allow; names the file and the key path.
    """
    if not _delta_file(bundle).is_file():
        raise BundleError("no configs/bundle.yaml", file=bundle, fix="load a bundle of generated files as it is")
    if out is not None and out.resolve() == bundle.resolve():
        out = None
    if network is not None and out is None:
        raise ConfigError(
            f"network={network} for the bundle's own files",
            expected="what bundle.yaml says",
            fix=f"write network: {network} there, or build a copy of the configs by --out DIR",
        )
    if out is not None and (_delta_file(out).is_file() or (out / "models").exists()):
        raise BundleError(
            "a bundle, or a run, whose configs a copy would take the place of",
            file=out,
            expected="a new folder, or a copy as it was made",
            fix="choose another name for --out",
        )
    if out is not None and network is None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise BundleError(
            "something else already", file=out, expected="a new or empty folder", fix="choose another name for --out"
        )
    folder = (out or bundle) / "configs"
    contents = {
        folder / f"{kind}.json": _dump(config)
        for kind, config in _resolve_all(bundle, network, configs or shipped_configs()).items()
    }
    if out is not None:
        beside = [bundle / "configs" / "metadata.json"]
        if network is None:
            beside += [_delta_file(bundle), bundle / "LICENSE", *sorted((bundle / "docs").rglob("*"))]
        contents |= {out / file.relative_to(bundle): file.read_bytes() for file in beside if file.is_file()}
        if network is None:
            from pipeline.bundle.render import DATA_LICENSE

            contents[out / "docs" / "data_license.txt"] = DATA_LICENSE.encode()  # it will be trained on other data
    changed = tuple(f for f, content in contents.items() if not f.is_file() or f.read_bytes() != content)
    if out is not None and (differing := [file.name for file in changed if file.exists()]):
        raise BundleError(
            f"other contents than these would get: {', '.join(differing)}",
            file=out,
            expected="a new folder, or a copy as it was made",
            fix="delete them, or choose another name for --out",
        )
    if check and changed:
        raise BundleError(
            f"stale {', '.join(f.name for f in changed)}",
            expected="what the base and bundle.yaml generate",
            fix=f"pipeline build {shlex.quote(str(bundle))}",
            file=folder,
        )
    from pipeline.io.atomic import write_whole  # the image libraries, which reading a bundle needs not

    for file in changed:
        write_whole(file, partial(_fill, contents[file]))
    return BuildResult(bundle, tuple(contents), changed)


def resolve(
    bundle: Path,
    kind: str,
    network: str | None = None,
    overrides: Sequence[Override] = (),
    *,
    configs: Path | None = None,
) -> dict[str, Any]:
    """The standalone config that ``build`` would write, in memory, with another network or other values.

    Args:
        kind: one of `KINDS`.
        network: name of another network's base file; ``network=NAME`` among the overrides says the same. Of the
            bundle's own ``network_def``, what the files of both networks name (``channels``, ``strides``...: in
            pipeline.networks equal names mean the same) goes along to it; the rest is left out, and that is logged.
        overrides: ``KEY=VALUE`` texts, or (key, value) pairs whose value is taken as it is (a path); later ones win.
        configs: the base configs; by default the shipped ones.

    Returns:
        The config, references unresolved, as ``monai.bundle.ConfigParser`` takes it.

    Raises:
        BundleError: the bundle lacks this kind, or the result would hold more than data.
        ConfigError: an unknown key (with the nearest names), network or kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"the kind {kind!r}", expected=f"one of {', '.join(KINDS)}")
    chosen, values = take_network(overrides)
    if network and chosen and network != chosen:
        raise ConfigError(f"network {network!r} and network={chosen}", expected="one network")
    network = network or chosen
    if not _delta_file(bundle).is_file():
        return _from_json(bundle, kind, network, values)
    return _resolve_all(bundle, network, configs or shipped_configs(), kind, values)[kind]


_LISTS = ("channels", "flip_axes", "fill_holes", "largest_component", "spacing_limits_mm", "scales")
"""Keys of all configs in whose place a null would be met by whatever reads it first."""


def _fill(content: bytes, raw: BinaryIO) -> None:
    raw.write(content)


def _delta_file(bundle: Path) -> Path:
    return bundle / "configs" / "bundle.yaml"


def _dump(config: dict[str, Any]) -> bytes:
    # ASCII only: MONAI opens the file in the platform's encoding.
    return (json.dumps(config, indent=1, allow_nan=False) + "\n").encode("ascii")


def _resolve_all(
    bundle: Path, network: str | None, configs: Path, only: str | None = None, overrides: Sequence[Override] = ()
) -> dict[str, dict[str, Any]]:
    """The standalone configs of all kinds, or of one; the delta is always held against all."""
    base, file = Base(configs), _delta_file(bundle)
    delta = read(file)
    own = delta.pop("network") if is_network_name(delta.get("network")) else None
    if network is None and own is None:
        raise ConfigError("no network", expected=f"network: NAME, of {', '.join(base.networks())}", file=file)
    dims = delta.get("spatial_dims")
    for override in overrides:
        dims = parse_override(override)[1].get("spatial_dims", dims)

    bases = {kind: base.load(kind, network or own, dims) for kind in KINDS}
    if network not in (None, own) and "network_def" in delta:
        former = base.load("train", own, dims).get("network_def", {})
        kept, left_out = _carried_over(delta.pop("network_def"), former, bases["train"]["network_def"])
        if kept:
            delta["network_def"] = kept
        if left_out:
            names = ", ".join(left_out)
            _warn_once(f"network_def ({names}) of {file} is written for {own}: left out for {network}")
    merges = {kind: Merge(file=file) for kind in KINDS}
    merged = {kind: merges[kind](bases[kind], delta) for kind in KINDS}
    _refuse_unknown_everywhere(merges, bases)

    result = {}
    for kind in (only,) if only else KINDS:
        written = bundle / "configs" / f"{kind}.json"
        config = _overridden(merged[kind], overrides, written)
        _require_matching_sizes(config, written if overrides else file)  # the delta is where to mend it
        result[kind] = standalone(config, written)
        require_data_only(result[kind], written)
    return result


@cache
def _warn_once(message: str) -> None:
    """A run resolves several configs of one bundle; what is odd about it is said once."""
    _logger.warning(message)


def _carried_over(
    delta: Any, former: dict[str, Any], wanted: dict[str, Any]
) -> tuple[dict[str, Any] | None, list[str]]:
    """What of a delta of one network's arguments another network takes too, and the names of the rest."""
    if not isinstance(delta, dict) or not isinstance(former, dict) or delta.get("_replace_"):
        return None, ["all of it"]  # a reference, or another class altogether
    shared = {key for key in delta if key in former and key in wanted} - SPECIAL_KEYS
    return {key: value for key, value in delta.items() if key in shared}, [key for key in delta if key not in shared]


def _refuse_unknown_everywhere(merges: dict[str, Merge], bases: dict[str, dict[str, Any]]) -> None:
    def unknown_in(merge: Merge, path: KeyPath) -> bool:
        return any(path[: len(unknown)] == unknown for unknown in merge.unknown)

    for merge in merges.values():
        for path, known in merge.unknown.items():
            if all(unknown_in(other, path) for other in merges.values()):
                raise _unknown_key(path, known, bases.values(), merge.file)


def _overridden(
    config: dict[str, Any], overrides: Sequence[Override], file: Path, *, index: bool = False
) -> dict[str, Any]:
    for override in overrides:
        key, delta = parse_override(override)
        merge = Merge(file=f"{file}, override {key}", index_lists=index)
        config = merge(config, delta)
        for path, known in merge.unknown.items():
            raise _unknown_key(path, known, (config,), file)
    return config


def _require_matching_sizes(config: dict[str, Any], file: Path) -> None:
    """What must agree within a config, refused here: found by the first case, it would look like the case's fault."""
    dims, channels, classes = config["spatial_dims"], config["channels"], config["classes"]
    if dims not in (2, 3):
        raise ConfigError(f"spatial_dims {dims}", expected="2 or 3", file=file)
    for key in _LISTS:
        value = config.get(key, [])
        if not isinstance(value, list) and str(value)[:1] not in ("@", "$"):
            raise ConfigError(f"{key} {'null' if value is None else value}", expected="a list; [] is none", file=file)
    limits = config.get("spacing_limits_mm")
    if isinstance(limits, list) and len(limits) != 2:
        raise ConfigError(f"spacing_limits_mm {limits}", expected="two lengths, in mm", file=file)
    for key in ("patch_size", "spacing_mm"):
        value = config.get(key, [1] * dims)
        if not isinstance(value, list) or len(value) != dims or any(isinstance(v, str | bool | None) for v in value):
            raise ConfigError(f"{key} {value}", expected=f"{dims} numbers, one per axis", file=file)
    if any(axis not in range(dims) for axis in config.get("flip_axes", ())):
        raise ConfigError(f"flip_axes {config['flip_axes']}", expected=f"axes from 0 to {dims - 1}", file=file)
    if dims == 2 and (config.get("minimum_component_ml") or 0) != 0:
        found = f"minimum_component_ml {config['minimum_component_ml']} of sections"
        raise ConfigError(found, expected="0: they have no volume", file=file)
    if not channels or not classes:
        return
    known = [str(label) for label in classes]
    for key in ("fill_holes", "largest_component"):
        unknown = [label for label in config.get(key, ()) if str(label) not in known]
        if unknown and isinstance(config[key], list):
            raise ConfigError(f"{key} {config[key]}", expected=f"class ids, of {', '.join(known)}", file=file)
    for key, count, of in (("in_channels", len(channels), "channels"), ("out_channels", len(classes) + 1, "classes")):
        if config.get(key, count) != count:
            raise ConfigError(
                f"{key} {config[key]} with {of} {list(config[of])}",
                expected=f"{key}: {count}" + (", one per class and one for the background" if of == "classes" else ""),
                file=file,
            )


def _unknown_key(path: KeyPath, known: Iterable[str], configs: Iterable[dict[str, Any]], file: Any) -> UnknownKeyError:
    near = nearest(path, known, configs)
    fix = None if near else f"take one of {', '.join(known)}"
    if "scheme" in known:  # a normalisation: each scheme has keys of its own
        fix = "for another scheme, write _replace_: true beside it: its keys then stand alone"
    return UnknownKeyError(
        f"the unknown key {'#'.join(path)}",
        expected=f"a key that the config knows{' (nearest: ' + ', '.join(near) + ')' if near else ''}",
        fix=fix,
        file=file,
    )


def _from_json(bundle: Path, kind: str, network: str | None, overrides: Sequence[Override]) -> dict[str, Any]:
    """A bundle from elsewhere: its own file, audited before an override looks at a signature."""
    file = bundle / "configs" / f"{kind}.json"
    if network is not None:
        raise ConfigError(f"network={network}", expected="values only: this bundle has no bundle.yaml", file=bundle)
    if not file.is_file():
        raise BundleError(f"no {kind}.json", file=bundle, expected=f"configs/bundle.yaml or configs/{kind}.json")
    config = read_json(file)
    require_data_only(config, file)
    config = without_removed(_overridden(config, overrides, file, index=True), config, file)
    require_data_only(config, file)
    return config
