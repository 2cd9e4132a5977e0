import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import Split, data_list, describe_dataset, find_cases, read_split, write_split
from pipeline.data.splits import fingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.io import read_image

PERFUSION = ["cbf", "cbv", "mtt"]


def touch(root: Path, *names: str) -> Path:
    """Files without content: finding cases opens no image."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def decathlon(root: Path, modality: dict | list, training: list, **more) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "training": training, **more}))
    return root


def test_case_folders_with_and_without_the_id_in_the_name(tmp_path):
    touch(tmp_path, *(f"sub-01/sub-01_{name}.nii.gz" for name in ("mtt", "cbf", "cbv", "ncct", "lesion")))
    touch(tmp_path, "sub-02/CBF.NII.GZ", "sub-02/cbv.nii", "sub-02/mtt.nii.gz", "sub-02/seg.nii.gz", "sub-02/notes.txt")
    touch(tmp_path, *(f"sub-03/ses-02/sub-03_ses-02_{name}.nii.gz" for name in (*PERFUSION, "label", "mask")))
    cases = find_cases(tmp_path, ["cbf", "cbv", "MTT"])
    assert [case.case_id for case in cases] == ["sub-01", "sub-02", "sub-03_ses-02"]
    assert [list(case.image) for case in cases] == [PERFUSION] * 3
    assert [path.name for path in cases[1].image.values()] == ["CBF.NII.GZ", "cbv.nii", "mtt.nii.gz"]
    assert [case.label.name for case in cases] == ["sub-01_lesion.nii.gz", "seg.nii.gz", "sub-03_ses-02_label.nii.gz"]
    assert cases[2].relative == Path("sub-03/ses-02")


def test_flat_folder_one_case_folder_and_one_file(tmp_path):
    flat = touch(tmp_path / "flat", *(f"p{i}_{name}.nii.gz" for i in (2, 1) for name in PERFUSION))
    assert [case.case_id for case in find_cases(flat, PERFUSION, require_label=False)] == ["p1", "p2"]
    single = touch(tmp_path / "sub-09", *(f"{name}.nii.gz" for name in (*PERFUSION, "lesion")))
    (case,) = find_cases(single, PERFUSION)
    assert (case.case_id, case.relative) == ("sub-09", Path())
    named = touch(tmp_path / "x", *(f"p7_{name}.nii.gz" for name in PERFUSION), "lesion.nii.gz")
    (case,) = find_cases(named, PERFUSION)
    assert (case.case_id, case.label.name) == ("p7", "lesion.nii.gz")
    brains = touch(tmp_path / "brains", "a.nii.gz", "b.v2.nii", "b_label.nii.gz", ".hidden.nii.gz")
    assert [case.case_id for case in find_cases(brains, ["mri"], require_label=False)] == ["a", "b.v2"]
    touch(tmp_path / "same", "s1/T1.nii.gz", "s2/T1.nii.gz")
    assert [case.case_id for case in find_cases(tmp_path / "same", ["mri"], require_label=False)] == ["s1_T1", "s2_T1"]
    (case,) = find_cases(brains / "b.v2.nii", ["mri"], require_label=False)
    assert (case.case_id, case.image) == ("b.v2", {"mri": brains / "b.v2.nii"})
    with pytest.raises(DataError, match="the channels cbf, cbv, mtt"):
        find_cases(brains / "a.nii.gz", PERFUSION)


def test_every_incomplete_case_is_listed_and_patients_are_never_mixed(tmp_path):
    touch(tmp_path, "a/a_cbf.nii.gz", "a/a_cbv.nii.gz", "b/cbf.nii.gz", "b/cbv.nii.gz", "b/mtt.nii.gz")
    touch(tmp_path, "c/p1_cbf.nii.gz", "c/p1_cbv.nii.gz", "c/p2_mtt.nii.gz")
    with pytest.raises(DataError) as refusal:
        find_cases(tmp_path, PERFUSION)
    for line in ("a: no mtt", "a: no label", "b: no label", "\nexpected per case one file"):
        assert line in str(refusal.value)
    with pytest.raises(DataError, match=r"p1: no mtt\n  p2: no cbf, cbv"):
        find_cases(tmp_path / "c", PERFUSION, require_label=False)
    touch(tmp_path, "d/cbf.nii.gz", "d/cbf.nii", "d/cbv.nii", "d/mtt.nii")
    with pytest.raises(DataError, match="d: several files for cbf"):
        find_cases(tmp_path / "d", PERFUSION, require_label=False)


def test_duplicate_ids_are_refused(tmp_path):
    touch(tmp_path, *(f"{site}/{i}_{name}.nii" for site in "AB" for i in (1, 2) for name in PERFUSION))
    with pytest.raises(DataError, match=r"ids that several cases share:\n  1: .*A.*B"):
        find_cases(tmp_path, PERFUSION, require_label=False)


def test_a_wrong_path_names_what_is_there(tmp_path):
    touch(tmp_path, "hippocampus/a.nii.gz", "stroke/a.nii.gz")
    with pytest.raises(DataError, match="there is hippocampus"):
        find_cases(tmp_path / "hipocampus" / "imagesTr", ["mri"])
    with pytest.raises(DataError, match=r"no case.*_cbf\.nii\.gz"):
        find_cases(tmp_path / "stroke", ["cbf", "cbv"])


@pytest.mark.parametrize(
    ("name", "content", "found", "fix"),
    [
        ("1/IM0001", bytes(128) + b"DICM", "no case, but DICOM files, such as 1/IM0001", "dcm2niix"),
        ("1/a.IMA", b"", "no case, but DICOM files, such as 1/a.IMA", "dcm2niix"),
        ("t1.nrrd", b"NRRD0004", "no case, but files of another format, such as t1.nrrd", "to NIfTI"),
        ("notes.txt", bytes(128) + b"DICOM", "no case; expected", "rename the files"),
    ],
)
def test_scans_of_another_format_are_said_to_be_so(tmp_path, name, content, found, fix):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        find_cases(tmp_path, ["t1"])
    assert found in str(refusal.value)
    assert fix in str(refusal.value)


def test_decathlon(tmp_path):
    touch(tmp_path, *(f"imagesTr/h_{i}.nii.gz" for i in range(3)), *(f"labelsTr/h_{i}.nii.gz" for i in range(3)))
    touch(tmp_path, "imagesTs/h_9.nii.gz")
    training = [{"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"} for i in (2, 0, 1)]
    decathlon(tmp_path, {"0": "MRI"}, training, test=["./imagesTs/h_9.nii.gz"])
    cases = find_cases(tmp_path, ["mri"])
    assert [case.case_id for case in cases] == ["h_0", "h_1", "h_2"]
    assert cases[0].image["mri"].is_file()
    assert cases[0].label.is_file()
    assert cases[0].relative == Path("imagesTr")
    assert [case.case_id for case in find_cases(tmp_path, ["mri"], require_label=False)][-1] == "h_9"
    with pytest.raises(DataError, match="channels mri; expected ct"):
        find_cases(tmp_path, ["ct"])
    (tmp_path / "imagesTr/h_1.nii.gz").unlink()
    (tmp_path / "labelsTr/h_2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"2 wrong entries:\n.*h_2.*\n.*h_1"):
        find_cases(tmp_path, ["mri"])


def test_decathlon_with_several_named_channels(tmp_path):
    touch(tmp_path, "s/p1_cbf.nii.gz", "s/p1_mtt.nii.gz", "s/p1_lesion.nii.gz")
    entry = {"image": {"CBF": "s/p1_cbf.nii.gz", "MTT": "s/p1_mtt.nii.gz"}, "label": "s/p1_lesion.nii.gz"}
    decathlon(tmp_path, ["CBF", "MTT"], [entry])
    (case,) = find_cases(tmp_path, ["mtt", "cbf"])
    assert [*case.image] == ["mtt", "cbf"]
    decathlon(tmp_path, ["CBF", "MTT"], [{"image": "s/p1_cbf.nii.gz"}])
    with pytest.raises(DataError, match="entry 0: no path per channel"):
        find_cases(tmp_path, ["mtt", "cbf"])


def test_data_list_parts_and_split_file(tmp_path):
    ids = [f"p{i}" for i in range(10)]
    touch(tmp_path, *(f"{i}/{i}_{name}.nii.gz" for i in ids for name in ("mri", "label")))
    parts = {part: data_list(tmp_path, ["mri"], part, folds=5, fold=1) for part in ("train", "validate", "all")}
    assert {part: len(items) for part, items in parts.items()} == {"train": 8, "validate": 2, "all": 10}
    assert sorted(i["case_id"] for i in parts["train"] + parts["validate"]) == ids
    assert parts["all"][0] == {
        "case_id": "p0",
        "relative": "p0",
        "image": {"mri": str(tmp_path / "p0/p0_mri.nii.gz")},
        "label": str(tmp_path / "p0/p0_label.nii.gz"),
    }
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["p3", "p1"], "validate": ["p4"]}))
    assert [i["case_id"] for i in data_list(tmp_path, ["mri"], "train", split_file=split)] == ["p1", "p3"]
    assert [i["case_id"] for i in data_list(tmp_path, ["mri"], "validate", split_file=split)] == ["p4"]
    assert read_split(split).train == ("p1", "p3")
    unseen = [i["case_id"] for i in data_list(tmp_path, ["mri"], "unseen", split_file=split)]
    assert unseen == [name for name in ids if name not in ("p1", "p3")]
    split.write_text(json.dumps({"train": ["p3", "q1"], "validate": ["q4"]}))
    with pytest.raises(DataError, match="lacks: q1, q4"):
        data_list(tmp_path, ["mri"], "train", split_file=split)
    with pytest.raises(ConfigError, match="part='test'"):
        data_list(tmp_path, ["mri"], "test")
    with pytest.raises(ConfigError, match="split_file"):
        data_list(tmp_path, ["mri"], "unseen")
    split.write_text(json.dumps({"train": ids, "validate": []}))
    with pytest.raises(DataError, match="only cases"):
        data_list(tmp_path, ["mri"], "unseen", split_file=split)


def test_labels_are_needed_for_training_not_for_prediction(tmp_path):
    touch(tmp_path, "p1/mri.nii.gz", "p1/label.nii.gz", "p2/mri.nii.gz", "p3/mri.nii.gz", "p3/seg.nii.gz")
    assert ["label" in item for item in data_list(tmp_path, ["mri"])] == [True, False, True]
    parts = [data_list(tmp_path, ["mri"], part)[0]["case_id"] for part in ("train", "validate")]
    assert sorted(parts) == ["p1", "p3"]  # p2 is left out, and said so
    with pytest.raises(DataError, match="p2: no label"):
        find_cases(tmp_path, ["mri"])


def test_what_is_left_out_is_said_once_however_often_the_dataset_is_listed(tmp_path, monkeypatch, caplog):
    names = [f"p{n}/{name}.nii.gz" for n in range(4) for name in ("mri", "label")]
    touch(tmp_path / "scans", *names[:-1])
    os.symlink("gone", tmp_path / "scans" / "p0" / "lost.nii.gz")
    monkeypatch.chdir(tmp_path)
    find_cases("scans", ["mri"], keep_incomplete=True)
    for part in ("train", "validate"):  # by its whole path, as a run has it
        data_list(tmp_path / "scans", ["mri"], part)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "1 links lead nowhere, such as scans/p0/lost.nii.gz: fetch the files first",
        "1 case has no label and is left out: p3",
    ]


def test_weights_know_their_cases_by_content_and_by_patient(tmp_path, caplog):
    for folder, case, content in (
        ("same", "sub-1", "a"),
        ("same", "sub-1_followup", "b"),
        ("same", "sub-2", "c"),
        ("renamed", "x-1", "a"),
        ("renamed", "x-2", "d"),
        ("other", "sub-1", "e"),
    ):
        touch(tmp_path / folder, f"{case}/{case}_mri.nii.gz", f"{case}/{case}_label.nii.gz")
        (tmp_path / folder / case / f"{case}_mri.nii.gz").write_text(content)
    trained = tmp_path / "same" / "sub-1" / "sub-1_mri.nii.gz"
    split = tmp_path / "split.json"
    write_split(split, Split(("sub-1",), (), {"sub-1": fingerprint(trained)}))

    def unseen(folder):
        return [i["case_id"] for i in data_list(tmp_path / folder, ["mri"], "unseen", split_file=split)]

    assert unseen("same") == ["sub-2"]  # nor the patient's other visit
    assert unseen("renamed") == ["x-2"]  # the image is known by its content
    assert unseen("other") == ["sub-1"]  # another dataset's patient of that id
    assert "sub-1), and none is a file that was trained on" in caplog.text


def test_weights_know_their_cases_whatever_the_order_of_the_channels(tmp_path):
    for case in ("sub-1", "sub-2"):
        touch(tmp_path / "set", *(f"{case}/{case}_{name}.nii.gz" for name in ("t1", "t2", "label")))
        for name in ("t1", "t2"):
            (tmp_path / "set" / case / f"{case}_{name}.nii.gz").write_text(f"{case} {name}")
    split = tmp_path / "split.json"
    write_split(split, Split(("sub-1",), (), {"sub-1": fingerprint(tmp_path / "set" / "sub-1" / "sub-1_t1.nii.gz")}))
    for channels in (["t1", "t2"], ["t2", "t1"]):
        assert [i["case_id"] for i in data_list(tmp_path / "set", channels, "unseen", split_file=split)] == ["sub-2"]


def test_a_flat_folder_of_one_channel_pairs_images_and_labels_by_name(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_label.nii.gz", "b.nii.gz")
    found = {case.case_id: case.label and case.label.name for case in find_cases(tmp_path, ["mri"], False)}
    assert found == {"a": "a_label.nii.gz", "b": None}


def test_listing_cases_imports_no_torch():
    code = "import sys, pipeline.data; assert not {'torch', 'monai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_incomplete_case_is_kept_for_its_loader_to_refuse_unless_all_are(tmp_path):
    touch(tmp_path, "p1/p1_cbf.nii.gz", "p1/p1_mtt.nii.gz", "p2/p2_cbf.nii.gz")
    items = data_list(tmp_path, ["cbf", "mtt"])
    assert [(item["case_id"], sorted(item["image"])) for item in items] == [("p1", ["cbf", "mtt"]), ("p2", ["cbf"])]
    with pytest.raises(DataError, match="p2: no mtt"):
        find_cases(tmp_path, ["cbf", "mtt"], require_label=False)
    with pytest.raises(DataError, match="no cbv"):
        data_list(tmp_path, ["cbf", "mtt", "cbv"])


def sections(root: Path, *names: str, number: int = 1) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        first, *others = [Image.fromarray(np.full((2, 3), i, np.uint8)) for i in range(number)]
        first.save(root / name, **({"save_all": True, "append_images": others} if others else {}))
    return root


def test_images_and_labels_in_two_folders_of_the_same_names(tmp_path):
    touch(tmp_path, "images/00.png", "images/b/01.PNG", "images/.02.png", "images/notes.txt", "images/03.nii.gz")
    touch(tmp_path, "labels/00.png", "labels/b/01.png", "labels/04.png")
    cases = find_cases(tmp_path, ["em"], spatial_dims=2)
    assert [(case.case_id, case.relative.as_posix()) for case in cases] == [("00", "."), ("b_01", "b")]
    assert [case.image for case in cases] == [{"em": tmp_path / "images/00.png"}, {"em": tmp_path / "images/b/01.PNG"}]
    assert [case.label for case in cases] == [tmp_path / "labels/00.png", tmp_path / "labels/b/01.png"]
    (tmp_path / "labels/00.png").unlink()
    with pytest.raises(DataError, match="00: no label"):
        find_cases(tmp_path, ["em"], spatial_dims=2)
    assert find_cases(tmp_path, ["em"], False, spatial_dims=2)[0].label is None
    volumes = touch(tmp_path / "3d", "images/p1.nii.gz", "labels/p1.nii.gz")
    (case,) = find_cases(volumes, ["mri"])
    assert (case.case_id, case.label) == ("p1", volumes / "labels/p1.nii.gz")


def test_two_folders_with_several_channels(tmp_path):
    touch(tmp_path, "images/00_em.png", "images/00_depth.tif", "labels/00.png", "images/stray.png")
    (case,) = find_cases(tmp_path, ["em", "depth"], spatial_dims=2)
    assert (case.case_id, [path.name for path in case.image.values()]) == ("00", ["00_em.png", "00_depth.tif"])
    touch(tmp_path, "images/01_em.png", "labels/01.png")
    with pytest.raises(DataError, match="01: no depth"):
        find_cases(tmp_path, ["em", "depth"], spatial_dims=2)
    named = touch(tmp_path / "named", "images/00_em.png", "labels/00_em.png")
    (case,) = find_cases(named, ["em"], spatial_dims=2)
    assert (case.case_id, case.label) == ("00_em", named / "labels/00_em.png")


def test_sections_in_the_other_layouts_and_never_among_volumes(tmp_path):
    flat = touch(tmp_path / "flat", "a.png", "b.tif", "c.nii.gz", "a_label.png")
    assert [case.case_id for case in find_cases(flat, ["em"], False, spatial_dims=2)] == ["a", "b"]
    (case,) = find_cases(flat / "a.png", ["em"], False, spatial_dims=2)
    assert (case.case_id, case.image) == ("a", {"em": flat / "a.png"})
    assert [case.case_id for case in find_cases(flat, ["mri"], False)] == ["c"]
    with pytest.raises(DataError, match="a \\.png or \\.tif or \\.tiff image"):
        find_cases(flat / "c.nii.gz", ["em"], False, spatial_dims=2)
    with pytest.raises(DataError, match="images and labels with \\.png files of the same names"):
        find_cases(touch(tmp_path / "none", "c.nii.gz"), ["em"], spatial_dims=2)


def test_every_section_of_a_stack_is_a_case(tmp_path):
    sections(tmp_path, "images/s.tif", "labels/s.tif", number=3)
    sections(tmp_path, "images/t.png", "labels/t.png")
    items = data_list(tmp_path, ["em"], spatial_dims=2)
    assert [item["case_id"] for item in items] == ["s_000", "s_001", "s_002", "t"]
    assert items[1]["image"] == {"em": f"{tmp_path / 'images' / 's.tif'}#1"}
    assert items[1]["label"] == f"{tmp_path / 'labels' / 's.tif'}#1"
    prints = [fingerprint(item["image"]["em"]) for item in items]
    assert len(set(prints)) == 4


def test_stacks_that_do_not_fit_together_stop_no_other_case(tmp_path, caplog):
    sections(tmp_path, "images/good.tif", "images/short.tif", "images/cut.tif", "images/one.tif", number=3)
    sections(tmp_path, "labels/good.tif", "labels/cut.tif", number=3)
    sections(tmp_path, "labels/short.tif", number=2)
    sections(tmp_path, "labels/one.png", "images/long.png")
    sections(tmp_path, "images/lost.tif", "labels/lost.tif", number=3)
    lost = tmp_path / "images" / "lost.tif"
    lost.write_bytes(lost.read_bytes()[:-300])
    sections(tmp_path, "labels/long.tif", number=2)
    cut = tmp_path / "labels" / "cut.tif"
    cut.write_bytes(cut.read_bytes()[:-300])
    items = {item["case_id"]: item for item in data_list(tmp_path, ["em"], spatial_dims=2)}
    numbered = [f"{name}_{number:03d}" for name in ("cut", "good", "one", "short") for number in range(3)]
    assert sorted(items) == sorted([*numbered, "long", "lost"])
    with pytest.raises(DataError, match=r"images/lost\.tif: found a damaged TIFF"):
        read_image(items.pop("lost")["image"]["em"])
    assert "short has files of different numbers of sections: images/short.tif 3, labels/short.tif 2" in caplog.text
    for case_id, item in items.items():
        assert read_image(item["image"]["em"]).array.shape == (2, 3)  # a prediction goes on
        fingerprint(item["image"]["em"])
        if case_id.startswith("good"):
            assert read_image(item["label"]).array.max() == int(case_id[-1])
            continue
        found = "damaged" if case_id.startswith("cut") else r"section\(s\); expected [13], as many as the other files"
        with pytest.raises(DataError, match=found) as caught:
            read_image(item["label"])
        assert Path(caught.value.file).parent.name == "labels"
    assert len(find_cases(tmp_path, ["em"], spatial_dims=2)) == len(items) + 1


def test_sections_of_a_stack_are_in_one_part(tmp_path):
    names = [f"{folder}/s{i}.tif" for i in range(5) for folder in ("images", "labels")]
    sections(tmp_path / "many", *names, number=4)
    held_back = set()
    for fold in range(5):
        ids = [item["case_id"] for item in data_list(tmp_path / "many", ["em"], "validate", fold=fold, spatial_dims=2)]
        assert len(ids) == 4
        assert len({case_id.rpartition("_")[0] for case_id in ids}) == 1
        held_back |= set(ids)
    assert len(held_back) == 20
    sections(tmp_path / "single", "images/one.tif", "labels/one.tif", number=6)
    parts = {
        part: [
            item["case_id"]
            for item in data_list(tmp_path / "single", ["em"], part, folds=3, fold=1, seed=4, spatial_dims=2)
        ]
        for part in ("train", "validate")
    }
    assert parts == {"train": ["one_000", "one_001", "one_004", "one_005"], "validate": ["one_002", "one_003"]}
    write_split(tmp_path / "split.json", Split(tuple(parts["train"]), tuple(parts["validate"])))
    unseen = data_list(tmp_path / "single", ["em"], "unseen", split_file=tmp_path / "split.json", spatial_dims=2)
    assert [item["case_id"] for item in unseen] == parts["validate"]


def test_a_stack_that_cannot_be_read_does_not_stop_the_listing(tmp_path):
    sections(tmp_path, "images/s.tif", number=2)
    (tmp_path / "images" / "broken.tif").write_bytes(b"no image")
    cases = find_cases(tmp_path, ["em"], require_label=False, spatial_dims=2)
    assert [case.case_id for case in cases] == ["broken", "s_000", "s_001"]


@pytest.mark.parametrize("ids", [("A", "a"), ("\u00e9", "e\u0301"), ("A", "..", "B"), ("A", "../../x"), ("A", "sub/B")])
def test_ids_that_no_result_can_be_named_after_are_refused(tmp_path, ids):
    (tmp_path / "ct.nii.gz").touch()
    lines = "".join(f"{case_id},ct.nii.gz\n" for case_id in ids)
    (tmp_path / "cases.csv").write_text(f"case,ct\n{lines}", encoding="utf-8")
    for listed in (describe_dataset, lambda path: find_cases(path, ["ct"], require_label=False)):
        with pytest.raises(DataError, match=r"ids that several cases share|ids that are no names of files"):
            listed(tmp_path)


def test_a_column_without_any_file_is_no_channel(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "ct.nii.gz").touch()
    (tmp_path / "cases.csv").write_text("case,age,sex,ct,pet\np1,61,F,ct.nii.gz,\np2,7,,ct.nii.gz,gone.nii\n")
    assert describe_dataset(tmp_path).channel_names == ("ct", "pet")
    assert "age, sex: no file in this column, so it is no channel" in caplog.text
