"""Tests of the order of an epoch; the shuffled and the plain order are tested beside the data set."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from torch.utils.data import BatchSampler

from tl_lightning.data.sampling import EpochSampler

CLASSES = np.array([0] * 3 + [1] * 7 + [2] * 31)
INDICES = np.arange(100, 141)


def epoch(number: int, *, balance: Any = CLASSES, **settings: Any) -> list[int]:
    sampler = EpochSampler(INDICES, shuffle=True, seed=3, balance=balance, **settings)
    sampler.set_epoch(number)
    pairs = list(sampler)
    assert len(pairs) == len(sampler)
    assert {epoch for epoch, _ in pairs} == {number}
    return [index for _, index in pairs]


def counts(drawn: list[int]) -> list[int]:
    return np.bincount(CLASSES[np.array(drawn) - 100], minlength=3).tolist()


def test_every_class_comes_equally_often_give_or_take_one() -> None:
    assert counts(epoch(0)) == [14, 14, 13]
    assert counts(epoch(1)) == [14, 13, 14]
    assert counts(epoch(2)) == [13, 14, 14]
    assert counts([index for number in range(3) for index in epoch(number)]) == [41, 41, 41]


def test_whole_batches_are_balanced_though_the_rest_of_the_order_is_left_out() -> None:
    assert [counts(epoch(number, batch_size=6)) for number in range(3)] == [[12, 12, 12]] * 3


def test_within_a_class_nothing_comes_again_before_all_have_come() -> None:
    drawn = np.array([index for number in range(6) for index in epoch(number)])
    for size, first in ((3, 100), (7, 103), (31, 110)):
        own = drawn[(drawn >= first) & (drawn < first + size)]
        often = np.bincount(own - first, minlength=size)
        assert len(own) == 82 and set(often) == {82 // size, 82 // size + 1}
    large = [index for index in epoch(0) if index >= 110]
    assert len(set(large)) == len(large)
    assert not set(large) & {index for index in epoch(1) if index >= 110}


def test_a_balanced_epoch_follows_from_seed_and_epoch_alone() -> None:
    assert epoch(4) == epoch(4) != epoch(5)
    other = EpochSampler(INDICES, shuffle=True, seed=4, balance=CLASSES)
    assert [index for _, index in other] != epoch(0)
    assert epoch(0) != sorted(epoch(0), key=lambda index: CLASSES[index - 100])  # classes are not drawn one by one


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 2), (2, 4), (1, 3), (5, 5)])
def test_balanced_batches_of_all_processes_make_up_those_of_one(batch_size: int, world_size: int) -> None:
    shares = [
        list(BatchSampler(epoch(1, batch_size=batch_size, rank=rank, world_size=world_size), batch_size, False))
        for rank in range(world_size)
    ]
    together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
    size = batch_size * world_size
    assert together == list(BatchSampler(epoch(1, batch_size=size), size, False))
    drawn = counts(list(chain(*together)))
    assert max(drawn) - min(drawn) <= 1


def test_less_than_one_batch_of_all_processes_is_balanced_too() -> None:
    shares = [epoch(0, batch_size=32, rank=rank, world_size=2) for rank in range(2)]
    assert [len(share) for share in shares] == [20, 20]
    assert counts(list(chain(*shares))) == [14, 13, 13]


def test_a_resumed_balanced_epoch_goes_on_where_it_stopped() -> None:
    whole = epoch(2, batch_size=4)
    sampler = EpochSampler(INDICES, shuffle=True, seed=3, batch_size=4, balance=CLASSES)
    sampler.resume_at(2, 8)
    sampler.set_epoch(2)
    assert [index for _, index in sampler] == whole[8:]
    assert len(sampler) == len(whole)
