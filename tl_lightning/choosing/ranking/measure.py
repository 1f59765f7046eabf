"""One forward pass of one candidate over the images: its features, what its source says of them, what it costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_lightning.backbones import CannotSplit, load_source_model, source_classifier
from tl_lightning.backbones.macs import count_macs
from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.solved import folds_and_kin
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.experiment.preamble import assemble, read_data
from tl_lightning.experiment.tables import data_line
from tl_lightning.feature_cache.extractor import BATCH, Extractor, below, filled_up
from tl_lightning.probe import Features
from tl_lightning.tasks import TransferTask

TIMED = 3  # batches, of which the fastest counts: whatever else runs here only ever makes one slower


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of a candidate on the training and validation images; no test image is read.

    Attributes:
        candidate: Which.
        rows: The images among the data module's samples, ascending, ``(n,)``.
        features: What the whole backbone gives, ``(n, width)``, read from the cache slice by slice.
        labels: The targets, ``(n,)`` int64 for classes and levels, else ``(n, k)`` float32.
        problem_type: What kind of targets they are.
        classes: Names of the classes, levels, labels or numbers.
        fold_of: A fold of each image, in the way of the run's split, ``(n,)`` int64; see `folds_and_kin`.
        kin: Which images tell too much of each other, ``(n,)`` int64; `None` where each stands for itself.
        groups: What images have in common, ``(n,)``; `None` where there are no groups.
        source: What the pretraining classifier says of each image, ``(n, source classes)``; `None` where the weights
            bring none.
        image_size: Side in pixels of what the model sees; `None` where it sees no images.
        parameters: How many the backbone has.
        macs: Multiplications with an addition for one image of that size, in convolutions and matrix products.
        speed: Images per second here, forward, in batches of 32 and the run's precision.
        computed: How many images went through the backbone; the others were in the cache.
        seconds: Spent on all this.
        line: What the data are, in one line.
    """

    candidate: Candidate
    rows: NDArray[np.int64]
    features: Features
    labels: Tensor
    problem_type: ProblemType
    classes: tuple[str, ...]
    fold_of: Tensor
    kin: Tensor | None
    groups: NDArray[np.str_] | None
    source: Features | None
    image_size: int | None
    parameters: int
    macs: int
    speed: float
    computed: int
    seconds: float
    line: str


class SourceProbabilities:
    """What a linear classifier says of features, computed slice by slice when it is read.

    Attributes:
        shape: Rows and source classes.

    Args:
        features: What the classifier sees.
        classifier: Linear.
    """

    def __init__(self, features: Features, classifier: nn.Linear) -> None:
        self.shape = (features.shape[0], classifier.out_features)
        self._features = features
        self._weight = classifier.weight.detach().float()
        self._bias = None if classifier.bias is None else classifier.bias.detach().float()

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Probabilities of the rows of a slice, float32."""
        return nn.functional.linear(self._features[rows].float(), self._weight, self._bias).softmax(dim=1)


def measure(args: Sequence[str], candidate: Candidate) -> Measured:
    """Builds a candidate, and runs it once over the training and validation images.

    The features are cached as ``tl fit --phases feature_extraction`` caches them, so that it finds them in the cache,
    as does a second look.

    Args:
        args: Command-line arguments of ``tl fit``; the backbone, its weights and the phases they name do not matter.
        candidate: What takes their place.

    Raises:
        UserError: If an argument is wrong, the candidate cannot be had or does not take such images, several
            processes are asked for, or there is no room for the features.
    """
    begun = time.perf_counter()
    options = [*args, "--phases", "feature_extraction", *candidate.options]
    configuration = assemble(options, command="rank", status=f"building {candidate.name}")
    task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
    data.expect_leaks()  # what is also in the test split is tl fit's to say, not each candidate's once more
    read_data(configuration, say=False)
    rows = np.union1d(data.splits["train"], data.splits["val"])
    fold_of, kin = folds_and_kin(data, rows)
    trainer.precision_plugin.convert_module(task)  # as a fit would; in place, or nothing
    task.to(trainer.strategy.root_device)
    extractor = Extractor(task, data, trainer, configuration.config.engine)
    features = _features(task, data, extractor, rows)
    return Measured(
        candidate=candidate,
        rows=rows,
        features=features,
        labels=torch.from_numpy(data.samples.labels[rows]),
        problem_type=data.samples.problem_type,
        classes=tuple(data.classes),
        fold_of=fold_of,
        kin=kin,
        groups=None if data.samples.groups is None else data.samples.groups[rows],
        source=_source(candidate, features),
        image_size=data.prepared.get("size"),
        parameters=sum(parameter.numel() for parameter in task.backbone.parameters()),
        macs=count_macs(task.backbone, data.preprocess),
        speed=_speed(task, extractor),
        computed=extractor.computed,
        seconds=time.perf_counter() - begun,
        line=data_line(data.summary()),
    )


def _features(task: TransferTask, data: TransferDataModule, extractor: Extractor, rows: NDArray[np.int64]) -> Features:
    """Exactly what the phase cache has of a backbone that is frozen as a whole."""
    view = data.plain_view
    try:
        stores = extractor.extract(below(task.transferred, len(task.stages)), [(view, rows)])
    except CannotSplit as error:
        raise UserError(f"model.backbone {task.hparams['backbone']} cannot be measured: {error}") from error
    except NoRoom as error:
        raise UserError(f"the features cannot be cached: {error}") from error
    return stores[view.name].rows(rows)


def _source(candidate: Candidate, features: Features) -> SourceProbabilities | None:
    if candidate.weights == "none":
        return None
    classifier = source_classifier(candidate.backbone, load_source_model(candidate.backbone, candidate.weights))
    # Of several classifiers, or one that sees something else than the features, nothing can be said from these.
    if classifier is None or classifier.in_features != features.shape[1]:
        return None
    return SourceProbabilities(features, classifier)


def _speed(task: TransferTask, extractor: Extractor) -> float:
    """Samples per second, after one batch to warm up."""
    batch = [filled_up(tensor) for tensor in extractor.first_rows(2)]
    fastest = float("inf")
    with extractor.computing():
        for _ in range(1 + TIMED):
            begun = time.perf_counter()
            task.backbone(*batch).sum().item()  # which waits for a GPU
            fastest = min(fastest, time.perf_counter() - begun)
    return BATCH / fastest
