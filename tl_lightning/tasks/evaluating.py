"""What an evaluation adds up batch by batch, for one head or for several."""

from collections.abc import Mapping
from itertools import chain, zip_longest

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from tl_lightning.core.predictions_file import PredictionsFile
from tl_lightning.metrics.predicted import Predicted
from tl_lightning.tasks.by_name import ByName
from tl_lightning.tasks.objectives import Objective


class Evaluation(nn.Module):
    """The loss, the metrics of every head and, where they are asked for, all predictions.

    Where there are several heads, the metrics and the loss of each are named after it, and samples that lack one of the
    targets count for the other heads only.

    Attributes:
        keeps_predictions: Whether predictions are kept; while training nobody reads them.

    Args:
        objectives: Those of the task.
        split: ``val`` or ``test``, which names begin with.
    """

    def __init__(self, objectives: ByName[Objective], split: str) -> None:
        super().__init__()
        self._split, self._several = split, len(objectives) > 1
        self.keeps_predictions = False
        self.metrics = ByName({name: objective.make_metrics() for name, objective in objectives.items()})
        # Lightning's own mean over processes truncates the number of examples to whole ones.
        # What is no number counts, too: left out, it would hide a divergence, and to look for it waits for the GPU. So
        # these means, which take no weights, are given the loss of each sample.
        self.loss = MeanMetric(nan_strategy="disable")
        means = {name: MeanMetric(nan_strategy="disable") for name in objectives} if self._several else {}
        self.head_losses = ByName(means)
        self.kept = ByName({name: Predicted() for name in objectives})

    def begin(self, *, keeps_predictions: bool) -> None:
        """Forgets the predictions of the evaluation before."""
        self.keeps_predictions = keeps_predictions
        for kept in self.kept.values():
            kept.reset()

    def update(
        self,
        objectives: ByName[Objective],
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        losses: Tensor,
        indices: Tensor | None,
    ) -> None:
        """Adds a batch.

        Args:
            objectives: Those of the task.
            outputs: What each head gives.
            targets: What each head is to learn.
            losses: The loss of each sample, ``(N,)``.
            indices: Which samples they are, ``(N,)``; wanted where predictions are kept.
        """
        self.loss.update(losses)
        for name, objective in objectives.items():
            output, target, index = outputs[name], targets[name], indices
            if self._several:
                known = objective.known(target)
                output, target = output[known], target[known]
                index = None if index is None else index[known]
                self.head_losses[name].update(objective.losses(output, target) if len(target) else losses[:0])
                if not len(target):
                    continue
            predictions = objective.predictions(output)
            self.metrics[name].update(*objective.compared(predictions, target))
            if self.keeps_predictions:
                assert index is not None
                self.kept[name].update(predictions, target, index)

    def results(self, objectives: ByName[Objective]) -> dict[str, Tensor]:
        """The metrics by the names under which they are logged; begins anew with them.

        Args:
            objectives: Those of the task.
        """
        mean: Tensor = self.loss.compute()
        results: dict[str, Tensor] = {f"{self._split}/loss": mean}
        for name, objective in objectives.items():
            prefix = f"{self._split}/{name}/" if self._several else f"{self._split}/"
            own: Tensor = self.head_losses[name].compute() if self._several else mean
            if own.isfinite():  # else no sample has the target, or training has diverged
                found = {"loss": own, **objective.finished(self.metrics[name].compute())}
            else:
                found = dict.fromkeys(objective.metrics, torch.full_like(mean, torch.nan))
            results |= {prefix + metric: value for metric, value in found.items()}
            self.metrics[name].reset()
            if self._several:
                self.head_losses[name].reset()
        self.loss.reset()
        if not mean.isfinite():  # the largest of outputs that are no numbers is the first class, which says nothing
            results = dict.fromkeys(results, torch.full_like(mean, torch.nan))
        return {name: value.float() for name, value in results.items()}  # some degenerate values come as whole numbers

    def predicted(self) -> dict[str, PredictionsFile]:
        """The predictions of each head that any sample has a target for, from all processes, by the samples' order."""
        gathered = {name: self.kept[name].compute() for name in self.kept}
        return {
            name: PredictionsFile(each.predictions, each.labels, each.indices)
            for name, each in gathered.items()
            if len(each.indices)
        }


def rows_of_heads(
    objectives: ByName[Objective], predictions: Mapping[str, Tensor]
) -> list[list[dict[str, str | float]]]:
    """The rows of a file of predictions for each sample; of several heads, columns have their names before them.

    Args:
        objectives: What each head learns.
        predictions: What each head predicts, by its name, on the CPU.
    """
    if len(predictions) == 1:
        ((name, given),) = predictions.items()
        return objectives[name].rows_each(given)
    heads = [
        [[{f"{name}/{column}": value for column, value in row.items()} for row in rows] for rows in found]
        for name, found in ((name, objectives[name].rows_each(given)) for name, given in predictions.items())
    ]
    return [
        [dict(chain.from_iterable(map(dict.items, parts))) for parts in zip_longest(*sample, fillvalue={})]
        for sample in zip(*heads, strict=True)
    ]
