"""Linear CKA: against the papers' formulas, blind to what it should be blind to, and without the bias of few rows."""

import math

import pytest
import torch

from tl_lightning.training.forgetting.cka import linear_cka


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(k, m):
    """Equation 5 of Song et al. 2012, on Gram matrices."""
    n, one = len(k), torch.ones(len(k), dtype=k.dtype)
    k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
    whole = torch.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (whole - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def naive(x, y):
    k, m = x @ x.T, y @ y.T
    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


def biased(x, y):
    """Kornblith et al. 2019, section 3."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


@pytest.mark.parametrize(("n", "d1", "d2"), [(30, 3, 5), (30, 4, 200), (12, 90, 70), (4, 2, 2)])
def test_it_is_the_papers_formula_whichever_way_round_is_the_smaller(n, d1, d2):
    x = normal(n, d1, seed=1) + 3
    y = x @ normal(d1, d2, seed=2) + 2 * normal(n, d2, seed=3) - 7
    assert linear_cka(x, y) == pytest.approx(naive(x, y), abs=1e-10)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), abs=1e-12)


def test_rotation_scale_and_shift_change_nothing():
    x = normal(40, 6, seed=1)
    rotation = torch.linalg.qr(normal(6, 6, seed=2)).Q
    y = x[:, :3] + normal(40, 3, seed=3)
    assert linear_cka(x, 5 * x @ rotation + 11) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(0.01 * x @ rotation - 4, y) == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert 0.1 < linear_cka(x, y) < 0.9
    assert linear_cka(x * torch.arange(1.0, 7), y) != pytest.approx(linear_cka(x, y), abs=1e-3)  # no common scale


def test_independent_features_give_about_0_where_the_biased_estimate_says_nearly_1():
    pairs = [(normal(128, 1280, seed=2 * k), normal(128, 1280, seed=2 * k + 1)) for k in range(8)]
    found = torch.tensor([linear_cka(x, y) for x, y in pairs])
    assert abs(float(found.mean())) < 0.02
    assert float(found.abs().max()) < 0.06
    assert all(biased(x, y) > 0.9 for x, y in pairs)


def test_the_same_features_give_1():
    x = normal(50, 300, seed=1)
    assert linear_cka(x, x) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x.float(), x) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7, math.nan])
def test_features_that_say_the_same_of_all_images_have_none(value):
    x = normal(10, 3, seed=1)
    assert math.isnan(linear_cka(x, torch.full((10, 4), value)))
    assert math.isnan(linear_cka(torch.empty(10, 0), x))


@pytest.mark.parametrize(("n", "other"), [(3, 3), (5, 6)])
def test_too_few_or_other_rows_are_refused(n, other):
    with pytest.raises(ValueError, match=f"{n} and {other}"):
        linear_cka(torch.zeros(n, 2), torch.zeros(other, 2))
