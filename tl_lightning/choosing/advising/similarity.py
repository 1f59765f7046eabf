"""How far the images are from what the weights were pretrained on, without a single image of that.

Two measures, never compared with each other:

- ``batch_norm``: a backbone with BatchNorm carries the mean and variance of every channel of its source; see
  `source_statistics.distance`. Measured on 96 to 128 images each, averaged over the stages:

  | images | lite0, 224 px | 128 | 96 | 64 | mobilenetv2, 224 px | 128 | 96 | 64 |
  |---|---|---|---|---|---|---|---|---|
  | crops of photographs (scikit-image) | .24 | .27 | .31 | .40 | .16 | .21 | .27 | .40 |
  | the same in grey | .25 | .27 | .30 | .37 | .18 | .22 | .27 | .35 |
  | stained tissue under a microscope | .35 | .36 | | | .37 | .39 | | |
  | a scanned page | .46 | .51 | | | .45 | .56 | | |
  | solar cells (ELPV) | .55 | .54 | .54 | .58 | .53 | .45 | .46 | .50 |
  | drawn shapes | .54 | .49 | .48 | .50 | .57 | .57 | .54 | .47 |
  | noise | .62 | .60 | .58 | .63 | .78 | .66 | .67 | .84 |

  So: below 0.33 near, from 0.42 on far. Far below the size of the pretraining even photographs are no longer near: the
  weights have not seen things that small. With 16 images instead of 128 the metrics move by .05 or less, twice by up
  to .08.
- ``doubt``: LayerNorm and its kin keep no statistics. What such weights may still have is the classifier of their
  pretraining: how unsure it is of the images, as the entropy of its softmax over the logarithm of the number of
  classes (a classifier is less sure of what it does not know: Hendrycks and Gimpel 2017, arXiv:1610.02136). Weaker, as
  a classifier may also be sure and wrong. With the classifier of lite0 at 224 px photographs gave .35, ELPV .72, noise
  .66, shapes .66, a scanned page .81, but the surface of the moon .33; so below 0.40 near, from 0.60 on far, and
  nothing else should hang on it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_lightning.backbones import Stage, load_source_model, source_classifier
from tl_lightning.choosing.advising.source_statistics import LayerDistance, layer_distances
from tl_lightning.core.console import track
from tl_lightning.experiment.configuration import Configuration

Word = Literal["near", "medium", "far"]

NEAR = {"batch_norm": 0.33, "doubt": 0.40}  # below
FAR = {"batch_norm": 0.42, "doubt": 0.60}  # from here on
IMAGES = 512  # at most, of the training split
FEWEST = 4  # two in each half
BATCH = 32


@dataclass(frozen=True)
class Similarity:
    """How far the target is from the source.

    Attributes:
        kind: The measure: ``batch_norm`` or ``doubt``.
        value: 0 for no difference; of ``batch_norm`` the mean over stages in deviations of the source, of ``doubt``
            from 0 to 1.
        stages: With ``batch_norm``, each stage that has such layers with the mean of their distances, input to output.
        images: How many were looked at.
    """

    kind: Literal["batch_norm", "doubt"]
    value: float
    stages: tuple[tuple[str, float], ...]
    images: int

    @property
    def word(self) -> Word:
        """``near``, ``medium`` or ``far``, by the thresholds of its kind."""
        return "near" if self.value < NEAR[self.kind] else "medium" if self.value < FAR[self.kind] else "far"


def by_stage(layers: Sequence[LayerDistance]) -> tuple[tuple[str, float], ...]:
    """The mean distance of each stage's layers, so that a stage of many layers counts no more than one of few.

    Args:
        layers: What `layer_distances` found, input to output.
    """
    distances: dict[str, list[float]] = {}
    for layer in layers:
        distances.setdefault(layer.stage, []).append(layer.distance)
    return tuple((stage, sum(values) / len(values)) for stage, values in distances.items())


def from_statistics(
    backbone: nn.Module, stages: Sequence[Stage], batches: Iterable[Sequence[Tensor]]
) -> Similarity | None:
    """The similarity by BatchNorm's statistics; `None` where no layer carries any.

    Args:
        backbone: With pretrained weights.
        stages: The stages of the backbone.
        batches: Prepared images, as `layer_distances` takes them.
    """
    seen = 0

    def counted() -> Iterator[Sequence[Tensor]]:
        nonlocal seen
        for inputs in batches:
            seen += len(inputs[0])
            yield inputs

    values = by_stage(layer_distances(backbone, stages, counted()))
    if not values:
        return None
    return Similarity("batch_norm", sum(value for _, value in values) / len(values), values, seen)


def relative_entropy(logits: Tensor) -> Tensor:
    """How unsure a classifier is of each image, ``(N,)``: 0 for certain, 1 for all classes alike.

    Args:
        logits: ``(N, classes)``, two classes or more.
    """
    log = logits.double().log_softmax(dim=1)
    entropy: Tensor = -(log.exp() * log).sum(dim=1)
    return entropy / torch.log(torch.tensor(float(logits.shape[1]), dtype=torch.float64))


def measure_similarity(configuration: Configuration, training: NDArray[np.int64]) -> Similarity | None:
    """Measures a configuration's training images, as evaluation sees them, against its weights.

    Args:
        configuration: The data are set up.
        training: Which images may be looked at; `IMAGES` of them are, drawn at random.

    Returns:
        `None` where the weights are random, where neither measure is to be had, or for fewer than `FEWEST` images.
    """
    task, trainer = configuration.model, configuration.trainer
    if task.hparams.weights == "none" or len(training) < FEWEST:
        return None
    device = trainer.strategy.root_device
    drawn = np.random.default_rng(0).permutation(training)[:IMAGES]
    task.to(device)
    with trainer.precision_plugin.forward_context(), torch.no_grad():
        found = from_statistics(task.backbone, task.stages, _prepared(configuration, drawn))
        return found or _doubt(configuration, drawn)


def _doubt(configuration: Configuration, drawn: NDArray[np.int64]) -> Similarity | None:
    task = configuration.model
    source = load_source_model(str(task.hparams.backbone), str(task.hparams.weights)).eval().to(task.device)
    if source_classifier(str(task.hparams.backbone), source) is None:
        return None  # the weights hold none
    total, seen = 0.0, 0
    for inputs in _prepared(configuration, drawn):
        try:
            logits = source(*inputs)
        except (RuntimeError, AssertionError):  # images of another size or other channels than its own
            return None
        total, seen = total + float(relative_entropy(logits).sum()), seen + len(logits)
    return Similarity("doubt", total / seen, (), seen)


def _prepared(configuration: Configuration, indices: NDArray[np.int64]) -> Iterator[list[Tensor]]:
    task, data = configuration.model, configuration.datamodule
    loader = data.view_loader(data.plain_view, indices, BATCH)
    for batch in track(loader, "similarity to the source", total=len(loader)):
        yield task.inputs_of(data.normalized(move_data_to_device(batch, task.device)))
