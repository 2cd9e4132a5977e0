"""What TensorBoard is given, read back from its event files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter

from pipeline.handlers import (
    CaseHistograms,
    HyperParameters,
    PrecisionRecall,
    TrainingScalars,
    ValidationScalars,
)
from pipeline.metrics import Row, measure_case


def read_back(folder) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0, "scalars": 0}).Reload()


@pytest.fixture
def writer(tmp_path):
    writer = SummaryWriter(tmp_path)
    yield writer
    writer.close()


def test_scalars_of_training_and_validation_share_their_steps(tmp_path, writer):
    engine = Engine(lambda engine, batch: {"loss": 0.5 * batch})
    engine.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    engine.loss_function = SimpleNamespace(parts={"dice": torch.tensor(0.125)})
    engine.state.iteration_s, engine.state.data_wait_share, engine.state.gradient_norm = 0.1, 0.2, 3.0
    TrainingScalars(writer, every=2).attach(engine)
    engine.run([1, 2, 3, 4])
    validator = Engine(lambda engine, batch: None)
    ValidationScalars(writer).attach(validator)
    validator.state.trainer_iteration = 4
    validator.state.metrics = {"dice": 0.75, "dice_core": 0.5}
    validator.state.trainer_interval_s = (0.0, 0.0)
    validator.run([0])
    writer.flush()
    events = read_back(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(2, 1.0), (4, 2.0)]
    assert [e.value for e in events.Scalars("train/loss_dice")] == [0.125, 0.125]
    assert [e.value for e in events.Scalars("train/learning_rate")] == [0.25, 0.25]
    assert [(e.step, e.value) for e in events.Scalars("validate/dice_core")] == [(4, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("validate/share_of_time")] == [(4, 1.0)]
    assert {tag.partition("/")[0] for tag in events.Tags()["scalars"]} == {"train", "validate"}


def test_a_histogram_of_the_cases_that_have_a_value(tmp_path, writer):
    one, none = np.ones((4, 4, 4), int), np.zeros((4, 4, 4), int)
    pairs = {"same": (one, one), "missed": (none, one)}
    rows = [Row(name, 4.0, measure_case(*pair, (1, 1, 1), {1: "core"})[0]) for name, pair in pairs.items()]
    engine = Engine(lambda engine, batch: None)
    CaseHistograms(writer, ["dice", "hausdorff_95_mm"]).attach(engine)
    engine.state.trainer_iteration, engine.state.case_rows = 30, rows
    engine.run([0])
    events = read_back(tmp_path)
    [dice] = events.Histograms("cases/dice_core")
    assert (dice.step, dice.histogram_value.num, dice.histogram_value.sum) == (30, 2, 1.0)
    [distance] = events.Histograms("cases/hausdorff_95_mm_core")
    assert distance.histogram_value.num == 1


def test_a_run_has_a_line_in_the_table_of_runs_and_its_config_as_text(tmp_path, writer):
    config = tmp_path / "train.json"
    config.write_text('{\n "learning_rate": 0.5\n}\n')
    engine = Engine(lambda engine, batch: None)
    engine.network = torch.nn.Identity()
    values = {"learning_rate": 0.5, "patch_size": [8, 8, 4], "budget_s": None}
    HyperParameters(writer, values, ["validate/dice"], str(config), {"overlap": 0.25}).attach(engine)
    engine.run([0])
    events = read_back(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []  # the run itself, not another one
    metadata = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_start_info.hparams
    assert started["network"].string_value == "Identity"
    assert started["learning_rate"].number_value == 0.5
    assert started["patch_size"].string_value == "[8, 8, 4]"
    assert started["overlap"].number_value == 0.25
    assert started["budget_s"].string_value == "none"
    metadata = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(metadata).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["validate/dice"]
    metadata = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    ended = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_end_info
    assert ended.status == 1  # success
    [text] = events.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0].decode() == '    {\n     "learning_rate": 0.5\n    }'


def test_without_a_resolved_config_there_is_no_text(tmp_path, writer):
    engine = Engine(lambda engine, batch: None)
    engine.network = torch.nn.Identity()
    HyperParameters(writer, {}, config=str(tmp_path / "none.json")).attach(engine)
    engine.run([0])
    assert "config/text_summary" not in read_back(tmp_path).Tags()["tensors"]


def test_precision_and_recall_are_those_of_counting(tmp_path, writer):
    cases = []
    for name in ("a", "b", "a"):  # the third is the first once more, as a sampler repeats it
        generator = np.random.default_rng(ord(name))
        shares = generator.dirichlet([1, 1, 1], (6, 5, 4)).transpose(3, 0, 1, 2).astype(np.float32)
        label = generator.integers(0, 3, (1, 6, 5, 4))
        cases.append(
            {
                "probabilities": torch.from_numpy(shares),
                "label": MetaTensor(torch.from_numpy(label), meta={"case_id": name}),
            }
        )
    engine = Engine(lambda engine, batch: [batch])
    PrecisionRecall(writer, {1: "core", 2: "rim"}).attach(engine)
    engine.state.trainer_iteration = 7
    engine.run(cases)
    [event] = read_back(tmp_path).Tensors("precision_recall/rim")
    from tensorboard.util import tensor_util

    tp, fp, tn, fn, precision, recall = tensor_util.make_ndarray(event.tensor_proto)
    assert event.step == 7
    shares = np.concatenate([case["probabilities"][2].numpy().ravel() for case in cases[:2]])
    own = np.concatenate([case["label"].numpy().ravel() for case in cases[:2]]) == 2
    for index in (0, 1, 40, 63, 126):
        shown = shares >= index / 126
        counted = (shown & own).sum(), (shown & ~own).sum(), (~shown & ~own).sum(), (~shown & own).sum()
        assert (tp[index], fp[index], tn[index], fn[index]) == counted
        if shown.any():
            assert precision[index] == pytest.approx(own[shown].mean())
        assert recall[index] == pytest.approx((shown & own).sum() / own.sum())
