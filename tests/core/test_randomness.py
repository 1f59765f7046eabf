import random

import numpy as np
import pytest
import torch

from tl_lightning.core.randomness import seed_generators, seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def expected(*place: int) -> tuple[float, float, float]:
    first, second, third = np.random.SeedSequence(place).generate_state(3).tolist()
    torch_generator = torch.Generator().manual_seed(third)
    return (
        random.Random(first).random(),
        float(np.random.RandomState(second).rand()),
        float(torch.rand((), generator=torch_generator)),
    )


@pytest.mark.parametrize("place", [(7,), (1, 2, 3), (1, 2, 3, 4, 5)])
def test_the_draws_are_those_of_the_seed_sequence_of_the_place(place: tuple[int, ...]) -> None:
    with seeded(*place):
        assert draw() == expected(*place)
    seed_generators(*place)
    assert draw() == expected(*place)


def test_every_number_of_the_place_counts() -> None:
    seen = set()
    for place in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0, 1), (0, 0, 0)):
        with seeded(*place):
            seen.add(draw())
    assert len(seen) == 6


def test_seeded_restores_every_generator_also_after_an_error() -> None:
    seed_generators(5)
    after = draw()
    seed_generators(5)
    with seeded(0, 1):
        draw()
    with pytest.raises(ValueError), seeded(0, 0, 0):
        draw()
        raise ValueError
    assert draw() == after
