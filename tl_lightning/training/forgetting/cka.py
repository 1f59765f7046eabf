"""How alike two representations of the same images are, whatever their widths: linear CKA."""

import math

import torch
from torch import Tensor

FEWEST = 4  # rows, below which the unbiased estimate does not exist


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Compares two sets of features by linear centred kernel alignment, without the bias of few rows.

    CKA (Kornblith et al. 2019, arXiv:1905.00414) is the normalised similarity of the two tables of inner products
    between rows, hence blind to rotations, to one common scale and to a shift. Taken as it stands it is near 1 for
    anything wide: for 128 rows of 1,280 independent normal numbers it gives 0.91. So the unbiased estimate of HSIC
    (Song et al. 2012, equation 5) takes its place, as in Nguyen et al. 2021 (arXiv:2010.15327), whose mean is 0 there.

    Args:
        x: ``(n, d1)``, a row per image, `FEWEST` rows or more.
        y: ``(n, d2)`` of the same images in the same order.

    Returns:
        1 for the same features up to rotation, scale and shift, about 0 for unrelated ones (it may be a little below);
        NaN where either says the same of all images, or is not finite. Computed in float64.

    Raises:
        ValueError: If the numbers of rows differ or are too few.
    """
    if len(x) != len(y) or len(x) < FEWEST:
        raise ValueError(f"CKA takes the same {FEWEST} or more rows on both sides, not {len(x)} and {len(y)}")
    x, y = _centred(x), _centred(y)
    scale = _hsic(x, x) * _hsic(y, y)
    return _hsic(x, y) / math.sqrt(scale) if scale > 0 else math.nan


def _centred(x: Tensor) -> Tensor:
    """Centred, in float64; zeros where the rows differ by rounding alone."""
    x = x.double()
    centred = x - x.mean(0)
    noise = 1e-12 * x.abs().amax() if x.numel() else 0.0
    return torch.where(centred.abs() <= noise, 0.0, centred)


def _hsic(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate, times n(n - 3), of centred features.

    It takes no notice of the diagonals of the two Gram matrices. As rows of centred features add up to 0, the sums over
    the other entries of a Gram matrix's row are minus its diagonal, so that only the norms of the rows are needed.
    """
    n, p, q = len(x), x.square().sum(1), y.square().sum(1)
    widths = x.shape[1] * y.shape[1]
    if widths > n * (x.shape[1] + y.shape[1]):  # the Gram matrices are the smaller way round
        whole = ((x @ x.T) * (y @ y.T)).sum()
    else:
        whole = (x.T @ y).square().sum()
    both = p @ q
    return float(whole - both + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * both / (n - 2))
