"""What a step costs: counted bytes against a sum by hand, growth, and a real measurement."""

from dataclasses import replace

import pytest
import torch

from pipeline.planning.memory import StepSpec, _Alive, account, measure

SMALL = StepSpec(1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3)), (1, 1), (16, 16, 16), 2)


def test_alive_storage_is_counted_once_and_until_freed():
    with _Alive() as alive:
        a = torch.zeros(100)
        view = a.view(10, 10)
        b = a + 1
        assert alive.now == 800
        del b
        assert alive.now == 400
        del a
        assert alive.now == 400  # the view keeps it
        del view
        assert alive.now == 0
        assert alive.peak == 800


def test_counted_operations_are_those_of_the_convolutions():
    """Forward, by hand: 2 operations per weight and output voxel; a step does them three times, but for the image, of
    which no gradient is needed."""
    voxels = 2 * 16**3
    first, down, up, last, head = 27 * 4, 27 * 4 * 8 / 8, 8 * 4, 27 * 8 * 4, 4 * 2
    forward = 2 * voxels * (first + down + up + last + head)
    assert account(SMALL).flops == pytest.approx(3 * forward - 2 * voxels * first, rel=0.02)


def test_counted_bytes_grow_with_the_voxels_and_halve_with_the_precision():
    base, doubled = account(SMALL), account(replace(SMALL, batch_size=4))
    assert doubled.activation_bytes == pytest.approx(2 * base.activation_bytes, rel=0.05)
    assert doubled.weight_bytes == base.weight_bytes == 4 * sum(p.numel() for p in SMALL.network().parameters())
    assert base.scaled(2).activation_bytes == 2 * base.activation_bytes
    assert account(SMALL, "bfloat16").activation_bytes < 0.9 * base.activation_bytes


@pytest.mark.slow
def test_a_measured_step_takes_at_least_what_is_counted():
    spec = replace(SMALL, patch_size=(64, 64, 64))
    step = measure(spec, "cpu", "float32")
    counted = account(spec).bytes
    assert step is not None
    assert step.precision == "float32"
    assert 0.8 * counted < step.bytes < 20 * counted
    assert step.seconds > 0
