"""The model zoo's rules, checked without a network connection.

MONAI's own ``verify_metadata`` downloads the schema named in the metadata; `verify` uses the copy in ``schema/``, which
therefore ships with the package (a user's own bundle is verified offline, too).
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.bundle.audit import audit_bundle, read_json
from pipeline.bundle.base import KINDS
from pipeline.bundle.build import build
from pipeline.bundle.signature import signature_problems
from pipeline.errors import PipelineError

RUN_FILES = ("configs/metadata.json", "configs/train.json", "configs/evaluate.json", "configs/inference.json")
REQUIRED_FILES = ("LICENSE", *RUN_FILES, "docs/README.md", "docs/data_license.txt")
SCHEMA = Path(__file__).with_name("schema") / "meta_schema_20240725.json"
_WORKFLOWS = {kind: "train" if kind.endswith("train") else "infer" for kind in KINDS}
_LARGE_BYTES = 25 * 2**20
_SHAPE = re.compile(r"\d+|\d+\*n|\*")


def verify(bundle: Path, *, configs: Path | None = None) -> list[str]:
    """What keeps a bundle from being complete and consistent; an empty list is a bundle in order.

    Checked: required files (of a run, which is not published as it is, neither licences nor docs); that it holds data
    only; fresh generated files; metadata against the zoo's schema and against the configs (channels, classes, spatial
    shape, by running the network on the smallest input that the metadata allows); every component's arguments; MONAI's
    property check; weights that load without unpickling code, and an int8 network that was made from them, where it has
    some.

    Args:
        bundle: the bundle's folder.
        configs: the base configs; by default the shipped ones.

    Imports MONAI and torch, and constructs what the configs describe (in a temporary ``output_dir``); reads no data
    set.
    """
    required = RUN_FILES if (bundle / "run.json").is_file() else REQUIRED_FILES
    problems = [f"{name} is missing" for name in required if not (bundle / name).is_file()]
    problems += audit_bundle(bundle)
    if problems:
        return problems  # what follows constructs what the configs say: only from complete, audited files
    if (bundle / "configs" / "bundle.yaml").is_file():
        try:
            build(bundle, check=True, configs=configs)
        except PipelineError as error:
            problems.append(str(error))
    metadata = _read(bundle, "metadata")
    problems += _metadata(metadata)
    if problems:
        return problems
    for kind in KINDS:
        if (bundle / "configs" / f"{kind}.json").is_file():
            problems += [f"configs/{kind}.json: {p}" for p in signature_problems(_read(bundle, kind))]
    problems += _large_files(bundle)
    if problems:
        return problems
    return [*_network(bundle, metadata), *_weights(bundle), *_properties(bundle)]


def _read(bundle: Path, name: str) -> dict[str, Any]:
    return read_json(bundle / "configs" / f"{name}.json")


def _metadata(metadata: dict[str, Any]) -> Iterator[str]:
    from jsonschema import Draft201909Validator

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = sorted(Draft201909Validator(schema).iter_errors(metadata), key=lambda e: list(map(str, e.path)))
    for error in errors:
        while error.context:  # of the alternatives that a value may follow, the one that it followed furthest
            error = max(error.context, key=lambda e: len(e.absolute_path))
        yield f"metadata.json: {'#'.join(map(str, error.absolute_path)) or 'top level'}: {error.message}"
    if errors:
        return  # the rest relies on the types that the schema demands
    version = metadata["version"]
    if version not in metadata.get("changelog", {}):
        yield f"metadata.json: version {version} is not in the changelog; write what changed under {version!r}"
    if not str(metadata.get("schema", "")).endswith(SCHEMA.name):
        yield f"metadata.json: schema {metadata.get('schema')!r}; expected the URL of {SCHEMA.name}"
    formats = metadata["network_data_format"]
    for side, tensor in (("inputs", "image"), ("outputs", "pred")):
        entry = formats[side].get(tensor)
        if entry is None:
            yield f"metadata.json: network_data_format#{side} has no {tensor!r}"
            continue
        where = f"metadata.json: network_data_format#{side}#{tensor}"
        number, names = entry["num_channels"], entry.get("channel_def", {})
        if sorted(names) != sorted(map(str, range(number))):
            yield f"{where}: channel_def names {', '.join(names) or 'none'}; expected 0 to {number} - 1"
        if not all(_SHAPE.fullmatch(str(size)) for size in entry["spatial_shape"]):
            yield f"{where}: spatial_shape {entry['spatial_shape']}; expected numbers or 'k*n'"


def _network(bundle: Path, metadata: dict[str, Any]) -> Iterator[str]:
    """Names against the named values of the config, and the network itself on the smallest input."""
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser(_read(bundle, "inference"))
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    channels, classes = parser.get("channels"), parser.get("classes")
    if channels is not None and [image["channel_def"][str(i)] for i in range(image["num_channels"])] != channels:
        yield f"metadata.json: channel_def of image is {image['channel_def']}; the configs say {channels}"
    if classes is not None:
        expected = {"0": "background", **classes}
        if pred["channel_def"] != expected:
            yield f"metadata.json: channel_def of pred is {pred['channel_def']}; the configs say {expected}"
    size = [int(str(n).removesuffix("*n").replace("*", "1")) for n in image["spatial_shape"]]
    network = parser.get_parsed_content("network_def").eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, image["num_channels"], *size))
    except (RuntimeError, ValueError) as error:
        yield (
            f"metadata.json: network_def does not take {image['num_channels']} channels of "
            f"{'x'.join(map(str, size))} ({error}); expected a spatial_shape of at least twice the stride"
        )
        return
    if logits.shape[1] != pred["num_channels"]:
        yield f"metadata.json: pred has num_channels {pred['num_channels']}; network_def gives {logits.shape[1]}"


def _weights(bundle: Path) -> Iterator[str]:
    import torch
    from monai.bundle import ConfigParser

    from pipeline.inference.quantized import RECORD, read_quantized

    file = bundle / "models" / "model.pt"
    if not file.is_file():
        return
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network = ConfigParser(_read(bundle, "inference")).get_parsed_content("network_def")
        network.load_state_dict(state)
    except Exception as error:  # whatever a file that is no state dict of this network provokes is the finding
        yield f"models/model.pt: no state dict of network_def that loads with weights_only=True ({error})"
        return
    if (file.parent / RECORD).is_file():
        try:
            read_quantized(file.parent, network)
        except PipelineError as error:
            yield str(error)


def _large_files(bundle: Path) -> Iterator[str]:
    listing = bundle / "large_files.yml"
    listed = listing.read_text(encoding="utf-8") if listing.is_file() else ""
    for file in sorted(bundle.rglob("*")):
        name = file.relative_to(bundle).as_posix()
        if file.is_file() and file.stat().st_size > _LARGE_BYTES and name not in listed:
            yield f"{name}: {file.stat().st_size / 2**20:.0f} MiB; list it in large_files.yml with its sha256"


def _properties(bundle: Path) -> Iterator[str]:
    """What MONAI's applications look for: by its tables in all configs, by its own check in those for one process."""
    from monai.bundle import ConfigWorkflow, workflows

    workflows.logger.addFilter(_worth_saying)
    for kind, workflow in _WORKFLOWS.items():
        file = bundle / "configs" / f"{kind}.json"
        if not file.is_file():
            continue
        config = _read(bundle, kind)
        problems = list(_property_ids(config, workflow))
        if not problems and not kind.startswith("multi_gpu"):
            with tempfile.TemporaryDirectory() as folder:
                overrides = _without_data(config, bundle, Path(folder))
                if "checkpoint" in config and not (bundle / "models" / "model.pt").is_file():
                    overrides["checkpoint"] = str(_untrained(config, Path(folder)))
                checked = ConfigWorkflow(str(file), workflow_type=workflow, logging_file=False, **overrides)
                try:
                    checked.initialize()
                    problems += [f"MONAI misses its property {name!r}" for name in checked.check_properties() or ()]
                except Exception as error:  # whatever a component raises when it is constructed is the finding
                    problems.append(f"can't be constructed: {_cause(error)}")
        yield from (f"configs/{file.name}: {problem}" for problem in problems)


def _worth_saying(record: logging.LogRecord) -> bool:
    return "skipping logging" not in record.getMessage()  # MONAI warns that it does what `logging_file=False` asks for


def _property_ids(config: dict[str, Any], workflow: str) -> Iterator[str]:
    """MONAI's property check without constructing: ids that must exist, references that must lead to them by name."""
    from monai.bundle import ConfigParser
    from monai.bundle.properties import InferProperties, TrainProperties

    parser = ConfigParser(config)
    for name, entry in (TrainProperties if workflow == "train" else InferProperties).items():
        identity, user = entry["id"].replace("::", "#"), entry.get("refer_id")
        if entry["required"] and identity not in parser:
            yield f"{identity} is missing, which MONAI requires as property {name!r}"
        # `validator` and `interval` are arguments of a handler, not ids.
        reference = parser.get(user) if user and "::" in user else None
        if reference is not None and str(reference).replace("::", "#") != f"@{identity}":
            yield f"{user.replace('::', '#')} must be the reference @{identity}: MONAI looks for {name!r} there"


def _untrained(config: dict[str, Any], folder: Path) -> Path:
    """Weights to construct a bundle with that ships none: those that its network starts from."""
    import torch
    from monai.bundle import ConfigParser

    file = folder / "untrained.pt"
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), file)
    return file


def _cause(error: BaseException) -> BaseException:
    """The first error of a chain: MONAI wraps what a component raised in an error that does not say it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _without_data(config: dict[str, Any], bundle: Path, folder: Path) -> dict[str, Any]:
    """Overrides under which a config can be constructed where there is no data set, without seeding or writing."""
    overrides: dict[str, Any] = {"bundle_root": str(bundle), "output_dir": str(folder), "initialize": []}
    for path in (("train", "dataset"), ("validate", "dataset"), ("dataset",)):
        section = config.get(path[0], {}) if len(path) == 2 else config
        if isinstance(section.get("dataset"), dict):
            overrides["#".join(path)] = {
                "_target_": "monai.data.Dataset",
                "data": [{}],  # one item that nothing reads: a sampler refuses an empty set
                "transform": section["dataset"].get("transform"),
            }
    return {key: value for key, value in overrides.items() if key in config or "#" in key or key == "dataset"}
