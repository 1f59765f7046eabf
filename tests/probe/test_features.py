"""Features are read in chunks, and their moments are exact."""

import pytest
import torch

from tl_lightning.probe import Rows
from tl_lightning.probe import features as module
from tl_lightning.probe.features import chunks, moments


@pytest.fixture(autouse=True)
def chunks_of_three_rows(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 4 * 8)


@pytest.fixture
def rows():
    return torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_chunks_are_every_row_once_and_exact(rows, dtype):
    rows = rows.to(dtype)
    read = [(part, chunk.clone()) for part, chunk in chunks(rows)]
    assert [part for part, _ in read] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    assert torch.equal(torch.cat([chunk for _, chunk in read]), rows.double())


def test_the_subtraction_comes_before_the_conversion(rows):
    far = rows.double() + 1e9
    read = torch.cat([chunk.clone() for _, chunk in chunks(far, minus=far[0], dtype=torch.float32)])
    assert read.dtype == torch.float32 and torch.equal(read, (far - far[0]).float())


def test_moments_lose_no_digits_to_a_mean_far_from_zero(rows):
    far = rows.double() + 1e7
    mean, deviation = moments(far)
    assert torch.allclose(mean, far.mean(dim=0), rtol=1e-15, atol=0)
    assert torch.allclose(deviation, (far - far.mean(dim=0)).std(dim=0, correction=0), rtol=1e-12, atol=0)


def test_a_constant_column_is_scaled_away(rows):
    rows[:, 2] = 0.1
    mean, deviation = moments(rows)
    assert deviation[2] == torch.inf and mean[2] == rows[0, 2].double()


def test_what_is_not_finite_is_refused(rows):
    with pytest.raises(ValueError, match="no rows"):
        moments(rows[:0])
    rows[5, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        moments(rows)


def test_some_rows_are_those_of_the_positions(rows):
    indices = torch.tensor([0, 1, 4, 5, 9])
    some = Rows(rows, indices)
    assert some.shape == (5, 4)
    assert torch.equal(some[0:5], rows[indices])
    assert torch.equal(some[1:4], rows[indices[1:4]])
    assert some[2:2].shape == (0, 4)


def test_rows_far_apart_are_read_without_those_between():
    class Counting:
        shape = (3000, 4)
        read = 0

        def __getitem__(self, part):
            self.read += part.stop - part.start
            return torch.zeros(part.stop - part.start, 4)

    counting = Counting()
    assert Rows(counting, torch.tensor([0, 1500, 2999]))[0:3].shape == (3, 4)
    assert counting.read == 3


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1, 2], [3, 10]])
def test_positions_have_to_ascend_and_lie_inside(rows, indices):
    with pytest.raises(ValueError, match="ascend from 0 to below 10"):
        Rows(rows, torch.tensor(indices))
