"""The stages of a cohort at work at the same time, and what happens where memory is lacking."""

import threading

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Compose

from pipeline.engines.cohort_case import CasePredictor
from pipeline.inference import Restored, SaveImageOnGridd
from pipeline.transforms import LoadImageStackd
from tests.engines.small_cohort import Sign, predict, whole, write_cases


class Rationed(SimpleInferer):
    """An inferer that finds memory for so many windows at a time, and on the main memory's side alone."""

    def __init__(self, most: int, sw_batch_size: int | str = 1) -> None:
        super().__init__()
        self.most, self.sw_batch_size, self.asked = most, sw_batch_size, []
        self.sw_device = self.device = None

    def __call__(self, inputs, network):
        self.asked.append((self.sw_batch_size, str(self.sw_device), str(self.device)))
        if (self.sw_batch_size if isinstance(self.sw_batch_size, int) else 99) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return network(inputs)


def test_the_network_goes_on_while_a_result_is_written(tmp_path):
    items = write_cases(tmp_path / "scans", 3)
    in_network = [threading.Event() for _ in items]

    class Announcing(Sign):
        def forward(self, images):
            in_network[self.calls].set()
            return super().forward(images)

    def written(item):
        following = int(item["case_id"][-1]) + 1
        assert following == 3 or in_network[following].wait(timeout=20)
        return item

    chain = Compose([Restored(), written, SaveImageOnGridd(output_dir=tmp_path / "out")])
    assert predict(items, tmp_path / "out", Announcing(), postprocessing=chain).exit_code == 0
    assert all(whole(tmp_path / "out" / f"case-{n}.nii.gz", n) for n in range(3))


def test_neither_reading_ahead_nor_writing_behind_is_unbounded(tmp_path):
    items = write_cases(tmp_path / "scans", 9)
    alive, most, lock = set(), [0], threading.Lock()

    def begun(item):
        with lock:
            alive.add(item["case_id"])
            most[0] = max(most[0], len(alive))
        return item

    def ended(item):
        with lock:
            alive.discard(item["case_id"])
        return item

    before = Compose([begun, LoadImageStackd("image", channels=["ct"])])
    after = Compose([Restored(), SaveImageOnGridd(output_dir=tmp_path / "out"), ended])
    assert predict(items, tmp_path / "out", preprocessing=before, postprocessing=after).exit_code == 0
    assert 2 <= most[0] <= 4  # one is read, one is in the network, two are written


def test_a_case_with_too_little_memory_is_predicted_with_fewer_windows_at_a_time(tmp_path):
    items = write_cases(tmp_path / "scans", 2)
    inferer = Rationed(most=2, sw_batch_size=8)
    result = predict(items, tmp_path / "out", inferer=inferer)
    assert result.exit_code == 0
    assert inferer.asked[:4] == [(batch, "None", "None") for batch in (8, 8, 4, 2)]  # once more alone, then with less
    assert [outcome.repairs for outcome in result.outcomes] == [("memory: predicted 2 windows at a time",)] * 2
    assert inferer.sw_batch_size == 8
    assert all(whole(tmp_path / "out" / f"case-{n}.nii.gz", n) for n in range(2))


@pytest.mark.parametrize("batch", [4, "auto", 1])
def test_a_case_that_no_means_is_modest_enough_for_fails_and_says_so(tmp_path, batch):
    items = write_cases(tmp_path / "scans", 1)
    inferer = Rationed(most=0, sw_batch_size=batch)
    result = predict(items, tmp_path / "out", inferer=inferer)
    assert [asked[0] for asked in inferer.asked] == {4: [4, 4, 2, 1], "auto": ["auto", "auto", 1], 1: [1, 1]}[batch]
    assert result.outcomes[0].status == "failed"
    assert "needs more GPU memory than is free (2.00 GiB at once)" in result.outcomes[0].reason
    assert result.exit_code == 1


def test_the_last_means_is_another_device():
    predictor = CasePredictor(torch.nn.Identity(), Rationed(most=0), lambda item: item, "meta")
    means = list(predictor._ever_less())
    places = [(str(m.device), str(m.images_on), str(m.inferer.sw_device), str(m.inferer.device)) for m in means]
    assert places == [("meta", "meta", "None", "None"), ("meta", "cpu", "meta", "cpu"), ("cpu", "cpu", "cpu", "cpu")]
    assert [m.remark for m in means] == ["", "memory: put together in main memory", "memory: predicted on the CPU"]


@pytest.mark.parametrize("where", ["prepare", "finish"])
def test_memory_that_is_lacking_once_costs_no_case(tmp_path, where):
    items = write_cases(tmp_path / "scans", 3)
    lacking = iter([True])

    def ask(item):
        if item["case_id"] == "case-1" and next(lacking, False):
            raise MemoryError
        return item

    load, save = LoadImageStackd("image", channels=["ct"]), SaveImageOnGridd(output_dir=tmp_path / "out")
    chains = {"preprocessing": Compose([load, ask] if where == "prepare" else [load])}
    chains["postprocessing"] = Compose([Restored(), ask, save] if where == "finish" else [Restored(), save])
    network = Sign()
    result = predict(items, tmp_path / "out", network, **chains)
    assert result.counts == {"done": 3, "refused": 0, "failed": 0}
    assert result.outcomes[1].repairs == ()  # by the means that were asked for
    assert network.calls == (3 if where == "prepare" else 4)
    assert all(whole(tmp_path / "out" / f"case-{n}.nii.gz", n) for n in range(3))


def test_an_inferer_that_gives_finished_slabs_is_asked_for_them_where_they_are_restored_first(tmp_path):
    items = write_cases(tmp_path / "scans", 1)

    class Slabs(SimpleInferer):
        asked = 0

        def slabs(self, inputs, network):
            self.asked += 1
            return network(inputs)[0]

    save = SaveImageOnGridd(output_dir=tmp_path / "out")
    for steps, asked in (([Restored(), save], 1), ([lambda item: item, Restored(), save], 0)):
        inferer = Slabs()
        assert (
            predict(items, tmp_path / "out", inferer=inferer, postprocessing=Compose(steps), redo=True).exit_code == 0
        )
        assert inferer.asked == asked
        assert whole(tmp_path / "out" / "case-0.nii.gz", 0)
