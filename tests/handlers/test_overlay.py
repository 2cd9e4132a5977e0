"""OverlayImages on a real MONAI evaluator: pictures in the events, of the case's own grid."""

import io

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from pipeline.errors import DataError
from pipeline.handlers import OverlayImages, case_panel
from pipeline.handlers.tensorboard import summary_writer
from pipeline.io import read_section
from pipeline.transforms import LoadImageStackd

AFFINE = np.diag([-1.0, 1.0, 5.0, 1.0])
CLASSES = {"1": "lesion"}


class PutOnOwnGrid:
    """Stands in for the restoring transform: a label map that is the label, one voxel to the side."""

    def __call__(self, item):
        item["pred"] = torch.roll(item["label"], 1, dims=1)
        return item


@pytest.fixture
def items(tmp_path):
    """Four cases whose network input is another grid than their file."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(4):
        volume = rng.random((12, 14, 5)).astype(np.float32) + 1
        file = tmp_path / f"case-{i}_cbf.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), file)
        label = torch.zeros(1, 12, 14, 5)
        label[0, 3:8, 4:9, 1:4] = 1
        meta = {"case_id": f"case-{i}", "filename_or_obj": str(file)}
        items.append(
            {
                "image": MetaTensor(torch.zeros(2, 8, 8, 8), meta=dict(meta)),
                "label": MetaTensor(label, affine=torch.from_numpy(AFFINE), meta=dict(meta)),
            }
        )
    return items


def evaluate(items, handler, epochs, batch_size=1):
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=batch_size),
        network=torch.nn.Identity(),
        postprocessing=PutOnOwnGrid(),
        val_handlers=[handler],
    )
    for epoch in epochs:
        engine.run(epoch)
    return engine


@pytest.mark.parametrize("batch_size", [1, 4])
def test_pictures_are_written_for_the_first_cases_at_every_epoch(tmp_path, items, batch_size):
    writer = SummaryWriter(tmp_path / "events")
    evaluate(items, OverlayImages(writer, cases=2, slices=3, classes=CLASSES), epochs=(5, 10), batch_size=batch_size)
    writer.close()

    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Tags()["images"] == ["validate/case-0", "validate/case-1"]
    assert [event.step for event in events.Images("validate/case-1")] == [5, 10]

    image = nibabel.load(items[1]["image"].meta["filename_or_obj"]).get_fdata(dtype=np.float32)
    label = items[1]["label"][0].numpy()
    expected = case_panel(image, label, np.roll(label, 1, 0), (1.0, 1.0, 5.0), "LAS", 3, {1: "lesion"})
    written = np.asarray(Image.open(io.BytesIO(events.Images("validate/case-1")[0].encoded_image_string)))
    np.testing.assert_array_equal(written, expected)


def test_instances_are_outlined_one_by_one_and_colours_read_by_the_loaders_rules(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    numbers = torch.zeros(1, 20, 30, dtype=torch.int32)
    numbers[0, 4:16, 4:15], numbers[0, 4:16, 15:26] = 1, 2  # they touch
    loader = LoadImageStackd(channels=["microscopy"], colour="grey")
    writer = SummaryWriter(tmp_path / "events")
    handler = OverlayImages(writer, loader=loader)
    case = {
        "image": MetaTensor(torch.zeros(1, 20, 30), meta={"filename_or_obj": str(tmp_path / "a.png")}),
        "label": MetaTensor((numbers > 0).int(), meta={"case_id": "a"}),
        "pred": (numbers > 0).int(),
        "pred_instances": numbers,
    }
    engine = Engine(lambda engine, batch: [case])
    handler.attach(engine)
    engine.run([0])
    writer.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    written = np.asarray(Image.open(io.BytesIO(events.Images("validate/a")[0].encoded_image_string)))
    grey = read_section(tmp_path / "a.png", loader.rules.policy).array[..., None]
    one, two = (numbers[0, ..., None].numpy().clip(max=n) for n in (1, 2))
    np.testing.assert_array_equal(written, case_panel(grey, one, two, orientation="PLS", letters=False))
    assert (written != case_panel(grey, one, one, orientation="PLS", letters=False)).any()


def test_the_step_is_the_trainers_iteration_where_it_is_known(tmp_path, items):
    writer = SummaryWriter(tmp_path / "events")
    handler = OverlayImages(writer, cases=1, tag="cases", window=(0, 4))
    engine = evaluate(items, handler, epochs=())
    engine.state.trainer_iteration = 250
    engine.run()
    writer.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in events.Images("cases/case-0")] == [250]


def test_a_name_that_is_no_text_is_a_tag_all_the_same(tmp_path, items):
    for key in ("image", "label"):
        items[0][key].meta["case_id"] = "a\udcff"
    writer = SummaryWriter(tmp_path / "events")
    evaluate(items, OverlayImages(writer, cases=1), epochs=(1,))
    writer.close()
    assert EventAccumulator(str(tmp_path / "events")).Reload().Tags()["images"] == ["validate/a\\udcff"]


def test_a_folder_that_tensorboard_can_not_name_is_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="TensorBoard"):
        summary_writer(str(tmp_path / "a\udcff"))


def test_other_processes_write_nothing(items):
    handler = OverlayImages(None)
    evaluate(items, handler, epochs=(1,))
    assert handler._kept == {}
