"""Inferer, Restored and SaveImageOnGridd as a bundle's config uses them: inside MONAI's evaluator."""

import nibabel
import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.transforms import AsDiscreted, Compose, LoadImaged, Orientationd

from pipeline.inference import Restored, SaveImageOnGridd, SlidingWindowInferer


class Threshold(torch.nn.Module):
    def forward(self, images):
        return torch.cat([-images, images], dim=1)


def test_whole_volumes_are_predicted_measured_and_written_in_their_own_space(tmp_path):
    rng, items = np.random.default_rng(0), []
    affine = np.array([[0, -0.9, 0, 5], [1.1, 0, 0, -20], [0, 0, -6, 40], [0, 0, 0, 1.0]])
    for i in range(3):
        volume = rng.normal(size=(13, 10, 4)).astype(np.float32)
        paths = {"image": tmp_path / f"image{i}.nii.gz", "label": tmp_path / f"label{i}.nii.gz"}
        nibabel.save(nibabel.Nifti1Image(volume, affine), paths["image"])
        nibabel.save(nibabel.Nifti1Image((volume > 0).astype(np.uint8), affine), paths["label"])
        items.append({"case_id": f"sub-{i}", **{key: str(path) for key, path in paths.items()}})
    load = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),  # the label stays in its own space
        ]
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, load), batch_size=2),
        network=Threshold(),
        inferer=SlidingWindowInferer((8, 8, 8), sw_batch_size=2),
        postprocessing=Compose(
            [
                Restored(),
                SaveImageOnGridd(output_dir=tmp_path / "out"),
                AsDiscreted(["pred", "label"], to_onehot=2),
            ]
        ),
        key_val_metric={"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))},
    )
    evaluator.run()
    assert evaluator.state.metrics["dice"] == 1.0
    for i in range(3):
        written, reference = nibabel.load(tmp_path / "out" / f"sub-{i}.nii.gz"), nibabel.load(items[i]["label"])
        np.testing.assert_array_equal(written.get_fdata(), reference.get_fdata())
        np.testing.assert_array_equal(written.affine, reference.affine)
