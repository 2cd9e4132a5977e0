from pathlib import Path

import pytest

from pipeline.data import Split, data_list, find_cases, write_split
from pipeline.data.layouts import Entry
from pipeline.data.pseudonyms import Pseudonyms, hidden_error, without_paths
from pipeline.errors import DataError, GeometryError


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def dataset(root: Path, *cases: str) -> Path:
    for case in cases:
        (root / case).mkdir(parents=True)
        for name in ("mri", "label"):
            (root / case / f"{case}_{name}.nii.gz").write_text(f"{case} {name}")
    return root


def test_the_pseudonym_takes_the_place_of_the_id(tmp_path):
    scans = dataset(tmp_path / "scans", "smith", "doe")
    names = written(tmp_path / "names.csv", "ID;Pseudonym", "smith;P 1", "doe;P2", "unused;P3")
    items = data_list(scans, ["mri"], pseudonyms=names)
    assert items == [
        {
            "case_id": name,
            "relative": ".",
            "image": {"mri": str(scans / case / f"{case}_mri.nii.gz")},
            "label": str(scans / case / f"{case}_label.nii.gz"),
            "pseudonymous": True,
        }
        for name, case in (("P 1", "smith"), ("P2", "doe"))
    ]
    assert "pseudonymous" not in data_list(scans, ["mri"])[0]


def test_cases_without_a_pseudonym_are_all_named(tmp_path):
    scans = dataset(tmp_path / "scans", "smith", "doe", "roe")
    names = written(tmp_path / "names.csv", "id,pseudonym", "smith,P1")
    with pytest.raises(DataError, match=r"2 of 3 cases without a pseudonym: doe, roe"):
        find_cases(scans, ["mri"], pseudonyms=names)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["id,pseudonym", "a,P1", "a,P2"], "twice the id a"),
        (["id,pseudonym", "a,P1", "b,p1"], "twice the pseudonym p1"),
        (["id,pseudonym", "a,", "b,P1"], "1 lines with an empty field"),
        (["id,pseudonym", "a,../x"], "no file names: ../x"),
        (["id,pseudonym", "a,b", "b,c"], "ids of this file: those of a"),
        (["id,name", "a,P1"], "the columns id, name"),
        (["id,pseudonym"], "no line but the first"),
    ],
)
def test_a_file_that_would_mix_cases_up_is_refused(tmp_path, lines, found):
    with pytest.raises(DataError, match=found):
        Pseudonyms.read(written(tmp_path / "names.csv", *lines))
    with pytest.raises(DataError, match="can't be read"):
        Pseudonyms.read(tmp_path / "missing.csv")


def test_a_patients_cases_stay_together_under_one_name(tmp_path):
    names = Pseudonyms({"sub-1_ses-1": "P1", "sub-2": "P2", "sub-1_ses-2": "P3", "x": "P4", "y": "P5"})
    entries = [Entry(case, {}, [], Path(case)) for case in ("sub-1_ses-2", "sub-2", "sub-1_ses-1")]
    entries += [Entry(case, {}, patient="smith") for case in ("y", "x")]
    assert [(e.case_id, e.patient, e.folder) for e in names.applied(entries)] == [
        ("P3", "P1", Path()),
        ("P2", "P2", Path()),
        ("P1", "P1", Path()),
        ("P5", "P4", Path()),
        ("P4", "P4", Path()),
    ]


def test_a_split_may_name_ids_or_pseudonyms(tmp_path):
    cases = [f"case{i}" for i in range(4)]
    scans = dataset(tmp_path / "scans", *cases)
    names = written(tmp_path / "names.csv", "id,pseudonym", *(f"{case},P{case[-1]}" for case in cases))
    for ids in (cases, ["P0", "P1", "P2", "P3"]):
        write_split(tmp_path / "split.json", Split(tuple(ids[:3]), tuple(ids[3:])))
        for part, expected in (("train", ["P0", "P1", "P2"]), ("validate", ["P3"]), ("unseen", ["P3"])):
            items = data_list(scans, ["mri"], part, split_file=tmp_path / "split.json", pseudonyms=names)
            assert [item["case_id"] for item in items] == expected


def test_stored_text_names_no_path(tmp_path):
    image, label = tmp_path / "smith" / "smith_mri.nii.gz", tmp_path / "smith" / "lesion.nii.gz"
    item = {"case_id": "P1", "image": {"mri": str(image)}, "label": str(label), "pseudonymous": True}
    text = f"[Errno 2] '{image}' beside smith/lesion.nii.gz in {image.parent}, or {label.name}"
    hidden = "[Errno 2] '<mri of P1>' beside <label of P1> in <folder of P1>, or <label of P1>"
    assert without_paths(text, item) == hidden
    assert without_paths(text, {**item, "pseudonymous": False}) == text
    error = GeometryError(f"no grid in {image.name}", case="P1", file=label, expected="one", fix=f"look at {image}")
    shown = hidden_error(error, item)
    assert isinstance(shown, GeometryError)
    assert str(shown) == (
        "case P1, file <label of P1>: found no grid in <mri of P1>; expected one; to fix it: look at <mri of P1>"
    )
    section = {"case_id": "P1_003", "image": {"em": f"{tmp_path}/doe.tif#3"}, "pseudonymous": True}
    assert without_paths(f"{tmp_path}/doe.tif#3, doe.tif", section) == "<em of P1_003>, <em of P1_003>"
