from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from tl_lightning.data.cached import CachedDataset
from tl_lightning.data.dataset import Targets
from tl_lightning.data.loader import as_it_is
from tl_lightning.data.sampling import EpochSampler

INDICES = np.arange(100, 126)


def batches(epoch: int, *, batch_size: int, indices: Any = INDICES, **settings: Any) -> list[list[int]]:
    """What a loader would batch, without the epoch."""
    sampler = EpochSampler(indices, shuffle=True, seed=3, batch_size=batch_size, **settings)
    sampler.set_epoch(epoch)
    pairs = list(BatchSampler(sampler, batch_size, drop_last=False))
    assert len(sampler) == sum(len(batch) for batch in pairs)
    assert {number for batch in pairs for number, _ in batch} <= {epoch}
    return [[index for _, index in batch] for batch in pairs]


def test_one_process_goes_through_the_whole_batches_of_the_epochs_order() -> None:
    order = np.random.default_rng((3, 2)).permutation(INDICES).tolist()
    assert batches(2, batch_size=4) == [order[start : start + 4] for start in range(0, 24, 4)]
    assert batches(2, batch_size=64) == [order]


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 2), (2, 4), (1, 3), (5, 5), (13, 2)])
def test_batches_of_all_processes_make_up_those_of_one(batch_size: int, world_size: int) -> None:
    shares = [batches(1, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == batches(1, batch_size=batch_size * world_size)
    assert {len(batch) for share in shares for batch in share} == {batch_size}


def test_less_than_one_batch_of_all_processes_is_shared_evenly() -> None:
    order = np.random.default_rng((3, 0)).permutation(INDICES).tolist()
    shares = [batches(0, batch_size=16, rank=rank, world_size=3) for rank in range(3)]
    assert shares == [[order[:8]], [order[8:16]], [order[16:24]]]


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_sees_every_index_once_and_in_order(world_size: int) -> None:
    shares = []
    for rank in range(world_size):
        sampler = EpochSampler(INDICES, shuffle=False, seed=0, batch_size=4, rank=rank, world_size=world_size)
        shares.append([index for _, index in sampler])
        assert len(sampler) == len(shares[-1])
    assert shares == [INDICES[rank::world_size].tolist() for rank in range(world_size)]
    assert sorted(chain(*shares)) == INDICES.tolist()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_epoch_starts_later_and_keeps_its_length(rank: int) -> None:
    sampler = EpochSampler(INDICES, shuffle=True, seed=3, batch_size=4, rank=rank, world_size=2)
    whole = {}
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        whole[epoch] = list(sampler)
    sampler.resume_at(1, 8)
    for epoch, start in ((0, 0), (1, 8), (2, 0), (1, 8)):
        sampler.set_epoch(epoch)
        assert list(sampler) == whole[epoch][start:]
        assert len(sampler) == 12


def test_a_pass_under_way_keeps_its_epoch() -> None:
    sampler = EpochSampler(INDICES, shuffle=True, seed=3)
    rest = iter(sampler)
    assert next(rest)[0] == 0
    sampler.set_epoch(1)
    assert {epoch for epoch, _ in rest} == {0}


class Versions:
    """Rows that say whose they are: two tensors, of which the number of the version is the last digit."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.reads = 0

    def read(self, indices: Any) -> list[torch.Tensor]:
        self.reads += 1
        rows = torch.from_numpy(indices * 10 + self.version)
        return [rows.float()[:, None].repeat(1, 3), rows[:, None, None].repeat(1, 2, 2)]


def drawn(dataset: CachedDataset, epoch: int, indices: Any) -> list[int]:
    batch = dataset.__getitems__([(epoch, int(index)) for index in indices])
    first, second = batch["activations"]
    assert (first == first[:, :1]).all() and (first[:, 0] == second[:, 0, 0]).all()
    assert torch.equal(first[:, 0].long() // 10, torch.as_tensor(indices))
    assert torch.equal(batch["index"], torch.as_tensor(indices))
    assert torch.equal(batch["label"], torch.as_tensor(indices) % 7)
    assert as_it_is(batch) is batch
    return (first[:, 0].long() % 10).tolist()


def test_each_epoch_draws_one_version_of_each_image_evenly() -> None:
    labels, indices = torch.arange(4000) % 7, np.arange(4000)
    dataset = CachedDataset([Versions(version) for version in range(4)], Targets(labels), seed=5)
    first = drawn(dataset, 0, indices)
    assert all(900 < count < 1100 for count in np.bincount(first))
    assert drawn(dataset, 0, indices[::-1].copy()) == first[::-1]  # the batch that an image comes in is no matter
    assert drawn(CachedDataset(dataset.readers, Targets(labels), seed=5), 0, indices[17:20]) == first[17:20]
    others = [drawn(dataset, 1, indices), drawn(CachedDataset(dataset.readers, Targets(labels), seed=6), 0, indices)]
    for other in others:
        assert 880 < sum(one == another for one, another in zip(first, other, strict=True)) < 1120


def test_a_single_version_is_read_once_for_each_batch() -> None:
    reader = Versions(0)
    assert drawn(CachedDataset([reader], Targets(torch.arange(50) % 7)), 3, np.array([4, 2, 9])) == [0, 0, 0]
    assert reader.reads == 1
