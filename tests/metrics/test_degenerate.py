"""Splits that lack a class, have one image, or do not vary: a metric has the value of what is there, or none."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, matthews_corrcoef, roc_auc_score

from tl_lightning.metrics.classification import of_confusion, per_class
from tl_lightning.metrics.labels import label_errors, per_label
from tl_lightning.metrics.numbers import number_errors, per_number
from tl_lightning.metrics.predicted import Predicted
from tl_lightning.tasks.objectives import Multiclass, Multilabel, Ordinal, Regression

RNG = np.random.default_rng(0)


def probabilities(rows, classes):
    return torch.from_numpy(RNG.dirichlet(np.ones(classes), rows)).float()


def test_a_class_that_is_absent_is_left_out_of_means():
    given, right = probabilities(40, 3), torch.from_numpy(RNG.integers(0, 2, 40))
    found = Multiclass(["a", "b", "c"]).evaluate(given, right)
    called, labels = given.argmax(dim=1).numpy(), right.numpy()
    assert (called == 2).any()
    assert found["auroc"] == pytest.approx(np.mean([roc_auc_score(labels == k, given[:, k]) for k in (0, 1)]))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, called))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, called))
    confusion = np.bincount(labels * 3 + called, minlength=9).reshape(3, 3)
    for name in ("balanced_accuracy", "macro_f1"):
        assert float(of_confusion(name, confusion)) == pytest.approx(found[name])
    assert math.isnan(per_class(confusion, "abc")[2].recall)


def test_one_class_alone_has_no_auroc_and_no_correlation():
    found = Multiclass(["a", "b"]).evaluate(probabilities(5, 2), torch.zeros(5, dtype=torch.int64))
    assert math.isnan(found["auroc"]) and math.isnan(found["mcc"])
    assert not math.isnan(found["balanced_accuracy"])
    always = torch.tensor([[0.9, 0.1]]).expand(5, 2)
    assert Multiclass(["a", "b"]).evaluate(always, torch.tensor([0, 0, 0, 1, 1]))["mcc"] == 0
    kappa = Ordinal(["a", "b", "c"]).evaluate(probabilities(5, 3), torch.ones(5, dtype=torch.int64))["quadratic_kappa"]
    assert math.isnan(kappa)


def test_a_label_that_no_image_has_is_left_out_of_means():
    given, right = torch.rand(30, 3), torch.from_numpy(RNG.integers(0, 2, (30, 3)))
    given[:, 2], right[:, 2] = 0.1, 0
    found, scores = Multilabel(["a", "b", "c"]).evaluate(given, right), per_label(given.numpy(), right.numpy(), "abc")
    assert found["auroc"] == pytest.approx(roc_auc_score(right[:, :2], given[:, :2]))
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(right[:, :2], given[:, :2]))
    assert found["macro_f1"] == pytest.approx(np.mean([row["f1"] for row in scores[:2]]))
    assert math.isnan(scores[2]["f1"])
    assert 0 < label_errors(given.double().numpy(), right.numpy())["macro_f1"] < 0.2


def test_a_single_label_is_scored():
    given, right = torch.tensor([[0.9], [0.8], [0.2], [0.1]]), torch.tensor([[1], [0], [1], [0]])
    found = Multilabel(["a"]).evaluate(given, right)
    assert found["macro_f1"] == found["micro_f1"] == found["exact_match"] == 0.5
    assert found["auroc"] == pytest.approx(roc_auc_score(right, given))


def test_a_number_that_does_not_vary_has_no_r2():
    right = torch.stack([torch.full((9,), 0.1), torch.arange(9.0)], dim=1)
    objective = Regression(["constant", "rising"])
    objective.set_training_targets(right)
    assert objective.scale[0] == 1
    given = right + 0.5
    found = objective.evaluate(given, right)
    assert found["r2"] == pytest.approx(1 - 0.25 / right[:, 1].var(correction=0).item())
    constant, rising = per_number(given.numpy(), right.numpy(), ["constant", "rising"])
    assert math.isnan(constant["r2"]) and rising["r2"] == pytest.approx(found["r2"])
    assert number_errors(given[:3].numpy(), right[:3].numpy())["r2"] < 1e3  # draws of one row again and again


@pytest.mark.parametrize(
    ("kind", "outputs"), [(Multiclass, 2), (Ordinal, 2), (Multilabel, 2), (Regression, 1), (Regression, 2)]
)
def test_one_image_is_scored(kind, outputs):
    names = ["a", "b"][:outputs]
    objective, alone = kind(names), torch.zeros(1, dtype=torch.int64)
    targets = alone if kind in (Multiclass, Ordinal) else torch.ones(1, outputs)
    predictions = objective.predictions(torch.zeros(1, objective.outputs))
    kept = Predicted()
    kept.update(predictions, targets, alone)
    gathered = kept.compute()
    assert gathered.predictions.shape == predictions.shape
    assert gathered.labels.shape == targets.shape
    assert gathered.indices.shape == (1,)
    assert set(objective.evaluate(predictions, targets)) == set(kind.metrics) - {"loss"}
    assert objective.report(gathered.predictions, gathered.labels, None)["standard_errors"]
