"""The compiled loop against the torch version, which scipy's interpolation is the oracle of (test_spatial.py)."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.utils.data import DataLoader

from pipeline.errors import DataError
from pipeline.transforms import RandSpatialPatchd, SpatialPatchParameters, resampling, sample_patch
from pipeline.transforms.elastic import control_shape, sample_control_vectors

pytest.importorskip("numba")
SPACING, PATCH = (1.0, 1.2, 4.0), (33, 20, 9)


def drawn(patch=PATCH, spacing=SPACING, start=(3, 2, 1), **more) -> SpatialPatchParameters:
    control_mm = (24.0,) * len(patch)
    control = sample_control_vectors(
        np.random.RandomState(1), control_shape(patch, spacing, control_mm), 1.5, control_mm
    )
    values = {"flips": (True, False, False), "rotation_degrees": (5, -8, 20), "scaling": (0.9, 1.1, 1.05)}
    values |= {"shear_degrees": (4, -3, 2), "control": control, "control_spacing_mm": control_mm}
    return SpatialPatchParameters(start, **{**values, **more})


def both(volume, parameters, patch=PATCH, spacing=SPACING, **options):
    return (
        sample_patch(volume, parameters, patch, spacing, **options),
        sample_patch(volume, parameters, patch, spacing, **options, compiled=False),
    )


@pytest.mark.parametrize("border", ["mirror", "edge"])
@pytest.mark.parametrize("start", [(9, 8, 5), (-30, 2, 1)])
@pytest.mark.parametrize("elastic", [True, False])
def test_equals_torch(border, start, elastic):
    volume = torch.rand(3, 60, 48, 20)
    parameters = drawn(start=start) if elastic else drawn(start=start, control=None)
    compiled, by_torch = both(volume, parameters, border=border)
    assert compiled.shape == (3, *PATCH)
    torch.testing.assert_close(compiled, by_torch, atol=2e-4, rtol=0)
    label = (
        (volume[:1, ::4, ::4, ::2] * 5).byte().repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(2, 3)
    )
    for interpolation in ("nearest", "majority"):
        compiled, by_torch = both(label, parameters, border=border, interpolation=interpolation)
        assert compiled.dtype == torch.uint8
        assert (compiled != by_torch).float().mean() < 1e-3  # where two are equally near


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 30, 1), (2, 30, 3), (40, 30, 1)])
def test_volumes_of_one_voxel_and_smaller_than_the_patch(size):
    compiled, by_torch = both(torch.rand(2, *size), drawn())
    torch.testing.assert_close(compiled, by_torch, atol=2e-4, rtol=0)


@pytest.mark.parametrize("elastic", ["bspline", "unet_2015", None])
def test_sections_equal_torch(elastic):
    random = np.random.RandomState(0)
    control = None if elastic is None else random.normal(0, 2, (2, 3, 3) if elastic == "unet_2015" else (2, 5, 6))
    parameters = SpatialPatchParameters(
        (-3, 20), (True, False), (25.0,), (0.9, 1.1), shear_degrees=(7.0,),
        control=None if control is None else control.astype(np.float32),
        control_spacing_mm=None if elastic == "unet_2015" else (20.0, 15.0),
    )  # fmt: skip
    volume, label = torch.rand(2, 70, 61), torch.randint(0, 3, (1, 70, 61))
    compiled, by_torch = both(volume, parameters, (40, 37), (1.0, 0.8))
    torch.testing.assert_close(compiled, by_torch, atol=2e-4, rtol=0)
    for interpolation in ("nearest", "majority"):
        compiled, by_torch = both(label, parameters, (40, 37), (1.0, 0.8), interpolation=interpolation)
        assert compiled.dtype == torch.int64
        assert (compiled != by_torch).float().mean() < 1e-3


def test_any_order_of_axes_in_memory_any_type_and_mapped_files(tmp_path):
    volume, parameters = (torch.rand(2, 40, 30, 12) * 100).round(), drawn(start=(-5, 2, 1))
    expected = sample_patch(volume, parameters, PATCH, SPACING)
    for order in ((1, 2, 3, 0), (0, 3, 2, 1), (2, 0, 1, 3)):
        stored = volume.permute(order).contiguous()
        other = stored.permute([order.index(axis) for axis in range(4)])
        assert torch.equal(sample_patch(other, parameters, PATCH, SPACING), expected)
    for dtype in (torch.int16, torch.uint8, torch.float64, torch.bfloat16):
        result = sample_patch(volume.to(dtype), parameters, PATCH, SPACING)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected, atol=2e-3 if dtype != torch.bfloat16 else 0.5, rtol=0)
    np.save(tmp_path / "volume.npy", volume.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "volume.npy", mmap_mode="c"))
    assert torch.equal(sample_patch(mapped, parameters, PATCH, SPACING), expected)
    for dtype in (torch.bool, torch.int32, torch.int64, torch.float32):
        label = (volume[:1] > 50).to(dtype)
        looked_up = sample_patch(label, parameters, PATCH, SPACING, interpolation="majority")
        assert looked_up.dtype == dtype
        torch.testing.assert_close(
            looked_up, sample_patch(label, parameters, PATCH, SPACING, interpolation="majority", compiled=False)
        )


def test_a_volume_too_large_to_count_its_voxels_is_read_by_its_box(monkeypatch):
    volume, parameters = torch.rand(2, 40, 30, 12), drawn(start=(-5, 2, 1))
    expected = sample_patch(volume, parameters, PATCH, SPACING)
    monkeypatch.setattr("pipeline.transforms.resampling._LAST_PLACE", 1000)
    torch.testing.assert_close(sample_patch(volume, parameters, PATCH, SPACING), expected, atol=2e-5, rtol=0)


def test_the_same_bits_in_any_number_of_threads_and_from_several_at_once():
    volume, patch = torch.rand(3, 70, 60, 50), (64, 48, 40)
    parameters, before = drawn(patch), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(sample_patch(volume, parameters, patch, SPACING))
            with ThreadPoolExecutor(3) as pool:
                results += pool.map(lambda _: sample_patch(volume, parameters, patch, SPACING), range(3))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


class Patches(torch.utils.data.Dataset):
    """Patches, each from its own seed, as `pipeline.data.CaseDataset` draws them."""

    def __init__(self):
        affine = torch.eye(4, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        self.item = {"image": MetaTensor(torch.rand(1, 50, 50, 50, generator=generator), affine=affine)}
        self.transform = RandSpatialPatchd(
            "image", patch_size=(40, 40, 40), affine_probability=1, elastic_probability=1
        )

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.transform.set_random_state(seed=index)(self.item)["image"]


def test_the_same_bits_in_workers_that_were_forked_after_threads_had_run():
    dataset, before = Patches(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = [dataset[index] for index in range(4)]
    finally:
        torch.set_num_threads(before)
    for workers in (0, 2):
        loaded = list(DataLoader(dataset, batch_size=None, num_workers=workers, timeout=60 if workers else 0))
        assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))


def test_a_constant_stays_exactly_constant():
    value = torch.full((1, 20, 20, 20), 3.25)
    assert (sample_patch(value, drawn(), PATCH, SPACING) == 3.25).all()


def test_nothing_turned_is_the_identity():
    volume = torch.rand(2, 20, 18, 10)
    still = drawn((20, 18, 10), start=(0, 0, 0), flips=(False,) * 3, rotation_degrees=(0, 0, 0), scaling=(1, 1, 1),
                  shear_degrees=(0, 0, 0))  # fmt: skip
    still.control[:] = 0
    assert torch.equal(sample_patch(volume, still, (20, 18, 10), (1.0, 1.0, 4.0)), volume)


def test_torch_where_numba_is_missing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "pipeline.transforms.compiled_loop", raising=False)
    monkeypatch.delattr("pipeline.transforms.compiled_loop", raising=False)
    resampling._loaded.cache_clear()
    try:
        volume = torch.rand(1, 20, 20, 20)
        first, by_torch = both(volume, drawn())
        sample_patch(volume, drawn(), PATCH, SPACING)
        assert torch.equal(first, by_torch)
        assert [record.message.split(",")[0] for record in caplog.records] == ["Patches are resampled by torch"]
    finally:
        resampling._loaded.cache_clear()


def test_where_no_folder_can_be_written_it_is_compiled_all_the_same(monkeypatch, caplog):
    from pipeline.transforms import compiled_loop

    def no_locator(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled_loop, "njit", no_locator)
    assert compiled_loop._compiled(len) is len
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_refuses_parameters_that_are_no_numbers():
    with pytest.raises(DataError, match="not finite"):
        sample_patch(torch.rand(1, 9, 9, 9), drawn(rotation_degrees=(float("nan"), 0, 0)), PATCH, SPACING)


def test_prepared_labels_leave_nothing_to_compile_for_the_first_patch():
    resampling.compile_loop()
    loop = resampling.compiled_loop()
    before = list(loop.nearest.signatures), list(loop.majority.signatures)
    labels = torch.zeros(1, 20, 20, 20, dtype=torch.int32)
    for interpolation in ("nearest", "majority"):
        sample_patch(labels, drawn(), PATCH, SPACING, interpolation=interpolation)
    assert (list(loop.nearest.signatures), list(loop.majority.signatures)) == before
