"""Summaries and tables: averages by hand, misses that cost, intervals against a plain bootstrap."""

import csv
import json
import math

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.metrics import (
    MEASURES,
    Row,
    diagonal_mm,
    format_table,
    measure_case,
    read_cases,
    summarise,
    write_cases,
    write_tables,
)

SHAPE, SPACING = (10, 10, 4), (1.0, 1.0, 5.0)


def lesion(shift: int = 0) -> np.ndarray:
    label_map = np.zeros(SHAPE, dtype=int)
    label_map[2 + shift : 5 + shift, 3:6, 1:3] = 1
    return label_map


def rows_of(case_id, prediction, reference, classes=None):
    diagonal = diagonal_mm(SHAPE, SPACING)
    results = measure_case(prediction, reference, SPACING, classes or {1: "lesion"})
    return [Row(case_id, diagonal, result) for result in results]


@pytest.fixture
def nine_perfect_one_missed():
    rows = [row for i in range(9) for row in rows_of(f"case-{i}", lesion(), lesion())]
    return rows + rows_of("case-9", np.zeros(SHAPE, dtype=int), lesion())


def test_a_miss_does_not_hide_behind_nine_perfect_cases(nine_perfect_one_missed):
    [found] = summarise(nine_perfect_one_missed).classes
    assert (found.cases, found.missed, found.false_alarms, found.absent) == (10, 1, 0, 0)
    assert found.measures["dice"].mean == pytest.approx(0.9)

    where_it_exists = found.measures["hausdorff_95_mm"]
    assert (where_it_exists.mean, where_it_exists.n, where_it_exists.undefined) == (0.0, 9, 1)
    penalised = found.measures["hausdorff_95_mm_penalised"]
    assert (penalised.n, penalised.undefined) == (10, 0)
    assert penalised.mean == pytest.approx(math.sqrt(10**2 + 10**2 + 20**2) / 10)

    heading, line = format_table(summarise(nine_perfect_one_missed)).splitlines()
    assert " ".join(heading.split()) == "class N Dice [95% interval] IoU HD95 mm with misses missed false alarms absent"
    assert " ".join(line.split()) == "lesion 10 0.900 [0.700, 1.000] 0.900 0.00 2.45 1 0 0"


def test_lengths_of_sections_are_in_pixels():
    mask = np.zeros((12, 12), int)
    mask[2:6, 2:6] = 1
    rows = [Row("a", 17.0, result) for result in measure_case(mask, np.roll(mask, 1), (1.0, 1.0), {1: "cell"})]
    summary = summarise(rows)
    assert summary.length_unit == summary.to_dict()["length_unit"] == "px"
    assert "HD95 px" in format_table(summary)
    assert summarise(rows_of("a", lesion(), lesion())).length_unit == "mm"


def test_cases_without_the_class_are_told_from_those_with_it():
    nothing = np.zeros(SHAPE, dtype=int)
    rows = [*rows_of("a", lesion(1), lesion()), *rows_of("b", nothing, nothing), *rows_of("c", lesion(), nothing)]
    last = format_table(summarise(rows)).splitlines()[-1]
    assert last == "lesion: Dice 0.667 on the 1 case that has it; 1 neither have nor show it"
    only_absent = format_table(summarise(rows_of("b", nothing, nothing))).splitlines()[-1]
    assert only_absent == "lesion: no case has it; its Dice is 1 where none is shown, 0 where one is"


def test_statistics_by_hand():
    """Dice 1, 2/3, 1/3, 0 for shifts by 0 to 3 of a block three voxels long."""
    rows = [row for shift in range(4) for row in rows_of(f"case-{shift}", lesion(shift), lesion())]
    dice = summarise(rows).classes[0].measures["dice"]
    assert (dice.n, dice.undefined) == (4, 0)
    assert dice.mean == pytest.approx(0.5)
    assert dice.median == pytest.approx(0.5)
    assert dice.std == pytest.approx(math.sqrt((0.25 + 1 / 36 + 1 / 36 + 0.25) / 3))
    assert 0 <= dice.low < 0.5 < dice.high <= 1
    assert summarise(rows).classes[0].measures["hausdorff_mm"].mean == pytest.approx((0 + 1 + 2 + 3) / 4)


def test_interval_equals_a_plain_bootstrap_and_follows_the_seed():
    rng = np.random.default_rng(7)
    rows = []
    for i in range(60):
        reference = lesion()
        prediction = np.where(rng.random(SHAPE) < rng.uniform(0, 0.6), 0, reference)
        rows += rows_of(f"case-{i}", prediction, reference)
    dice = [row.result.dice for row in rows]
    means = [np.mean(rng.choice(dice, size=len(dice))) for _ in range(5000)]
    found = summarise(rows).classes[0].measures["dice"]
    width = found.high - found.low
    assert [found.low, found.high] == pytest.approx(list(np.percentile(means, [2.5, 97.5])), abs=0.1 * width)
    assert summarise(rows, seed=0) == summarise(rows, seed=0)
    assert summarise(rows, seed=1).classes[0].measures["dice"] != found


def test_the_mean_over_classes_is_the_mean_of_the_rows_above():
    classes = {1: "lesion", 2: "penumbra"}
    reference = lesion()
    reference[8, 8, 0] = 2
    missing = np.where(reference == 2, 0, reference)
    rows = [
        *rows_of("a", reference, reference, classes),
        *rows_of("b", missing, reference, classes),
        *rows_of("c", np.where(lesion(1) == 1, 1, missing), missing, classes),
    ]
    summary = summarise(rows)
    first, second = summary.classes
    assert (first.missed, second.missed, second.absent, summary.mean.missed) == (0, 1, 1, 1)
    assert summary.mean.cases == 3
    for name in ("dice", "iou", "hausdorff_95_mm", "hausdorff_95_mm_penalised"):
        expected = (first.measures[name].mean + second.measures[name].mean) / 2
        assert summary.mean.measures[name].mean == pytest.approx(expected)
    assert summary.mean.measures["dice"].median == pytest.approx(np.median([1, 0.5, (6 / 7 + 1) / 2]))
    *table, note = format_table(summary).splitlines()
    assert [line.split()[0] for line in table] == ["class", "lesion", "penumbra", "mean"]
    assert len({len(line) for line in table}) == 1
    assert note.startswith("penumbra: Dice 0.500 on the 2 cases")


def test_a_class_outside_the_mean_has_its_line_and_counts_for_nothing_else():
    reference, stray = lesion(), lesion(1)
    stray[9, 9, 3] = 2
    rows = [
        row
        for case, prediction in (("a", stray), ("b", lesion(1)))
        for row in rows_of(case, prediction, reference, {1: "1", 2: "2"})
    ]
    without = summarise(row for row in rows if row.result.class_name == "1")
    summary = summarise(rows, outside_mean=["2"])
    assert summary.mean == without.mean
    assert summarise(rows).mean.measures["dice"].mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [(line.class_name, line.false_alarms) for line in summary.classes] == [("1", 0), ("2", 1)]
    assert summary.to_dict()["outside_mean"] == ["2"]
    assert format_table(summary).splitlines()[-1] == "2: no reference has it, so it is not in the mean"


def test_json_has_null_where_a_value_is_undefined():
    summary = summarise(rows_of("only", np.zeros(SHAPE, dtype=int), lesion()))
    text = json.dumps(summary.to_dict(), allow_nan=False)
    [found] = json.loads(text)["classes"]
    assert found["measures"]["hausdorff_mm"]["mean"] is None
    assert found["measures"]["dice"]["mean"] == 0
    assert found["measures"]["dice"]["low"] is None
    assert set(found["measures"]) >= set(MEASURES)
    assert "-" in format_table(summary).splitlines()[1].split()


def test_cases_csv_reads_back(tmp_path, nine_perfect_one_missed):
    write_cases(nine_perfect_one_missed, tmp_path / "cases.csv")
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["case_id"] for row in read] == [f"case-{i}" for i in range(10)]
    assert read[9]["status"] == "missed"
    assert read[9]["hausdorff_mm"] == ""
    assert float(read[0]["volume_reference_ml"]) == nine_perfect_one_missed[0].result.volume_reference_ml
    assert list(tmp_path.iterdir()) == [tmp_path / "cases.csv"]


def test_incomplete_tables_are_refused():
    classes = {1: "lesion", 2: "penumbra"}
    rows = [*rows_of("a", lesion(), lesion(), classes), *rows_of("b", lesion(), lesion(), classes)]
    with pytest.raises(DataError, match="no case"):
        summarise([])
    with pytest.raises(DataError, match=r"case b.*no row of class penumbra, which other cases have"):
        summarise(rows[:-1])
    with pytest.raises(DataError, match=r"case a.*class lesion twice"):
        summarise([*rows, rows[0]])


def same(found, expected) -> bool:
    """Whether rows are equal, NaN being equal to itself."""
    return len(found) == len(expected) and all(
        (a.case_id, a.diagonal_mm) == (b.case_id, b.diagonal_mm) and str(a.result) == str(b.result)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("name", ["cases.csv", "cases.json", "."])
def test_what_is_written_reads_back_as_it_was(tmp_path, name, nine_perfect_one_missed):
    rows = nine_perfect_one_missed
    rows[0] = Row('a "case",\nof two lines', rows[0].diagonal_mm, rows[0].result)
    write_tables(rows, summarise(rows), tmp_path)
    assert same(read_cases(tmp_path / name), rows)


def test_the_summary_as_a_table(tmp_path, nine_perfect_one_missed):
    summary = summarise(nine_perfect_one_missed)
    write_tables(nine_perfect_one_missed, summary, tmp_path)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        lines = {(line["class_name"], line["measure"]): line for line in csv.DictReader(file)}
    line = lines["lesion", "hausdorff_95_mm"]
    assert (line["cases"], line["missed"], line["n"], line["undefined"], line["mean"]) == ("10", "1", "9", "1", "0.0")
    penalised = lines["mean", "hausdorff_95_mm_penalised"]
    assert float(penalised["mean"]) == pytest.approx(math.sqrt(600) / 10)
    assert lines["lesion", "lesion_precision"]["n"] == "9"
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no cases.csv"),
        ("", "a table without cases"),
        ("case_id,dice\na,1\n", r"without the columns class_id, class_name, status, tp, fp, \.\.\.; .*measure again"),
        ("{broken", "a table without cases"),
    ],
)
def test_tables_that_are_no_tables(tmp_path, text, message):
    if text is not None:
        (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_cases(tmp_path)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="runs: found no such file or folder; expected a run that was measured"):
        read_cases(tmp_path / "runs")


def test_damaged_tables(tmp_path, nine_perfect_one_missed):
    file = tmp_path / "cases.csv"
    write_cases(nine_perfect_one_missed, file)
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines, lines[-1]]), encoding="utf-8")
    with pytest.raises(DataError, match=r"case case-9.*class lesion twice"):
        read_cases(file)
    file.write_text("\n".join([*lines, lines[1].replace(",lesion,", ",rim,")]), encoding="utf-8")
    with pytest.raises(DataError, match=r"case case-1, file .*cases.csv: found no row of class rim"):
        read_cases(file)
    file.write_text("\n".join(lines).replace(",ok,", ",ok,x"), encoding="utf-8")
    with pytest.raises(DataError, match="no number"):
        read_cases(file)
    (tmp_path / "cases.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="a table without cases"):
        read_cases(tmp_path / "cases.json")
    (tmp_path / "cases.json").write_text("5", encoding="utf-8")
    with pytest.raises(DataError, match="can't be read"):
        read_cases(tmp_path / "cases.json")
