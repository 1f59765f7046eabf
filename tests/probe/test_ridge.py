"""Ridge regression is exact, and so is leaving one row out."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional

from tl_lightning.probe import RIDGE_STRENGTHS, leave_one_out, ridge_classifier, ridge_path
from tl_lightning.probe import features as features_module
from tl_lightning.probe import ridge as module

FEW = (1e-5, 1e-2, 1.0, 100.0)
SHAPES = pytest.mark.parametrize(("rows", "width"), [(50, 6), (12, 30), (20, 1)], ids=["tall", "wide", "one column"])


def by_scikit_learn(features, targets, weights, *, penalty, deviation):
    model = Ridge(alpha=penalty, solver="cholesky", tol=1e-12)
    model.fit((features / deviation).numpy(), targets.numpy(), sample_weight=weights.numpy())
    return torch.from_numpy(model.coef_).view(targets.shape[1], -1) / deviation, torch.as_tensor(model.intercept_)


@pytest.fixture
def problem(draw):
    def _problem(rows, width):
        features, labels = draw(rows, width, 3)
        targets = functional.one_hot(labels, 3).double()[:, :2]
        return features, targets, torch.linspace(0.5, 2, rows).double()

    return _problem


@SHAPES
def test_every_penalty_has_the_solution_of_scikit_learn(problem, rows, width):
    features, targets, weights = problem(rows, width)
    path = ridge_path(features, targets, strengths=FEW, row_weights=weights)
    deviation = features.std(dim=0, correction=0)
    for position, strength in enumerate(FEW):
        theirs, biases = by_scikit_learn(features, targets, weights, penalty=strength * rows, deviation=deviation)
        assert torch.allclose(path.weights[position] * deviation, theirs * deviation, rtol=1e-6, atol=1e-9)
        assert torch.allclose(features @ path.weights[position].T + path.biases[position], features @ theirs.T + biases)


@SHAPES
@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_is_that_of_really_leaving_rows_out(problem, rows, width, weighted):
    features, targets, weights = problem(rows, width)
    weights = weights if weighted else torch.ones_like(weights)
    deviation = features.std(dim=0, correction=0)
    path = ridge_path(features, targets, strengths=FEW, row_weights=weights if weighted else None)
    for position, strength in enumerate(FEW):
        error = 0.0
        for row in range(rows):
            others = torch.arange(rows) != row
            head, bias = by_scikit_learn(
                features[others], targets[others], weights[others], penalty=strength * rows, deviation=deviation
            )
            error += float(weights[row] * (targets[row] - head @ features[row] - bias).square().sum())
        assert path.errors[position] == pytest.approx(error / float(weights.sum() * 2), rel=1e-6)
    assert path.chosen == min(range(4), key=lambda position: path.errors[position])


def test_chunks_change_nothing(problem, monkeypatch):
    features, targets, weights = problem(50, 6)
    whole = ridge_path(features, targets, row_weights=weights)
    monkeypatch.setattr(features_module, "CHUNK_BYTES", 7 * 6 * 8)
    streamed = ridge_path(features, targets, row_weights=weights)
    assert torch.allclose(streamed.weights, whole.weights, rtol=1e-9, atol=1e-12)
    assert streamed.errors == pytest.approx(whole.errors, rel=1e-10)


def test_single_precision_of_many_rows_costs_little(problem, monkeypatch):
    features, targets, _ = problem(200, 6)
    double = ridge_path(features, targets)
    monkeypatch.setattr(leave_one_out, "SINGLE_FROM", 100)
    single = ridge_path(features, targets)
    assert single.errors != double.errors and single.errors == pytest.approx(double.errors, rel=1e-5)


def test_a_constant_column_has_no_weight(problem):
    features, targets, _ = problem(50, 6)
    features[:, 2] = 0.1
    path = ridge_path(features, targets)
    assert (path.weights[:, :, 2] == 0).all() and path.weights.isfinite().all()


def test_targets_that_are_noise_get_the_strongest_penalty_and_their_mean():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 30, generator=generator)
    targets = torch.randn(40, 1, generator=generator).double() + 5
    path = ridge_path(features, targets, strengths=(1e-3, 1e9))
    assert path.chosen == 1 and float(path.biases[1]) == pytest.approx(float(targets.mean()), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_classifier_is_the_chosen_regression_at_the_best_temperature(draw, classes):
    features, labels = draw(150, 6, classes)
    class_weights = torch.linspace(0.5, 2, classes).double()
    head = ridge_classifier(features, labels, classes=classes, class_weights=class_weights)
    targets = 2 * functional.one_hot(labels, classes).double() - 1
    path = ridge_path(features, targets, row_weights=class_weights[labels])
    assert head.strengths == RIDGE_STRENGTHS and head.chosen == path.chosen and head.errors == path.errors
    assert torch.allclose(head.weight * head.temperature, path.weights[path.chosen], rtol=1e-9, atol=1e-12)
    assert torch.allclose(head.bias * head.temperature, path.biases[path.chosen], rtol=1e-9, atol=1e-12)

    left_out = torch.empty(150, classes).double()
    weights = class_weights[labels]
    for row in range(150):
        others = torch.arange(150) != row
        weight, bias = by_scikit_learn(
            features[others],
            targets[others],
            weights[others],
            penalty=head.strengths[head.chosen] * 150,
            deviation=features.std(dim=0, correction=0),
        )
        left_out[row] = weight @ features[row] + bias

    doubt = 1 / (torch.bincount(labels) + 2.0)
    expected = functional.one_hot(labels, classes).double() * (1 - doubt[labels])[:, None]
    expected = torch.where(expected > 0, expected, (doubt[labels] / (classes - 1))[:, None])

    def loss(temperature):
        return float((functional.cross_entropy(left_out / temperature, expected, reduction="none") * weights).mean())

    assert loss(head.temperature) < min(loss(head.temperature * 1.01), loss(head.temperature / 1.01))


@pytest.mark.parametrize(("name", "size"), [("SAMPLE_ROWS", 200), ("SAMPLE_NUMBERS", 600)])
def test_the_temperature_of_a_sample_is_about_that_of_all(draw, monkeypatch, name, size):
    features, labels = draw(400, 6, 3)
    whole = ridge_classifier(features, labels, classes=3)
    monkeypatch.setattr(module, name, size)
    sampled = ridge_classifier(features, labels, classes=3)
    assert sampled.temperature != whole.temperature
    assert sampled.temperature == pytest.approx(whole.temperature, rel=0.3)
    assert sampled.errors == whole.errors


def test_classes_that_are_told_apart_at_once_are_not_told_apart_with_certainty():
    labels = torch.arange(20) % 2
    features = labels[:, None].double() * 4 + torch.linspace(0, 0.1, 20)[:, None]
    head = ridge_classifier(features, labels, classes=2)
    own = (features @ head.weight.T + head.bias).softmax(dim=1).gather(1, labels[:, None])
    assert own.mean() == pytest.approx(11 / 12, abs=0.01)  # as sure as ten right answers of a class allow


def test_perfect_answers_on_few_rows_cost_little_on_new_ones():
    generator = torch.Generator().manual_seed(0)

    def drawn(count):
        labels = torch.arange(count) % 2
        features = torch.randn(count, 5, generator=generator).double()
        features[:, 0] += 4 * labels
        return features, labels

    for _ in range(30):
        (features, labels), (held_out, answers) = drawn(40), drawn(400)
        head = ridge_classifier(features, labels, classes=2)
        assert head.temperature > 10 * module.COLDEST
        assert functional.cross_entropy(held_out @ head.weight.T + head.bias, answers) < 0.35


def test_class_weights_of_0_are_refused():
    with pytest.raises(ValueError, match="class weights have to be more than 0"):
        ridge_classifier(torch.randn(4, 2), torch.arange(4) % 2, classes=2, class_weights=torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("strengths", [(), (0.0, 1.0)])
def test_penalties_have_to_be_positive(strengths):
    with pytest.raises(ValueError, match="strengths have to be more than 0"):
        ridge_path(torch.randn(4, 2), torch.randn(4, 1).double(), strengths=strengths)


def test_targets_have_to_fit():
    with pytest.raises(ValueError, match="targets of 4 rows expected"):
        ridge_path(torch.randn(4, 2), torch.randn(4).double())
