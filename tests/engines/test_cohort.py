import csv
import json
import os
import sys
import threading

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from pipeline.engines.cohort import predict_cohort
from pipeline.errors import DataError
from pipeline.inference import Restored, SaveImageOnGridd, SlidingWindowInferer
from tests.commands import python

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix's names and limits")

CLASSES = {"1": "lesion", 2: "penumbra"}


class Threshold(torch.nn.Module):
    """Class 1 where the first channel is positive, else background; class 2 never."""

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        return torch.cat([-images[:, :1], images[:, :1], torch.full_like(images[:, :1], -1e3)], dim=1)


def prepare(item):
    image = MetaTensor(torch.full((1, 4, 3, 2), -1.0), meta={"repairs": item.get("repairs", "")})
    image[0, : item["positive"]] = 1
    image.affine = torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    return {**item, "image": image}


def finish(item):
    labels = item["pred"].argmax(0, keepdim=True).to(torch.uint8)
    return {**item, "pred": labels}


def items(*positive):
    return [{"case_id": f"sub-{i}", "positive": n} for i, n in enumerate(positive)]


def run(cases, output_dir, preprocessing=prepare, postprocessing=finish):
    return predict_cohort(
        cases,
        preprocessing,
        Threshold(),
        SlidingWindowInferer(2),
        postprocessing,
        "cpu",
        output_dir,
        class_names=CLASSES,
        progress=False,
    )


def table(output_dir):
    with (output_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def record(output_dir):
    return json.loads((output_dir / "predictions.json").read_text(encoding="utf-8"))


def test_volumes_in_ml_and_repairs_stand_in_the_table(tmp_path):
    cases = items(1, 0, 4)
    cases[1]["repairs"] = "sform used\nunits"  # as LoadImageStackd leaves them
    result = run(cases, tmp_path)
    assert result.exit_code == 0
    assert result.complete
    # n planes of 3 x 2 voxels of 1 x 2 x 5 mm: 0.06 ml a plane
    assert [o.volumes_ml["lesion"] for o in result.outcomes] == pytest.approx([0.06, 0.0, 0.24])
    assert [row["lesion_ml"] for row in table(tmp_path)] == ["0.06", "0", "0.24"]
    assert [row["penumbra_ml"] for row in table(tmp_path)] == ["0", "0", "0"]
    assert [row["repairs"] for row in table(tmp_path)] == ["", "sform used; units", ""]
    assert record(tmp_path)["cases"][1]["repairs"] == ["sform used", "units"]
    assert all(o.seconds > 0 for o in result.outcomes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["predictions.csv", "predictions.json"]


def spoil(item):
    if item["case_id"] == "sub-1":
        raise DataError("2 NaN voxels", file="cbf.nii.gz", fix="export the map again")
    if item["case_id"] == "sub-3":
        try:
            raise KeyError("affine")
        except KeyError as error:
            raise RuntimeError("no such thing") from error
    return item


@pytest.mark.parametrize("where", ["before", "inside MONAI's Compose", "after"])
def test_a_bad_case_is_named_and_the_others_go_on(tmp_path, where):
    chains = {
        "before": {"preprocessing": lambda item: prepare(spoil(item))},
        "inside MONAI's Compose": {"preprocessing": Compose([spoil, prepare])},
        "after": {"postprocessing": lambda item: finish(spoil(item))},
    }
    result = run(items(1, 1, 1, 1, 2), tmp_path, **chains[where])
    assert [o.status for o in result.outcomes] == ["done", "refused", "done", "failed", "done"]
    assert result.counts == {"done": 3, "refused": 1, "failed": 1}
    assert result.exit_code == 3
    rows = table(tmp_path)
    assert rows[1]["reason"].startswith("case sub-1, file cbf.nii.gz: found 2 NaN voxels")
    assert rows[3]["reason"] == "KeyError: 'affine'" + (" (in spoil)" if "Compose" in where else "")
    assert rows[1]["lesion_ml"] == rows[3]["lesion_ml"] == ""
    log = (tmp_path / "failures.log").read_text(encoding="utf-8")
    assert log.startswith("case sub-3\n")
    assert "raise KeyError" in log
    assert "RuntimeError: no such thing" in log
    assert "sub-1" not in log


def test_under_a_pseudonym_neither_table_nor_log_names_a_path(tmp_path):
    cases = [
        {**item, "image": {"ct": f"/data/smith{i}/ct.nii.gz"}, "pseudonymous": True}
        for i, item in enumerate(items(1, 1))
    ]

    def lose(item):
        file = item["image"]["ct"]
        if item["case_id"] == "sub-0":
            raise DataError(f"no such file as {file}", file=file)
        raise FileNotFoundError(2, "No such file or directory", file)

    assert run(cases, tmp_path, preprocessing=lose).counts["failed"] == 1
    rows = table(tmp_path)
    assert rows[0]["reason"] == "case sub-0, file <ct of sub-0>: found no such file as <ct of sub-0>"
    assert rows[1]["reason"] == "FileNotFoundError: [Errno 2] No such file or directory: '<ct of sub-1>'"
    log = (tmp_path / "failures.log").read_text(encoding="utf-8")
    assert "raise FileNotFoundError" in log
    assert "smith" not in log


def test_nothing_done_is_an_exit_code_of_its_own_and_an_old_log_goes(tmp_path):
    def refuse(item):
        raise DataError("nothing")

    (tmp_path / "failures.log").write_text("of another run")
    assert run(items(1, 1), tmp_path, preprocessing=refuse).exit_code == 1
    assert not (tmp_path / "failures.log").exists()


@pytest.mark.parametrize("where", ["preprocessing", "postprocessing"])
def test_an_interruption_keeps_what_is_done_and_is_passed_on(tmp_path, where):
    def interrupted(item):
        if item["case_id"] == "sub-2":
            raise KeyboardInterrupt
        return prepare(item) if where == "preprocessing" else finish(item)

    with pytest.raises(KeyboardInterrupt):
        run(items(1, 2, 3, 4), tmp_path, **{where: interrupted})
    cases = [row["case"] for row in table(tmp_path)]
    assert cases[:2] == ["sub-0", "sub-1"]
    assert "sub-2" not in cases  # what had been through the network by then is in the table too
    assert record(tmp_path)["complete"] is False


def test_the_next_case_is_prepared_while_this_one_is_predicted(tmp_path):
    started = {f"sub-{i}": threading.Event() for i in range(3)}

    def announced(item):
        started[item["case_id"]].set()
        return prepare(item)

    def finish_after_the_next_began(item):
        following = f"sub-{int(item['case_id'][-1]) + 1}"
        if following in started:
            assert started[following].wait(timeout=20)
        return finish(item)

    result = run(items(1, 1, 1), tmp_path, preprocessing=announced, postprocessing=finish_after_the_next_began)
    assert result.exit_code == 0


def test_one_id_twice_and_no_case_at_all_are_refused_before_any_work(tmp_path):
    cases = items(1, 2)
    with pytest.raises(DataError, match="sub-0"):
        run([*cases, cases[0]], tmp_path)
    with pytest.raises(DataError, match="no cases"):
        run([], tmp_path)
    run([*cases, {**cases[0], "relative": "second/session"}], tmp_path)
    assert len(table(tmp_path)) == 3


def test_files_in_files_out(tmp_path):
    affine = np.diag([-1.5, 1.0, 4.0, 1.0])
    volumes = {name: np.random.default_rng(i).normal(size=(7, 6, 3)) for i, name in enumerate(["a", "b"])}
    for name, volume in volumes.items():
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), tmp_path / f"{name}.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"<html>")
    cases = [{"case_id": name, "image": str(tmp_path / f"{name}.nii.gz")} for name in ("a", "broken", "b")]
    output_dir = tmp_path / "out"
    result = run(
        cases,
        output_dir,
        preprocessing=Compose(
            [LoadImaged("image", ensure_channel_first=True), Orientationd("image", axcodes="RAS", labels=None)]
        ),
        postprocessing=Compose([Restored(), SaveImageOnGridd(output_dir=output_dir)]),
    )
    assert [o.status for o in result.outcomes] == ["done", "failed", "done"]
    assert [o.output for o in result.outcomes] == ["a.nii.gz", "", "b.nii.gz"]
    for name, outcome in zip(("a", "b"), (result.outcomes[0], result.outcomes[2]), strict=True):
        written = nibabel.load(output_dir / outcome.output)
        np.testing.assert_array_equal(written.get_fdata(), volumes[name] > 0)
        np.testing.assert_array_equal(written.affine, affine)
        assert outcome.volumes_ml["lesion"] == pytest.approx((volumes[name] > 0).sum() * 6 / 1000)


@unix
def test_a_name_that_is_no_text_stands_escaped_in_the_tables_and_whole_in_json(tmp_path):
    name = os.fsdecode(b"a\xff")  # Latin-1, as a USB stick or a ZIP file has it
    cases = [{"case_id": name, "positive": 1}, {"case_id": "b", "positive": 1}]

    def fail(item):
        raise KeyError(item["case_id"])

    assert run(cases, tmp_path).exit_code == 0
    assert [row["case"] for row in table(tmp_path)] == ["a\\udcff", "b"]
    assert record(tmp_path)["cases"][0]["case"] == name
    assert run(cases, tmp_path, preprocessing=fail).exit_code == 1
    assert "case a\\udcff\n" in (tmp_path / "failures.log").read_text(encoding="utf-8")


@unix
def test_a_full_disk_leaves_no_half_of_a_table_and_is_told(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from tests.engines.test_cohort import items, prepare, run, spoil
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)  # a disk without room for more
result = run(items(*[1] * 6), Path(sys.argv[1]), preprocessing=lambda item: prepare(spoil(item)))
print(result.counts["done"], result.exit_code, result.unwritten, result.outcomes[3].reason)
"""
    done = python("-c", code, tmp_path / "out", "100")
    assert done.stdout.startswith("4 1 file "), done.stderr
    assert "predictions.csv: found a file that can't be written (file too large)" in done.stdout
    assert "its trace is not in failures.log: File too large" in done.stdout
    assert "predictions.csv" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"failures.log", "predictions.0.jsonl"}
    lines = (tmp_path / "out" / "predictions.0.jsonl").read_text().splitlines()
    assert lines  # of the journal as many as there was room for
    assert all(json.loads(line) for line in lines)


HUGE = 1 << 50  # a pebibyte


@pytest.mark.parametrize("ask", [lambda: torch.empty(HUGE, dtype=torch.uint8), lambda: np.empty(HUGE, np.uint8)])
@pytest.mark.parametrize("where", ["before", "inside MONAI's Compose", "after"])
def test_a_case_that_the_memory_can_not_hold_fails_in_words_and_the_others_go_on(tmp_path, where, ask):
    def spread(item):
        if item["case_id"] == "sub-1":
            ask()
        return item

    chains = {
        "before": {"preprocessing": lambda item: prepare(spread(item))},
        "inside MONAI's Compose": {"preprocessing": Compose([spread, prepare])},
        "after": {"postprocessing": lambda item: finish(spread(item))},
    }
    result = run([{**item, "image": {"ct": "ct.nii"}} for item in items(1, 1, 1)], tmp_path, **chains[where])
    assert [o.status for o in result.outcomes] == ["done", "failed", "done"]
    reason = result.outcomes[1].reason
    assert reason.startswith("case sub-1, file ct.nii: found a case that needs more memory than is free (1")
    assert "to fix it: close other programs" in reason
    assert ("(in spread)" in reason) == ("Compose" in where)
