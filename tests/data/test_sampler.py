"""The order of an epoch depends on the seed and the epoch alone."""

import pickle

from torch.utils.data import DistributedSampler

from pipeline.data.sampler import EpochSampler


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def test_every_case_once_per_epoch_in_a_new_order_and_numbered_on():
    sampler = EpochSampler(range(7), seed=3)
    first, second = epoch(sampler, 0), epoch(sampler, 1)
    assert sorted(first) == list(range(7))
    assert sorted(second) == list(range(7))
    assert second != first
    assert epoch(sampler, 0) == first
    assert epoch(EpochSampler(range(7), seed=4), 0) != first


def test_an_interrupted_epoch_goes_on_where_it_stopped_and_the_next_is_whole():
    sampler = EpochSampler(range(7))
    whole = epoch(sampler, 2)
    sampler.skip = 4
    assert epoch(sampler, 2) == whole[4:]
    assert epoch(sampler, 2) == whole


def test_without_shuffling_the_order_is_the_datasets():
    assert epoch(EpochSampler(range(4), shuffle=False), 1) == [0, 1, 2, 3]


def test_engines_of_monai_know_it_as_a_sampler_with_epochs():
    assert isinstance(EpochSampler(range(2)), DistributedSampler)


def test_the_epoch_travels_with_the_index_to_a_worker_and_back():
    draw = epoch(EpochSampler(range(5)), 3)[0]
    copy = pickle.loads(pickle.dumps(draw))
    assert (copy, copy.epoch) == (draw, 3)
    assert list(range(10))[copy] == int(draw)
