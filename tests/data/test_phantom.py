"""The phantom: physiology, labels, determinism, and what is written to disk."""

import json

import nibabel
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from pipeline.data import phantom_anatomy
from pipeline.data.phantom import MTT_MAX_S, make_case, mean_transit_time
from pipeline.data.phantom_dataset import case_seed, write_dataset
from pipeline.data.phantom_fields import RandomFields, ScanFrame, cubic_spline_weights
from pipeline.errors import DataError

SEEDS = range(3)
OBLIQUE_SEED = 3  # of the dataset; among its first cases are oblique ones and straight ones


@pytest.fixture(scope="module")
def cases():
    return [make_case(seed, penumbra=True) for seed in SEEDS]


@pytest.fixture(scope="module")
def healthy_case():
    return make_case(0, healthy=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    calls = []
    paths = write_dataset(
        folder, 4, seed=OBLIQUE_SEED, healthy_share=0.25, workers=2, progress=lambda *done: calls.append(done)
    )
    return paths, calls


def pure(share, case):
    """Voxels of one tissue alone, away from the acute lesion."""
    return (share > 0.95) & (case.truth.flow_ratio > 0.98) & case.brain


def test_normal_tissue_has_the_perfusion_of_the_literature(cases):
    grey = [np.median(c.truth.cbf[pure(c.truth.grey, c)]) for c in cases]
    white = [np.median(c.truth.cbf[pure(c.truth.white, c)]) for c in cases]
    assert 45 < np.mean(grey) < 70
    assert 14 < np.mean(white) < 26
    assert 3.3 < np.mean([np.median(c.truth.cbv[pure(c.truth.grey, c)]) for c in cases]) < 4.7
    assert 1.5 < np.mean([np.median(c.truth.cbv[pure(c.truth.white, c)]) for c in cases]) < 2.4
    assert 3 < np.mean([np.median(c.truth.mtt[pure(c.truth.grey, c)]) for c in cases]) < 6
    assert 4 < np.mean([np.median(c.truth.mtt[pure(c.truth.white, c)]) for c in cases]) < 8


def test_transit_follows_from_the_central_volume_principle(cases):
    for case in cases:
        flowing = case.truth.cbf > 0
        product = case.truth.mtt[flowing] * case.truth.cbf[flowing]
        np.testing.assert_allclose(product, 60 * case.truth.cbv[flowing], rtol=1e-9)
    assert mean_transit_time(np.array([50.0]), np.array([4.0])) == pytest.approx(4.8)


def test_measured_maps_stay_near_the_noise_free_ones(cases):
    for case in cases:
        # scaled by the arterial input, so compared by rank and not by value
        assert np.corrcoef(case.cbf[case.brain], case.truth.cbf[case.brain])[0, 1] > 0.85
        assert np.corrcoef(case.cbv[case.brain], case.truth.cbv[case.brain])[0, 1] > 0.85
        assert case.mtt.max() <= MTT_MAX_S
        for values in (case.cbf, case.cbv, case.mtt):
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
            assert values.min() >= 0
            assert not values[~case.brain].any()


def test_core_is_below_30_percent_of_the_tissues_own_flow(cases):
    for case in cases:
        ratio = case.truth.flow_ratio
        assert ratio[case.label == 1].max() < 0.30
        assert ratio[case.label == 2].min() >= 0.30
        # nothing with such a ratio is left out but ventricle
        missed = (ratio < 0.30) & (case.label != 1) & case.brain
        assert not missed.any() or case.truth.fluid[missed].min() >= 0.4


def test_penumbral_white_matter_falls_below_the_threshold_of_grey_matter(cases):
    """Why one threshold for the whole brain can't be right."""
    share = []
    for case in cases:
        penumbral_white = (case.label == 2) & (case.truth.white > 0.9)
        share.append((case.truth.cbf[penumbral_white] < 0.30 * 60).mean())
    assert np.mean(share) > 0.8


def test_penumbra_keeps_its_blood_volume_and_the_core_loses_it(cases):
    for case in cases:
        normal = np.median(case.truth.cbv[pure(case.truth.white, case)])
        core, penumbra = ((case.label == k) & (case.truth.white > 0.9) for k in (1, 2))
        assert np.median(case.truth.cbv[core]) < 0.65 * normal
        assert np.median(case.truth.cbv[penumbra]) > 0.65 * normal
        assert np.median(case.truth.mtt[penumbra]) > 1.3 * np.median(case.truth.mtt[pure(case.truth.white, case)])


def test_volumes_are_those_of_strokes(cases):
    for case in cases:
        core_ml = (case.label == 1).sum() * case.grid.voxel_volume_ml
        assert case.facts["core_ml"] == pytest.approx(core_ml, abs=1e-3)
        assert 5 < core_ml < 200
        assert case.facts["penumbra_ml"] > 5
        assert 1000 < case.facts["brain_ml"] < 2000


def test_a_stroke_stays_on_its_side(cases):
    for case in cases:
        voxels = np.argwhere(case.label > 0)
        centre = np.argwhere(case.brain).mean(axis=0)
        # the affine's first row is the patient's right
        right_mm = ((voxels - centre) @ case.grid.affine[0, :3]).mean()
        assert (right_mm > 0) == (case.facts["side"] == "right")


def test_one_seed_one_case(cases):
    again = make_case(1, penumbra=True)
    for name in ("cbf", "cbv", "mtt", "label", "brain"):
        assert getattr(again, name).tobytes() == getattr(cases[1], name).tobytes()
    assert again.facts == cases[1].facts
    np.testing.assert_array_equal(again.grid.affine, cases[1].grid.affine)
    assert cases[0].facts != cases[1].facts


def test_asking_for_the_penumbra_changes_the_label_alone(cases):
    plain = make_case(2)
    np.testing.assert_array_equal(plain.cbf, cases[2].cbf)
    np.testing.assert_array_equal(plain.label, np.where(cases[2].label == 1, 1, 0))


def test_healthy_case_is_the_same_brain_without_the_stroke(cases, healthy_case):
    assert not healthy_case.label.any()
    assert healthy_case.facts["occlusion"] is None
    np.testing.assert_array_equal(healthy_case.brain, cases[0].brain)
    np.testing.assert_array_equal(healthy_case.truth.grey, cases[0].truth.grey)
    assert (healthy_case.truth.flow_ratio == 1).all()


def test_a_small_lesion_has_the_volume_that_is_asked_for_and_leaves_the_rest_of_the_brain_alone(cases):
    low_ml, high_ml = 1.0, 2.0
    small = make_case(0, lesion_ml=(low_ml, high_ml))
    core_ml = (small.label == 1).sum() * small.grid.voxel_volume_ml
    assert 0.95 * low_ml <= core_ml <= 1.05 * high_ml
    assert small.facts["core_ml"] == pytest.approx(core_ml, abs=1e-3)
    assert small.truth.flow_ratio[small.label == 1].max() < 0.30
    np.testing.assert_array_equal(small.truth.grey, cases[0].truth.grey)
    # 5 to 10 mm of penumbra, fading out over as much again
    distance_mm = distance_transform_edt(small.label == 0, sampling=small.grid.spacing_mm)
    np.testing.assert_allclose(small.truth.flow_ratio[distance_mm > 30], 1, atol=0.01)
    assert (small.truth.flow_ratio[(distance_mm > 0) & (distance_mm < 3) & (small.truth.fluid < 0.1)] < 0.75).all()


def test_maps_hold_round_numbers(cases):
    """What makes them the same on every machine: the last bits of an exponential are rounded away."""
    for name, step in (("cbf", 0.01), ("cbv", 0.001), ("mtt", 0.01)):
        steps = getattr(cases[0], name).astype(np.float64) / step
        np.testing.assert_allclose(steps, np.round(steps), atol=5e-3)


def test_grids_are_those_of_thick_slices():
    frames = [ScanFrame.draw(np.random.default_rng(seed)) for seed in range(40)]
    assert {f.slice_mm for f in frames} <= {5.0, 6.0, 7.0, 8.0, 10.0}
    assert all(1.0 <= f.in_plane_mm <= 1.2 and 11 <= f.shape[2] <= 21 for f in frames)


def test_random_fields_have_zero_mean_and_unit_variance():
    axes = tuple(np.arange(n) * step for n, step in ((150, 1.2), (170, 1.2), (40, 2.5)))
    field = RandomFields(axes, np.random.default_rng(0)).draw(5.0)
    assert field.shape == (150, 170, 40)
    assert abs(field.mean()) < 0.05
    assert field.std() == pytest.approx(1, abs=0.05)


def test_a_part_of_a_field_is_a_part_of_the_whole():
    axes = tuple(np.arange(n) * step for n, step in ((30, 1.2), (25, 1.2), (12, 2.5)))
    whole, slopes = RandomFields(axes, np.random.default_rng(0)).draw_with_gradient(7.0)
    for rows in (slice(0, 9), slice(9, 18), slice(27, 30)):
        fields = RandomFields(axes, np.random.default_rng(1)).part(rows, np.random.default_rng(0))
        part, its_slopes = fields.draw_with_gradient(7.0)
        np.testing.assert_allclose(part, whole[rows], atol=1e-12)
        np.testing.assert_allclose(its_slopes, [slope[rows] for slope in slopes], atol=1e-12)
    expected = np.gradient(whole, 1.2, 1.2, 2.5)
    np.testing.assert_allclose(slopes, expected, atol=1e-12)


def test_a_brain_is_the_same_in_slabs_of_any_size(monkeypatch):
    frame = ScanFrame(in_plane_mm=1.2, slice_mm=10.0, lowest_mm=-45.0, tilt_deg=(5.0, -3.0, 4.0), shift_mm=(2.0, -1.0))
    slabs = phantom_anatomy.grow_brain(frame, np.random.default_rng(0))
    monkeypatch.setattr(phantom_anatomy, "SLAB_ROWS", 1000)
    whole = phantom_anatomy.grow_brain(frame, np.random.default_rng(0))
    for name in ("grey", "white", "fluid", "ventricle", "vessel", "inside", "cerebellum"):
        np.testing.assert_allclose(getattr(slabs, name), getattr(whole, name), atol=1e-9, err_msg=name)
    for name, distance in whole.artery_distance.items():
        np.testing.assert_allclose(slabs.artery_distance[name], distance, atol=1e-9, err_msg=name)


def test_spline_weights_add_up_to_one():
    weights = cubic_spline_weights(np.linspace(-30, 41, 57), 6.3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)


def test_dataset_on_disk(dataset):
    paths, calls = dataset
    assert [p.name for p in paths] == ["sub-001", "sub-002", "sub-003", "sub-004"]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    facts = json.loads((paths[0].parent / "phantom.json").read_text())
    assert facts["seed"] == OBLIQUE_SEED
    assert list(facts["cases"]) == [p.name for p in paths]
    assert facts["cases"]["sub-004"]["core_ml"] == 0
    assert facts["cases"]["sub-001"]["core_ml"] > 5
    assert sorted(f.name for f in paths[0].iterdir()) == [f"sub-001_{n}.nii.gz" for n in ("cbf", "cbv", "label", "mtt")]


def test_written_files_read_back_as_the_case_that_was_made(dataset):
    paths, _ = dataset
    facts = json.loads((paths[0].parent / "phantom.json").read_text())["cases"]["sub-002"]
    assert facts["seed"] == case_seed(OBLIQUE_SEED, 1)
    case = make_case(facts["seed"])
    for name in ("cbf", "cbv", "mtt", "label"):
        image = nibabel.load(paths[1] / f"sub-002_{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), getattr(case, name))
        np.testing.assert_allclose(image.affine, case.grid.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert "".join(nibabel.aff2axcodes(image.affine)) == facts["orientation"]


def test_some_slices_are_oblique_and_some_are_not(dataset):
    paths, _ = dataset
    affines = [nibabel.load(p / f"{p.name}_cbf.nii.gz").affine[:3, :3] for p in paths]
    oblique = [np.count_nonzero(np.abs(a) > 1e-4) > 3 for a in affines]
    assert any(oblique)
    assert not all(oblique)
    for affine in affines:
        directions = affine / np.linalg.norm(affine, axis=0)
        np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-5)


def test_number_of_workers_does_not_matter(dataset, tmp_path):
    paths, _ = dataset
    alone = write_dataset(tmp_path / "alone", 1, seed=OBLIQUE_SEED, workers=0)
    for name in ("cbf", "label"):
        one, many = (nibabel.load(p / f"sub-001_{name}.nii.gz") for p in (alone[0], paths[0]))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(many.dataobj))


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="empty or a new folder"):
        write_dataset(tmp_path, 1)


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"cases": 1, "seed": -1}, {"cases": 1, "healthy_share": 1.5}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match="at least 1 case"):
        write_dataset(tmp_path / "new", **wrong)


@pytest.mark.parametrize("wrong", [(2.0, 1.0), (0.05, 1.0), (1.0, 11.0), (float("nan"), 1.0)])
def test_volumes_that_are_not_small_lesions_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match=r"between 0\.1 and 10 ml, the smaller one first"):
        write_dataset(tmp_path / "new", 1, lesion_ml=wrong)
    assert not (tmp_path / "new").exists()
