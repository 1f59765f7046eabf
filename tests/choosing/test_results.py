"""Scores of single pictures, and what a run that failed is called."""

import numpy as np
import torch

from tl_lightning.answers_file import AnswersFile
from tl_lightning.choosing.results import score_pictures, why_failed
from tl_lightning.errors import UserError


def answers(predictions, labels):
    return AnswersFile(torch.tensor(predictions), torch.tensor(labels), torch.arange(len(labels)))


def test_classes_and_levels_are_right_or_wrong():
    probabilities = [[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]
    scores, predicted = score_pictures(answers(probabilities, [0, 2, 1]), "class")
    assert (scores.tolist(), predicted.tolist()) == ([1, 1, 0], [0, 2, 0])
    scores, predicted = score_pictures(answers(probabilities, [0, 2, 1]), "level")  # the median, not the likeliest
    assert (scores.tolist(), predicted.tolist()) == ([0, 1, 0], [1, 2, 0])


def test_labels_score_their_share_that_is_right_and_numbers_minus_their_error():
    scores, predicted = score_pictures(answers([[0.9, 0.2, 0.6], [0.4, 0.1, 0.3]], [[1.0, 1, 1], [0, 0, 0]]), "labels")
    np.testing.assert_allclose(scores, [2 / 3, 1])
    assert predicted is None
    scores, predicted = score_pictures(answers([[3.0], [-1.0]], [[2.5], [1.0]]), "number")
    assert (scores.tolist(), predicted) == ([-0.5, -2.0], None)


def test_a_failure_is_one_short_line():
    assert why_failed(UserError("model.lr is -1")) == "model.lr is -1"
    assert why_failed(ValueError("first\nsecond")) == "ValueError: first"
    assert why_failed(RuntimeError()) == "RuntimeError: "
    assert len(why_failed(RuntimeError("x" * 1000))) == 160
