import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import ConfigError, GeometryError
from pipeline.inference import Restored, SaveImageOnGridd

AFFINE = np.array([[-0.9, 0, 0.1, 4], [0, 1.1, 0, -7], [0.018, 0, 5, 3], [0, 0, 0, 1]])


def restored_item(**entries):
    meta = {"original_affine": AFFINE, "spatial_shape": [4, 5, 2], "filename_or_obj": "in/sub-01_cbf.nii.gz"}
    image = MetaTensor(torch.zeros(1, 4, 5, 2), affine=torch.as_tensor(AFFINE), meta=meta)
    item = {"image": image, "pred": torch.randn(3, 4, 5, 2), **entries}
    return Restored(probabilities_key="probabilities")(item)


def test_what_is_written_is_read_back_on_the_cases_own_grid(tmp_path):
    item = restored_item(case_id="sub-01 é", relative="site/a")
    names = {"0": "background", "1": "grey matter", "2": "white matter"}
    saved = SaveImageOnGridd(output_dir=tmp_path, probabilities_key="probabilities", classes=names)(item)
    path = tmp_path / "site" / "a" / "sub-01 é.nii.gz"
    assert saved["pred_path"] == str(path)
    labels = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), item["pred"][0].numpy())
    np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-6)
    assert labels.get_data_dtype() == np.uint8
    files = [f"sub-01 é_probability_{name.replace(' ', '_')}.nii.gz" for name in names.values()]
    probabilities = [nibabel.load(path.with_name(file)) for file in files]
    assert all(volume.get_data_dtype() == np.float32 for volume in probabilities)
    most_probable = np.argmax([volume.get_fdata() for volume in probabilities], axis=0)
    np.testing.assert_array_equal(most_probable, item["pred"][0].numpy())


def test_probabilities_need_the_names_of_their_classes(tmp_path):
    with pytest.raises(ConfigError, match="no classes"):
        SaveImageOnGridd(output_dir=tmp_path, probabilities_key="probabilities")


@pytest.mark.parametrize(
    ("source", "name"), [("a/sub-02.nii.gz", "sub-02_seg"), ("b/sub-03.NII", "sub-03_seg"), ("c.d.nii", "c.d_seg")]
)
def test_without_a_case_id_the_file_that_was_read_gives_the_name(tmp_path, source, name):
    item = restored_item()
    item["image"].meta["filename_or_obj"] = source
    SaveImageOnGridd(output_dir=tmp_path, output_postfix="_seg")(item)
    assert [p.name for p in tmp_path.iterdir()] == [f"{name}.nii.gz"]


def test_a_result_on_another_grid_is_refused_and_nothing_written(tmp_path):
    item = restored_item(case_id="sub-01")
    item["pred"].affine[0, 3] += 0.5
    with pytest.raises(GeometryError, match=r"case sub-01.*own grid.*Restored"):
        SaveImageOnGridd(output_dir=tmp_path / "out")(item)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("entries", [{"case_id": "../x"}, {"case_id": "a/b"}, {"case_id": "x", "relative": "../.."}])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, entries):
    with pytest.raises(ConfigError, match="below the output folder"):
        SaveImageOnGridd(output_dir=tmp_path)(restored_item(**entries))
