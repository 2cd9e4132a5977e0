"""Patches made a batch at once, against the same patches made one by one."""

import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, MapTransform, RandGaussianNoised, Randomizable

from pipeline.data import CaseDataset, EpochSampler
from pipeline.errors import ConfigError
from pipeline.transforms import (
    AugmentationChain,
    ForegroundIndicesd,
    RandSpatialPatchd,
    SpatialPatchParameters,
    ZeroAbsentChannelsd,
    collate_patches,
)
from pipeline.transforms.batch_sampling import BatchSampler
from pipeline.transforms.deferred import DRAWN

CPU = torch.device("cpu")
PATCH = (20, 16, 9)


class RandOffsetd(Randomizable, MapTransform):
    """An intensity step of the kind that a batch takes: drawn by shape, applied to many."""

    def __init__(self, keys, parameters_key="offset"):
        MapTransform.__init__(self, keys)
        self.parameters_key = parameters_key

    def draw_for(self, item):
        return {key: self._draw(item[key].shape) for key in self.keys}

    def _draw(self, shape):
        return {"offsets": self.R.normal(size=shape[0]).tolist()} if self.R.rand() < 0.7 else None

    def apply(self, images, parameters, spacing_mm):
        thickness = [0.0 if p is None else spacing[-1] for p, spacing in zip(parameters, spacing_mm, strict=True)]
        offsets = [[0.0] * images.shape[1] if p is None else p["offsets"] for p in parameters]
        scaled = torch.tensor(offsets) * torch.tensor(thickness)[:, None]
        return images + scaled.reshape(*scaled.shape, *[1] * (images.ndim - 2))

    def __call__(self, data):
        item, drawn = dict(data), self.draw_for(data)
        for key, parameters in drawn.items():
            item[key] = self.apply(item[key][None], [parameters], [item["spacing_mm"].tolist()])[0]
        return {**item, self.parameters_key: json.dumps(drawn)}


def case(index, shape=(40, 33, 14), channels=2):
    """Of a grid of its own, some smaller than a patch."""
    generator = torch.Generator().manual_seed(index)
    shape = (shape[0] - 5 * index, shape[1] - 5 * index, shape[2] - 2 * index)
    affine = torch.diag(torch.tensor([1.0, 1.2, 2.5 + index, 1.0], dtype=torch.float64))
    image = torch.rand(channels, *shape, generator=generator)
    label = torch.nn.functional.avg_pool3d((image[:1] * 9), 3, 1, 1).sub(3).clamp(0, 3).byte()
    present = torch.tensor([True, index != 1])
    return {
        "case_id": f"c{index}", "image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine),
        "present": present,
    }  # fmt: skip


def steps(**options):
    options = {
        "affine_probability": 0.5,
        "elastic_probability": 0.5,
        "shear_degrees": 5.0,
        "elastic_std_mm": 2.0,
    } | options
    return [
        ForegroundIndicesd(),
        RandSpatialPatchd(["image", "label"], patch_size=PATCH, flip_axes=(0, 2), **options),
        RandOffsetd("image"),
        RandOffsetd("image", "second"),
        ZeroAbsentChannelsd("image"),
    ]


def batches(augment_on, workers=0, epochs=2, cases=4, batch_size=2, **options):
    """What a trainer sees, as tensors."""
    chain = AugmentationChain(steps(**options), augment_on, CPU)
    dataset = CaseDataset([case(index) for index in range(cases)], chain, seed=3, progress=False)
    sampler = EpochSampler(dataset, seed=5)
    loader = DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, collate_fn=collate_patches
    )
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield from (chain.on_batch(batch, CPU) for batch in loader)


@pytest.mark.parametrize(
    "options", [{}, {"num_samples": 2}, {"padding_mode": "edge"}, {"label_interpolation": "nearest"}]
)
def test_a_batch_made_at_once_is_the_batch_of_patches_made_one_by_one(options):
    pairs = list(zip(batches("loader", **options), batches("device", **options), strict=True))
    assert len(pairs) == 4
    kinds = set()
    for alone, together in pairs:
        assert set(alone) == set(together)
        assert together["image"].shape == (2 * options.get("num_samples", 1), 2, *PATCH)
        for key in ("spatial_parameters", "offset", "second", "case_id"):
            assert alone[key] == together[key]
        kinds |= {SpatialPatchParameters.from_json(text).is_crop for text in alone["spatial_parameters"]}
        torch.testing.assert_close(together["image"], alone["image"], atol=1e-4, rtol=0)
        assert torch.equal(together["label"], alone["label"])
        assert together["label"].dtype == alone["label"].dtype == torch.uint8
        assert torch.equal(together["spacing_mm"], alone["spacing_mm"])
    assert kinds == {True, False}


@pytest.mark.parametrize("augment_on", ["device", "loader"])
def test_the_same_whatever_the_number_of_workers(augment_on):
    expected = list(batches(augment_on))
    for workers in (1, 2):
        for one, other in zip(batches(augment_on, workers), expected, strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])
            assert one["spatial_parameters"] == other["spatial_parameters"]


def drawn_batch(transform, items):
    batch = collate_patches([transform.defer(item) for item in items])
    return {key: batch[key] for key in batch[DRAWN][0].keys}, batch[DRAWN]


@pytest.mark.parametrize("interpolation", ["linear", "majority", "nearest"])
@pytest.mark.parametrize("border", ["mirror", "edge"])
def test_the_kernels_of_a_gpu_equal_the_compiled_loop(interpolation, border):
    """By torch on the CPU: in one batch what reaches beyond its volume, crops, and control grids of several sizes."""
    transform = RandSpatialPatchd(
        ["image", "label"], patch_size=PATCH, affine_probability=0.8, elastic_probability=0.7, elastic_std_mm=2.0,
        flip_axes=(0, 1, 2), padding_mode=border, shear_degrees=5.0, confine_thick_slices=False,
    ).set_random_state(1)  # fmt: skip
    boxes, patches = drawn_batch(transform, [case(index % 4) for index in range(16)])
    assert {patch.parameters.is_crop for patch in patches} == {True, False}
    assert len({patch.parameters.control.shape for patch in patches if patch.parameters.control is not None}) > 1
    assert any(start < 0 for patch in patches for start in patch.parameters.start)
    boxes = boxes["image" if interpolation == "linear" else "label"]
    one_by_one, at_once = (
        BatchSampler(patches, PATCH, CPU, compiled)(boxes, interpolation) for compiled in (True, False)
    )
    assert at_once.dtype == one_by_one.dtype
    if interpolation == "linear":
        torch.testing.assert_close(at_once, one_by_one, atol=1e-4, rtol=0)
        crops = [index for index, patch in enumerate(patches) if patch.parameters.is_crop]
        assert torch.equal(at_once[crops], one_by_one[crops])
    else:
        assert (at_once != one_by_one).float().mean() < 1e-4  # where two are equally near


def test_a_constant_stays_exactly_constant_for_a_gpu_too():
    transform = RandSpatialPatchd("image", patch_size=PATCH, affine_probability=1.0, elastic_probability=1.0)
    affine = torch.eye(4, dtype=torch.float64)
    boxes, patches = drawn_batch(
        transform, [{"image": MetaTensor(torch.full((1, 20, 20, 20), 3.25), affine=affine)}] * 2
    )
    assert (BatchSampler(patches, PATCH, CPU, compiled=False)(boxes["image"], "linear") == 3.25).all()


def test_sections_at_once():
    affine = torch.diag(torch.tensor([1.0, 0.8, 1.0, 1.0], dtype=torch.float64))
    items = [{"image": MetaTensor(torch.rand(2, 50 + index, 41), affine=affine)} for index in range(6)]
    items = [item | {"label": (item["image"][:1] * 3).byte()} for item in items]
    for elastic, std_mm in (("bspline", 2.0), ("unet_2015", 1.0)):
        transform = RandSpatialPatchd(
            patch_size=(32, 28), elastic=elastic, elastic_probability=0.8, elastic_std_mm=std_mm, margin=3
        ).set_random_state(0)
        boxes, patches = drawn_batch(transform, items)
        for key, interpolation in (("image", "linear"), ("label", "majority")):
            one, other = (BatchSampler(patches, (32, 28), CPU, c)(boxes[key], interpolation) for c in (True, False))
            assert one.shape[1:] == (2 if key == "image" else 1, 32, 28)
            assert ((one.float() - other.float()).abs() > 1e-4).float().mean() < 1e-3


def test_a_window_holds_what_the_patch_looks_at_and_no_more_than_its_volume():
    """All else of the volume may be anything; far fewer voxels travel than the volume has."""
    transform = RandSpatialPatchd(
        patch_size=(16, 16, 16), affine_probability=1.0, elastic_probability=1.0, foreground_share=0.0
    ).set_random_state(2)
    affine = torch.eye(4, dtype=torch.float64)
    item = {"image": MetaTensor(torch.rand(1, 90, 80, 70), affine=affine)}
    for _ in range(5):
        deferred = transform.defer(item)
        window, parameters = deferred[DRAWN].window, deferred["spatial_parameters"]
        assert deferred["image"].numel() < 0.4 * item["image"].numel()
        assert deferred["image"].untyped_storage().nbytes() == 4 * deferred["image"].numel()
        hidden = torch.full((1, 90, 80, 70), torch.nan)
        window.read(hidden).copy_(deferred["image"])
        expected = transform.replay(item, parameters)["image"]
        again = transform.replay({"image": MetaTensor(hidden, affine=affine)}, parameters)["image"]
        assert torch.equal(again, expected)


def test_a_step_that_changes_one_patch_at_a_time_keeps_the_patches_in_the_loader(caplog):
    chain = [*steps(), RandGaussianNoised("image", prob=1.0)]
    with pytest.raises(ConfigError, match="RandGaussianNoised after it"):
        AugmentationChain(chain, "device", CPU)
    with pytest.raises(ConfigError, match="no RandSpatialPatchd"):
        AugmentationChain([ForegroundIndicesd()], "device", CPU)
    with pytest.raises(ConfigError, match="auto, device or loader"):
        AugmentationChain(chain, "gpu", CPU)
    assert not AugmentationChain(chain, "auto", "cuda:0").deferred
    assert "one by one in the data loader, not on the GPU: RandGaussianNoised" in caplog.text
    on_gpu, on_cpu = (AugmentationChain(steps(), "auto", device) for device in ("cuda:0", "cpu"))
    assert (on_gpu.deferred, on_gpu.pins_memory) == (True, True)
    assert (on_cpu.deferred, on_cpu.pins_memory) == (False, False)


def test_in_the_loader_it_is_monais_compose():
    ours, theirs = AugmentationChain(steps(), "loader"), Compose(steps())
    for chain in (ours, theirs):
        chain.set_random_state(4)
    one, other = ours(case(0)), theirs(case(0))
    assert torch.equal(one["image"], other["image"])
    assert ours.on_batch(one, CPU) is one


def test_ordinary_items_collate_as_monais():
    items = [{"case_id": "a", "image": torch.ones(1, 2)}, {"case_id": "b", "image": torch.zeros(1, 2)}]
    batch = collate_patches([items, items])
    assert batch["case_id"] == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(batch["image"][:, 0, 0], [1, 0, 1, 0])
