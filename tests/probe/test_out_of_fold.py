"""Every row is answered by a head that has not seen it, at a strength that it had no say in."""

import sys

import pytest
import torch
from torch.nn import functional

from tl_lightning.probe import (
    STRENGTHS,
    choose,
    cross_validate,
    left_out,
    logistic_path,
    out_of_fold,
    ridge_out_of_fold,
    ridge_path,
)
from tl_lightning.probe.scores import stratified_folds

FEW = (1.0, 1e-4, 1e-2)
ROWS, FOLDS = 90, 3


def by_hand(features, labels, fold):
    """Losses and answers of every strength, by heads of the other folds."""
    losses, answers = torch.empty(3, ROWS).double(), torch.empty(3, ROWS).long()
    for number in range(FOLDS):
        inside = fold == number
        path = logistic_path(features[~inside], labels[~inside], classes=3, strengths=FEW)
        for position in range(3):
            logits = features[inside] @ path.weights[position].T + path.biases[position]
            losses[position, inside] = functional.cross_entropy(logits, labels[inside], reduction="none")
            answers[position, inside] = logits.argmax(dim=1)
    return losses, answers


def test_a_row_is_answered_by_the_heads_of_the_other_folds_at_the_strength_that_was_best_on_the_others(draw):
    features, labels = draw(ROWS, 6, 3)
    fold = stratified_folds(labels, folds=FOLDS, seed=1)
    losses, answers = by_hand(features, labels, fold)
    found = out_of_fold(features, labels, classes=3, folds=FOLDS, seed=1, strengths=FEW)
    for number in range(FOLDS):
        chosen = int(losses[:, fold != number].sum(dim=1).argmin())
        assert found.strengths[number] == sorted(FEW)[chosen]
        own = fold == number
        torch.testing.assert_close(found.losses[own], losses[chosen, own], rtol=1e-10, atol=1e-12)
        assert torch.equal(found.predicted[own], answers[chosen, own])


def test_cross_validation_scores_each_row_by_heads_that_have_not_seen_it(draw):
    features, labels = draw(ROWS, 6, 3)
    fold = stratified_folds(labels, folds=3, seed=1)
    losses, answers = by_hand(features, labels, fold)
    scores = cross_validate(features, labels, classes=3, folds=3, seed=1, strengths=FEW)
    torch.testing.assert_close(scores.losses, losses.mean(dim=1), rtol=1e-10, atol=1e-12)
    assert torch.equal(scores.accuracies, (answers == labels).double().mean(dim=1))


def test_labels_without_any_meaning_get_no_better_than_chance(draw):
    features, _ = draw(60, 40, 2)
    labels = torch.arange(60) % 2
    scores = cross_validate(features, labels, classes=2, strengths=(1.0,))
    assert scores.accuracies[0] < 0.75 and scores.losses[0] > 0.6


@pytest.mark.parametrize("folds", [1, 91])
def test_a_number_of_folds_without_sense_is_refused(draw, folds):
    features, labels = draw(90, 6, 3)
    with pytest.raises(ValueError, match=f"{folds} folds of 90 rows"):
        cross_validate(features, labels, classes=3, folds=folds)


def test_with_one_strength_the_mean_is_that_of_cross_validation(draw):
    features, labels = draw(ROWS, 6, 3)
    found = out_of_fold(features, labels, classes=3, folds=FOLDS, strengths=(0.1,))
    scores = cross_validate(features, labels, classes=3, folds=FOLDS, strengths=(0.1,))
    assert float(found.losses.mean()) == pytest.approx(float(scores.losses[0]), rel=1e-10)
    assert float((found.predicted == labels).double().mean()) == pytest.approx(float(scores.accuracies[0]), rel=1e-12)


def test_folds_can_be_given_and_rows_that_belong_together_are_then_not_torn_apart(draw):
    features, _ = draw(ROWS, 6, 3)
    twins, both = torch.cat([features, features]), torch.arange(2 * ROWS) % 3
    meaningless = torch.randint(3, (ROWS,), generator=torch.Generator().manual_seed(0)).repeat(2)
    wide = torch.cat([twins, torch.eye(ROWS).double().repeat(2, 1) * 100], dim=1)
    torn = out_of_fold(wide, meaningless, classes=3, folds=3, strengths=(10.0,))
    whole = out_of_fold(
        wide, meaningless, classes=3, folds=3, strengths=(10.0,), fold_of=torch.arange(ROWS).repeat(2) % 3
    )
    assert (
        (torn.predicted == meaningless).double().mean() > 0.6 > 0.5 > (whole.predicted == meaningless).double().mean()
    )
    for wrong in (both[:3], both + 1, torch.zeros_like(both)):
        with pytest.raises(ValueError, match="the fold of each row"):
            out_of_fold(wide, meaningless, classes=3, folds=3, fold_of=wrong)


def test_too_few_rows_are_refused(draw):
    features, labels = draw(4, 6, 2)
    with pytest.raises(ValueError, match="5 folds of 4 rows"):
        out_of_fold(features, labels, classes=2)


def test_ridge_leaves_each_row_out_for_itself(draw):
    features, _ = draw(30, 4, 2)
    targets = features[:, :2].double() / 50 + torch.randn(30, 2, generator=torch.Generator().manual_seed(1)).double()
    outputs, penalty = left_out(features, targets, strengths=(0.1,))
    assert penalty == 0.1
    standard = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    for row in (0, 13, 29):
        others = torch.arange(30) != row
        rows, answers = standard[others], targets[others]
        centre, middle = rows.mean(dim=0), answers.mean(dim=0)
        gram = (rows - centre).T @ (rows - centre) + 0.1 * 30 * torch.eye(4).double()
        weight = torch.linalg.solve(gram, (rows - centre).T @ (answers - middle))
        torch.testing.assert_close(outputs[row], (standard[row] - centre) @ weight + middle, rtol=1e-9, atol=1e-9)


def test_ridge_answers_each_fold_by_the_regression_on_the_others(draw):
    features, _ = draw(60, 4, 2)
    targets = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)) + features[:, :1]
    fold_of = torch.arange(60) // 7
    outputs = ridge_out_of_fold(features, targets, fold_of=fold_of)
    for number in range(9):
        inside = fold_of == number
        path = ridge_path(features[~inside], targets[~inside].double())
        expected = features[inside].double() @ path.weights[path.chosen].T + path.biases[path.chosen]
        torch.testing.assert_close(outputs[inside], expected, rtol=1e-9, atol=1e-9)


def test_a_fold_stops_where_its_loss_has_risen(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 20, generator=generator).double(), torch.arange(30) % 2
    features[:, 0] += 0.7 * labels
    module, solved = sys.modules["tl_lightning.probe.out_of_fold"], []

    def watched(*args, **options):
        path = logistic_path(*args, **options)
        solved.append(len(path.strengths))
        return path

    strengths = tuple(10 ** (step / 2) for step in range(-4, 7))
    monkeypatch.setattr(module, "logistic_path", watched)
    found = out_of_fold(features, labels, classes=2, folds=3, strengths=strengths)
    monkeypatch.setattr(module, "PAST", float("inf"))
    whole = out_of_fold(features, labels, classes=2, folds=3, strengths=strengths)
    assert max(solved[:3]) < min(solved[3:]) == 11
    assert found.losses.isfinite().all() and found.strengths == whole.strengths
    assert torch.equal(found.predicted, whole.predicted) and torch.equal(found.losses, whole.losses)


def test_a_strength_at_which_the_path_of_a_fold_had_ended_has_no_score(draw):
    features, _ = draw(ROWS, 60, 3)
    labels = torch.arange(ROWS) % 3  # without any meaning: the less regularised, the worse
    scores = cross_validate(features, labels, classes=3, folds=FOLDS)
    ended = ~scores.losses.isfinite()
    assert 0 < int(ended.sum()) < len(STRENGTHS)
    assert torch.equal(scores.accuracies.isnan(), ended)
    assert not ended[choose(scores)]
