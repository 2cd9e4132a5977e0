"""The smallest Jacobian determinant of `RandSpatialPatchd`'s maps, over many: positive where nothing folds.

    python benchmarks/augmentation_folding.py [--patches 2000]

Of each shipped bundle's own settings with every part always drawn, and of the largest displacement that is allowed
(``elastic_std_mm`` at its limit, where control vectors are cut at two deviations). Determinants are of neighbouring
voxels' differences in millimetres, flips undone: 1 leaves volumes as they are, 0.85 ** 3 = 0.61 is what the default
scaling alone may do. Prints one JSON line each: the smallest, the first percentile of the patches' smallest, and how
many patches fold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser

from pipeline.transforms import RandSpatialPatchd
from pipeline.transforms.elastic import bicubic_bound_mm, max_std_mm
from pipeline.transforms.patch_map import source_coordinates
from pipeline.transforms.preview import smallest_jacobian

BUNDLES = Path(__file__).parents[1] / "bundles"
_SPACING_AS_IT_IS_MM = 5.0  # of an axis that a bundle leaves as each case has it


def report(name: str, transform: RandSpatialPatchd, spacing_mm: tuple[float, ...], patches: int) -> None:
    transform.set_random_state(0)
    smallest = []
    for _ in range(patches):
        drawn = transform.randomize(transform.patch_size, spacing_mm, {})
        where = source_coordinates(drawn, transform.patch_size, spacing_mm).double().numpy()
        millimetres = where * np.reshape(spacing_mm, (-1, *[1] * len(spacing_mm)))
        smallest.append(smallest_jacobian(millimetres, spacing_mm))
    row = {"settings": name, "patches": patches, "smallest": round(min(smallest), 4)}
    row |= {
        "first_percentile": round(float(np.percentile(smallest, 1)), 4),
        "fold": int(np.sum(np.array(smallest) <= 0)),
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=2000)
    options = parser.parse_args()
    for bundle in sorted(BUNDLES.iterdir()):
        config = ConfigParser()
        config.read_config(bundle / "configs" / "train.json")
        config["train"]["steps"]["spatial"] |= {"margin": 0, "affine_probability": 1.0, "elastic_probability": 1.0}
        transform = config.get_parsed_content("train#steps#spatial")
        spacing_mm = tuple(side if side > 0 else _SPACING_AS_IT_IS_MM for side in config["spacing_mm"])
        report(bundle.name, transform, spacing_mm, options.patches // (10 if len(spacing_mm) == 2 else 1))
    for control_mm in (8.0, 32.0):
        most = RandSpatialPatchd(
            patch_size=(32, 32, 32), affine_probability=1.0, shear_degrees=10.0, flip_axes=(0, 1, 2),
            elastic_probability=1.0, elastic_spacing_mm=control_mm, elastic_std_mm=max_std_mm(control_mm),
        )  # fmt: skip
        report(f"B-splines {control_mm:g} mm apart, the largest displacement", most, (1.0,) * 3, options.patches)
    tile = (128, 128)
    most = RandSpatialPatchd(
        patch_size=tile, affine_probability=1.0, scaling=(1.0, 1.0), elastic="unet_2015", elastic_probability=1.0,
        elastic_std_mm=bicubic_bound_mm(tile, (1.0, 1.0)) / 2,
    )  # fmt: skip
    report("the first U-Net's, the largest displacement", most, (1.0, 1.0), options.patches)


if __name__ == "__main__":
    main()
