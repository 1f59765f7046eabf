"""How good a candidate's features are, by all scores, with what it takes to say that one is better than another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.evidence import log_me, log_me_numbers
from tl_lightning.choosing.ranking.measure import Measured
from tl_lightning.choosing.ranking.neighbours import nearest_neighbours
from tl_lightning.choosing.ranking.scores import h_score, leep, nce
from tl_lightning.choosing.ranking.solved import probed, solved_right
from tl_lightning.metrics.noise import standard_error
from tl_lightning.probe import Features, Rows
from tl_lightning.probe.features import chunks
from tl_lightning.tasks.objectives import OBJECTIVES, varies

NOISE = 2.0  # standard errors within which two candidates are the same


@dataclass(frozen=True, eq=False)
class Assessment:
    """A candidate with its scores; a score that does not go with the problem type is `None`.

    Attributes:
        candidate: Which.
        images: How many there are; see `Measured`.
        rows: Those that are probed, see `probed`, among the data module's samples, ascending, ``(n,)``.
        right: How well a solved linear head that has not seen the image does on it, ``(n,)`` float64: 1 or 0 for a
            class, the share of right labels, or what the image adds to R2 (the mean over the numbers of one less
            the squared error by the variance).
        groups: What images have in common, ``(n,)``; `None` where there are no groups.
        neighbours: Share of the images that their nearest neighbours get right, 0 to 1; see `nearest_neighbours`.
        log_me: See `log_me`.
        h_score: See `h_score`.
        leep: See `leep`; `None` also where the weights bring no classifier, as is the next.
        nce: See `nce`.
        image_size: See `Measured`, as are the next three.
        parameters: How many the backbone has.
        macs: For one image.
        speed: Images per second here.
        seconds: For the features, as far as the cache did not hold them, and for all scores.
    """

    candidate: Candidate
    images: int
    rows: NDArray[np.int64]
    right: NDArray[np.float64]
    groups: NDArray[np.str_] | None
    neighbours: float | None
    log_me: float
    h_score: float | None
    leep: float | None
    nce: float | None
    image_size: int | None
    parameters: int
    macs: int
    speed: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """The mean of `right`: accuracy, mean accuracy of the labels, or R2."""
        return float(self.right.mean())

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return standard_error(self.right, self.groups)

    def behind(self, other: "Assessment") -> tuple[float, float]:
        """How much less accurate this is on the same images, with the standard error of the difference.

        Args:
            other: Another candidate's, on the same data; an image that only one of the two has is left out.
        """
        _, mine, theirs = np.intersect1d(self.rows, other.rows, assume_unique=True, return_indices=True)
        difference = other.right[theirs] - self.right[mine]
        groups = None if self.groups is None else self.groups[mine]
        return float(difference.mean()), standard_error(difference, groups)

    def within_noise_of(self, other: "Assessment") -> bool:
        """Whether this is not behind the other by `NOISE` standard errors of the difference."""
        distance, error = self.behind(other)
        return distance <= 0 or distance < NOISE * error


def assess(measured: Measured) -> Assessment:
    """Computes all scores that go with the problem type, from features that have been computed."""
    begun = time.perf_counter()
    features, labels = measured.features, measured.labels
    neighbours = discriminability = by_probabilities = by_answers = None
    classes = len(measured.classes)
    some = probed(measured.fold_of)
    right = solved_right(
        Rows(features, some),
        labels[some],
        problem_type=measured.problem_type,
        classes=classes,
        fold_of=measured.fold_of[some],
        kin=measured.kin,
    )
    if OBJECTIVES[measured.problem_type].picks_one:
        neighbours = float(nearest_neighbours(features, labels, classes=classes, kin=measured.kin).double().mean())
        evidence = log_me(features, labels, classes=classes)
        discriminability = h_score(features, labels, classes=classes)
        if measured.source is not None:
            by_probabilities = leep(measured.source, labels, classes=classes)
            by_answers = nce(_source_labels(measured.source), labels)
    else:
        evidence = log_me_numbers(features, labels[:, varies(labels)].double())
    return Assessment(
        candidate=measured.candidate,
        images=len(measured.rows),
        rows=measured.rows[some.numpy()],
        right=right.numpy(),
        groups=None if measured.groups is None else measured.groups[some.numpy()],
        neighbours=neighbours,
        log_me=evidence,
        h_score=discriminability,
        leep=by_probabilities,
        nce=by_answers,
        image_size=measured.image_size,
        parameters=measured.parameters,
        macs=measured.macs,
        speed=measured.speed,
        seconds=measured.seconds + time.perf_counter() - begun,
    )


def _source_labels(source: Features) -> torch.Tensor:
    return torch.cat([rows.argmax(dim=1) for _, rows in chunks(source)])


def titles(candidates: Sequence[Candidate]) -> list[str]:
    """A short name for each: the backbone's own, with its weights where that alone would not tell two apart."""
    names = [candidate.name for candidate in candidates]
    return [
        candidate.name if names.count(candidate.name) == 1 else f"{candidate.name}={candidate.weights}"
        for candidate in candidates
    ]
