"""Each layout on a small tree of files without content, and on what lies beside real datasets."""

import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import check_dataset, data_list, describe_dataset, find_cases
from pipeline.data.layouts import LAYOUTS
from pipeline.errors import ConfigError, DataError
from pipeline.geometry import Grid
from pipeline.io import write_volume
from pipeline.transforms import LoadImageStackd


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def dataset_json(root: Path, **content) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def names_of(case) -> dict[str, str]:
    return {name: path.name for name, path in case.image.items()}


def test_nnunet_2(tmp_path):
    touch(tmp_path, *(f"imagesTr/c{i}_000{n}.nii.gz" for i in (1, 2) for n in (0, 1)), "labelsTr/c1.nii.gz")
    touch(tmp_path, "labelsTr/c2.nii.gz", "imagesTs/c9_0000.nii.gz", "imagesTs/c9_0001.nii.gz")
    touch(tmp_path, "imagesTr/._c1_0000.nii.gz", "imagesTr/.DS_Store", "labelsTr/.c3.nii.gz")
    dataset_json(
        tmp_path,
        channel_names={"0": "CT", "1": "PET"},
        labels={"background": 0, "tumour": 1},
        file_ending=".nii.gz",
        numTraining=2,
    )
    found = describe_dataset(tmp_path)
    assert (found.layout, found.channel_names, found.classes) == ("nnunet", ("ct", "pet"), {1: "tumour"})
    assert [case.case_id for case in found.cases] == ["c1", "c2", "c9"]
    assert names_of(found.cases[0]) == {"ct": "c1_0000.nii.gz", "pet": "c1_0001.nii.gz"}
    assert [case.label and case.label.name for case in found.cases] == ["c1.nii.gz", "c2.nii.gz", None]
    cases = find_cases(tmp_path, ["pet", "ct"])  # the unlabelled part is no gap in a training
    assert [case.case_id for case in cases] == ["c1", "c2"]
    assert list(cases[0].image) == ["pet", "ct"]
    with pytest.raises(DataError, match="channels ct, pet; expected mri"):
        find_cases(tmp_path, ["mri"])
    touch(tmp_path, "imagesTr/c3.nii.gz", "imagesTr/c3_0002.nii.gz")
    with pytest.raises(DataError, match="2 wrong entries"):
        find_cases(tmp_path, ["ct"])
    assert len(find_cases(tmp_path, ["ct"], keep_incomplete=True)) == 2


def test_nnunet_2_that_cannot_be_used_says_why(tmp_path):
    touch(tmp_path, "imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz")
    channels = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    dataset_json(tmp_path, **channels, labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    with pytest.raises(DataError, match=r"regions, classes that overlap: whole \(1, 2\)"):
        describe_dataset(tmp_path)
    with pytest.raises(DataError, match="regions"):
        find_cases(tmp_path, ["ct"])
    assert len(find_cases(tmp_path, ["ct"], require_label=False)) == 1  # a prediction needs none
    dataset_json(tmp_path, **channels, labels={"background": 0, "core": 1, "ignore": 2})
    with pytest.raises(DataError, match="not looked at"):
        describe_dataset(tmp_path)
    dataset_json(tmp_path, **channels | {"file_ending": ".nrrd"}, labels={"background": 0, "core": 1})
    with pytest.raises(DataError, match=r"end in \.nrrd; expected \.nii\.gz or \.nii"):
        describe_dataset(tmp_path)
    dataset_json(tmp_path, channel_names={"0": "a", "1": "A"}, labels={})
    with pytest.raises(DataError, match="a name of its own for each"):
        describe_dataset(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"numbered channels, such as c1_0000\.nii\.gz, but no dataset\.json"):
        find_cases(tmp_path, ["ct"])


def test_nnunet_2_with_its_own_list(tmp_path):
    touch(tmp_path, "imagesTr/x", "elsewhere/a.nii.gz", "elsewhere/b.nii.gz", "elsewhere/l.nii.gz")
    case = {"images": ["elsewhere/a.nii.gz", "elsewhere/b.nii.gz"], "label": "elsewhere/l.nii.gz"}
    dataset_json(tmp_path, channel_names={"0": "a", "1": "b"}, labels={}, dataset={"one": case})
    (found,) = describe_dataset(tmp_path).cases
    assert (found.case_id, names_of(found), found.relative) == (
        "one",
        {"a": "a.nii.gz", "b": "b.nii.gz"},
        Path("elsewhere"),
    )


def test_nnunet_1_lists_names_without_numbers(tmp_path):
    touch(tmp_path, *(f"imagesTr/c1_000{n}.nii.gz" for n in range(11)), "labelsTr/c1.nii.gz")
    modality = {str(n): f"m{n}" for n in range(11)}  # the tenth comes behind the ninth, not behind the first
    (tmp_path / "imagesTr/c1_00010.nii.gz").rename(tmp_path / "imagesTr/c1_0010.nii.gz")
    training = [{"image": "./imagesTr/c1.nii.gz", "label": "./labelsTr/c1.nii.gz"}]
    dataset_json(
        tmp_path, modality=modality, labels={"0": "background", "2": "b", "1": "a"}, training=training, test=[]
    )
    found = describe_dataset(tmp_path)
    assert (found.layout, found.classes) == ("decathlon", {1: "a", 2: "b"})
    assert found.channel_names == tuple(f"m{n}" for n in range(11))
    (case,) = found.cases
    assert (case.case_id, case.image["m10"].name) == ("c1", "c1_0010.nii.gz")
    touch(tmp_path, "imagesTr/c2.nii.gz")
    dataset_json(tmp_path, modality=modality, training=[*training, {"image": "imagesTr/c2.nii.gz"}])
    with pytest.raises(DataError, match="nnUNetv2_convert_MSD_dataset splits it"):
        find_cases(tmp_path, ["m0"])


def bids(root: Path) -> Path:
    touch(root, *(f"sub-{s}/ses-{v}/anat/sub-{s}_ses-{v}_{name}.nii.gz" for s, v in (("1", "a"), ("1", "b"), ("2", "a"))
                  for name in ("T1w", "FLAIR", "ce-gad_T1w")))  # fmt: skip
    touch(
        root,
        *(f"sub-{s}/ses-{v}/perf/sub-{s}_ses-{v}_desc-cbf_perf.nii" for s, v in (("1", "a"), ("1", "b"), ("2", "a"))),
    )
    touch(root, "sub-1/ses-a/func/sub-1_ses-a_task-rest_bold.nii.gz", "sub-1/ses-a/dwi/sub-1_ses-a_dwi.nii.gz")
    touch(root, "sub-1/ses-a/dwi/sub-1_ses-a_dwi.bval", "sourcedata/sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz")
    touch(root, ".git/annex/sub-9/anat/sub-9_T1w.nii.gz", "sub-1/ses-a/anat/._sub-1_ses-a_T1w.nii.gz")
    for s, v in (("1", "a"), ("1", "b"), ("2", "a")):
        where = f"sub-{s}/ses-{v}/anat/sub-{s}_ses-{v}"
        touch(root, f"derivatives/lesions/{where}_label-lesion_mask.nii.gz")
        touch(root, f"derivatives/lesions/{where}_space-MNI152_label-lesion_mask.nii.gz")
        touch(root, f"derivatives/fmriprep/{where}_desc-brain_mask.nii.gz", f"derivatives/fmriprep/{where}_dseg.nii.gz")
        touch(root, f"derivatives/fmriprep/{where}_desc-preproc_T1w.nii.gz")
    return root


def test_bids(tmp_path):
    found = describe_dataset(bids(tmp_path))
    assert found.layout == "bids"
    assert found.channel_names == ("cbf", "flair", "t1", "t1ce")
    assert [case.case_id for case in found.cases] == ["sub-1_ses-a", "sub-1_ses-b", "sub-2_ses-a"]
    assert [case.patient for case in found.cases] == ["sub-1", "sub-1", "sub-2"]
    assert found.cases[0].relative == Path("sub-1/ses-a/perf")
    assert names_of(found.cases[0])["t1"] == "sub-1_ses-a_T1w.nii.gz"  # neither the preprocessed nor sourcedata's
    assert {case.label.name.partition("_label")[2] for case in found.cases} == {"-lesion_mask.nii.gz"}
    (case, *_) = find_cases(tmp_path, ["T1w", "t1post", "FLAIR"])
    assert [path.name for path in case.image.values()] == [
        "sub-1_ses-a_T1w.nii.gz",
        "sub-1_ses-a_ce-gad_T1w.nii.gz",
        "sub-1_ses-a_FLAIR.nii.gz",
    ]
    assert len(find_cases(tmp_path, ["bold"], require_label=False, keep_incomplete=True)) == 1  # asked for by name


def test_bids_without_sessions_runs_and_labels_that_are_none(tmp_path):
    touch(tmp_path, *(f"rawdata/sub-{s}/anat/sub-{s}_T2w.nii.gz" for s in "123"))
    touch(tmp_path, *(f"derivatives/x/sub-{s}/anat/sub-{s}_{mask}.nii.gz" for s in "123" for mask in ("desc-brain_mask", "label-GM_probseg", "label-WM_mask")))  # fmt: skip  # noqa: E501
    assert [(case.case_id, case.label) for case in describe_dataset(tmp_path).cases] == [
        (f"sub-{s}", None) for s in "123"
    ]
    touch(tmp_path, *(f"derivatives/y/sub-{s}/anat/sub-{s}_mask.nii.gz" for s in "12"))
    assert [case.label and case.label.parts[-4] for case in describe_dataset(tmp_path).cases] == ["y", "y", None]
    runs = touch(
        tmp_path / "runs", *(f"sub-1/perf/sub-1_run-{r}_{n}.nii.gz" for r in (1, 2) for n in ("CBF", "lesion"))
    )
    found = describe_dataset(runs).cases
    assert [(case.case_id, case.patient, case.label.name) for case in found] == [
        ("sub-1_run-1", "sub-1", "sub-1_run-1_lesion.nii.gz"),
        ("sub-1_run-2", "sub-1", "sub-1_run-2_lesion.nii.gz"),
    ]
    touch(runs, "sub-1/perf/sub-1_CBF.nii.gz")
    with pytest.raises(DataError, match="sub-1: several files for cbf"):
        find_cases(runs, ["cbf"])


def test_a_bundle_of_one_channel_takes_the_only_one_there_is(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    touch(tmp_path, *(f"sub-{s}/anat/sub-{s}_T1w.nii.gz" for s in "12"))
    assert names_of(find_cases(tmp_path, ["mri"], require_label=False)[0]) == {"mri": "sub-1_T1w.nii.gz"}
    assert "t1 is taken for mri: there is no other" in caplog.text
    touch(tmp_path, *(f"sub-{s}/anat/sub-{s}_T2w.nii.gz" for s in "12"))
    with pytest.raises(DataError, match="the channels t1, t2; expected mri"):
        find_cases(tmp_path, ["mri"], require_label=False)
    touch(tmp_path / "18", "case_1/VSD.Brain.XX.O.MR_ADC.1/VSD.Brain.XX.O.MR_ADC.1.nii")
    with pytest.raises(DataError, match="the channels adc; expected cbf, cbv"):
        find_cases(tmp_path / "18", ["cbf", "cbv"], require_label=False)


def test_isles_18(tmp_path):
    for case, part in ((1, "TRAINING"), (2, "TRAINING"), (1, "TESTING")):
        kinds = ["CT", "CT_4DPWI", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax", *(["OT"] if part == "TRAINING" else [])]
        for number, kind in enumerate(kinds, start=345560):
            touch(tmp_path, f"{part}/case_{case}/SMIR.Brain.XX.O.{kind}.{number}/SMIR.Brain.XX.O.{kind}.{number}.nii")
            touch(tmp_path, f"{part}/case_{case}/SMIR.Brain.XX.O.{kind}.{number}/License.txt")
    found = describe_dataset(tmp_path)
    assert (found.layout, found.channel_names) == ("isles18", ("cbf", "cbv", "ct", "mtt", "tmax"))
    assert [case.case_id for case in found.cases] == ["TESTING_case_1", "TRAINING_case_1", "TRAINING_case_2"]
    assert [case.label is not None for case in found.cases] == [False, True, True]
    cases = find_cases(tmp_path / "TRAINING", ["cbf", "CT_Tmax"])
    assert [case.case_id for case in cases] == ["case_1", "case_2"]
    assert names_of(cases[0]) == {
        "cbf": "SMIR.Brain.XX.O.CT_CBF.345562.nii",
        "ct_tmax": "SMIR.Brain.XX.O.CT_Tmax.345565.nii",
    }
    older = "training_1/VSD.Brain.XX.O.MR_ADC.128020/VSD.Brain.XX.O.MR_ADC.128020.nii"
    assert describe_dataset(touch(tmp_path / "17", older)).channel_names == ("adc",)


def test_isles_22_is_bids_by_another_name(tmp_path):
    for number in (1, 2):
        where = f"sub-strokecase000{number}/ses-0001"
        name = f"sub-strokecase000{number}_ses-0001"
        touch(tmp_path, f"{where}/dwi/{name}_dwi.nii.gz", f"{where}/dwi/{name}_adc.nii.gz")
        touch(tmp_path, f"{where}/anat/{name}_FLAIR.nii.gz", f"derivatives/{where}/{name}_msk.nii.gz")
    found = describe_dataset(tmp_path)
    assert (found.layout, found.channel_names) == ("isles22", ("adc", "dwi", "flair"))
    assert [case.label.name for case in found.cases] == [f"sub-strokecase000{n}_ses-0001_msk.nii.gz" for n in (1, 2)]


def test_isles_24_joins_admission_and_follow_up(tmp_path):
    for subject in ("sub-stroke0001", "sub-stroke0142"):
        raw, derived = (tmp_path / part / subject for part in ("raw_data", "derivatives"))
        touch(raw / "ses-01", *(f"{subject}_ses-01_{name}.nii.gz" for name in ("ncct", "cta", "ctp")))
        maps = [f"perfusion-maps/{subject}_ses-01_space-ncct_{name}.nii.gz" for name in ("cbf", "cbv", "mtt", "tmax")]
        touch(
            derived / "ses-01",
            *maps,
            *(f"{subject}_ses-01_space-ncct_{n}.nii.gz" for n in ("cta", "lvo-msk", "cow-msk")),
        )
        touch(derived / "ses-02", *(f"{subject}_ses-02_space-ncct_{n}.nii.gz" for n in ("dwi", "adc", "lesion-msk")))
    touch(tmp_path, "derivatives/sub-stroke0142/ses-02/sub-stroke0142_ses-02_lesion-msk.nii")  # the archive's stray
    found = describe_dataset(tmp_path)
    assert (found.layout, found.channel_names) == ("isles24", ("ncct", "cbf", "cbv", "cta", "mtt", "tmax"))
    assert [case.case_id for case in found.cases] == ["sub-stroke0001", "sub-stroke0142"]
    assert [case.label.name for case in found.cases] == [
        f"{c.case_id}_ses-02_space-ncct_lesion-msk.nii.gz" for c in found.cases
    ]
    assert found.cases[0].image["ncct"].parts[-4] == "raw_data"
    assert names_of(found.cases[0])["cta"] == "sub-stroke0001_ses-01_space-ncct_cta.nii.gz"
    assert list(find_cases(tmp_path, ["dwi"])[0].image) == ["dwi"]


def test_a_list_with_any_paths(tmp_path, caplog):
    touch(tmp_path, "x/1.nii.gz", "y/2.nii.gz", "z/m.nii", "x/3.nii.gz", "data/cbf/any_cbf.nii.gz")
    table = tmp_path / "data" / "cases.csv"
    table.write_text("case;CBF;mtt;label;patient\na1;../x/1.nii.gz;../y/2.nii.gz;../z/m.nii;7\na2;../x/3.nii.gz;;;7\n")
    for given in (table, table.parent):  # by itself, or found in its folder before anything else
        found = describe_dataset(given)
        assert (found.layout, found.channel_names) == ("list", ("cbf", "mtt"))
        assert [(c.case_id, sorted(c.image), c.patient) for c in found.cases] == [
            ("a1", ["cbf", "mtt"], "7"),
            ("a2", ["cbf"], "7"),
        ]
        assert found.cases[0].label == tmp_path / "data" / "../z/m.nii"
    assert [item["patient"] for item in data_list(table, ["cbf"])] == ["7", "7"]
    table.write_text("case,cbf,label,patient\na,../x/1.nii.gz,../z/m.nii,7\nb,../x/3.nii.gz,../z/m.nii,7\n")
    with pytest.raises(DataError, match=r"2 case\(s\) of 1 patient"):
        data_list(table, ["cbf"], "train")
    table.write_text("case,cbf\na,../x/1.nii.gz\na,../x/3.nii.gz\n")
    with pytest.raises(DataError, match="ids that several cases share:\n  a: "):
        find_cases(table, ["cbf"], require_label=False)
    table.write_text("case,cbf\na,../x/1.nii.gz\nb,gone.nii.gz\n")
    with pytest.raises(DataError, match=r"1 wrong entry:\n.*gone\.nii\.gz: no such file"):
        find_cases(table, ["cbf"], require_label=False)
    assert len(data_list(table, ["cbf"])) == 2  # refused by its name when it is loaded; the other goes on
    assert "gone.nii.gz: no such file" in caplog.text
    for text, found in (
        ("name,cbf\n", "columns"),
        ("case,cbf\na,b,c\n", "more fields"),
        ("case,cbf,CBF\n", "each name once"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=found):
            find_cases(table, ["cbf"], require_label=False)


def test_a_list_as_json(tmp_path):
    touch(tmp_path, "1.nii.gz", "2.nii.gz", "l.nii.gz")
    cases = [{"case": "a", "image": {"T1": "1.nii.gz", "T2": "2.nii.gz"}, "label": "l.nii.gz", "patient": "p"}]
    file = tmp_path / "any.json"
    file.write_text(json.dumps({"channels": ["T2", "T1"], "labels": {"1": "lesion"}, "cases": cases}))
    found = describe_dataset(file)
    assert (found.channel_names, found.classes, found.cases[0].patient) == (("t2", "t1"), {1: "lesion"}, "p")
    file.write_text(json.dumps([{"case": "a", "t1": "1.nii.gz"}]))
    assert names_of(describe_dataset(file).cases[0]) == {"t1": "1.nii.gz"}
    file.write_text('{"cases": 3}')
    with pytest.raises(DataError, match="without a list of cases"):
        describe_dataset(file)


def test_each_modality_may_have_a_mask_of_its_own(tmp_path):
    touch(tmp_path, *(f"sub-{i}/{name}_{kind}.nii.gz" for i in range(4) for name in ("ct", "mr_t1", "pet") for kind in ("image", "mask")))  # fmt: skip  # noqa: E501
    touch(tmp_path, "sub-0/brain_mask.nii.gz", "template.nii.gz")
    found = describe_dataset(tmp_path)
    assert found.channel_names == ("ct", "mr_t1", "pet")
    assert {case.label.name for case in found.cases} == {"ct_mask.nii.gz"}
    pet_first = describe_dataset(tmp_path, channels=["PET", "CT"])
    assert pet_first.channel_names == ("pet", "ct")
    assert {case.label.name for case in pet_first.cases} == {"pet_mask.nii.gz"}
    assert [case.label.name for case in find_cases(tmp_path, ["mr_t1"])] == ["mr_t1_mask.nii.gz"] * 4


def test_only_a_mask_that_says_so_is_a_label(tmp_path, caplog):
    touch(
        tmp_path / "brain",
        *(f"p{i}/p{i}_{name}.nii.gz" for i in range(3) for name in ("cbf", "cbv", "mask", "brain_mask")),
    )
    assert [case.label for case in describe_dataset(tmp_path / "brain").cases] == [None] * 3
    with pytest.raises(DataError, match="no label"):
        find_cases(tmp_path / "brain", ["cbf", "cbv"])
    touch(
        tmp_path / "lesion", *(f"p{i}/p{i}_{name}.nii.gz" for i in range(3) for name in ("cbf", "mask", "Lesion_Mask"))
    )
    assert describe_dataset(tmp_path / "lesion").cases[0].label.name == "p0_Lesion_Mask.nii.gz"
    touch(tmp_path / "pairs", *(f"p{i}/{name}.nii.gz" for i in range(3) for name in ("image", "mask")))
    found = describe_dataset(tmp_path / "pairs")
    assert (found.channel_names, found.cases[0].label.name) == (("image",), "mask.nii.gz")
    assert find_cases(tmp_path / "pairs", ["mri"])[0].label.name == "mask.nii.gz"
    touch(tmp_path / "flat", *(f"a{i}{name}.nii.gz" for i in range(3) for name in ("", "_mask")))
    found = describe_dataset(tmp_path / "flat")
    assert [(c.case_id, c.label.name) for c in found.cases] == [(f"a{i}", f"a{i}_mask.nii.gz") for i in range(3)]
    touch(tmp_path / "t2", *(f"p{i}_{name}.nii.gz" for i in range(3) for name in ("adc", "t2", "t2_mask")))
    found = describe_dataset(tmp_path / "t2")  # drawn on t2: that is the reference
    assert (found.channel_names, found.cases[0].label.name) == (("t2", "adc"), "p0_t2_mask.nii.gz")


def test_labels_alone_are_no_dataset(tmp_path):
    touch(tmp_path, *(f"lesion-{i:03d}.nii.gz" for i in range(5)))
    with pytest.raises(DataError, match=r"labels alone: 5 files such as lesion-000\.nii\.gz, and no image"):
        describe_dataset(tmp_path)
    assert len(describe_dataset(tmp_path, channels=["dwi"]).cases) == 5  # somebody says that these are images


@pytest.mark.parametrize(
    ("names", "channels", "cases"),
    [
        (["A/1_t1", "A/1_t2", "A/2_t1", "A/2_t2", "B/3_t1", "B/3_t2"], ("t1", "t2"), 3),  # sites that hold cases
        (["p1_t1_post", "p1_t1_pre", "p2_t1_post", "p2_t1_pre"], ("t1_post", "t1_pre"), 2),
        (["smith_t1", "smith_t2", "smith_label", "doe_t1", "doe_t2"], ("t1", "t2"), 2),
        (["s1/ses-1/s1_ses-1_adc", "s1/ses-2/s1_ses-2_adc", "s2/ses-1/s2_ses-1_adc"], ("adc",), 3),
        (["AIR", "RAS", "LPS"], ("image",), 3),
        (["t1", "t2", "lesion"], ("t1", "t2"), 1),
        (["p7_cbf", "p7_cbv", "lesion"], ("cbf", "cbv"), 1),
        (["only/only_flair", "only/only_t1"], ("flair", "t1"), 1),
        (["hippocampus_001", "hippocampus_003"], ("image",), 2),
        ([f"p{i}/p{i}_{n}" for i in range(9) for n in ("ct", "4dpwi")], ("ct",), 9),
    ],
)
def test_channels_are_what_the_cases_share(tmp_path, names, channels, cases):
    found = describe_dataset(touch(tmp_path, *(f"{name}.nii.gz" for name in names)))
    assert (found.channel_names, len(found.cases)) == (channels, cases)


def test_a_channel_that_few_cases_have_is_none_and_one_that_few_lack_is(tmp_path):
    touch(
        tmp_path, *(f"p{i}/t1.nii.gz" for i in range(20)), *(f"p{i}/flair.nii.gz" for i in range(19)), "p3/swi.nii.gz"
    )
    found = describe_dataset(tmp_path)
    assert found.channel_names == ("flair", "t1")
    assert [case.case_id for case in found.cases if len(case.image) < 2] == ["p19"]


def test_links_upper_case_suffixes_and_what_does_not_count(tmp_path, caplog):
    store = touch(tmp_path / "store", "a/T1.NII.GZ", "a/label.nii")
    root = tmp_path / "data"
    (root / "p2").mkdir(parents=True)
    os.symlink(store / "a", root / "p1")
    os.symlink(store / "a" / "T1.NII.GZ", root / "p2" / "T1.nii.gz")
    os.symlink(tmp_path / "gone", root / "p2" / "label.nii.gz")
    os.symlink(root, root / "p2" / "circle")
    touch(root, "p2/._T1.nii.gz", ".hidden/T1.nii.gz", "p2/T1.json")
    found = describe_dataset(root)
    assert [(case.case_id, case.label is not None) for case in found.cases] == [("p1", True), ("p2", True)]
    assert "1 links lead nowhere" in caplog.text


def test_whatever_has_the_name_of_an_image_is_listed_and_its_case_refused(tmp_path):
    root, good = tmp_path / "scans", Grid((8, 8, 8), np.eye(4))
    for name in "abcdef":
        write_volume(root / name / f"{name}_mri.nii.gz", np.random.default_rng(0).random(good.shape, np.float32), good)
    for name in "bcd":
        (root / name / f"{name}_mri.nii.gz").unlink()
    os.symlink("b_mri.nii.gz", root / "b" / "b_mri.nii.gz")
    os.mkfifo(root / "c" / "c_mri.nii.gz")
    (root / "d" / "d_mri.nii.gz").mkdir()
    (root / "e" / "e_mri.nii.gz").rename(root / "e" / "x")
    (root / "e" / "e_mri.nii.gz").mkdir()  # as some archives are unpacked
    (root / "e" / "x").rename(root / "e" / "e_mri.nii.gz" / "e_mri.nii.gz")
    os.symlink("loop.nii.gz", root / "f" / "loop.nii.gz")
    found = check_dataset(describe_dataset(root, ["mri"]), kept_in=tmp_path / "kept")
    assert found.refused == ("b", "c", "d")
    assert len(found.lines()) == 6


@pytest.mark.parametrize(("dims", "names", "said"), [(2, "a.png b.JPG c.jpg d.svs notes.txt", "2 .jpg, 1 .svs"),
                                                     (3, "a.nii.gz b.mha c.png", "1 .mha")])  # fmt: skip
def test_images_of_a_kind_that_is_not_read_are_said_to_be_left_out(tmp_path, caplog, dims, names, said):
    touch(tmp_path, *names.split())
    for _ in range(2):
        assert [case.case_id for case in find_cases(tmp_path, ["x"], require_label=False, spatial_dims=dims)] == ["a"]
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition("left out: ")[2].partition(" (")[0] for text in texts] == [said]
    assert describe_dataset(tmp_path, spatial_dims=dims).cases
    caplog.clear()
    for name in names.split()[1:]:
        (tmp_path / name).unlink()
    touch(tmp_path, ".hidden.jpg", ".hidden.mha")
    find_cases(tmp_path, ["x"], require_label=False, spatial_dims=dims)
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("part", ["imagesTr", "imagesTs", "labelsTr"])
@pytest.mark.parametrize("beside", ["dataset.json", None])
def test_a_part_of_a_dataset_is_not_taken_for_one_and_the_dataset_is_named(tmp_path, part, beside):
    touch(tmp_path, *(f"{folder}/{case}.nii.gz" for folder in ("imagesTr", "labelsTr") for case in "ab"))
    touch(tmp_path, "imagesTs/c.nii.gz", "labelsTs/c.nii.gz")
    if beside:
        entries = [{"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"} for case in "ab"]
        (tmp_path / beside).write_text(json.dumps({"modality": {"0": "mri"}, "training": entries}))
    said = rf"found only the (images|labels) of a dataset; .*give {tmp_path}; or.*--layout folders"
    with pytest.raises(DataError, match=said):
        describe_dataset(tmp_path / part)
    with pytest.raises(DataError, match=said):
        find_cases(tmp_path / part, ["mri"])
    assert len(describe_dataset(tmp_path / part, layout="folders").cases) == (1 if part == "imagesTs" else 2)
    if part.startswith("images"):  # to be predicted, images are enough
        assert find_cases(tmp_path / part, ["mri"], require_label=False)
    else:
        with pytest.raises(DataError, match=said):
            find_cases(tmp_path / part, ["mri"], require_label=False)


def test_numbered_channels_in_a_part_of_a_dataset_lead_to_the_dataset(tmp_path):
    touch(tmp_path, *(f"imagesTr/{case}_000{n}.nii.gz" for case in "abc" for n in (0, 1)))
    touch(tmp_path, *(f"labelsTr/{case}.nii.gz" for case in "abc"))
    names = {"channel_names": {"0": "flair", "1": "t1"}, "labels": {"background": 0, "lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    for channels in (["flair", "t1"], ["flair"]):
        with pytest.raises(DataError, match=f"give {tmp_path}"):
            find_cases(tmp_path / "imagesTr", channels, require_label=len(channels) == 1)


def test_a_folder_images_with_labels_in_it_is_a_dataset(tmp_path):
    touch(tmp_path, "labels/other.nii.gz", *(f"images/p{n}/{name}.nii.gz" for n in (1, 2) for name in ("ct", "label")))
    assert len(find_cases(tmp_path / "images", ["ct"])) == 2


def test_labels_without_an_image_are_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    touch(tmp_path, "images/a.png", "images/b.jpg", "labels/a.png", "labels/b.png")
    assert [case.case_id for case in find_cases(tmp_path, ["x"], spatial_dims=2)] == ["a"]
    assert "labels without an image of their name: 1, such as b.png" in caplog.text
    assert "left out: 1 .jpg" in caplog.text


def test_an_unreadable_folder_is_a_refused_case(tmp_path, monkeypatch):
    touch(tmp_path, "a/a_t1.nii", "b/b_t1.nii", "lost+found/x")
    scan = os.scandir

    def refusing(path):
        if os.path.basename(path) in ("b", "lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    cases = find_cases(tmp_path, ["t1"], require_label=False, keep_incomplete=True)
    assert [(case.case_id, case.problem) for case in cases] == [
        ("a", None),
        ("b", "a folder that can't be read (permission denied)"),
    ]
    items = data_list(tmp_path, ["t1"])
    with pytest.raises(DataError, match="case b: found a folder that can't be read"):
        LoadImageStackd(["image"], channels=["t1"])(items[1])


@pytest.mark.parametrize("entry", [{"image": 7}, 7, None, {"image": {"mri": 7}}, {"image": "a.nii.gz", "label": 7}])
def test_an_entry_that_is_none_is_a_refused_case(tmp_path, entry):
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    content = {"modality": {"0": "MRI"}, "training": [{"image": "b.nii.gz"}, entry]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    good, bad = sorted(describe_dataset(tmp_path).cases, key=lambda case: case.problem is not None)
    assert (good.case_id, good.problem) == ("b", None)
    assert bad.problem in ("dataset.json names no path per channel", "dataset.json names a label that is no path")
    assert [
        case.case_id for case in find_cases(tmp_path, ["mri"], keep_incomplete=True, require_label=False)
    ] == sorted((good.case_id, bad.case_id))


def test_a_layout_may_be_named_and_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bids(tmp_path)
    touch(tmp_path, "x/p1_cbf.nii.gz", "x/p2_cbf.nii.gz")
    (tmp_path / "cases.csv").write_text("case,cbf\np1,x/p1_cbf.nii.gz\n")
    assert [case.case_id for case in find_cases(tmp_path, ["cbf"], require_label=False)] == ["p1"]
    find_cases(tmp_path, ["cbf"], require_label=False)
    find_cases(tmp_path / "x" / "..", ["cbf"], require_label=False)  # the same folder by another name
    assert caplog.text.count("layout list, channels cbf: cases.csv lists the cases (it could also be bids)") == 1
    assert len(find_cases(tmp_path, ["cbf"], layout="bids")) == 3
    assert "layout bids, channels cbf: as asked for; subjects' folders with" in caplog.text
    assert len(data_list(tmp_path, ["cbf"], layout="bids")) == 3
    with pytest.raises(DataError, match="not of the layout nnunet; expected one of those that it can be: list, bids"):
        find_cases(tmp_path, ["cbf"], layout="nnunet")
    with pytest.raises(ConfigError, match="layout='dicom'; expected one of list, decathlon, nnunet"):
        find_cases(tmp_path, ["cbf"], layout="dicom")


def test_the_order_is_the_documented_one():
    assert [layout.name for layout in LAYOUTS][::8] == ["list", "folders"]


@pytest.mark.parametrize("make", ["folders", "bids", "flat"])
def test_the_time_of_listing_grows_with_the_cases_and_no_faster(tmp_path, make):
    """Eight times the cases take about eight times as long; were each compared with all others, 64 times."""
    (tmp_path / "one").touch()
    seconds = []
    for cases in (100, 800):
        for number in range(cases):
            folder = {"folders": f"sub-{number}", "bids": f"sub-{number}/anat", "flat": ""}[make]
            (tmp_path / f"{cases}" / folder).mkdir(parents=True, exist_ok=True)
            for name in ("T1w", "FLAIR", "label"):
                os.link(tmp_path / "one", tmp_path / f"{cases}" / folder / f"sub-{number}_{name}.nii.gz")
        took = []
        for _ in range(3):
            start = time.process_time()
            found = describe_dataset(tmp_path / f"{cases}")
            took.append(time.process_time() - start)
        assert (len(found.cases), len(found.channel_names)) == (cases, 2)
        seconds.append(min(took))
    assert seconds[1] < 24 * seconds[0]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        *((f"{images}/{{}}.png", f"{labels}/{{}}.png") for images, labels in [("images", "masks"), ("image", "label")]),
        ("{}.png", "masks/{}.png"),
        ("imgs/{}_img.png", "gt/{}_gt.png"),
        ("img_{}.png", "mask_{}.png"),
        ("{}.png", "{}_cp_masks.png"),
        ("{}_img.png", "{}_masks.png"),
    ],
)
@pytest.mark.parametrize("channels", [["em"], None])
def test_labels_in_a_folder_or_with_a_name_beside_their_images_are_no_images(tmp_path, image, label, channels):
    ids = ("00", "b7", "zz")
    touch(tmp_path, *(form.format(name) for name in ids for form in (image, label)))
    found = describe_dataset(tmp_path, channels, spatial_dims=2)
    assert found.layout == "folders"
    assert found.channel_names == (*(channels or ["img" if "_img" in image else "image"]),)
    own = [(next(iter(case.image.values())), case.label) for case in found.cases]
    assert own == [(tmp_path / image.format(name), tmp_path / label.format(name)) for name in ids]
    assert f"labels by their folder or name: 3, such as {label.format('00')}" in found.announcement


def test_the_two_folders_may_lie_deeper(tmp_path):
    touch(tmp_path, *(f"{part}/{kind}/{part}1.png" for part in ("train", "test") for kind in ("Images", "Annotations")))
    found = find_cases(tmp_path, ["em"], spatial_dims=2)
    assert [(case.case_id, case.relative.name, case.label.parent.name) for case in found] == [
        (f"{part}1", part, "Annotations") for part in ("test", "train")
    ]


def test_masks_of_other_names_are_left_out_and_said(tmp_path):
    """As the Data Science Bowl has them: a mask per object."""
    touch(tmp_path, *(f"{name}/{file}.png" for name in "ab" for file in (f"images/{name}", "masks/17", "masks/18")))
    touch(tmp_path, "lesions/c.png", "mask_of_none.png")  # no folder of labels, and no image of its name
    found = describe_dataset(tmp_path, ["em"], spatial_dims=2)
    assert [case.case_id for case in found.cases] == ["a", "b", "c", "mask_of_none"]
    assert all(case.label is None for case in found.cases)
    assert "labels without an image of their name, left out: 4, such as a/masks/17.png" in found.announcement


def test_a_mask_folder_of_a_case_with_channels_is_still_the_brains(tmp_path):
    touch(tmp_path, *(f"p{i}/{name}.nii.gz" for i in (1, 2) for name in ("cbf", "cbv", "lesion", "seg/grey")))
    found = describe_dataset(tmp_path, ["cbf", "cbv"])
    assert [(case.case_id, case.label.name) for case in found.cases] == [(f"p{i}", "lesion.nii.gz") for i in (1, 2)]


def test_images_beside_the_two_folders_are_said_not_to_be_read(tmp_path):
    touch(tmp_path, "images/00.png", "labels/00.png", "test/01.png", "02.png")
    found = describe_dataset(tmp_path, ["em"], spatial_dims=2)
    assert [case.case_id for case in found.cases] == ["00"]
    assert "in neither of these folders, and not read: 2, such as 02.png" in found.announcement


def test_a_label_whose_image_says_more_of_itself_is_that_images_alone(tmp_path):
    """`sub-1_bold` of a bundle whose channel is called otherwise, beside `sub-1_label`."""
    touch(tmp_path, *(f"sub-{i}/sub-{i}_{name}.nii.gz" for i in range(3) for name in ("bold", "label")))
    found = describe_dataset(tmp_path, ["mri"])
    assert [case.label.name for case in found.cases] == [f"sub-{i}_label.nii.gz" for i in range(3)]
    # of two images that begin so, and of one that is called so, nobody knows
    touch(tmp_path, "sub-0/sub-0_bold_2.nii.gz", "sub-1/sub-1.nii.gz", "sub-2/x_label.nii.gz")
    found = describe_dataset(tmp_path, ["mri"])
    labels = {case.case_id: case.label and case.label.name for case in found.cases}
    assert labels == {
        "sub-0_bold": None,
        "sub-0_bold_2": None,
        "sub-1_bold": None,
        "sub-1": "sub-1_label.nii.gz",
        "sub-2_bold": "sub-2_label.nii.gz",
    }
    assert "labels without an image of their name, left out: 2, such as sub-0_label.nii.gz" in found.announcement


@pytest.mark.parametrize("channels", [["mri"], None])
def test_a_label_by_its_folder_is_never_an_image(tmp_path, channels):
    touch(tmp_path, *(f"images/p{i}_mri.nii.gz" for i in (1, 2)), *(f"masks/p{i}_mri.nii.gz" for i in (1, 2, 3, 4)))
    found = describe_dataset(tmp_path, channels)
    assert [(case.image["mri"].parent.name, case.label.parent.name) for case in found.cases] == [
        ("images", "masks")
    ] * 2
    assert "labels without an image of their name, left out: 2, such as masks/p3_mri.nii.gz" in found.announcement


@pytest.mark.parametrize("channels", [["mri"], None])
def test_a_folder_of_labels_alone_holds_no_case(tmp_path, channels):
    touch(tmp_path, "masks/p1_mri.nii.gz", "masks/p2_mri.nii.gz")
    with pytest.raises(DataError, match="found no case"):
        describe_dataset(tmp_path, channels)


def test_a_label_by_its_folder_is_no_image_where_it_alone_has_the_channels_name(tmp_path):
    touch(tmp_path, *(f"{name}.nii.gz" for i in (1, 2) for name in (f"images/p{i}", f"masks/p{i}_mri")))
    found = describe_dataset(tmp_path, ["mri"])
    assert [(case.image["mri"].parent.name, case.label) for case in found.cases] == [("images", None)] * 2
    assert "labels without an image of their name, left out: 2, such as masks/p1_mri.nii.gz" in found.announcement


@pytest.mark.parametrize("label", ["mask_{}", "gt_{}", "{}_cp_masks", "{}_masks"])
@pytest.mark.parametrize("channels", [["em"], None])
def test_a_label_by_its_name_without_an_image_is_no_image_beside_others(tmp_path, label, channels):
    touch(tmp_path, "img_0.png", "img_1.png", *(f"{label.format(i)}.png" for i in range(4)))
    found = describe_dataset(tmp_path, channels, spatial_dims=2)
    assert [(next(iter(case.image.values())).stem, case.label.stem) for case in found.cases] == [
        (f"img_{i}", label.format(i)) for i in (0, 1)
    ]
    said = f"labels without an image of their name, left out: 2, such as {label.format(2)}.png"
    assert said in found.announcement


@pytest.mark.parametrize("name", ["gt/p{}_{}.nii.gz", "gt/p{0}/p{0}_{1}.nii.gz", "gt/p{}/{}.nii.gz"])
def test_a_label_folder_that_holds_images_and_their_labels_is_like_any_other(tmp_path, name):
    touch(tmp_path, *(name.format(i, kind) for i in (1, 2) for kind in ("mri", "label")), name.format(3, "mri"))
    found = describe_dataset(tmp_path, ["mri"])
    assert [(case.image["mri"], case.label) for case in found.cases] == [
        *((tmp_path / name.format(i, "mri"), tmp_path / name.format(i, "label")) for i in (1, 2)),
        (tmp_path / name.format(3, "mri"), None),
    ]
    assert "left out" not in found.announcement
    touch(tmp_path, "images/p9_mri.nii.gz")  # images lie elsewhere: then it is one of labels
    found = describe_dataset(tmp_path, ["mri"])
    assert [(case.image["mri"].parent.name, case.label) for case in found.cases] == [("images", None)]
    assert "left out: 5" in found.announcement


@pytest.mark.parametrize("ending", ["", "_mri"])
def test_a_label_by_its_folder_and_one_by_its_name_for_the_same_image_are_several(tmp_path, ending):
    touch(tmp_path, *(f"{part}/c{i}{ending}.nii.gz" for part in ("images", "masks") for i in (0, 1)))
    touch(tmp_path, "images/c0_label.nii.gz")
    with pytest.raises(DataError, match="c0: several files for the label"):
        find_cases(tmp_path, ["mri"])
    (tmp_path / "images/c0_label.nii.gz").unlink()
    assert [case.label.parent.name for case in find_cases(tmp_path, ["mri"])] == ["masks", "masks"]


@pytest.mark.parametrize("name", ["p{0}/p{0}_{1}", "p{0}_{1}"])
def test_a_modality_that_some_cases_have_is_mentioned(tmp_path, name):
    touch(tmp_path, *(f"{name.format(i, channel)}.nii.gz" for i in range(6) for channel in ("t1", "t2", "lesion")))
    assert "cases have it" not in describe_dataset(tmp_path).announcement
    touch(tmp_path, *(f"{name.format(i, 'flair')}.nii.gz" for i in (0, 3)))
    found = describe_dataset(tmp_path)
    assert found.channel_names == ("t1", "t2")
    assert "flair: 2 cases have it, too few" in found.announcement
    assert "cases have it" not in describe_dataset(tmp_path, ["t1", "t2", "flair"]).announcement


@pytest.mark.parametrize("left", ["predictions.json", "predictions.0.jsonl"])
def test_what_predictions_have_left_among_the_scans_is_no_scan(tmp_path, left):
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "out/a.nii.gz", "out/deeper/b.nii.gz", f"out/{left}")
    found = describe_dataset(tmp_path, ["mri"])
    assert [case.case_id for case in found.cases] == ["a", "b"]
    assert [case.label for case in found.cases] == [None, None]
    assert [case.case_id for case in describe_dataset(tmp_path / "out", ["mri"]).cases] == ["a", "b"]


def test_predictions_in_a_folder_of_labels_are_labels(tmp_path):
    touch(tmp_path, *(f"{part}/{case}.nii.gz" for part in ("imagesTr", "labelsTr") for case in "ab"))
    touch(tmp_path, "labelsTr/predictions.json")
    assert [case.label.name for case in find_cases(tmp_path, ["mri"])] == ["a.nii.gz", "b.nii.gz"]


def test_a_single_folder_of_images_is_no_case_of_as_many_channels(tmp_path):
    touch(tmp_path, "images/p1.nii.gz", "images/p2.nii.gz")
    found = describe_dataset(tmp_path)
    assert [(case.case_id, sorted(case.image)) for case in found.cases] == [("p1", ["image"]), ("p2", ["image"])]
    touch(tmp_path / "other", "scan/cbf.nii.gz", "scan/mtt.nii.gz", "scan/lesion.nii.gz")
    (case,) = describe_dataset(tmp_path / "other").cases
    assert (sorted(case.image), case.label.name) == (["cbf", "mtt"], "lesion.nii.gz")
