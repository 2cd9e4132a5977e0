"""Engines: whatever runs over cases. Ignite engines through MONAI's, their devices, precision, optimizer and schedules.

To add one: a file here that subclasses MONAI's engine nearest to it and changes its step only; its name below; a test
in ``tests/engines`` that runs it on tensors. What watches an engine instead of being one belongs to
``pipeline.handlers``.
"""

from pipeline.engines.averaging import WeightAverage, averaged_copy
from pipeline.engines.devices import device, initialise, keep_freed_memory, on_device
from pipeline.engines.evaluator import Evaluator
from pipeline.engines.muon import Muon
from pipeline.engines.precision import Precision
from pipeline.engines.run_folders import run_folder
from pipeline.engines.schedule import Schedule
from pipeline.engines.torchrun import distributed, join, leave
from pipeline.engines.trainer import Trainer
from pipeline.engines.weights import with_weights

__all__ = [
    "Evaluator",
    "Muon",
    "Precision",
    "Schedule",
    "Trainer",
    "WeightAverage",
    "averaged_copy",
    "device",
    "distributed",
    "initialise",
    "join",
    "keep_freed_memory",
    "leave",
    "on_device",
    "run_folder",
    "with_weights",
]
