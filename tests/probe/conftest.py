"""Features with classes that can be guessed from them."""

import pytest
import torch


@pytest.fixture
def draw():
    """Draws features of very different scales and their labels."""

    def _draw(rows, width, classes, *, noise=1.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
        hidden *= torch.arange(1, width + 1) ** -0.5
        mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
        directions = torch.randn(width, classes, generator=generator, dtype=torch.float64)
        labels = hidden @ directions + noise * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
        return hidden @ mixing * torch.logspace(-2, 2, width) + 3, labels.argmax(dim=1)

    return _draw
