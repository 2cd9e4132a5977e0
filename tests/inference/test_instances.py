"""Numbers of objects, by hand and through the chain: touching discs come apart."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError
from pipeline.inference import Restored, SaveImageOnGridd, number_instances
from pipeline.io import read_section
from pipeline.metrics import instance_measures
from pipeline.transforms.separate_objects import separate


def discs(*centres, shape=(24, 40), radius=7.0):
    """One object per centre; a pixel belongs to the nearest."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distances = np.array([np.hypot(rows - r, columns - c) for r, c in centres])
    return np.where(distances.min(0) <= radius, distances.argmin(0) + 1, 0)


def test_components_touch_by_faces_and_small_ones_get_no_number():
    row = np.array([[1, 0, 1, 1, 0, 1, 1, 1, 0, 1]])
    assert number_instances(row).tolist() == [[1, 0, 2, 2, 0, 3, 3, 3, 0, 4]]
    assert number_instances(row, minimum_voxels=2).tolist() == [[0, 0, 1, 1, 0, 2, 2, 2, 0, 0]]
    assert not number_instances(row, minimum_voxels=4).any()
    corner = np.array([[1, 0], [0, 1]])
    assert number_instances(corner).tolist() == [[1, 0], [0, 2]]
    assert number_instances(np.array([[1, 1, 2, 2]])).tolist() == [[1, 1, 2, 2]]  # classes are apart
    assert not number_instances(np.zeros((3, 4), np.uint8)).any()


@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 3)])
def test_touching_discs_come_back_as_they_were(shape):
    flat = discs((11, 9), (12, 22), (11, 33))
    reference = np.broadcast_to(flat.reshape(*flat.shape, *(1,) * (len(shape) - 2)), shape)
    learned = separate(reference) > 0
    assert instance_measures(number_instances(reference > 0), reference).instances_prediction == 1
    found = instance_measures(number_instances(learned), reference)
    assert (found.instances_prediction, found.f1[0]) == (3, 1.0)
    assert found.mean_matched_iou > 0.95


def scored(labels):
    affine = np.eye(4)
    meta = {"original_affine": affine, "spatial_shape": np.array(labels.shape), "case_id": "a"}
    image = MetaTensor(torch.zeros(1, *labels.shape), affine=torch.as_tensor(affine), meta=meta)
    logits = torch.stack([torch.from_numpy(labels == 0), torch.from_numpy(labels > 0)]).float()
    return {"image": image, "pred": logits}


def test_what_is_restored_is_numbered_and_written_in_the_smallest_type(tmp_path):
    learned = separate(discs((11, 9), (12, 22), (11, 33))) > 0
    learned[0, 0] = True
    item = Restored(instances="components", minimum_instance_voxels=2)(scored(learned.astype(np.uint8)))
    without = learned.copy()
    without[0, 0] = False  # what is measured is what is written
    np.testing.assert_array_equal(item["pred"][0], without)
    assert item["pred"].dtype == torch.uint8
    np.testing.assert_array_equal(Restored()(scored(learned.astype(np.uint8)))["pred"][0], learned)
    np.testing.assert_array_equal(item["pred_instances"][0], number_instances(learned, 2))
    assert item["pred_instances"].meta["case_id"] == "a"
    saved = SaveImageOnGridd(output_dir=tmp_path, instances="components")(item)
    np.testing.assert_array_equal(read_section(saved["pred_path"]).array, number_instances(learned, 2))

    volume = np.zeros((40, 40, 2), np.uint8)
    volume[::2, ::2] = 1  # 400 objects of two voxels
    item = Restored(instances="components", minimum_instance_voxels=2)(scored(volume))
    saved = SaveImageOnGridd(output_dir=tmp_path, instances="components")(item)
    written = nibabel.load(saved["pred_path"])
    assert written.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.unique(written.dataobj), np.arange(401))


@pytest.mark.parametrize("wrong", [{"instances": "watershed"}, {"minimum_instance_voxels": -1}])
def test_settings_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"expected null or components"):
        Restored(**wrong)
