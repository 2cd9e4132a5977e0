"""What listens to an engine: one Ignite handler per file.

A handler validates and stores its arguments, attaches itself to an engine, and acts on an event; the work is done by
the rooms below. To add one: write a class with ``attach(engine)`` whose arguments fit into JSON, name it here, and
test it on a real MONAI engine in tests/handlers.
"""

from pipeline.handlers.case_measures import CaseMeasures
from pipeline.handlers.overlay import OverlayImages
from pipeline.handlers.panel import case_panel, overlay_rgb, pick_slices

__all__ = ["CaseMeasures", "OverlayImages", "case_panel", "overlay_rgb", "pick_slices"]
