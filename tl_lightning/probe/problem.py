"""The training loss of linear classifiers on standardised features, for many penalties at once."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from tl_lightning.probe.features import CHUNK_ROWS, Features, chunks, moments
from tl_lightning.probe.hessian import Covariance
from tl_lightning.probe.spectrum import add_gram

KEPT_BYTES = 32 * 2**20  # of all rows in float64, up to which they are converted only once
SAMPLE = 16  # rows per column that the guess at the Hessian is made of
CURVED = 1 - 1e-6  # share of the whole curvature: what the other rows add is neglected in the guess
RAREST = 1e-9  # rows of a class without any: its bias has its optimum at minus infinity


class Problem:
    """Mean weighted cross-entropy, its gradient and curvature; two classes share one weight vector.

    Weights and bias of an output are one vector ``(width + 1)``, for features with mean 0 and deviation 1.

    Args:
        features: At least one row.
        labels: Classes ``(rows,)``, int64.
        classes: 2 or more.
        class_weights: ``(classes,)``, 0 or more; `None` for 1.
        row_weights: ``(rows,)``, 0 or more; `None` for 1.
    """

    def __init__(
        self,
        features: Features,
        labels: Tensor,
        *,
        classes: int,
        class_weights: Tensor | None,
        row_weights: Tensor | None = None,
    ) -> None:
        self.rows, self.width = features.shape
        self.outputs = 1 if classes == 2 else classes
        self.mean, self.scale = moments(features)
        self._features, self._labels, self._classes = features, labels, classes
        by_class = torch.ones(classes, dtype=torch.float64) if class_weights is None else class_weights.double()
        self._weights = by_class[labels] if row_weights is None else by_class[labels] * row_weights.double()
        self._kept = self._keep() if self.rows * self.width * 8 <= KEPT_BYTES else None

    def _keep(self) -> list[tuple[slice, Tensor]]:
        parts = [slice(start, start + CHUNK_ROWS) for start in range(0, self.rows, CHUNK_ROWS)]
        return [(part, self._features[part].double() - self.mean) for part in parts]

    def _read(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All rows, less the mean, with their labels and weights."""
        for part, rows in self._kept or chunks(self._features, minus=self.mean):
            yield rows, self._labels[part], self._weights[part]

    def start(self) -> Tensor:
        """The optimum when nothing but the biases may move, ``(outputs, width + 1)``."""
        counts = torch.bincount(self._labels, self._weights, minlength=self._classes)
        biases = counts.clamp(min=RAREST).log()
        biases = biases[1:] - biases[:1] if self.outputs == 1 else biases - biases.mean()
        return torch.cat([biases.new_zeros(self.outputs, self.width), biases[:, None]], dim=1)

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss at several points, in one pass over the rows.

        Args:
            points: ``(n, outputs, width + 1)``.

        Returns:
            Losses ``(n,)``, gradients as `points`, and mean Hessians by the logits ``(n, outputs, outputs)``.
        """
        count = len(points)
        losses = points.new_zeros(count)
        curvatures = points.new_zeros(count, self.outputs, self.outputs)
        slopes = points.new_zeros(count * self.outputs, self.width)
        bias_slopes = points.new_zeros(count, self.outputs, 1)
        for rows, labels, weights in self._read():
            loss, residuals, curvature = _cross_entropy(self._logits(points, rows), labels, weights)
            losses += loss
            curvatures += curvature
            slopes.addmm_(residuals.view(count * self.outputs, -1), rows)
            bias_slopes += residuals.sum(dim=2, keepdim=True)
        slopes = (slopes / self.scale).view(count, self.outputs, self.width)
        return losses / self.rows, torch.cat([slopes, bias_slopes], dim=2) / self.rows, curvatures / self.rows

    def _logits(self, points: Tensor, rows: Tensor) -> Tensor:
        """``(n, outputs, rows)``; the weights are scaled instead of the rows, which are many more."""
        flat = points.reshape(-1, self.width + 1)
        # In this order of the factors the product takes half the time of rows @ weights.
        return torch.addmm(flat[:, -1:], flat[:, :-1] / self.scale, rows.T).view(*points.shape[:2], -1)

    def covariance(self, point: Tensor) -> Covariance:
        """The covariance of the rows, weighted by how much each row's loss curves at ``(outputs, width + 1)``.

        Of many rows a sample is enough, and so are those that curve: where the classes can be told apart they are few.
        """
        step = -(-self.rows // (SAMPLE * self.width))
        curves = torch.cat([self._row_curves(point, rows, weights)[::step] for rows, _, weights in self._read()])
        shares = _largest(curves)
        parts = (rows[::step] for rows, _, _ in self._read())
        few = int((shares > 0).sum()) < self.width
        return _few(parts, shares, self.scale) if few else _many(parts, shares, self.scale)

    def _row_curves(self, point: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """The trace of the Hessian with respect to the logits of each row."""
        logits = self._logits(point[None], rows)[0]
        chances = logits.sigmoid() if self.outputs == 1 else logits.softmax(dim=0)
        return weights * (chances * (1 - chances)).sum(dim=0)


def _few(parts: Iterator[Tensor], shares: Tensor, scale: Tensor) -> Covariance:
    chosen, begin = [], 0
    for part in parts:
        chosen.append(part[shares[begin : begin + len(part)] > 0])
        begin += len(part)
    rows, shares = torch.cat(chosen) / scale, shares[shares > 0]
    mean = shares @ rows
    return Covariance(mean, (rows - mean) * shares.sqrt()[:, None], is_gram=False)


def _many(parts: Iterator[Tensor], shares: Tensor, scale: Tensor) -> Covariance:
    mean, gram, begin = torch.zeros_like(scale), scale.new_zeros(len(scale), len(scale)), 0
    for part in parts:
        share = shares[begin : begin + len(part)]
        begin += len(part)
        mean += share @ part
        add_gram(gram, part * share.sqrt()[:, None])
    gram -= torch.outer(mean, mean)
    return Covariance(mean / scale, gram / torch.outer(scale, scale), is_gram=True)


def _largest(curves: Tensor) -> Tensor:
    """The curves that make up nearly all of them, as shares of their sum, and 0 for the others."""
    if not curves.sum() > 0:
        return torch.full_like(curves, 1 / len(curves))
    falling = curves.sort(descending=True).values
    enough = int((falling.cumsum(dim=0) < CURVED * curves.sum()).sum())
    curves = torch.where(curves >= falling[enough], curves, 0)
    return curves / curves.sum()


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Summed losses ``(n,)``, slopes by logit ``(n, outputs, rows)``, summed Hessians ``(n, outputs, outputs)``."""
    if logits.shape[1] == 1:
        signs = 2.0 * labels - 1
        margins = logits[:, 0] * signs
        wrong = (-margins).sigmoid()
        curvature = (wrong * (1 - wrong)) @ weights
        return -functional.logsigmoid(margins) @ weights, (-wrong * signs * weights)[:, None], curvature[:, None, None]
    logs = logits.log_softmax(dim=1)
    chances = logs.exp()
    weighted = chances * weights
    curvature = torch.diag_embed(weighted.sum(dim=2)) - weighted @ chances.mT
    index = labels.expand(len(logits), 1, -1)
    losses = -logs.gather(1, index)[:, 0] @ weights
    return losses, weighted.scatter_add_(1, index, -weights.expand(len(logits), 1, -1)), curvature
