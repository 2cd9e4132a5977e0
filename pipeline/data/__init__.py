"""Datasets on disk, as cases and as a MONAI dataset: `find_cases`, `describe_dataset`, `data_list`, the splits.

A new dataset layout is a module in `pipeline.data.layouts` and a line in its list. Nothing here opens an image; that is
io's. Add public names below, those that need torch to ``_LAZY``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.data.cases import Case, DatasetDescription, describe_dataset, find_cases
from pipeline.data.items import data_list
from pipeline.data.splits import Split, k_fold, patient_of, read_split, write_split

if TYPE_CHECKING:
    from pipeline.data.check import Check, check_dataset, check_headers
    from pipeline.data.dataset import CaseDataset, Refusal
    from pipeline.data.fingerprinting import fingerprint_dataset
    from pipeline.data.on_demand import CasesOnDemand
    from pipeline.data.reference import describe_on_best_grid
    from pipeline.data.sampler import EpochSampler
    from pipeline.data.stack_rules import StackRules

# Listing cases and making phantoms takes milliseconds, importing torch and MONAI seconds: the command line must not
# wait for what it does not use. PEP 562 keeps one public name per thing (`pipeline.data.CaseDataset`, also for
# MONAI's configs).
_LAZY = {
    "CaseDataset": "pipeline.data.dataset",
    "CasesOnDemand": "pipeline.data.on_demand",
    "EpochSampler": "pipeline.data.sampler",
    "Check": "pipeline.data.check",
    "Refusal": "pipeline.data.dataset",
    "StackRules": "pipeline.data.stack_rules",
    "check_dataset": "pipeline.data.check",
    "check_headers": "pipeline.data.check",
    "describe_on_best_grid": "pipeline.data.reference",
    "fingerprint_dataset": "pipeline.data.fingerprinting",
}

__all__ = [
    "Case",
    "CaseDataset",
    "CasesOnDemand",
    "Check",
    "DatasetDescription",
    "EpochSampler",
    "Refusal",
    "Split",
    "StackRules",
    "check_dataset",
    "check_headers",
    "data_list",
    "describe_dataset",
    "describe_on_best_grid",
    "find_cases",
    "fingerprint_dataset",
    "k_fold",
    "patient_of",
    "read_split",
    "write_split",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
