"""A preview of a shipped bundle on a tiny dataset: the case is prepared as in training, any step may be changed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.bundle import find_bundle, resolve
from pipeline.bundle.preview import preview_case
from pipeline.errors import ConfigError
from pipeline.geometry import Grid
from pipeline.io import write_volume

DOCUMENT = Path(__file__).parents[2] / "docs" / "augmentation.md"
NAME = "stroke_perfusion_segmentation"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    grid = Grid((20, 22, 4), np.diag([2.4, 2.4, 6.0, 1.0]))
    for case in ("a", "b"):
        (folder / case).mkdir()
        flow, volume = rng.uniform(5, 80, grid.shape), rng.uniform(1, 6, grid.shape)
        for name, array in (("cbf", flow), ("cbv", volume), ("mtt", 60 * volume / flow), ("label", flow < 10)):
            write_volume(folder / case / f"{case}_{name}.nii.gz", array.astype(np.float32), grid)
    return folder


def test_every_random_step_of_the_chain(dataset):
    shown = preview_case(NAME, dataset, draws=5, overrides=["patch_size=[16,16,4]", "train#steps#gamma=null"])
    assert (shown.case_id, shown.bundle, shown.channel) == ("a", NAME, ("cbf", 0))
    assert list(shown.preview.rows) == [
        *("rotation", "scaling", "elastic", "perfusion", "dispersion", "scale", "shift", "smooth", "low_resolution"),
        *("noise", "all together"),
    ]
    assert shown.preview.before.image.shape == (3, 16, 16, 4)
    np.testing.assert_allclose(shown.preview.spacing_mm, [2.4, 2.4, 6.0])


def test_another_case_and_channel(dataset):
    shown = preview_case(NAME, dataset, case="b", channel="MTT", draws=3, overrides=["patch_size=[16,16,4]"])
    assert (shown.case_id, shown.channel) == ("b", ("mtt", 2))
    with pytest.raises(ConfigError, match=r"the case .c.; expected one of 2; .* such as a, b"):
        preview_case(NAME, dataset, case="c")
    with pytest.raises(ConfigError, match="the channel 'ct'; expected one of cbf, cbv, mtt"):
        preview_case(NAME, dataset, channel="ct")
    with pytest.raises(ConfigError, match="use --data"):
        preview_case(NAME, dataset, overrides=["dataset_dir=elsewhere"])


def test_the_configs_of_a_run_separate_keys_in_monais_way(dataset, tmp_path):
    (tmp_path / "run" / "configs").mkdir(parents=True)
    text = json.dumps(resolve(find_bundle(NAME), "train", overrides=["patch_size=[16,16,4]"]))
    assert '"@train#steps#' in text
    (tmp_path / "run" / "configs" / "train.json").write_text(text.replace("@train#steps#", "@train::steps::"))
    shown = preview_case(tmp_path / "run", dataset, draws=2)
    assert {"noise", "gamma"} <= set(shown.preview.rows)


def test_what_the_document_says_to_write_is_accepted():
    written = re.findall(r"`'?(\w[\w#]*=[^`]*?)'?`", DOCUMENT.read_text(encoding="utf-8"))
    overrides = [text for text in written if text.startswith(("train#", "flip_axes"))]
    assert len(overrides) >= 9
    for override in overrides:
        resolve(find_bundle(NAME), "train", overrides=[override])
