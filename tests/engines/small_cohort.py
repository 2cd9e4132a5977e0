"""A cohort of small NIfTI files through the package's own chain and a network without weights, for tests of what goes
on around the network. The processes that tests start import it too."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.transforms import Compose, Orientationd

from pipeline.engines.cohort import predict_cohort
from pipeline.engines.cohort_result import CohortResult
from pipeline.inference import Restored, SaveImageOnGridd, SlidingWindowInferer
from pipeline.transforms import LoadImageStackd

AFFINE = np.diag([-1.5, 1.0, 4.0, 1.0])
SHAPE = (7, 6, 3)
BROKEN = b"<html>"


class Sign(torch.nn.Module):
    """Class 1 where the image is positive.

    Attributes:
        calls: how often it was run: once a case.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.cat([-images, images], dim=1)


def volume(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def write_cases(folder: Path, count: int, broken: tuple[int, ...] = ()) -> list[dict]:
    """The files of cases ``case-0``... and their data-list items; those in ``broken`` are no images."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(count):
        path = folder / f"case-{number}.nii.gz"
        if number in broken:
            path.write_bytes(BROKEN)
        else:
            image = nibabel.Nifti1Image(volume(number), AFFINE)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, path)
        items.append({"case_id": f"case-{number}", "relative": ".", "image": {"ct": str(path)}})
    return items


def predict(items: list[dict], output_dir: Path, network: torch.nn.Module | None = None, **options) -> CohortResult:
    chain = [LoadImageStackd("image", channels=["ct"]), Orientationd("image", axcodes="RAS", labels=None)]
    options = {
        "preprocessing": Compose(chain),
        "inferer": SlidingWindowInferer(0),
        "postprocessing": Compose([Restored(), SaveImageOnGridd(output_dir=output_dir)]),
        "device": "cpu",
        "made_with": "bundle and weights",
    } | options
    return predict_cohort(
        items,
        network=network or Sign(),
        output_dir=output_dir,
        class_names={1: "lesion"},
        progress=False,
        **options,
    )


def whole(path: Path, number: int) -> bool:
    """Whether a result is the one of that case, to the last voxel."""
    image = nibabel.load(path)
    return bool((np.asarray(image.dataobj) == (volume(number) > 0)).all() and (image.affine == AFFINE).all())
