"""The training engine on tensors: deterministic, resumable to the last digit, loud when something breaks."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines.utils import IterationEvents
from monai.losses import DiceCELoss
from monai.transforms import RandGaussianNoised
from monai.utils import set_determinism

from pipeline.data import CaseDataset, EpochSampler
from pipeline.engines import Schedule, Trainer, WeightAverage, averaged_copy
from pipeline.engines.precision import candidates
from pipeline.errors import DataError
from pipeline.handlers import Resumable
from pipeline.losses import CrossEntropyLoss
from pipeline.transforms import AugmentationChain, RandSpatialPatchd, collate_patches

CPU = torch.device("cpu")


def make_trainer(
    folder, epochs=3, resume=False, precision="float32", workers=0, loss=None, decay=0.5, dropout=0.2, chain=None
):
    set_determinism(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Dropout(dropout), torch.nn.Conv3d(4, 2, 1)
    )
    average = averaged_copy(network, decay)
    generator = torch.Generator().manual_seed(1)
    items = [{"case_id": f"c{i}", "image": torch.rand(1, 6, 6, 4, generator=generator)} for i in range(5)]
    for item in items:
        item["label"] = (item["image"] > 0.5).float()
        item |= {key: MetaTensor(item[key], affine=torch.eye(4, dtype=torch.float64)) for key in ("image", "label")}
    dataset = CaseDataset(items, chain or [RandGaussianNoised("image", prob=1.0)], seed=7, progress=False)
    sampler = EpochSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=collate_patches)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = Schedule(optimizer)
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    trainer = Trainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss or DiceCELoss(to_onehot_y=True, softmax=True),
        precision=precision,
        augmentation=chain and chain.on_batch,
        train_handlers=[
            schedule,
            WeightAverage(network, average, decay),
            Resumable(parts, str(folder / "last.pt"), resume=resume),
        ],
    )
    trainer.losses = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: engine.losses.append(float(engine.state.output["loss"]))
    )
    return trainer, average


def weights(network):
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_the_same_seed_gives_the_same_losses_to_the_last_digit(tmp_path):
    first, _ = make_trainer(tmp_path)
    first.run()
    second, _ = make_trainer(tmp_path)
    second.run()
    assert len(first.losses) == 9
    assert first.losses == second.losses
    assert first.losses[-1] < first.losses[0]


def test_workers_change_nothing(tmp_path):
    alone, _ = make_trainer(tmp_path, epochs=1, dropout=0.0)
    alone.run()
    helped, _ = make_trainer(tmp_path, epochs=1, workers=1, dropout=0.0)
    helped.run()
    assert alone.losses == helped.losses


@pytest.mark.parametrize("stop_at", [3, 5], ids=["at the end of an epoch", "in the middle of one"])
def test_an_interrupted_run_ends_where_the_uninterrupted_ends(tmp_path, stop_at):
    whole, whole_average = make_trainer(tmp_path / "whole")
    whole.run()

    def interrupt(engine):
        if engine.state.iteration == stop_at:
            raise KeyboardInterrupt

    stopped, _ = make_trainer(tmp_path / "stopped")
    stopped.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed, resumed_average = make_trainer(tmp_path / "stopped", resume=True)
    resumed.run()
    assert resumed.losses == whole.losses[stop_at:]
    assert torch.equal(weights(resumed_average), weights(whole_average))
    assert resumed.state.iteration == whole.state.iteration


def patches(augment_on):
    spatial = RandSpatialPatchd(patch_size=(4, 4, 4), affine_probability=0.5, elastic_probability=0.5)
    return AugmentationChain([spatial], augment_on, CPU)


def test_batches_made_on_the_device_train_as_patches_made_in_the_loader(tmp_path):
    """And with a worker, and after an interruption in the middle of an epoch."""
    expected, _ = make_trainer(tmp_path / "loader", epochs=2, chain=patches("loader"), dropout=0.0)
    expected.run()
    for workers in (0, 1):
        trainer, _ = make_trainer(tmp_path / "device", epochs=2, chain=patches("device"), workers=workers, dropout=0.0)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=4), interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert trainer.state.batch["image"].shape == (2, 1, 4, 4, 4)  # what the network saw
        resumed, _ = make_trainer(
            tmp_path / "device", epochs=2, chain=patches("device"), workers=workers, resume=True, dropout=0.0
        )
        resumed.run()
        assert [*trainer.losses, *resumed.losses] == expected.losses


def interrupt(engine):
    raise KeyboardInterrupt


def test_the_scale_of_float16_gradients_survives_a_resume(tmp_path):
    first, _ = make_trainer(tmp_path, epochs=1, precision="float16")
    first.run()
    scale = first.scaler_state_dict()
    assert scale["scale"] > 0

    class Stop(Exception):
        pass

    def stop(engine):
        raise Stop

    resumed, _ = make_trainer(tmp_path, epochs=2, precision="float16", resume=True)
    resumed.add_event_handler(IterationEvents.FORWARD_COMPLETED, stop)
    resumed.load_scaler_state_dict(scale | {"scale": 1024.0})
    with pytest.raises(Stop):
        resumed.run()
    assert resumed.scaler_state_dict()["scale"] == 1024.0


def test_resuming_without_a_checkpoint_or_with_other_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no checkpoint"):
        make_trainer(tmp_path, resume=True)


def test_monais_iteration_events_are_fired_in_order(tmp_path):
    trainer, _ = make_trainer(tmp_path, epochs=1)
    fired = []
    for event in IterationEvents:
        trainer.add_event_handler(event, lambda engine, name=event.value: fired.append(name))
    trainer.run()
    assert fired[:4] == ["forward_completed", "loss_completed", "backward_completed", "model_completed"]


def test_the_probe_leaves_nothing_behind(tmp_path):
    plain, _ = make_trainer(tmp_path / "a", precision="float32")
    plain.run()
    probed, _ = make_trainer(tmp_path / "b", precision="auto")
    probed.requested_precision = "auto"
    probed.run()
    assert set(probed.state.precision.seconds) == {one.name for one in candidates(torch.device("cpu"), probed.network)}
    if probed.state.precision.name == "float32":
        assert probed.losses == plain.losses
    else:  # another arithmetic: near, not equal
        assert probed.losses[0] == pytest.approx(plain.losses[0], rel=0.02)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_what_to_do(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, logits, target):
            return logits.mean() * float("nan")

    trainer, _ = make_trainer(tmp_path, loss=Broken())
    with pytest.raises(DataError, match="learning_rate"):
        trainer.run()


def test_time_is_measured_per_iteration(tmp_path):
    trainer, _ = make_trainer(tmp_path, epochs=1)
    trainer.run()
    assert trainer.state.iteration_s > 0
    assert 0 < trainer.state.data_wait_share < 1


def test_an_error_is_raised_also_where_a_handler_listens_to_it(tmp_path):
    from pipeline.engines import Evaluator
    from pipeline.handlers import RecordRun

    def broken(engine):
        raise ValueError("a handler that fails")

    items = [{"image": torch.zeros(1, 1, 2, 2, 2), "label": torch.zeros(1, 1, 2, 2, 2)}]
    evaluator = Evaluator(CPU, items, torch.nn.Identity(), val_handlers=[RecordRun(str(tmp_path), 0, {})])
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, broken)
    with pytest.raises(ValueError, match="a handler that fails"):
        evaluator.run()
    assert '"failed"' in (tmp_path / "run.json").read_text(encoding="utf-8")


class Unpadded(torch.nn.Module):
    """Loses one voxel per side; its logits are its input's voxels, of which a loss can tell where they come from."""

    def __init__(self):
        super().__init__()
        self.scale, self.output_margin = torch.nn.Parameter(torch.ones(1)), (1, 2)

    def forward(self, x):
        return self.scale * x[:, :, 1:-1, 2:-2]


class Recording(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, logits, target, *weight):
        self.seen.append((target, *weight))
        return (logits - target).square().mean() + 0 * sum(w.sum() for w in weight)


def trained_once(network, item, precision="float32"):
    loss = Recording()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    Trainer(CPU, 1, [item], network, optimizer, loss, precision=precision).run()
    return loss.seen


def test_label_and_weight_of_an_unpadded_network_are_cropped_once_by_its_margin():
    image = torch.rand(2, 1, 7, 9)
    item = {"image": image, "label": image.clone(), "weight": image + 5}
    for precision in ("float32", "auto"):  # auto: the probe sees the same
        for target, weight in trained_once(Unpadded(), item, precision):
            torch.testing.assert_close(target, image[:, :, 1:-1, 2:-2])
            torch.testing.assert_close(weight, target + 5)


def test_a_loss_is_given_a_weight_where_the_batch_has_one_and_a_padded_network_is_not_cropped():
    image = torch.rand(1, 1, 4, 5, 3)
    network = torch.nn.Conv3d(1, 1, 1)
    ((target,),) = trained_once(network, {"image": image, "label": image.clone()})
    assert target.shape == image.shape
    ((target, weight),) = trained_once(network, {"image": image, "label": image.clone(), "weight": image})
    assert weight.shape == target.shape == image.shape


def test_the_border_weights_reach_the_loss():
    """A step with weights is the step of the weighted loss: the weight's own gradient, by hand."""
    torch.manual_seed(0)
    image, label = torch.rand(1, 1, 6, 6), torch.randint(2, (1, 1, 6, 6))
    weight = 1 + 9 * torch.rand(1, 1, 6, 6)
    network = torch.nn.Conv2d(1, 2, 1)
    log_p = network(image).detach().log_softmax(1).gather(1, label)
    expected = -(weight * log_p).sum() / weight.sum()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    item = {"image": image, "label": label, "weight": weight}
    trainer = Trainer(CPU, 1, [item], network, optimizer, CrossEntropyLoss(), precision="float32")
    trainer.run()
    assert float(trainer.state.output["loss"]) == pytest.approx(float(expected))
