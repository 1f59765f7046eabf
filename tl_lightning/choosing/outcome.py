"""What a comparison says: a row for every strategy and share of the labels, the verdict, and the learning curves."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tl_lightning.choosing.plan import Tested
from tl_lightning.choosing.results import Measure, Result
from tl_lightning.choosing.strategies import Job
from tl_lightning.choosing.verdict import (
    Difference,
    Verdict,
    figure_difference,
    holm,
    mcnemar,
    paired_difference,
    verdict,
)


@dataclass(frozen=True)
class Row:
    """How a strategy fared with a share of the labels.

    Attributes:
        strategy: Its name.
        fraction: The share; `None` for what the configuration says.
        seeds: Of the runs that ended well; the figures are means over them.
        failures: Why the others did not.
        value: The test figure; `None` where all failed, as are the others.
        error: Its standard error, from the pictures and, with several seeds, from training.
        validation: The validation figure.
        difference: How much better than the reference on the same pictures with the same seeds; `None` for the
            reference.
        p: Of McNemar's test, the middle one of the seeds; `None` where answers are not right or wrong, or where
            pictures come in groups.
        adjusted: The same after Holm, for the number of strategies.
        labelled: Pictures with labels that it learned and selected from.
        trainable: Parameters.
        seconds: Of training.
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
        transfer: The strategy that stands for transfer: of those that are not the reference, the best on validation.
        verdict: Whether it helped; `None` where its runs or the reference's failed.
        baseline: The figure of the answer without a model; `None` for none.
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


def judge(made: Mapping[Job, Result | str], tested: Tested, measure: Measure, *, reference: str) -> Outcome:
    """Compares all strategies with the reference, and says whether transfer helped.

    Args:
        made: Results of all runs, or why they have none.
        tested: What all were tested on.
        measure: What is compared.
        reference: The strategy that the others are compared with.
    """
    rows: list[Row] = []
    fractions = sorted({job.fraction for job in made}, key=lambda fraction: fraction or 1)
    for fraction in fractions:
        of_fraction = {job: result for job, result in made.items() if job.fraction == fraction}
        rows += _rows(of_fraction, tested, measure, reference=reference)
    last = [row for row in rows if row.fraction == fractions[-1]]
    candidates = [row for row in last if row.strategy != reference and row.validation is not None]
    sign = 1 if measure.mode == "max" else -1
    best = max(candidates, key=lambda row: sign * (row.validation or 0.0), default=None)
    said = None
    if best is not None and best.difference is not None:
        seeds = _common(made, best.strategy, reference, fractions[-1])
        said = verdict(best.difference, seeds=len(seeds), what=best.strategy, reference=reference)
    baselines = [result.baseline for result in made.values() if isinstance(result, Result) and result.baseline]
    return Outcome(
        made=made,
        rows=tuple(rows),
        reference=reference,
        transfer=None if best is None else best.strategy,
        verdict=said,
        baseline=baselines[-1] if baselines else None,
    )
