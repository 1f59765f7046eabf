"""What each kind of answer learns: its loss, its answers and its solved head, against naive formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.tasks import TASKS, ClassificationTask, MultiLabelTask, OrdinalTask, RegressionTask
from tl_lightning.tasks.losses import corn_loss, corn_probabilities
from tl_lightning.tasks.objectives import median_level


def build(kind, classes=("a", "b", "c"), **options):
    torch.manual_seed(0)
    return kind("timm/test_efficientnet", list(classes), **{"weights": "none", **options}).eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_probability_of_a_level_is_a_product_of_steps():
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    first, second, third = logits.sigmoid()[0].tolist()
    expected = [1 - first, first * (1 - second), first * second * (1 - third), first * second * third]
    assert corn_probabilities(logits)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_loss_of_a_level_is_minus_the_logarithm_of_its_probability():
    logits, levels = normal(50, 4), torch.arange(50) % 5
    expected = -corn_probabilities(logits)[torch.arange(50), levels].log()
    torch.testing.assert_close(corn_loss(logits, levels), expected, rtol=1e-10, atol=1e-12)


def test_the_answered_level_is_the_median():
    probabilities = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.5, 0.0, 0.5], [0.2, 0.4, 0.4]])
    assert median_level(probabilities).tolist() == [1, 0, 2, 0, 1]
    # It is off by the fewest levels in expectation.
    chances = torch.rand(200, 5, generator=torch.Generator().manual_seed(1)).double()
    chances /= chances.sum(dim=1, keepdim=True)
    far = (torch.arange(5)[:, None] - torch.arange(5)).abs().double()
    cost = chances @ far
    chosen = cost[torch.arange(200), median_level(chances)]
    torch.testing.assert_close(chosen, cost.amin(dim=1))


def test_numbers_have_mean_0_and_deviation_1_inside_and_their_own_units_outside():
    task = build(RegressionTask, ["weight", "age"])
    numbers = torch.tensor([[1000.0, 1.0], [1010.0, 3.0], [1020.0, 5.0]])
    task.set_training_targets(numbers)
    assert task.objective.mean.tolist() == [1010.0, 3.0]
    assert task.objective.scale.tolist() == pytest.approx([math.sqrt(200 / 3), math.sqrt(8 / 3)])
    outputs = torch.zeros(1, 2)
    assert task.objective.predictions(outputs).tolist() == [[1010.0, 3.0]]
    target = torch.tensor([[1010.0 + math.sqrt(200 / 3), 3.0]])
    assert task.objective.losses(outputs, target).tolist() == pytest.approx([0.5], rel=1e-4)
    assert task.objective.predictions(torch.tensor([[100.0, -100.0]])).tolist() == [[1020.0, 1.0]]
    task.objective.extrapolate = True
    assert float(task.objective.predictions(torch.tensor([[100.0, -100.0]]))[0, 0].detach()) > 1800


@pytest.mark.parametrize(("loss", "expected"), [("mse", 9.0), ("mae", 3.0), ("huber", 2.5)])
def test_each_loss_of_a_number_is_that_of_its_name(loss, expected):
    task = build(RegressionTask, ["x"], loss=loss)
    assert task.objective.losses(torch.tensor([[3.0]]), torch.tensor([[0.0]])).tolist() == [expected]


def test_labels_are_judged_one_by_one_and_rare_ones_may_count_more():
    logits, labels = normal(6, 3).float(), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]] * 2)
    task = build(MultiLabelTask)
    expected = functional.binary_cross_entropy(logits.sigmoid(), labels, reduction="none").mean(dim=1)
    torch.testing.assert_close(task.objective.losses(logits, labels), expected)
    balanced = build(MultiLabelTask, class_weights="balanced")
    balanced.set_training_targets(labels)
    assert balanced.objective.positive_weights.tolist() == [0.5, 2.0, 6.0]
    factors = torch.where(labels > 0, torch.tensor([0.5, 2.0, 6.0]), 1.0)
    parts = functional.binary_cross_entropy(logits.sigmoid(), labels, reduction="none") * factors
    torch.testing.assert_close(balanced.objective.losses(logits, labels), parts.mean(dim=1))


@pytest.mark.parametrize("kind", TASKS[:4])
def test_a_image_counts_in_training_as_much_as_its_weight_says(kind):
    task = build(kind, head_dropout=0.0)
    labels = {"multiclass": torch.tensor([0, 2]), "ordinal": torch.tensor([0, 2])}.get(
        task.objective.problem_type, torch.eye(3)[[0, 2]]
    )
    batch = {"image": normal(2, 3, 32, 32).float(), "label": labels}
    one, other = (task.training_step({**batch, "weight": torch.tensor(pair)}, 0) for pair in ([2.0, 0.0], [0.0, 2.0]))
    alone = task.objective.losses(task(batch["image"]), labels)
    torch.testing.assert_close(torch.stack([one, other]), alone)
    torch.testing.assert_close(task.training_step(batch, 0), alone.mean())


def answers_of(task, features):
    """Answers that the features decide, but for noise."""
    scores = features[:, :3] + 0.5 * normal(len(features), 3, seed=7)
    if task.objective.problem_type == "regression":
        return (scores * torch.tensor([10.0, 1.0, 0.1]) + 100).float()
    if task.objective.problem_type == "multilabel":
        return (scores > 0.5).float()
    return (
        scores.argmax(dim=1)
        if task.objective.problem_type == "multiclass"
        else (scores[:, 0, None] > torch.tensor([-0.5, 0.7])).sum(1)
    )


@pytest.mark.parametrize("kind", TASKS[:4])
def test_a_solved_head_answers_better_than_a_random_one(kind):
    """On rows that it has not seen."""
    task = build(kind).double()
    width = task.num_features
    features, held_out = normal(400, width, seed=1), normal(200, width, seed=2)
    answers, expected = answers_of(task, features), answers_of(task, held_out)
    task.set_training_targets(answers)
    assert task.unsolvable is None
    solved = task.objective.solve(features, answers, held_out, expected, None)
    task.set_linear_head("target", solved.weight, solved.bias)
    loss = float(task.objective.losses(task.outputs(held_out)["target"], expected).mean().detach())
    before = build(kind).double()
    before.set_training_targets(answers)
    assert loss < 0.85 * float(before.objective.losses(before.outputs(held_out)["target"], expected).mean().detach())
    assert set(solved.columns) >= {"strength"}
    assert all(len(column) == len(solved.columns["strength"]) for column in solved.columns.values())


def test_weights_of_rows_are_what_repeating_them_would_be():
    features, rng = normal(120, 16, seed=3), np.random.default_rng(0)
    times = torch.from_numpy(rng.integers(1, 4, 120))
    for kind in TASKS[:4]:
        task = build(kind)
        answers = answers_of(task, torch.cat([features, features[:, :0]], dim=1))
        task.set_training_targets(answers)
        weighted = task.objective.solve(features, answers, features, answers, times.double())
        repeated = torch.repeat_interleave(torch.arange(120), times)
        plain = task.objective.solve(features[repeated], answers[repeated], features, answers, None)
        # The features are scaled by their unweighted deviation, so penalties are not quite the same.
        one, other = (features @ s.weight.T + s.bias for s in (weighted, plain))
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


def test_ordinal_heads_solve_each_step_on_the_rows_that_reach_it():
    from tl_lightning.probe import logistic_path, solve_levels

    features, held_out = normal(300, 8, seed=4), normal(150, 8, seed=5)
    task = build(OrdinalTask)
    levels, expected = answers_of(task, features), answers_of(task, held_out)
    solved = solve_levels(features, levels, held_out, expected, count=3)
    strength = solved.columns["strength"][solved.chosen]
    rows = levels >= 1
    path = logistic_path(features[rows], (levels[rows] > 1).long(), classes=2, strengths=(strength,))
    torch.testing.assert_close(solved.weight[1], path.weights[0, 1] - path.weights[0, 0], rtol=5e-3, atol=1e-4)
    outputs = held_out @ solved.weight.T + solved.bias
    assert float(corn_loss(outputs, expected).mean()) == pytest.approx(solved.columns["validation_loss"][solved.chosen])
    assert solved.chosen == int(np.argmin(solved.columns["validation_loss"]))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RegressionTask, {"loss": "rmse"}, "model.loss is 'rmse'; it must be mse, mae or huber"),
        (RegressionTask, {"head_solver": "lbfgs"}, "model.head_solver is 'lbfgs'; it must be ridge or sgd"),
        (MultiLabelTask, {"head_solver": "lbfgs"}, "model.head_solver is 'lbfgs'; it must be ridge or sgd"),
        (OrdinalTask, {"head_solver": "ridge"}, "model.head_solver is 'ridge'; it must be lbfgs or sgd"),
    ],
)
def test_wrong_settings_are_named(kind, options, message):
    with pytest.raises(UserError, match=message):
        build(kind, **options)


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (RegressionTask, {"loss": "huber"}, "model.loss huber has no solver"),
        (MultiLabelTask, {"class_weights": "balanced"}, "model.class_weights balanced has no solver"),
        (OrdinalTask, {"head": "mlp"}, "model.head mlp has more than one optimum"),
        (ClassificationTask, {"head_solver": "sgd"}, "model.head_solver is sgd"),
    ],
)
def test_what_has_no_solver_says_why(kind, options, reason):
    assert build(kind, **options).unsolvable == reason


def test_levels_that_no_training_image_has_are_as_good_as_impossible():
    from tl_lightning.probe import solve_levels

    features = normal(200, 8, seed=6)
    levels = (features[:, 0] > 0).long()
    solved = solve_levels(features, levels, features, levels, count=5)
    chances = corn_probabilities(features @ solved.weight.T + solved.bias)
    assert solved.weight.shape == (4, 8)
    assert float(chances[:, 2:].sum(dim=1).max()) < 1e-3
    assert float((median_level(chances) == levels).double().mean()) > 0.9
