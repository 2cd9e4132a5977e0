"""Bundles: found, built from the shared base and their delta, audited, verified.

A bundle is data: ``configs/bundle.yaml`` says what differs from ``configs/`` of this package, `build` writes the JSON
that plain MONAI reads. To add one: a folder with ``configs/bundle.yaml`` and ``configs/metadata.json``, ``docs/`` and
``LICENSE``, then ``pipeline build NAME``. `load_bundle` makes a function of one. Importing this room loads
neither MONAI nor torch.
"""

from pipeline.bundle.audit import Problem, audit_bundle, audit_config, require_data_only
from pipeline.bundle.base import KINDS, nearest_keys
from pipeline.bundle.build import BuildResult, build, resolve
from pipeline.bundle.find import find_bundle, is_bundle, shipped_bundles, shipped_configs
from pipeline.bundle.load import Segmentation, Segmenter, load_bundle
from pipeline.bundle.overrides import parse_override
from pipeline.bundle.verify import verify

__all__ = [
    "KINDS",
    "BuildResult",
    "Problem",
    "Segmentation",
    "Segmenter",
    "audit_bundle",
    "audit_config",
    "build",
    "find_bundle",
    "is_bundle",
    "load_bundle",
    "nearest_keys",
    "parse_override",
    "require_data_only",
    "resolve",
    "shipped_bundles",
    "shipped_configs",
    "verify",
]
