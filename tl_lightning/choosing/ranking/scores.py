"""Transferability scores: how well features or a source's own predictions would serve, without training anything."""

import torch
from torch import Tensor

from tl_lightning.probe import Features
from tl_lightning.probe.features import chunks, moments
from tl_lightning.probe.logistic import check_labels
from tl_lightning.probe.spectrum import Spectrum, add_gram, spectrum_of_gram, spectrum_of_rows


def h_score(features: Features, labels: Tensor, *, classes: int) -> float:
    """The H-score with a shrunk covariance (Ibrahim, Ponomareva and Mazumder 2021, arXiv:2110.06893).

    With the covariance ``S`` of the ``n`` rows of width ``d`` (divided by n), the covariance ``B`` of the rows'
    class means (likewise) and ``m = tr(S) / d``:

        H = (1 - a) tr(((1 - a) S + a m I)^-1 B)

    where ``a`` is the shrinkage of Ledoit and Wolf (2004), as in scikit-learn's ``LedoitWolf``:
    ``a = min(b, c) / c`` with ``c = |S - m I|^2 / d`` and ``b = sum_i |x_i x_i' - S|^2 / (d n^2)`` over centred rows
    (squared Frobenius norms). It lies between 0 and ``classes - 1``; higher is better.

    Two passes over the rows; memory does not grow with their number.

    Args:
        features: At least two rows, on the CPU.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.

    Raises:
        ValueError: If the labels do not fit, or a feature is not finite.
    """
    check_labels(features, labels, classes=classes)
    rows, width = features.shape
    mean, _ = moments(features)
    sums = torch.zeros(classes, width, dtype=torch.float64)
    gram = None if rows < width else torch.zeros(width, width, dtype=torch.float64)
    pieces: list[Tensor] = []
    fourth = 0.0  # the sum of the rows' lengths to the fourth
    for part, some in chunks(features, minus=mean):
        sums.index_add_(0, labels[part], some)
        fourth += float(some.square().sum(dim=1).square().sum())
        if gram is None:
            pieces.append(some.clone())
        else:
            add_gram(gram, some)
    spectrum = spectrum_of_gram(gram) if gram is not None else spectrum_of_rows(torch.cat(pieces))
    shrinkage, scale = _ledoit_wolf(spectrum, fourth, rows=rows, width=width)
    if not scale > 0:  # all features are constant
        return 0.0
    counts = torch.bincount(labels, minlength=classes)
    # Where nothing is shrunk, a covariance without full rank still has to have an inverse.
    penalty = torch.tensor(scale * max(shrinkage, torch.finfo(torch.float64).eps), dtype=torch.float64)
    share = torch.tensor((1 - shrinkage) / rows, dtype=torch.float64)
    solved = spectrum.apply_inverse(sums, scale=share, penalty=penalty)
    return float(share * ((sums * solved).sum(dim=1) / counts.clamp(min=1)).sum())


def _ledoit_wolf(spectrum: Spectrum, fourth: float, *, rows: int, width: int) -> tuple[float, float]:
    """The shrinkage, and the mean variance towards which it goes; the spectrum is that of rows times covariance."""
    variances = spectrum.values / rows
    scale = float(variances.sum()) / width
    squared = float(variances.square().sum())
    distance = squared / width - scale**2
    noise = min((fourth / rows - squared) / (width * rows), distance)
    return (noise / distance if noise > 0 else 0.0), scale


def leep(source_probabilities: Features, labels: Tensor, *, classes: int) -> float:
    """LEEP (Nguyen et al. 2020, arXiv:2002.12462): the log-likelihood of guessing the target by way of source classes.

    With ``P(y, z) = mean_i [y_i = y] p_i(z)`` it is ``mean_i log sum_z P(y_i | z) p_i(z)``; two passes over the rows.

    Args:
        source_probabilities: What the source classifier says of each row, ``(rows, source classes)``, adding up to 1.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.

    Returns:
        Nats, at most 0; higher is better.

    Raises:
        ValueError: If there is no row, or the labels do not fit.
    """
    check_labels(source_probabilities, labels, classes=classes)
    joint = torch.zeros(classes, source_probabilities.shape[1], dtype=torch.float64)
    for part, some in chunks(source_probabilities):
        joint.index_add_(0, labels[part], some)
    given = joint / joint.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    total = 0.0
    for part, some in chunks(source_probabilities):
        total += float((given[labels[part]] * some).sum(dim=1).log().sum())
    return total / len(labels)


def nce(source_labels: Tensor, labels: Tensor) -> float:
    """Negative conditional entropy (Tran, Nguyen and Hassner 2019, arXiv:1908.08142): ``-H(label | source label)``.

    Args:
        source_labels: The class that the source classifier gives each row, ``(rows,)`` int64, 0 or more.
        labels: Class of each row, ``(rows,)`` int64, 0 or more.

    Returns:
        Nats, at most 0; higher is better.

    Raises:
        ValueError: If there is no row, or the lengths differ.
    """
    if not len(labels) or source_labels.shape != labels.shape:
        raise ValueError(f"{tuple(source_labels.shape)} source labels for {tuple(labels.shape)} labels")
    keys = source_labels * (labels.max() + 1) + labels
    pair_of = torch.unique(keys, return_inverse=True)[1]
    given = torch.bincount(pair_of)[pair_of].double() / torch.bincount(source_labels)[source_labels]
    return float(given.log().mean())
