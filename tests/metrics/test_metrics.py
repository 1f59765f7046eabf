import numpy as np
import pytest
import torch

from tl_lightning.metrics.classification import classification_metrics, per_class, standard_errors

CONFUSION = np.array([[30, 10], [5, 55]])


def test_figures_are_those_of_the_definitions():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.55, 0.45]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    metrics = classification_metrics(2, "val/")
    metrics.update(probabilities, labels)
    # Right: 0, 1, 3. Class 0: 2 of 3 found, 2 of 3 called; class 1: 1 of 2 found, 1 of 2 called.
    # AUROC: of the six pairs, 0.8 beats all three, 0.45 beats two.
    confidence_gaps = [0.9 - 1, 0.6 - 1, 0.7 - 0, 0.8 - 1, 0.55 - 0]
    assert {name: pytest.approx(float(value)) for name, value in metrics.compute().items()} == {
        "val/accuracy": 3 / 5,
        "val/balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "val/macro_f1": (2 / 3 + 1 / 2) / 2,
        "val/auroc": 5 / 6,
        "val/mcc": (2 * 1 - 1 * 1) / (3 * 2 * 3 * 2) ** 0.5,
        "val/calibration_error": sum(abs(gap) for gap in confidence_gaps) / 5,
    }


def test_each_class_is_scored_from_the_confusion_matrix():
    first, second = per_class(CONFUSION, ["a", "b"])
    assert (first.name, first.examples) == ("a", 40)
    assert (first.precision, first.recall) == (30 / 35, 30 / 40)
    assert second.f1 == pytest.approx(2 * 55 / (60 + 65))


def test_a_class_that_is_never_called_scores_zero():
    assert per_class(np.array([[3, 0], [2, 0]]), ["a", "b"])[1].f1 == 0.0


def test_standard_errors_are_those_of_resampled_examples():
    cells = np.repeat(np.arange(4), CONFUSION.ravel())
    labels, predicted = cells // 2, cells % 2
    errors = standard_errors(predicted, labels, 2)
    assert errors["accuracy"] == pytest.approx((0.85 * 0.15 / 100) ** 0.5, rel=0.05)

    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        confusion = np.bincount(rng.choice(cells, 100), minlength=4).reshape(2, 2)
        drawn.append(np.mean([score.f1 for score in per_class(confusion, ["a", "b"])]))
    assert errors["macro_f1"] == pytest.approx(np.std(drawn), rel=0.1)


def test_images_of_one_group_are_drawn_together():
    labels = np.repeat([0, 1], 50)
    predicted = np.where(np.arange(100) % 10 < 2, 1 - labels, labels)
    alone = standard_errors(predicted, labels, 2)["accuracy"]
    assert alone == pytest.approx(0.04, rel=0.1)
    # All that are wrong are in two groups of ten: only whole groups vary, so the noise is larger.
    groups = np.where(predicted != labels, 0, 1 + np.arange(100) % 10).astype(str)
    assert standard_errors(predicted, labels, 2, groups)["accuracy"] > 2 * alone
