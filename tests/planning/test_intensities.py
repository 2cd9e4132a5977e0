import numpy as np
import pytest

from pipeline.data.fingerprint import PERCENTILES, IntensityFingerprint
from pipeline.planning.intensities import kind_of, pooled_percentile


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CBF", "a perfusion map"),
        ("CT_MTT", "a perfusion map"),
        ("pet_ct", "an emission image"),
        ("ncct", "CT"),
        ("abdomen-ct", "CT"),
        ("T1w", "MR"),
        ("mr_t1", "MR"),
        ("t2", "MR"),
        ("mri1", "MR"),
        ("dwi_b1000", "MR"),
        ("b1000", "MR"),
        ("image", None),
        ("0000", None),
        ("noncontrast", None),
    ],
)
def test_names(name, kind):
    assert kind_of(name) == kind


def _fingerprint(values: np.ndarray) -> IntensityFingerprint:
    percentiles = tuple(np.percentile(values, PERCENTILES).tolist())
    return IntensityFingerprint(values.size, values.min(), values.max(), values.mean(), values.std(), percentiles)


@pytest.mark.parametrize("percentile", [0.5, 50.0, 99.5])
def test_pooled_percentiles_are_those_of_all_values_together(percentile):
    rng = np.random.default_rng(0)
    parts = [rng.normal(mean, 20, 200_000) for mean in (40, 80, 400)]
    pooled = pooled_percentile([_fingerprint(part) for part in parts], percentile)
    assert pooled == pytest.approx(np.percentile(np.concatenate(parts), percentile), abs=12)


def test_pooled_percentiles_of_one_value():
    same = _fingerprint(np.full(100, 7.0))
    assert pooled_percentile([same], 0.5) == pooled_percentile([same, same], 99.5) == 7.0


def test_each_case_counts_the_same_however_large():
    small, large = _fingerprint(np.linspace(0, 1, 100)), _fingerprint(np.linspace(10, 11, 100_000))
    assert pooled_percentile([small, large], 25.0) == pytest.approx(0.5, abs=0.01)
    assert pooled_percentile([small, large], 75.0) == pytest.approx(10.5, abs=0.01)
