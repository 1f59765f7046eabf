"""The verdict from results: which strategy stands for transfer, what is tested, and what failures leave."""

import numpy as np
import pytest
from scipy import stats

from tl_lightning.choosing.comparing.outcome import judge
from tl_lightning.choosing.comparing.plan import Yardstick
from tl_lightning.choosing.comparing.results import Measure, Result
from tl_lightning.choosing.comparing.strategies import Job, Strategy

ACCURACY = Measure("accuracy", "accuracy", "max", "majority_accuracy")
IMAGES = 200
WEIGHTS = {"full", "partial"}
EASE = np.random.default_rng(0).random(IMAGES)  # how hard an image is, for all models alike


def yardstick(problem_type="multiclass", classes=("a", "b"), groups=None):
    return Yardstick(problem_type, tuple(classes), np.arange(IMAGES), np.arange(IMAGES) % len(classes), groups)


def result(name, seed, accuracy, *, validation=None, fraction=None, labelled=100):
    noise = np.random.default_rng([*name.encode(), seed]).normal(0, 0.02, IMAGES)
    right = EASE + noise < accuracy
    labels = np.arange(IMAGES) % 2
    return Result(
        job=Job(Strategy(name), fraction, seed),
        scores=right.astype(np.float64),
        predicted=np.where(right, labels, 1 - labels),
        validation=accuracy if validation is None else validation,
        test={"accuracy": float(right.mean())},
        baseline=0.5,
        labelled=labelled,
        trainable=10,
        seconds=1.0 + seed,
    )


def made(*results):
    return {entry.job: entry for entry in results}


def seeds(name, accuracy, count=3, **more):
    return [result(name, seed, accuracy, **more) for seed in range(count)]


def test_validation_and_not_the_test_images_choose_what_stands_for_transfer():
    better_on_test = seeds("full", 0.95, validation=0.7)
    outcome = judge(
        made(*seeds("scratch", 0.8), *better_on_test, *seeds("partial", 0.85, validation=0.9)),
        yardstick(),
        ACCURACY,
        reference="scratch",
        transferring=WEIGHTS,
    )
    assert outcome.transfer == "partial"
    assert outcome.verdict.kind == "helped"
    assert "accuracy of partial against scratch" in outcome.verdict.text
    assert outcome.baseline == 0.5


def test_a_strategy_without_weights_does_not_stand_for_transfer():
    results = made(*seeds("scratch", 0.8), *seeds("slow", 0.95), *seeds("full", 0.6))
    outcome = judge(results, yardstick(), ACCURACY, reference="scratch", transferring={"full"})
    assert outcome.transfer == "full"
    assert outcome.verdict.kind == "negative"


@pytest.mark.parametrize(("full", "kind"), [(0.95, "better"), (0.6, "worse")])
def test_beside_a_reference_with_weights_nothing_is_said_of_transfer(full, kind):
    results = made(*seeds("partial", 0.8), *seeds("full", full), *seeds("scratch", 0.99))
    outcome = judge(results, yardstick(), ACCURACY, reference="partial", transferring=WEIGHTS)
    assert outcome.verdict.kind == kind
    assert outcome.verdict.text.startswith(f"full is {kind} than partial by ")


def test_an_error_chooses_where_it_is_least():
    measure = Measure("mean_absolute_error", "mean_absolute_error", "min", None, is_error=True)
    errors = {"scratch": 3.0, "partial": 2.0, "full": 1.0}
    results = []
    for name, error in errors.items():
        plain = result(name, 0, 0.9)
        noise = np.random.default_rng(len(results)).normal(0, 0.1, IMAGES)
        results.append(Result(**{**vars(plain), "scores": -error + noise, "predicted": None, "validation": error}))
    outcome = judge(made(*results), yardstick("regression"), measure, reference="scratch", transferring=WEIGHTS)
    assert outcome.transfer == "full"
    row = outcome.rows[2]
    assert row.value == pytest.approx(-results[2].scores.mean())
    assert row.difference.value == pytest.approx((results[2].scores - results[0].scores).mean())
    assert row.p is None
    assert "the mean absolute error fell by 2" in outcome.verdict.text


def test_a_row_holds_means_over_seeds_and_the_middle_test():
    scratch, full, partial = seeds("scratch", 0.8), seeds("full", 0.86), seeds("partial", 0.81)
    rows = judge(made(*scratch, *full, *partial), yardstick(), ACCURACY, reference="scratch", transferring=WEIGHTS).rows
    assert [row.strategy for row in rows] == ["scratch", "full", "partial"]
    assert rows[1].value == pytest.approx(np.mean([one.scores.mean() for one in full]))
    assert rows[1].seconds == 2.0
    p_values = []
    for one, other in zip(full, scratch, strict=True):
        only = (one.scores > other.scores).sum(), (one.scores < other.scores).sum()
        p_values.append(stats.binomtest(int(only[0]), int(sum(only))).pvalue)
    assert rows[1].p == pytest.approx(sorted(p_values)[1])
    assert rows[1].adjusted == pytest.approx(min(2 * rows[1].p, 1)) or rows[2].p < rows[1].p
    assert rows[0].difference is rows[0].p is None


def test_a_metric_has_the_standard_error_of_its_images_and_seeds():
    (row, _) = judge(
        made(*seeds("scratch", 0.8, 1), *seeds("full", 0.9, 1)),
        yardstick(),
        ACCURACY,
        reference="scratch",
        transferring=WEIGHTS,
    ).rows
    assert row.error == pytest.approx((row.value * (1 - row.value) / IMAGES) ** 0.5, rel=0.1)


def test_macro_f1_and_balanced_accuracy_are_compared_as_metrics():
    for name in ("macro_f1", "balanced_accuracy"):
        measure = Measure(name, name, "max", None)
        scratch, full = result("scratch", 0, 0.8), result("full", 0, 0.9)
        rows = judge(made(scratch, full), yardstick(), measure, reference="scratch", transferring=WEIGHTS).rows
        labels, predicted = np.arange(IMAGES) % 2, full.predicted
        recalls = [(predicted[labels == k] == k).mean() for k in (0, 1)]
        f1 = [
            2 * ((predicted == k) & (labels == k)).sum() / ((predicted == k).sum() + (labels == k).sum())
            for k in (0, 1)
        ]
        assert rows[1].value == pytest.approx(np.mean(f1 if name == "macro_f1" else recalls))
        assert rows[1].difference.value == pytest.approx(rows[1].value - rows[0].value)


def test_equal_answers_with_several_labels_are_not_the_same_for_sure():
    measure = Measure("right_labels", "macro_f1", "max", None)
    results = []
    for name, score in (("scratch", 0.5), ("full", 0.75)):
        plain = result(name, 0, 0.9)
        results.append(Result(**{**vars(plain), "scores": np.full(IMAGES, score), "predicted": None}))
    rows = judge(made(*results), yardstick("multilabel"), measure, reference="scratch", transferring=WEIGHTS).rows
    difference = rows[1].difference
    assert (difference.value, difference.low < 0.25 < difference.high) == (pytest.approx(0.25), True)


def test_a_failed_run_is_a_result_and_the_others_still_count():
    results = made(*seeds("scratch", 0.8), *seeds("full", 0.9)[:2])
    results[Job(Strategy("full"), None, 2)] = "ValueError: no"
    results[Job(Strategy("partial"), None, 0)] = "UserError: never"
    outcome = judge(results, yardstick(), ACCURACY, reference="scratch", transferring=WEIGHTS)
    rows = {row.strategy: row for row in outcome.rows}
    assert (rows["full"].seeds, rows["full"].failures) == ((0, 1), ("ValueError: no",))
    assert (rows["partial"].value, rows["partial"].seeds) == (None, ())
    assert outcome.verdict.kind == "helped"


def test_without_the_reference_there_is_no_verdict():
    results = made(*seeds("full", 0.9))
    results = {Job(Strategy("scratch"), None, 0): "died", **results}
    outcome = judge(results, yardstick(), ACCURACY, reference="scratch", transferring=WEIGHTS)
    assert outcome.verdict is None
    assert outcome.transfer == "full"


def test_images_in_groups_have_no_mcnemar_test():
    groups = np.array([f"g{k // 10}" for k in range(IMAGES)])
    outcome = judge(
        made(*seeds("scratch", 0.8), *seeds("full", 0.9)),
        yardstick(groups=groups),
        ACCURACY,
        reference="scratch",
        transferring=WEIGHTS,
    )
    assert outcome.rows[1].p is None
    assert outcome.rows[1].difference.error > 0


def test_the_verdict_is_about_the_largest_share_of_the_labels():
    results = []
    for fraction, gain in ((0.1, 0.2), (1.0, -0.2)):
        results += seeds("scratch", 0.7, fraction=fraction) + seeds("full", 0.7 + gain, fraction=fraction)
    outcome = judge(made(*results), yardstick(), ACCURACY, reference="scratch", transferring=WEIGHTS)
    assert [(row.strategy, row.fraction) for row in outcome.last] == [("scratch", 1.0), ("full", 1.0)]
    assert outcome.verdict.kind == "negative"
    assert len(outcome.rows) == 4
