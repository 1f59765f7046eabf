"""The path is scikit-learn's optimum at every strength."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from tl_lightning.probe import STRENGTHS, logistic, logistic_path
from tl_lightning.probe import features as features_module
from tl_lightning.probe import problem as problem_module

FEW = (1e-6, 1e-3, 1e-1, 1.0, 30.0, 1e5)


def penalised_loss(features, labels, *, strength, weights, biases, class_weights):
    """scikit-learn's objective divided by C and the number of rows, of a head for raw features."""
    loss = (
        functional.cross_entropy(features @ weights.T + biases, labels, reduction="none") * class_weights[labels]
    ).mean()
    scaled = weights * features.std(dim=0, correction=0)
    if len(scaled) == 2:  # one weight vector is shared by two classes
        scaled = scaled[1:] - scaled[:1]
    return float(loss + scaled.square().sum() / (2 * strength * len(features)))


def by_scikit_learn(features, labels, strength, class_weights):
    scaler = StandardScaler().fit(features.numpy())
    solver = "newton-cholesky" if len(class_weights) == 2 else "lbfgs"
    model = LogisticRegression(
        C=strength, tol=1e-10, max_iter=10000, solver=solver, class_weight=dict(enumerate(class_weights.tolist()))
    ).fit(scaler.transform(features.numpy()), labels.numpy())
    weights, biases = model.coef_ / scaler.scale_, model.intercept_
    biases = biases - weights @ scaler.mean_
    if len(weights) == 1:
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    return torch.from_numpy(weights), torch.from_numpy(biases)


@pytest.mark.parametrize(
    ("rows", "width", "classes", "noise"),
    [(200, 12, 2, 1.0), (30, 60, 2, 0.5), (200, 8, 4, 1.0), (40, 60, 3, 0.1), (80, 1, 2, 0.5)],
    ids=["two classes", "fewer rows than columns", "four classes", "separable", "one column"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_strength_reaches_the_optimum_of_scikit_learn(draw, rows, width, classes, noise, weighted):
    features, labels = draw(rows, width, classes, noise=noise)
    class_weights = torch.linspace(0.5, 2, classes).double() if weighted else torch.ones(classes).double()
    path = logistic_path(
        features, labels, classes=classes, strengths=FEW, class_weights=class_weights if weighted else None
    )
    assert path.strengths == FEW and path.converged.all()
    assert path.weights.shape == (6, classes, width) and path.biases.shape == (6, classes)
    for position, strength in enumerate(FEW):
        settings = {"strength": strength, "class_weights": class_weights}
        weights, biases = by_scikit_learn(features, labels, strength, class_weights)
        theirs = penalised_loss(features, labels, weights=weights, biases=biases, **settings)
        ours = penalised_loss(
            features, labels, weights=path.weights[position], biases=path.biases[position], **settings
        )
        assert ours <= theirs * (1 + 1e-7)
        assert float(path.objectives[position]) == pytest.approx(ours, rel=1e-6)


def test_losses_are_the_objectives_without_the_penalty(draw):
    features, labels = draw(100, 5, 3)
    path = logistic_path(features, labels, classes=3, strengths=FEW)
    for position in range(len(FEW)):
        logits = features @ path.weights[position].T + path.biases[position]
        assert float(path.losses[position]) == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-6)


def test_two_classes_share_one_weight_vector_with_opposite_signs(draw):
    features, labels = draw(50, 4, 2)
    path = logistic_path(features, labels, classes=2, strengths=(1.0,))
    assert torch.equal(path.weights[0, 0], -path.weights[0, 1]) and path.biases[0, 0] == -path.biases[0, 1]


def test_chunks_and_sampling_change_nothing(draw, monkeypatch):
    features, labels = draw(300, 6, 3)
    whole = logistic_path(features, labels, classes=3, strengths=FEW)
    monkeypatch.setattr(features_module, "CHUNK_BYTES", 7 * 6 * 8)
    monkeypatch.setattr(problem_module, "KEPT_BYTES", 7 * 6 * 8)
    monkeypatch.setattr(problem_module, "SAMPLE", 10)
    streamed = logistic_path(features, labels, classes=3, strengths=FEW)
    assert torch.allclose(streamed.objectives, whole.objectives, rtol=1e-7, atol=0)


def test_bf16_rows_are_solved_as_they_are(draw):
    features, labels = draw(60, 5, 2)
    stored = features.bfloat16()
    path = logistic_path(stored, labels, classes=2, strengths=(1.0,))
    exact = logistic_path(stored.double(), labels, classes=2, strengths=(1.0,))
    assert torch.equal(path.weights, exact.weights)


def test_a_constant_column_has_no_weight(draw):
    features, labels = draw(60, 5, 2)
    features[:, 3] = 0.1
    path = logistic_path(features, labels, classes=2, strengths=FEW)
    assert path.converged.all() and (path.weights[:, :, 3] == 0).all() and path.weights.isfinite().all()


@pytest.mark.parametrize("classes", [3, 6])
def test_a_class_without_rows_is_improbable_and_disturbs_nothing(draw, classes):
    features, labels = draw(80, 5, 2)
    path = logistic_path(features, labels, classes=classes, strengths=FEW)
    chances = (features @ path.weights[3].T + path.biases[3]).softmax(dim=1)
    assert path.converged.all() and chances[:, 2:].max() < 1e-6
    assert path.losses.isfinite().all()


def test_a_single_class_is_predicted_always(draw):
    features, _ = draw(20, 5, 2)
    path = logistic_path(features, torch.ones(20, dtype=torch.int64), classes=2)
    chances = (features @ path.weights[-1].T + path.biases[-1]).softmax(dim=1)
    assert path.converged.all() and chances[:, 1].min() > 1 - 1e-6


def test_fewer_rows_than_classes(draw):
    features, _ = draw(3, 5, 2)
    path = logistic_path(features, torch.tensor([0, 3, 5]), classes=7)
    assert path.converged.all() and path.weights.shape == (45, 7, 5)
    assert (features @ path.weights[-1].T + path.biases[-1]).argmax(dim=1).tolist() == [0, 3, 5]


def test_constant_features_leave_the_shares_of_the_classes():
    labels = torch.tensor([0, 0, 0, 1])
    path = logistic_path(torch.ones(4, 3), labels, classes=2, strengths=(1.0,))
    assert torch.allclose(path.biases[0].softmax(dim=0), torch.tensor([0.75, 0.25]).double())


def test_strengths_are_put_in_order_and_repeats_are_allowed(draw):
    features, labels = draw(60, 5, 2)
    path = logistic_path(features, labels, classes=2, strengths=(1.0, 0.1, 1.0))
    assert path.strengths == (0.1, 1.0, 1.0)
    assert path.objectives[1] == pytest.approx(float(path.objectives[2]), rel=1e-8)


def test_the_strengths_are_those_of_dinov2():
    assert len(STRENGTHS) == 45 and STRENGTHS[0] == 1e-6 and STRENGTHS[-1] == pytest.approx(1e5)


def test_a_path_takes_tens_of_passes_even_where_classes_are_separable(draw):
    features, labels = draw(120, 60, 2, noise=0.1)
    path = logistic_path(features, labels, classes=2)
    assert path.converged.all() and path.iterations.max() <= 40


@pytest.mark.parametrize(
    ("labels", "strengths", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), (1.0,), "4 labels of int64 expected"),
        (torch.zeros(4), (1.0,), "4 labels of int64 expected, but got torch.float32"),
        (torch.tensor([0, 1, 2, 0]), (1.0,), "number of classes, which is 2"),
        (torch.tensor([0, 1, -1, 0]), (1.0,), "number of classes, which is 2"),
        (torch.tensor([0, 1, 1, 0]), (0.0,), "strengths have to be more than 0"),
    ],
)
def test_what_does_not_fit_is_refused(labels, strengths, message):
    with pytest.raises(ValueError, match=message):
        logistic_path(torch.randn(4, 2), labels, classes=2, strengths=strengths)


def test_classes_that_can_nearly_be_told_apart_converge_by_renewing_the_guess(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    features = torch.randn(400, 60, generator=generator).double() @ torch.randn(60, 60, generator=generator).double()
    features[:, 0] += 8 * labels
    monkeypatch.setattr(logistic, "PATIENCE", 5)
    with monkeypatch.context() as patch:
        patch.setattr(logistic, "RENEWALS", 0)
        assert not logistic_path(features, labels, classes=2).converged.all()
    path = logistic_path(features, labels, classes=2)
    assert path.converged.all()
    monkeypatch.setattr(logistic, "PATIENCE", 1000)
    torch.testing.assert_close(
        path.objectives, logistic_path(features, labels, classes=2).objectives, rtol=1e-6, atol=0
    )
