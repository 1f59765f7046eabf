"""What a comparison says: a row for every strategy and share of the labels, the verdict, and the learning curves."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tl_lightning.choosing.comparing.differences import Difference, metric_difference, paired_difference
from tl_lightning.choosing.comparing.plan import Yardstick
from tl_lightning.choosing.comparing.results import Measure, Result
from tl_lightning.choosing.comparing.strategies import Job
from tl_lightning.choosing.comparing.verdict import Verdict, holm, mcnemar, verdict
from tl_lightning.metrics.words import in_words

MEANS = ("accuracy", "right_labels", "mean_absolute_error")  # metrics that are means over the images


@dataclass(frozen=True)
class Row:
    """How a strategy fared with a share of the labels.

    Attributes:
        strategy: The strategy's name.
        fraction: The share; `None` for what the configuration says.
        seeds: One for each run that ended well; the metrics are means over them.
        failures: Why the others did not.
        value: The test metric; `None` where all failed, as are the others.
        error: The standard error of the value, from the images and, with several seeds, from training.
        validation: The validation metric.
        difference: How much better than the reference on the same images with the same seeds; `None` for the
            reference.
        p: McNemar's p, the middle one of the seeds; `None` where predictions are not right or wrong, or where
            images come in groups.
        adjusted: The same after Holm, for the number of strategies.
        labelled: Images with labels that it learned and selected from.
        trainable: Parameters.
        seconds: How long training took.
    """

    strategy: str
    fraction: float | None
    seeds: tuple[int, ...]
    failures: tuple[str, ...]
    value: float | None = None
    error: float | None = None
    validation: float | None = None
    difference: Difference | None = None
    p: float | None = None
    adjusted: float | None = None
    labelled: int | None = None
    trainable: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Everything that a comparison says.

    Attributes:
        made: The result of each run, or why it has none.
        rows: For every share, the largest last, all strategies in order.
        reference: The strategy that the others are compared with.
        transfer: The strategy that stands for transfer: of those with pretrained weights that are not the reference,
            the best on validation.
        verdict: Whether it helped, or, where the reference transfers, too, which is better; `None` where its runs or
            the reference's failed.
        baseline: The metric of a prediction without a model; `None` for none.
    """

    made: Mapping[Job, Result | str]
    rows: tuple[Row, ...]
    reference: str
    transfer: str | None
    verdict: Verdict | None
    baseline: float | None

    @property
    def last(self) -> list[Row]:
        """The rows with the largest share of the labels."""
        return [row for row in self.rows if row.fraction == self.rows[-1].fraction]


def judge(
    made: Mapping[Job, Result | str],
    tested: Yardstick,
    measure: Measure,
    *,
    reference: str,
    transferring: Collection[str],
) -> Outcome:
    """Compares all strategies with the reference, and says whether transfer helped.

    Args:
        made: Results of all runs, or why they have none.
        tested: What all were tested on.
        measure: What is compared.
        reference: The strategy that the others are compared with.
        transferring: The strategies with pretrained weights; only one of them can stand for transfer.
    """
    rows: list[Row] = []
    fractions = sorted({job.fraction for job in made}, key=lambda fraction: fraction or 1)
    for fraction in fractions:
        of_fraction = {job: result for job, result in made.items() if job.fraction == fraction}
        rows += _rows(of_fraction, tested, measure, reference=reference)
    last = [row for row in rows if row.fraction == fractions[-1]]
    best = _for_transfer([row for row in last if row.strategy in transferring], measure, reference=reference)
    said = None
    if best is not None and best.difference is not None:
        runs = [len(row.seeds) for row in last if row.strategy in (best.strategy, reference)]
        words, points = in_words(measure.name), not measure.is_error
        said = verdict(
            best.difference,
            seeds=min(runs),
            what=best.strategy,
            reference=reference,
            metric=words,
            points=points,
            both_transfer=reference in transferring,
        )
    baselines = [result.baseline for result in made.values() if isinstance(result, Result) and result.baseline]
    return Outcome(
        made=made,
        rows=tuple(rows),
        reference=reference,
        transfer=None if best is None else best.strategy,
        verdict=said,
        baseline=baselines[-1] if baselines else None,
    )


def _for_transfer(rows: Sequence[Row], measure: Measure, *, reference: str) -> Row | None:
    """The strategy that is best on validation; test images do not choose it."""
    sign = 1 if measure.mode == "max" else -1
    candidates = [
        (sign * row.validation, row) for row in rows if row.strategy != reference and row.validation is not None
    ]
    return max(candidates, key=lambda pair: pair[0])[1] if candidates else None


def _rows(made: Mapping[Job, Result | str], tested: Yardstick, measure: Measure, *, reference: str) -> list[Row]:
    """The rows with one share of the labels."""
    by_strategy: dict[str, dict[Job, Result | str]] = {}
    for job, result in made.items():
        by_strategy.setdefault(job.strategy.name, {})[job] = result
    results = {
        name: [result for result in of_name.values() if isinstance(result, Result)]
        for name, of_name in by_strategy.items()
    }
    rows = [
        _row(name, of_name, results[name], results[reference] if name != reference else [], tested, measure)
        for name, of_name in by_strategy.items()
    ]
    tests = [row.p for row in rows if row.p is not None]
    adjusted = iter(holm(tests))
    return [row if row.p is None else replace(row, adjusted=next(adjusted)) for row in rows]


def _row(
    name: str,
    made: Mapping[Job, Result | str],
    results: Sequence[Result],
    references: Sequence[Result],
    tested: Yardstick,
    measure: Measure,
) -> Row:
    empty = Row(
        strategy=name,
        fraction=next(iter(made)).fraction,
        seeds=tuple(result.job.seed for result in results),
        failures=tuple(result for result in made.values() if isinstance(result, str)),
    )
    if not results:
        return empty
    value, error = _metric(results, tested, measure)
    return replace(
        empty,
        value=-value if measure.is_error else value,
        error=error,
        validation=statistics.mean(result.validation for result in results),
        difference=_difference(results, references, tested, measure) if references else None,
        p=_middle_p(results, references) if tested.groups is None else None,
        labelled=results[0].labelled,
        trainable=results[0].trainable,
        seconds=statistics.mean(result.seconds for result in results),
    )


def _difference(
    results: Sequence[Result], references: Sequence[Result], tested: Yardstick, measure: Measure
) -> Difference:
    if measure.name in MEANS:
        scores, others = (np.stack([result.scores for result in side]) for side in (results, references))
        return paired_difference(scores, others, shares=not measure.is_error, groups=tested.groups)
    one, other = (np.stack([_classes(result) for result in side]) for side in (results, references))
    return metric_difference(measure.name, tested.labels, one, other, classes=len(tested.classes), groups=tested.groups)


def _metric(results: Sequence[Result], tested: Yardstick, measure: Measure) -> tuple[float, float]:
    """The metric and its standard error: its difference to what is the same for every image."""
    if measure.name in MEANS:
        scores = np.stack([result.scores for result in results])
        difference = paired_difference(scores, np.full_like(scores, -1.0), shares=False, groups=tested.groups)
        return difference.value - 1, difference.error
    classes = np.stack([_classes(result) for result in results])
    wrong = np.broadcast_to((tested.labels + 1) % len(tested.classes), classes.shape)  # where these metrics are 0
    difference = metric_difference(
        measure.name, tested.labels, classes, wrong, classes=len(tested.classes), groups=tested.groups
    )
    return difference.value, difference.error


def _classes(result: Result) -> NDArray[np.int64]:
    assert result.predicted is not None  # `choose_measure` allows these metrics for classes alone
    return result.predicted


def _middle_p(results: Sequence[Result], references: Sequence[Result]) -> float | None:
    """McNemar's test of the runs with the same seed; of an even number, the larger of the two in the middle."""
    seeds = {result.job.seed: result for result in references}
    pairs = [(result, seeds[result.job.seed]) for result in results if result.job.seed in seeds]
    tests = [mcnemar(one.scores > 0.5, other.scores > 0.5).p for one, other in pairs if one.predicted is not None]
    return statistics.median_high(tests) if tests else None
