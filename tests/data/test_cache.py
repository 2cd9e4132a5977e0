import errno
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from copy import deepcopy
from enum import Enum
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import (
    Compose,
    Invertd,
    Lambdad,
    MapTransform,
    Orientationd,
    RandSpatialCropd,
    Spacingd,
    Transform,
)
from monai.utils import TraceKeys

from pipeline.data import CaseDataset, EpochSampler, cache, cache_key, file_digests
from pipeline.data.cache import CaseCache, cache_folder
from pipeline.data.cache_lease import leased_keys
from pipeline.data.file_digests import FileDigests
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume
from pipeline.transforms import ForegroundIndicesd, LoadImageStackd, NormalizeChannelsd, RandSpatialPatchd
from tests.commands import at_once

AFFINE = np.array([[-1.5, 0, 0, 20], [0, 0, 2.0, -7], [0, 1.1, 0, 3], [0, 0, 0, 1]])


@pytest.fixture
def items(tmp_path):
    """Three cases of two channels and a label, not in RAS order, with 1.5 x 1.1 x 2 mm voxels."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    rng = np.random.default_rng(0)
    made = []
    for number in range(3):
        shape = (9 + number, 12, 8)
        grid = Grid(shape, AFFINE)
        item = {"case_id": f"patient-{number}", "image": {}, "label": str(folder / f"{number}_label.nii.gz")}
        for name in ("cbf", "mtt"):
            item["image"][name] = str(folder / f"{number}_{name}.nii.gz")
            write_volume(item["image"][name], rng.normal(100, 20, shape).astype(np.float32), grid)
        label = np.zeros(shape, np.uint8)
        label[2:5, 3:6, 2:4], label[6, 6, 6] = 1, 2
        write_volume(item["label"], label, grid)
        made.append(item)
    return made


def steps(spacing=(1.0, 1.0, 2.0)):
    return [
        LoadImageStackd(channels=["cbf", "mtt"], labels=[1, 2]),
        Orientationd(["image", "label"], axcodes="RAS", labels=None),
        Spacingd(["image", "label"], pixdim=spacing, mode=("bilinear", "nearest")),
        NormalizeChannelsd("image", ["cbf", "mtt"], {"cbf": {"scheme": "z_score"}, "mtt": {"scheme": "z_score"}}),
        ForegroundIndicesd(),
    ]


def patches(**options):
    return RandSpatialPatchd(patch_size=[8, 10, 6], foreground_share=0.5, **options)


def dataset(items, folder, transform=None, **options):
    return CaseDataset(items, transform or steps(), progress=False, cache_dir=folder, cache_share=0, **options)


def entries(folder):
    return sorted((Path(folder) / "prepared-cases").glob("*.case"))


def assert_equal(found, expected, ids=None):
    """All types, values and meta; ``ids`` maps those of one chain's transforms to the other's."""
    assert type(found) is type(expected)
    if isinstance(expected, MetaTensor):
        assert_equal(found.as_tensor(), expected.as_tensor(), ids)
        for name in ("meta", "applied_operations", "pending_operations", "is_batch"):
            assert_equal(getattr(found, name), getattr(expected, name), ids)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            if key == TraceKeys.ID and ids:
                assert found[key] == ids[value]
            else:
                assert_equal(found[key], value, ids)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other, ids)
    else:
        assert found == expected or (found != found and expected != expected)


def test_a_prepared_case_comes_back_as_the_chain_gave_it(items, tmp_path):
    chain = Compose(steps())
    expected = [chain(item) for item in items]
    assert len(expected[0]["image"].applied_operations) == 2
    for _ in range(2):  # written, then found
        kept = dataset(items, tmp_path, chain)
        assert (kept.on_disk, kept.cached) == (3, 0)
        for index in (0, 1, 2, 1):
            assert_equal(kept[index], expected[index])


def test_inversion_works_with_an_entry_of_another_chain(items, tmp_path):
    dataset(items, tmp_path)  # the process that wrote: its transforms had other ids
    chain = Compose(steps()[:3])
    dataset(items, tmp_path, chain)
    again = Compose(steps()[:3])
    before = len(entries(tmp_path))
    kept = dataset(items, tmp_path, again)
    assert len(entries(tmp_path)) == before
    ids = {id(a): id(b) for a, b in zip(_all(chain), _all(again), strict=True)}
    for index, item in enumerate(items):
        assert_equal(kept[index], chain(item), ids)
    back = Invertd("image", again, orig_keys="image", nearest_interp=False)(kept[0])["image"]
    expected = Invertd("image", chain, orig_keys="image", nearest_interp=False)(chain(items[0]))["image"]
    assert torch.equal(back, expected)
    assert back.shape[1:] == (9, 12, 8)


def _all(holder):
    """A chain's transforms, and those inside them."""
    inside = getattr(holder, "transforms", None) or vars(holder).values()
    return [found for value in inside if isinstance(value, Transform) for found in (value, *_all(value))]


class Colour(Enum):
    RED = 1


class Put(MapTransform):
    """Leaves a value in the item."""

    def __init__(self, value):
        super().__init__("case_id")
        self.make = value

    def __call__(self, item):
        return {**item, "value": self.make()}


def made():
    return {
        1: (True, None, -3, 0.1, float("nan"), float("inf"), "ä\x00", [()]),
        ("key", 2): torch.Size([2, 3]),
        "tensors": [torch.tensor(3, dtype=torch.int16), torch.ones(2, 0), torch.arange(6.0).bfloat16().reshape(2, 3).T],
        "bool": torch.tensor([True, False]),
        "arrays": (
            np.float64(0.1),
            np.array("text"),
            np.zeros((0, 3), np.int32),
            np.asfortranarray(np.eye(3)),
            np.int64(1),
        ),
        "key": TraceKeys.ID,
        "dtype": torch.float16,
    }


def test_every_kind_of_value_comes_back(tmp_path):
    assert_equal(dataset([{"case_id": "a"}], tmp_path, [Put(made)])[0]["value"], made())
    kept = dataset([{"case_id": "a"}], tmp_path, [Put(grid)])[0]["value"]
    assert isinstance(kept, Grid)
    assert kept.same_grid(grid(), 0.0)


def grid():
    return Grid((2, 3, 4), AFFINE)


def colour():
    return Colour.RED


def test_a_value_that_a_file_cannot_give_back_stays_in_memory(tmp_path, caplog):
    kept = CaseDataset([{"case_id": "a"}, {"case_id": "b"}], [Put(colour)], progress=False, cache_dir=tmp_path)
    assert kept[0]["value"] is Colour.RED
    assert (kept.on_disk, kept.cached) == (0, 2)
    assert caplog.text.count("test_cache.Colour") == 1
    assert not entries(tmp_path)


def batches(data, workers=0):
    loader = DataLoader(
        data, sampler=EpochSampler(data, seed=3), batch_size=2, num_workers=workers, persistent_workers=False
    )
    found = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        found += [(batch["image"], batch["label"], batch["case_id"]) for batch in loader]
    return found


@pytest.mark.parametrize("tail", [patches, lambda: RandSpatialCropd(["image", "label"], [6, 6, 4], random_size=False)])
def test_batches_are_the_same_with_and_without_in_any_run(items, tmp_path, tail):
    head = steps() if tail is patches else steps()[:4]
    expected = batches(CaseDataset(items, [*head, tail()], progress=False, seed=5))
    for workers in (0, 0, 2):
        found = batches(dataset(items, tmp_path, [*head, tail()], seed=5), workers)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
            assert one[2] == other[2]


def test_what_writes_to_an_item_changes_no_later_one(items, tmp_path):
    kept = dataset(items, tmp_path)
    kept[0]["image"].zero_()
    kept[0]["foreground"][1][:] = 0
    assert_equal(
        kept[0], CaseDataset(items, steps(), progress=False)[0] | {"image": kept[0]["image"], "label": kept[0]["label"]}
    )
    assert kept[0]["image"].abs().sum() > 0


def new_entries(items, folder, transform=None):
    before = set(entries(folder))
    dataset(items, folder, transform)
    return len(set(entries(folder)) - before)


def test_what_changes_is_prepared_again_and_nothing_else(items, tmp_path, monkeypatch):
    assert new_entries(items, tmp_path) == 3
    assert new_entries(items, tmp_path) == 0
    file = Path(items[1]["label"])
    os.utime(file)  # the same bytes
    assert new_entries(items, tmp_path) == 0
    stat = file.stat()
    label = np.zeros((10, 12, 8), np.uint8)
    label[1:4, 1:4, 1:4] = 2
    write_volume(file, label, Grid(label.shape, AFFINE))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # other bytes, with the old time
    assert new_entries(items, tmp_path) == 1
    assert dataset(items, tmp_path)[1]["label"].sum() > 0
    assert new_entries(items, tmp_path, steps((1.0, 1.0, 2.5))) == 3
    assert new_entries(items, tmp_path, [*steps()[:4], ForegroundIndicesd(limit=7)]) == 3
    assert new_entries([items[0] | {"case_id": "other"}], tmp_path) == 1
    monkeypatch.setattr(cache_key, "_version", lambda package: "next" if package == "scipy" else "0")
    assert new_entries(items, tmp_path) == 3


def test_the_source_of_a_transform_and_what_it_holds_count(tmp_path):
    def described(*head):
        return cache_key.HeadDescription(head).digest

    assert described(Put(made)) == described(Put(made)) != described(Put(colour))
    assert described(Lambdad("a", lambda x: x + 1)) != described(Lambdad("a", lambda x: x + 2))
    table = tmp_path / "table.txt"
    table.write_text("1")
    before = described(Put(str(table)))
    table.write_text("2")
    assert described(Put(str(table))) != before
    assert described(Put({"b", "a"})) == described(Put({"a", "b"}))
    assert described(Put(np.arange(3))) != described(Put(np.arange(4)))
    circle = Put([])
    circle.make.append(circle)
    assert described(circle) == described(circle)
    with pytest.raises(cache_key.Unknown, match="RandomState"):
        described(Put(np.random.RandomState(0)))


FACTOR = 2
SETTINGS = {"shift": 1}


def shifted(value):
    return value + SETTINGS["shift"]


class Scaled(Transform):
    scale = 2

    def __call__(self, value):
        return self.adjusted(value) * self.scale

    @staticmethod
    def adjusted(value):
        return value[..., :3] + FACTOR


class Inherited(Scaled):
    """Has nothing of its own."""


def described(*head):
    return cache_key.HeadDescription(head).digest


@pytest.mark.parametrize(
    "made",
    [
        lambda: Lambdad("a", lambda x: x * FACTOR),
        lambda: Lambdad("a", lambda x: [(lambda y: y * FACTOR)(y) for y in x]),
        lambda: Scaled(),
        lambda: Inherited(),
        lambda: Put(Inherited),
        lambda: Put(Scaled().adjusted),
    ],
)
def test_a_module_global_counts_wherever_a_function_reads_it(monkeypatch, made):
    before = described(made())
    assert described(made()) == before
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert described(made()) != before
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert described(made()) == before


def test_class_attributes_methods_and_called_functions_count(monkeypatch):
    before, calls = described(Inherited()), described(Lambdad("a", lambda x: shifted(x)))
    monkeypatch.setattr(Scaled, "scale", 3)
    changed = described(Inherited())
    assert changed != before
    monkeypatch.setattr(Scaled, "adjusted", staticmethod(lambda value: value))
    assert described(Inherited()) not in (before, changed)
    monkeypatch.setitem(SETTINGS, "shift", 4)
    assert described(Lambdad("a", lambda x: shifted(x))) != calls


def test_an_entry_of_another_global_or_class_attribute_is_never_served(tmp_path, monkeypatch):
    def one():
        chain = [Lambdad("a", lambda x: x * FACTOR), Lambdad("a", Scaled())]
        return dataset([{"a": np.ones(4)}], tmp_path, chain)[0]["a"].tolist()

    assert one() == [8.0] * 3
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert one() == [20.0] * 3
    monkeypatch.setattr(Scaled, "scale", 1)
    assert one() == [10.0] * 3


def test_what_cannot_be_told_of_code_is_unknown(monkeypatch):
    class Slotted(Transform):
        __slots__ = ("a",)

        def __call__(self, value):
            return value

    def imports(x):
        import a_module_that_nobody_has as other

        return other.factor * x

    for head, said in ((Slotted(), "slots"), (Lambdad("a", imports), "does not exist yet")):
        with pytest.raises(cache_key.Unknown, match=said):
            described(head)
    monkeypatch.setitem(globals(), "FACTOR", np.random.RandomState(0))
    with pytest.raises(cache_key.Unknown, match="RandomState"):
        described(Lambdad("a", lambda x: x * FACTOR))
    monkeypatch.setitem(globals(), "FACTOR", logging.getLogger("one's own"))
    assert described(Lambdad("a", lambda x: FACTOR.info(x)))


def test_a_transform_that_cannot_be_described_is_said(items, tmp_path, caplog):
    step = Put(made)
    step.state = np.random.RandomState(0)
    kept = dataset(items, tmp_path, [step])
    assert kept.on_disk == 0
    assert "RandomState" in caplog.text


def test_a_dataset_that_moved_is_found_again(items, tmp_path):
    dataset(items, tmp_path)
    shutil.copytree(tmp_path / "dataset", tmp_path / "elsewhere")
    moved = [
        {
            "case_id": item["case_id"],
            "image": {name: path.replace("/dataset/", "/elsewhere/") for name, path in item["image"].items()},
            "label": item["label"].replace("/dataset/", "/elsewhere/"),
        }
        for item in items
    ]
    assert new_entries(moved, tmp_path) == 0
    assert_equal(dataset(moved, tmp_path, chain := Compose(steps()))[1], chain(moved[1]))


class Mention(MapTransform):
    def __call__(self, item):
        return {**item, "said": f"read {item['file']}"}


def test_a_text_that_mentions_a_file_is_never_out_of_date(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("same")
        item = {"case_id": "1", "file": str(tmp_path / folder / "x.txt")}
        assert dataset([item], tmp_path, [Mention("file")])[0]["said"] == f"read {item['file']}"


def damage(path, offset, count=1):
    content = bytearray(path.read_bytes())
    for index in range(count):
        content[offset + index] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["begin", "header", "arrays", "end", "empty"])
def test_a_damaged_entry_is_prepared_again_and_said(items, tmp_path, caplog, where):
    expected = deepcopy(dataset(items, tmp_path)[0])  # not mapped: the file is about to be cut
    for path in entries(tmp_path):
        if where == "end":
            os.truncate(path, path.stat().st_size - 1)
        elif where == "empty":
            os.truncate(path, 0)
        else:
            damage(path, {"begin": 0, "header": 100, "arrays": path.stat().st_size - 4000}[where])
    again = dataset(items, tmp_path, chain := Compose(steps()))
    found = again[0]
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["label"], expected["label"])
    assert_equal(found, chain(items[0]))
    assert caplog.text.count("Damaged") == (1 if where == "arrays" else 3)
    caplog.clear()
    assert torch.equal(dataset(items, tmp_path)[0]["image"], expected["image"])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_folder_that_vanishes_during_a_run_does_not_end_it(items, tmp_path, caplog):
    kept = dataset(items, tmp_path, chain := Compose(steps()))
    shutil.rmtree(tmp_path / "prepared-cases")
    assert_equal(kept[1], chain(items[1]))
    assert "gone" in caplog.text
    assert "can't be written" in caplog.text


def test_a_full_disk_is_said_once_and_leaves_nothing_behind(items, tmp_path, caplog, monkeypatch):
    def fill(file, *rest):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "write_entry", fill)
    kept = CaseDataset(items, chain := Compose(steps()), progress=False, cache_dir=tmp_path)
    assert (kept.on_disk, kept.cached) == (0, 3)
    assert_equal(kept[2], chain(items[2]))
    assert caplog.text.count("No space left on device") == 1
    assert [path.suffix for path in (tmp_path / "prepared-cases").iterdir() if path.name != "digests"] == [".lease"]


def test_a_folder_that_cannot_be_made_is_said(items, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    kept = CaseDataset(items, steps(), progress=False, cache_dir=tmp_path / "file")
    assert kept.cached == 3
    assert "not kept on disk" in caplog.text


def test_a_refused_case_is_refused_again(items, tmp_path):
    Path(items[1]["label"]).write_bytes(b"no image")
    for _ in range(2):
        kept = dataset(items, tmp_path, on_refusal="skip")
        assert [refusal.case_id for refusal in kept.refused] == ["patient-1"]
        assert (len(kept), kept.on_disk) == (2, 2)
        assert kept[1]["case_id"] == "patient-2"
    with pytest.raises(DataError, match="patient-1"):
        dataset(items, tmp_path)


def test_nothing_tells_whose_data_it_is_and_no_one_else_reads_it(items, tmp_path):
    kept = dataset(items, tmp_path)
    folder = tmp_path / "prepared-cases"
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert "patient" not in path.name
        assert str(tmp_path).encode() not in path.read_bytes()
    folder.chmod(0o755)
    dataset(items, tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept.on_disk == 3


def limited(folder, count, size):
    """A cache that takes ``count`` entries of ``size`` voxels."""
    return CaseCache(folder, [Put(made)], limit_bytes=int((count + 0.5) * size))


def test_the_least_recently_used_entry_makes_room_unless_a_process_uses_it(tmp_path, caplog):
    size, folder = 100_000, tmp_path / "cache"

    def fetch(into, name):
        return into.fetch({"case_id": name}, lambda: torch.zeros(size, dtype=torch.uint8))[0]

    first = limited(folder, 3, size)
    kept = {name: fetch(first, name) for name in "abc"}
    for age, name in enumerate("bca"):  # b was used last, a first
        os.utime(folder / f"{kept[name].key}.case", (1e9 - age, 1e9 - age))
    assert fetch(first, "d") is None  # all three are in use by this process
    assert "reached its limit" in caplog.text
    assert len(list(folder.glob("*.case"))) == 3
    del first
    second = limited(folder, 3, size)
    kept["d"] = fetch(second, "d")
    names = {path.stem: name for name, path in ((n, folder / f"{k.key}.case") for n, k in kept.items())}
    assert sorted(names[path.stem] for path in folder.glob("*.case")) == ["b", "c", "d"]
    assert fetch(second, "b") == kept["b"]  # used now, and leased
    kept["e"] = fetch(second, "e")
    assert second.open(kept["c"], verify=True) is None
    assert second.open(kept["b"], verify=True) is not None


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there: a lease ends a day after it began")
def test_the_lease_of_a_process_ends_with_it_however_it_ends(tmp_path):
    held = tmp_path / "x.lease"
    program = (
        "import fcntl,sys,time; f=open(sys.argv[1],'wb'); fcntl.flock(f,fcntl.LOCK_EX); f.write(b'key\\n'); f.flush();"
        "print('held',flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, held], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert leased_keys(tmp_path) == {"key"}
        process.kill()
    assert leased_keys(tmp_path) == set()
    assert not held.exists()


def test_two_that_write_the_same_case_at_once(items, tmp_path):
    gate = threading.Barrier(2)

    def fetch(_):
        chain = Compose(steps())
        mine = CaseCache(tmp_path / "cache", chain.transforms)

        def prepare():
            gate.wait(20)
            return chain(items[0])

        return mine.open(mine.fetch(items[0], prepare)[0], verify=True)["image"]

    with ThreadPool(2) as pool:
        one, other = pool.map(fetch, range(2))
    assert torch.equal(one, other)
    assert len(list((tmp_path / "cache").glob("*.case"))) == 1
    assert not list((tmp_path / "cache").glob("*.tmp"))


PROCESS = """
import json, os, sys, time
from pathlib import Path
from monai.transforms import Compose
from tests.data.test_cache import dataset, steps
items, folder, gate = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
(gate / str(os.getpid())).touch()
while len(list(gate.iterdir())) < 2:
    time.sleep(0.001)
kept = dataset(items, folder, workers=2)
print(json.dumps([kept.on_disk, [float(kept[i]["image"].double().sum()) for i in range(len(kept))]]))
"""


def test_two_processes_that_prepare_one_dataset_at_once(items, tmp_path):
    folder, gate = tmp_path / "cache", tmp_path / "gate"
    gate.mkdir()
    said = at_once(2, "-c", PROCESS, json.dumps(items), folder, gate)
    chain = Compose(steps())
    expected = [3, [float(chain(item)["image"].double().sum()) for item in items]]
    assert [json.loads(done.stdout) for done in said] == [expected] * 2, said
    assert not [done.stderr for done in said if "amaged" in done.stderr or "kept" in done.stderr]
    assert len(entries(folder)) == 3
    assert not list((folder / "prepared-cases").glob("*.tmp"))
    assert new_entries(items, folder) == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_is_said_and_the_run_goes_on(items, tmp_path, caplog):
    dataset(items[:1], tmp_path)
    (tmp_path / "prepared-cases").chmod(0o500)
    try:
        kept = CaseDataset(items, chain := Compose(steps()), progress=False, cache_dir=tmp_path)
        assert (kept.on_disk, kept.cached) == (0, 3)
        assert_equal(kept[2], chain(items[2]))
        assert caplog.text.count("not kept on disk") == 1
    finally:
        (tmp_path / "prepared-cases").chmod(0o700)


class Rewritten(MapTransform):
    """Loads a file, and finds it replaced while it does so, the first time."""

    def __call__(self, item):
        path = Path(item["file"])
        value = int(path.read_text())
        if value == 1:
            path.write_text("2")
        return {**item, "value": value}


def test_a_file_that_is_replaced_while_a_dataset_is_prepared_is_never_served_old(tmp_path):
    (tmp_path / "x.txt").write_text("1")
    item = {"case_id": "a", "file": str(tmp_path / "x.txt")}
    first = CaseDataset([item], [Rewritten("file")], progress=False, cache_dir=tmp_path / "cache")
    assert (first.on_disk, first.cached, first[0]["value"]) == (0, 1, 1)
    again = CaseDataset([item], [Rewritten("file")], progress=False, cache_dir=tmp_path / "cache")
    assert (again.on_disk, again[0]["value"]) == (1, 2)


def test_a_file_that_changes_while_it_is_read_is_not_kept(items, tmp_path):
    mine = CaseCache(tmp_path / "cache", steps())

    def prepare():
        Path(items[0]["label"]).touch()
        return {"image": torch.ones(1)}

    kept, prepared = mine.fetch(items[0], prepare)
    assert kept is None
    assert torch.equal(prepared["image"], torch.ones(1))


def test_ranks_of_a_machine_share_the_work(items, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = dataset(items, tmp_path, chain := Compose(steps()), workers=1)
    assert [item["case_id"] for item in second.data] == ["patient-0", "patient-1", "patient-2"]
    for index, item in enumerate(items):
        assert_equal(second[index], chain(item))


def test_survives_the_way_to_a_process_without_shared_memory(items, tmp_path):
    kept = dataset(items, tmp_path, [*steps(), patches()], seed=1)
    again = pickle.loads(pickle.dumps(kept))
    assert torch.equal(again[2]["image"], kept[2]["image"])


def test_names_are_no_files_and_folders_are_not_kept(items, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patient-0").write_text("a file of that name")
    assert new_entries([items[0] | {"relative": "."}], tmp_path) == 1
    (tmp_path / "patient-0").write_text("it is not looked at")
    assert new_entries([items[0] | {"relative": "."}], tmp_path) == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert new_entries([items[0] | {"series": str(tmp_path)}], tmp_path) == 0
    assert "a folder" in caplog.text


def test_digests_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    file, memory = tmp_path / "a.nii", tmp_path / "digests"
    file.write_bytes(b"one")
    expected = file_digests.file_digest(file)
    assert FileDigests(memory)(file) == expected
    assert not memory.exists()  # it might change again within the same tick of the clock
    monkeypatch.setattr(file_digests, "_LATEST_S", -1.0)
    assert FileDigests(memory)(file) == expected
    whole = memory.read_bytes()

    def read_again():
        with monkeypatch.context() as patched:
            patched.setattr(file_digests, "file_digest", lambda path: "again")
            return FileDigests(memory)(file) == "again"

    assert not read_again()
    memory.write_bytes(b"half a li" + whole[20:] + whole)
    assert not read_again()
    memory.write_bytes(whole.replace(expected[:4].encode(), b"0000"))
    assert read_again()
    file.write_bytes(b"two")
    assert FileDigests(memory)(file) == file_digests.file_digest(file) != expected


def test_the_memory_of_digests_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(file_digests, "_LATEST_S", -1.0)
    monkeypatch.setattr(file_digests, "_MOST_LINES", 4)
    files = [tmp_path / f"{number}.nii" for number in range(6)]
    for file in files:
        file.write_bytes(file.name.encode())
        FileDigests(tmp_path / "digests")(file)
    lines = (tmp_path / "digests").read_text().splitlines()
    assert len(lines) <= 5
    assert lines[-1].split()[1] == file_digests.file_digest(files[-1])


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "prepared-cases"
    assert cache_folder(tmp_path / "own") == tmp_path / "own" / "prepared-cases"
    monkeypatch.setenv("PIPELINE_CACHE", "")
    assert cache_folder("auto") is None
    assert cache_folder(None) is None
    monkeypatch.delenv("PIPELINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    if sys.platform == "linux":
        assert cache_folder("auto") == Path("/x/monai-volume-pipeline/prepared-cases")


def test_the_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_CACHE_GIB", "1.5")
    assert CaseCache(tmp_path, []).limit_bytes == 3 << 29
    monkeypatch.setenv("PIPELINE_CACHE_GIB", "much")
    with pytest.raises(ConfigError, match="PIPELINE_CACHE_GIB=much"):
        CaseCache(tmp_path, [])
    monkeypatch.delenv("PIPELINE_CACHE_GIB")
    usage = type(shutil.disk_usage(tmp_path))
    for free_gib, limit_gib in ((100, 20), (1000, 50)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free_gib << 30: usage(2 * free, free, free))
        assert CaseCache(tmp_path, []).limit_bytes == limit_gib << 30


def test_what_is_kept_is_said(items, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        dataset(items, tmp_path, name="training")
    assert (
        f"training: 3 prepared cases in {tmp_path / 'prepared-cases'}, 3 of them new; 0.00 GiB there of" in caplog.text
    )
    assert "(PIPELINE_CACHE_GIB=<GiB>; none are kept with cache_dir=null)" in caplog.text
