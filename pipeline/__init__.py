"""A MONAI-based pipeline for 3D medical volumes: bundles that configure, train, check and explain themselves."""

__version__ = "0.1.0"
