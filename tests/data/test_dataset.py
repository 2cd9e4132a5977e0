import logging
import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambda, MapTransform, Randomizable, RandomizableTransform

from pipeline.data import CaseDataset, Refusal, memory
from pipeline.errors import ConfigError, DataError, GeometryError


class Load(MapTransform):
    """Makes an array from a case's number, and counts."""

    def __init__(self):
        super().__init__("image")
        self.calls = []

    def __call__(self, item):
        self.calls.append(item["case_id"])
        if item["case_id"] in ("bad", "worse"):
            raise GeometryError("no space", file=f"{item['case_id']}.nii.gz", fix="find some")
        if item["case_id"] == "broken":
            raise KeyError("oh")
        return {**item, "image": torch.full((1, 4, 4), float(item["image"]))}


class AddNoiseInPlace(RandomizableTransform, MapTransform):
    def __init__(self):
        MapTransform.__init__(self, "image")
        RandomizableTransform.__init__(self)

    def __call__(self, item):
        item["image"] += self.R.normal()
        return item


class ReadOnly(Randomizable, MapTransform):
    leaves_input_untouched = True

    def __init__(self):
        super().__init__("image")

    def randomize(self, data=None):
        self.shift = self.R.normal()

    def __call__(self, item):
        self.randomize()
        return {**item, "image": item["image"] + self.shift, "address": item["image"].data_ptr()}


def items(*names):
    return [{"case_id": name, "image": number} for number, name in enumerate(names)]


def test_head_runs_once_and_its_results_never_change():
    for random in (AddNoiseInPlace(), ReadOnly()):
        load = Load()
        dataset = CaseDataset(items("a", "b", "c"), Compose([load, random]), progress=False, workers=2)
        before = [item["image"].clone() for item in dataset._items]
        epochs = [[dataset[i]["image"] for i in range(3)] for _ in range(2)]
        assert sorted(load.calls) == ["a", "b", "c"]
        assert dataset.cached == 3
        assert not torch.equal(epochs[0][0], epochs[1][0])
        for kept, original in zip(dataset._items, before, strict=True):
            assert torch.equal(kept["image"], original)
            assert "address" not in kept


def test_arrays_are_shared_only_with_a_transform_that_leaves_them_untouched():
    dataset = CaseDataset(items("a"), [Load(), ReadOnly()], progress=False)
    assert dataset[0]["address"] == dataset._items[0]["image"].data_ptr()
    whole = CaseDataset(items("a"), [Load()], progress=False)
    assert whole[0]["image"].data_ptr() != whole._items[0]["image"].data_ptr()


def test_what_exceeds_the_memory_is_prepared_at_access(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 300)  # an item has 64 bytes
    load = Load()
    dataset = CaseDataset(items(*"abcd"), [load, ReadOnly()], cache_share=0.5, workers=1, progress=False)
    assert dataset.cached == 2
    assert [dataset[i]["case_id"] for i in range(4)] == [*"abcd"]
    assert load.calls == [*"abcd", "c", "d"]
    assert CaseDataset(items("a"), [load], cache_share=0, progress=False).cached == 0


def test_the_memory_is_shared_among_processes(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1000)
    assert memory.cache_budget_bytes(0.5) == 500
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.cache_budget_bytes(0.5) == 125


def test_available_memory_is_a_plausible_number():
    assert 1 << 20 < memory.available_memory_bytes() < 1 << 50


def test_raise_lists_every_refused_case():
    with pytest.raises(DataError) as refusal:
        CaseDataset(items("a", "bad", "broken"), [Load()], progress=False)
    text = str(refusal.value)
    assert "2 of 3 train cases" in text
    assert "case bad, file bad.nii.gz: found no space (in Load); to fix it: find some" in text
    assert "case broken" in text
    assert "KeyError" in text
    assert "0x" not in text
    with pytest.raises(GeometryError, match="case bad"):
        CaseDataset(items("a", "bad"), [Load()], progress=False)


def test_skip_goes_on_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        dataset = CaseDataset(
            items("a", "bad", "b", "broken"), [Load()], on_refusal="skip", progress=False, name="validation"
        )
    assert [item["case_id"] for item in dataset.data] == ["a", "b"]
    assert len(dataset) == 2
    assert dataset[1]["case_id"] == "b"
    assert [refusal.case_id for refusal in dataset.refused] == ["bad", "broken"]
    assert isinstance(dataset.refused[0], Refusal)
    assert "2 of 4 validation cases are left out" in caplog.text
    assert "no space" in caplog.text
    with pytest.raises(DataError, match="2 of 2"):
        CaseDataset(items("bad", "worse"), [Load()], on_refusal="skip", progress=False)


def test_an_error_in_the_random_part_names_the_case():
    class RandFail(ReadOnly):
        def __call__(self, item):
            raise ValueError("too small")

    dataset = CaseDataset([{"case_id": "a", "image": 1}], [Load(), RandFail()], progress=False)
    with pytest.raises(DataError, match=r"case a.*ValueError: too small \(in RandFail\)"):
        dataset[0]


def test_data_loader_with_workers_sees_the_same_data():
    dataset = CaseDataset(items(*"abcdef"), [Load(), ReadOnly()], progress=False)
    dataset.transform.set_random_state(seed=0)
    loader = DataLoader(dataset, batch_size=2, num_workers=2)
    images = torch.cat([batch["image"] for batch in loader])
    assert images.shape == (6, 1, 4, 4)
    shifts = images.mean((1, 2, 3)).numpy() - np.arange(6)
    assert len(np.unique(shifts.round(5))) == 6
    assert pickle.loads(pickle.dumps(dataset)).cached == 6


def test_refuses_options_that_do_not_exist():
    with pytest.raises(ConfigError, match="on_refusal"):
        CaseDataset(items("a"), [Load()], on_refusal="ignore")
    with pytest.raises(ConfigError, match="cache_share"):
        CaseDataset(items("a"), [Load()], cache_share=2)


def test_a_case_that_the_memory_can_not_hold_is_refused_and_the_others_go_on():
    def spread(item):
        return {**item, "image": torch.empty(item["voxels"], dtype=torch.uint8)}

    data = [{"case_id": name, "voxels": voxels} for name, voxels in (("a", 8), ("b", 1 << 50), ("c", 8))]
    kept = CaseDataset(data, [Lambda(spread)], progress=False, on_refusal="skip")
    assert [item["case_id"] for item in kept] == ["a", "c"]
    assert "more memory than is free (1125899906842624 bytes at once) (in Lambda)" in kept.refused[0].reason
    assert "to fix it: close other programs" in kept.refused[0].reason
