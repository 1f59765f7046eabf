"""Randomness as a function of a place: the run's seed, then whatever says where in the run something is drawn."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(*place: int) -> None:
    """Sets the global generators of `random`, numpy and torch; that of CUDA too where it is in use.

    Args:
        place: Whole numbers of at least 0, such as (seed, epoch). Zeros at the end of up to four numbers change
            nothing: (1, 2) is the same place as (1, 2, 0), so what must differ needs a last number other than 0.
    """
    seed = _seed_cpu_generators(place)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


@contextmanager
def seeded(*place: int) -> Iterator[None]:
    """Sets the global generators of `random`, numpy and torch (CPU), and puts them back afterwards.

    So a sample's augmentation is the same for any number of workers, and dropout's own draws are not disturbed.

    Args:
        place: Numbers that tell it from other places; see `seed_generators`.
    """
    before = random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()
    _seed_cpu_generators(place)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


def _seed_cpu_generators(place: tuple[int, ...]) -> int:
    first, second, third = np.random.SeedSequence(place).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    # Not torch.manual_seed, which reaches for every device and would disturb CUDA's generator inside `seeded`.
    torch.default_generator.manual_seed(third)
    return int(third)
