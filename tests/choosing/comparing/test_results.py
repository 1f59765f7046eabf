"""Scores of single images, and what a run that failed is called."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tl_lightning.choosing.comparing.results import choose_measure, score_images, why_failed
from tl_lightning.core.predictions_file import PredictionsFile
from tl_lightning.errors import UserError


def answers(predictions, labels):
    return PredictionsFile(torch.tensor(predictions), torch.tensor(labels), torch.arange(len(labels)))


def test_classes_and_levels_are_right_or_wrong():
    probabilities = [[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]
    scores, predicted = score_images(answers(probabilities, [0, 2, 1]), "multiclass")
    assert (scores.tolist(), predicted.tolist()) == ([1, 1, 0], [0, 2, 0])
    scores, predicted = score_images(answers(probabilities, [0, 2, 1]), "ordinal")  # the median, not the likeliest
    assert (scores.tolist(), predicted.tolist()) == ([0, 1, 0], [1, 2, 0])


def test_labels_score_their_share_that_is_right_and_numbers_minus_their_error():
    scores, predicted = score_images(
        answers([[0.9, 0.2, 0.6], [0.4, 0.1, 0.3]], [[1.0, 1, 1], [0, 0, 0]]), "multilabel"
    )
    np.testing.assert_allclose(scores, [2 / 3, 1])
    assert predicted is None
    scores, predicted = score_images(answers([[3.0], [-1.0]], [[2.5], [1.0]]), "regression")
    assert (scores.tolist(), predicted) == ([-0.5, -2.0], None)


def test_a_failure_is_one_short_line():
    assert why_failed(UserError("model.lr is -1")) == "model.lr is -1"
    assert why_failed(ValueError("first\nsecond")) == "ValueError: first"
    assert why_failed(RuntimeError()) == "RuntimeError: "
    assert len(why_failed(RuntimeError("x" * 1000))) == 160


def plan(problem_type, monitor="macro_f1", mode="max", metrics=("accuracy", "macro_f1", "mean_absolute_error")):
    base = SimpleNamespace(model=SimpleNamespace(metrics=dict.fromkeys(metrics, "max")))
    return SimpleNamespace(tested=SimpleNamespace(problem_type=problem_type), monitor=monitor, mode=mode, base=base)


def test_what_is_compared_fits_the_answers():
    measures = {
        kind: choose_measure(plan(kind), None) for kind in ("multiclass", "ordinal", "multilabel", "regression")
    }
    assert {kind: measure.name for kind, measure in measures.items()} == {
        "multiclass": "accuracy",
        "ordinal": "accuracy",
        "multilabel": "right_labels",
        "regression": "mean_absolute_error",
    }
    assert [(measure.validation, measure.mode) for measure in measures.values()] == [
        ("accuracy", "max"),
        ("accuracy", "max"),
        ("macro_f1", "max"),
        ("mean_absolute_error", "min"),
    ]
    assert measures["regression"].is_error
    chosen = choose_measure(plan("multiclass"), "macro_f1")
    assert (chosen.name, chosen.validation, chosen.baseline) == ("macro_f1", "macro_f1", None)
    with pytest.raises(UserError, match="--metric macro_f1 is for classes, and the problem here is regression"):
        choose_measure(plan("regression"), "macro_f1")


def test_a_metric_that_the_task_does_not_log_is_refused():
    message = "by validation accuracy, and SimpleNamespace logs no such metric .it has auroc, loss."
    with pytest.raises(UserError, match=message):
        choose_measure(plan("multiclass", metrics=("auroc", "loss")), None)
