"""Every row of docs/hazards.md, tried: files as they arrive from clinics, each of which must end as the table says.

A hazard is a file (or several) that is made here, and how it has to end: accepted with the right values, repaired with
the right values and a sentence, or refused with case, file and advice. The tables in docs/hazards.md are made from
the modules beside this one: ``python -m tests.hazards.test_hazards`` writes them anew, and a test compares. A row
without a hazard fails, and so does a hazard that ends otherwise, or in silence.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.hazards.making import HAZARDS, REFUSED, REPAIRED, ROWS, Hazard, refused

for rows in ("voxels", "files", "spaces", "shapes", "stacks", "others"):
    import_module(f"tests.hazards.{rows}")

ORDER = """
    non_finite absurd constant missing bit_flip damaged pixdim no_space shear two_spaces no_orientation flipped units
    no_units size dimensions series slices types other_grid label_grid label_ids label_rounding label_fraction
    label_empty duplicates odd_but_right writing privacy""".split()  # noqa: SIM905
"""Of the table's rows."""

DOCS = Path(__file__).parents[2] / "docs" / "hazards.md"
BEGIN, END = "<!-- made by tests/hazards/test_hazards.py -->", "<!-- end -->"


@pytest.mark.parametrize(
    "hazard", HAZARDS, ids=lambda hazard: f"{hazard.row}: {hazard.what}".encode("ascii", "replace").decode()
)
def test_hazard(hazard: Hazard, tmp_path: Path):
    if hazard.ends == REFUSED:
        error = refused(lambda: hazard.run(tmp_path), hazard.says)
        if hazard.row not in ("duplicates", "writing") and "assume_orientation='RAX'" not in error.found:
            assert error.case == "sub-01"
            assert error.file or hazard.row == "missing"
        return
    loaded = hazard.run(tmp_path)
    if loaded is None:  # it has asserted by itself
        return
    array, drawn, repairs = loaded
    assert bool(repairs) == (hazard.ends == REPAIRED), repairs
    assert hazard.says in repairs
    np.testing.assert_allclose(array, hazard.image, rtol=1e-6, atol=1e-4 if "resampled" in repairs else 0)
    if hazard.label is not None:
        np.testing.assert_array_equal(drawn, hazard.label)


def tables() -> str:
    """The two tables of docs/hazards.md."""
    counts = {key: sum(hazard.row == key for hazard in HAZARDS) for key in ORDER}
    rows = [(key, ROWS[key]) for key in ORDER]
    lines = ["| what arrives | elsewhere | here | tried |", "|---|---|---|---|"]
    lines += [
        f"| {r.arrives} | {r.elsewhere} | {r.here} | {counts[key]} |" for key, r in ((key, ROWS[key]) for key in ORDER)
    ]
    lines += ["", "## Each as it was tried", ""]
    for key, r in rows:
        lines += [f"**{r.arrives}**", "", "| arrives | ends | and says |", "|---|---|---|"]
        for hazard in HAZARDS:
            if hazard.row == key:
                says = f"... {hazard.says} ..." if hazard.says else ""
                lines.append(
                    "| " + " | ".join(text.replace("|", r"\|") for text in (hazard.what, hazard.ends, says)) + " |"
                )
        lines.append("")
    return "\n".join(lines)


def test_every_row_is_tried_and_the_document_says_what_the_tests_do():
    assert {hazard.row for hazard in HAZARDS} == set(ROWS) == set(ORDER)
    text = DOCS.read_text(encoding="utf-8")
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert written == tables().strip(), "write it anew: python -m tests.hazards.test_hazards"


if __name__ == "__main__":
    document = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(
        document[: document.index(BEGIN) + len(BEGIN)]
        + "\n\n"
        + tables().strip()
        + "\n\n"
        + document[document.index(END) :],
        encoding="utf-8",
    )
    sys.stdout.write(f"{len(HAZARDS)} hazards in {len(ROWS)} rows\n")
