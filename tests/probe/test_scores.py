"""Paths are scored on other rows, and the best strength is chosen."""

import pytest
import torch
from torch.nn import functional

from tl_lightning.probe import (
    STRENGTHS,
    PathScores,
    choose,
    logistic_path,
    path_until_it_rises,
    score_path,
)
from tl_lightning.probe import features as features_module
from tl_lightning.probe import scores as module

FEW = (1e-4, 1e-2, 1.0)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_each_head(draw, monkeypatch, classes):
    features, labels = draw(120, 6, classes)
    weights = torch.linspace(0.5, 2, classes).double()
    path = logistic_path(features[:80], labels[:80], classes=classes, strengths=FEW, class_weights=weights)
    monkeypatch.setattr(features_module, "CHUNK_BYTES", 7 * 6 * 8)
    monkeypatch.setattr(module, "LOGITS", 2 * classes * 7)
    scores = score_path(path, features[80:], labels[80:], class_weights=weights)
    for position in range(3):
        logits = features[80:] @ path.weights[position].T + path.biases[position]
        losses = functional.cross_entropy(logits, labels[80:], reduction="none") * weights[labels[80:]]
        assert float(scores.losses[position]) == pytest.approx(float(losses.mean()), rel=1e-12)
        assert float(scores.accuracies[position]) == float((logits.argmax(dim=1) == labels[80:]).double().mean())


def test_the_training_rows_score_the_training_loss(draw):
    features, labels = draw(80, 6, 3)
    weights = torch.tensor([0.5, 1.0, 2.0])
    path = logistic_path(features, labels, classes=3, strengths=FEW, class_weights=weights)
    scores = score_path(path, features, labels, class_weights=weights)
    assert torch.allclose(scores.losses, path.losses, rtol=1e-12, atol=0)


def test_the_lowest_loss_is_chosen_and_of_equal_ones_the_most_regularised():
    losses = torch.tensor([0.5, 0.3, 0.3, 0.4])
    assert choose(PathScores(losses, torch.zeros(4))) == 1


def test_folds_hold_every_class_in_proportion_and_depend_on_the_seed():
    labels = torch.tensor([0] * 23 + [1] * 9 + [2] * 3)
    fold = module.stratified_folds(labels, folds=5, seed=0)
    for name in range(3):
        sizes = torch.bincount(fold[labels == name], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    sizes = torch.bincount(fold)
    assert sizes.tolist() == [7] * 5
    assert not torch.equal(fold, module.stratified_folds(labels, folds=5, seed=1))
    assert torch.equal(fold, module.stratified_folds(labels, folds=5, seed=0))


def overlapping(count, *, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    features = torch.randn(count, 20, generator=generator).double()
    features[:, 0] += 0.7 * labels
    return features, labels


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.5, 2.0])])
def test_a_path_ends_where_the_held_out_loss_has_risen_for_good(class_weights):
    (features, labels), (held_out, answers) = overlapping(24, seed=0), overlapping(200, seed=1)
    options = {"classes": 2, "class_weights": class_weights}
    path, scores = path_until_it_rises(features, labels, held_out, answers, **options)
    whole = logistic_path(features, labels, **options)
    all_scores = score_path(whole, held_out, answers, class_weights=class_weights)
    count = len(path.strengths)
    assert count < len(STRENGTHS) and path.strengths == STRENGTHS[:count] and path.converged.all()
    assert torch.equal(path.weights, whole.weights[:count]) and torch.equal(path.biases, whole.biases[:count])
    torch.testing.assert_close(scores.losses, all_scores.losses[:count], rtol=1e-12, atol=0)
    torch.testing.assert_close(scores.accuracies, all_scores.accuracies[:count], rtol=1e-12, atol=0)
    assert choose(scores) == choose(all_scores)
    assert scores.losses[-5:].min() > 3 * scores.losses.min() >= scores.losses[-10:-5].min()


def test_a_path_that_keeps_falling_is_followed_to_its_end():
    features, labels = overlapping(24, seed=0)
    features[:, 0] += 100 * labels
    path, scores = path_until_it_rises(features, labels, features, labels, classes=2)
    assert path.strengths == STRENGTHS and choose(scores) == len(STRENGTHS) - 1
