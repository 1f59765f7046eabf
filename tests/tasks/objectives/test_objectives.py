"""What each objective says of its targets, against naive formulas."""

import math

import numpy as np
import pytest
import torch

from tl_lightning.errors import UserError
from tl_lightning.tasks.objectives import OBJECTIVES, Multiclass, Multilabel, Ordinal, Regression

PROBABILITIES = torch.tensor([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])


def test_every_problem_type_has_its_objective():
    assert list(OBJECTIVES) == ["multiclass", "ordinal", "multilabel", "regression"]
    for problem_type, objective in OBJECTIVES.items():
        assert objective.problem_type == problem_type
        assert objective.monitor in objective.metrics
        assert objective.headline in objective.metrics
        made = objective(["a", "b", "c"])
        names = {*made.make_metrics(), "loss"}
        assert names == set(objective.metrics)


def test_classes_and_levels_are_right_or_wrong():
    targets = torch.tensor([0, 2, 1])
    classes = Multiclass(["a", "b", "c"])
    assert classes.score_each(PROBABILITIES, targets).tolist() == [1, 1, 0]
    assert classes.decided(PROBABILITIES).tolist() == [0, 2, 0]
    levels = Ordinal(["low", "middle", "high"])  # the median, not the likeliest
    assert levels.score_each(PROBABILITIES, targets).tolist() == [0, 1, 0]
    assert levels.decided(PROBABILITIES).tolist() == [1, 2, 0]


def test_labels_score_their_share_that_is_right_and_numbers_minus_their_error():
    labels = Multilabel(["a", "b", "c"])
    predictions, targets = torch.tensor([[0.9, 0.2, 0.6], [0.4, 0.1, 0.3]]), torch.tensor([[1.0, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(labels.score_each(predictions, targets), [2 / 3, 1])
    assert labels.decided(predictions) is None
    numbers = Regression(["x"])
    scores = numbers.score_each(torch.tensor([[3.0], [-1.0]]), torch.tensor([[2.5], [1.0]]))
    assert (scores.tolist(), numbers.decided(torch.zeros(1, 1))) == ([-0.5, -2.0], None)


def test_rows_are_the_columns_of_a_file_of_predictions():
    (row,) = Multiclass(["cat", "dog"]).rows(torch.tensor([[0.25, 0.75]]))
    assert list(row.items()) == [("class", "dog"), ("probability_cat", 0.25), ("probability_dog", 0.75)]
    (row,) = Ordinal(["low", "middle", "high"]).rows(PROBABILITIES[:1])
    assert row["class"] == "middle"
    rows = Multilabel(["wet", "cold"]).rows(torch.tensor([[0.75, 0.625], [0.25, 0.125]]))
    assert [row["class"] for row in rows] == ["wet|cold", ""]
    assert list(Regression(["w", "h"]).rows(torch.tensor([[1.5, -2.0]]))[0].items()) == [("w", 1.5), ("h", -2.0)]


def test_a_prediction_has_changed_where_a_user_would_notice():
    one, other = torch.tensor([[0.6, 0.4], [0.6, 0.4]]), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    targets = torch.tensor([0, 0])
    assert Multiclass(["a", "b"]).changed(one, other, targets).tolist() == [False, True]
    assert Ordinal(["a", "b"]).changed(one, other, targets).tolist() == [False, True]
    assert Multilabel(["a", "b"]).changed(one, other, targets).tolist() == [False, True]
    numbers = torch.tensor([[0.0], [10.0]])  # of deviation 5, of which a tenth is 0.5
    moved = Regression(["x"]).changed(numbers, torch.tensor([[0.4], [10.6]]), numbers)
    assert moved.tolist() == [False, True]


@pytest.mark.parametrize("problem_type", OBJECTIVES)
def test_no_constant_loses_less_than_the_constant_outputs(problem_type):
    rng = torch.Generator().manual_seed(0)
    objective = OBJECTIVES[problem_type](["a", "b", "c"])
    drawn = torch.randint(0, 3, (300,), generator=rng)
    drawn = drawn.clamp(max=1 + (torch.arange(300) % 4 == 0))
    targets = {
        "multilabel": (torch.rand(300, 3, generator=rng) < torch.tensor([0.1, 0.5, 0.8])).float(),
        "regression": torch.randn(300, 3, generator=rng) * 5 + 3,
    }.get(problem_type, drawn)
    objective.set_training_targets(targets)

    def loss(outputs):
        return float(objective.losses(outputs.float().expand(len(targets), -1), targets).mean())

    best = objective.constant_outputs(targets)
    for position in range(len(best)):
        for step in (-0.2, 0.2):
            moved = best.clone()
            moved[position] += step
            assert loss(best) < loss(moved)
    if problem_type == "regression":
        assert loss(best) == pytest.approx(1.0, rel=1e-5)
    if problem_type == "multiclass":
        shares = targets.bincount().double() / len(targets)
        assert loss(best) == pytest.approx(-float((shares * shares.log()).sum()), rel=1e-5)


@pytest.mark.parametrize("problem_type", OBJECTIVES)
def test_one_metric_of_many_draws_is_that_of_all_metrics(problem_type):
    rng = torch.Generator().manual_seed(1)
    objective = OBJECTIVES[problem_type](["a", "b", "c"])
    predictions = torch.rand(40, 3, generator=rng).softmax(dim=1)
    targets = torch.rand(40, 3, generator=rng).round()
    if objective.picks_one:
        targets = torch.randint(0, 3, (40,), generator=rng)
    scorer = objective.scorer(objective.headline)
    for rows in (slice(0, 40), slice(5, 30)):
        whole = objective.evaluate(predictions[rows], targets[rows])
        assert scorer(predictions[rows], targets[rows]) == pytest.approx(whole[objective.headline])
        assert set(whole) == set(objective.metrics) - {"loss"}


def test_targets_that_are_lacking_are_known():
    assert Multiclass(["a", "b"]).known(torch.tensor([0, -1, 1])).tolist() == [True, False, True]
    assert Regression(["x"]).known(torch.tensor([[1.0], [math.nan]])).tolist() == [True, False]


def test_what_there_is_to_learn_is_said_in_words():
    assert Multiclass.described(["a", "b"]) == "2 classes"
    assert Ordinal.described(["a", "b", "c"]) == "3 levels"
    assert Regression.described(["x"]) == "the number x"
    assert Regression.described(["x", "y"]) == "2 numbers (x, y)"
    assert Multiclass.target_in_words(1, ["a", "b"]) == "b"
    assert Multilabel.target_in_words([1.0, 0.0, 1.0], ["a", "b", "c"]) == "a | c"
    assert Multilabel.target_in_words([0.0], ["a"]) == "no label"
    assert Regression.target_in_words([1.23456, 7.0], ["w", "h"]) == "w 1.235, h 7"


def test_probe_scores_of_labels_and_numbers_are_what_they_say():
    rng = np.random.default_rng(0)
    right, outputs = (torch.from_numpy(rng.normal(size=(50, 3))) for _ in range(2))
    errors = ((outputs - right) ** 2).sum(dim=0) / ((right - right.mean(dim=0)) ** 2).sum(dim=0)
    assert float(Regression.probe_scores(outputs, right).mean()) == pytest.approx(float((1 - errors).mean()))
    assert Regression.probe_baseline(right) is None
    labels = (right > 0).double()
    share = ((outputs > 0.5) == labels.bool()).double().mean()
    assert float(Multilabel.probe_scores(outputs, labels).mean()) == pytest.approx(float(share))
    frequent = torch.maximum(labels.mean(dim=0), 1 - labels.mean(dim=0)).mean()
    assert Multilabel.probe_baseline(labels) == pytest.approx(float(frequent))
    assert Multiclass.probe_baseline(torch.tensor([0, 0, 1])) == pytest.approx(2 / 3)


def test_a_label_that_all_samples_have_counts_for_nothing_and_nothing_else_is_a_mistake():
    right = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]).double()
    outputs = torch.ones(4, 2).double()
    assert Multilabel.probe_scores(outputs, right).tolist() == [0, 1, 1, 1]
    assert Multilabel.probe_baseline(right) == 0.75
    with pytest.raises(UserError, match="all 4 images have the same targets"):
        Multilabel.probe_scores(outputs, right[:, :1].expand(-1, 2))
