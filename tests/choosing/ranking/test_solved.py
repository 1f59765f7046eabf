"""Scores of a solved head, image by image, for every kind of answer."""

import numpy as np
import pytest
import torch

from tl_lightning.choosing.ranking.solved import constant_accuracy, scores
from tl_lightning.errors import UserError


def test_scores_of_labels_and_numbers_are_what_they_say():
    rng = np.random.default_rng(0)
    right, outputs = (torch.from_numpy(rng.normal(size=(50, 3))) for _ in range(2))
    errors = ((outputs - right) ** 2).sum(dim=0) / ((right - right.mean(dim=0)) ** 2).sum(dim=0)
    assert float(scores(outputs, right, problem_type="regression").mean()) == pytest.approx(float((1 - errors).mean()))
    assert constant_accuracy(right, problem_type="regression") is None
    labels = (right > 0).double()
    share = ((outputs > 0.5) == labels.bool()).double().mean()
    assert float(scores(outputs, labels, problem_type="multilabel").mean()) == pytest.approx(float(share))
    frequent = torch.maximum(labels.mean(dim=0), 1 - labels.mean(dim=0)).mean()
    assert constant_accuracy(labels, problem_type="multilabel") == pytest.approx(float(frequent))
    assert constant_accuracy(torch.tensor([0, 0, 1]), problem_type="multiclass") == pytest.approx(2 / 3)


def test_a_label_that_all_images_have_counts_for_nothing_and_nothing_else_is_a_mistake():
    right = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).double()
    outputs = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).double()
    assert scores(outputs, right, problem_type="multilabel").tolist() == [0, 1, 1, 1]
    assert constant_accuracy(right, problem_type="multilabel") == 0.75
    with pytest.raises(UserError, match="all 4 images have the same answers"):
        scores(outputs, right[:, :1].expand(-1, 2), problem_type="multilabel")
