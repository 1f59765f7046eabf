import math

import pytest
import torch
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.tasks.classification import ClassificationTask
from tl_lightning.tasks.losses import balanced_class_weights, effective_class_weights, focal_loss, l2_sp
from tl_lightning.tasks.objectives import Multiclass


def examples(count=7, classes=4):
    """Logits, labels, probabilities and class weights, all float64."""
    chance = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, generator=chance, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=chance)
    shares = torch.rand(count, classes, generator=chance, dtype=torch.float64)
    weight = torch.rand(classes, generator=chance, dtype=torch.float64) + 0.5
    return logits, labels, shares / shares.sum(dim=1, keepdim=True), weight


def test_balanced_weights_give_every_class_the_same_say():
    counts = [30, 10, 20]
    weights = balanced_class_weights(counts)
    assert torch.allclose(weights, torch.tensor([60 / 90, 60 / 30, 60 / 60]))
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    logits = torch.randn(60, 3)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    by_class = torch.stack([losses[labels == k].mean() for k in range(3)]).mean()
    assert torch.isclose(functional.cross_entropy(logits, labels, weight=weights), by_class)


def test_effective_weights_count_what_each_example_adds():
    counts = [1, 10, 1000]
    weights = effective_class_weights(counts, beta=0.9)
    known = [sum(0.9**k for k in range(count)) for count in counts]  # of each class
    torch.testing.assert_close(weights * torch.tensor(known), (weights[0] * known[0]).expand(3))
    assert (weights * torch.tensor(counts)).sum().item() == pytest.approx(1011)


def test_effective_weights_go_from_none_to_balanced():
    counts = [30, 10, 0]
    assert effective_class_weights(counts, beta=0.0).tolist() == [1, 1, 1]
    balanced = balanced_class_weights([30, 10, 1])
    torch.testing.assert_close(effective_class_weights(counts, beta=1 - 1e-9), balanced, rtol=1e-6, atol=0)


def test_effective_class_weights_reach_the_loss():
    task = ClassificationTask(
        "timm/test_efficientnet", ["a", "b"], weights="none", class_weights="effective", effective_beta=0.9
    )
    task.set_training_targets(torch.tensor([0] * 5 + [1] * 50))
    assert torch.equal(task.objective.loss_weights, effective_class_weights([5, 50], beta=0.9))
    with pytest.raises(UserError, match=r"^model.effective_beta is 1; it must be at least 0 and below 1$"):
        ClassificationTask("timm/test_efficientnet", ["a", "b"], weights="none", effective_beta=1)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("targets", [torch.tensor([0, 1]), torch.eye(2)], ids=["labels", "shares"])
def test_class_weights_leave_what_label_smoothing_asks_for(loss, targets):
    # Weights of 1/2 and 10 in torch's own smoothing ask for a probability of .49 where .95 is meant.
    options = {"loss": loss, "focal_gamma": 0.0, "label_smoothing": 0.1, "class_weights": "balanced"}
    objective = Multiclass(["many", "few"], **options)
    objective.set_training_targets(torch.tensor([0] * 20 + [1]))
    outputs = torch.tensor([[0.95, 0.05], [0.05, 0.95]]).log().requires_grad_()
    losses = objective.losses(outputs, targets)
    (slope,) = torch.autograd.grad(losses.sum(), outputs)
    assert slope.abs().max() < 1e-6
    plain = functional.cross_entropy(outputs, targets, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(losses, plain * torch.tensor([21 / 40, 21 / 2]))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_focal_loss_without_gamma_is_cross_entropy(kind, weighted, label_smoothing):
    logits, labels, shares, weight = examples()
    target, options = labels if kind == "labels" else shares, {"label_smoothing": label_smoothing}
    options["weight"] = weight if weighted else None
    expected = functional.cross_entropy(logits, target, **options)
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0, **options), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_focal_loss_is_what_a_loop_says(kind, gamma):
    logits, labels, shares, weight = examples()
    if kind == "labels":
        shares = functional.one_hot(labels, 4).double()
    total = 0.0
    for row, target in zip(logits.tolist(), shares.tolist(), strict=True):
        for score, share, factor in zip(row, (0.9 * part + 0.1 / 4 for part in target), weight.tolist(), strict=True):
            p = math.exp(score) / sum(math.exp(other) for other in row)
            total += factor * share * (1 - p) ** gamma * -math.log(p)
    expected = total / (sum(weight.tolist()[label] for label in labels) if kind == "labels" else len(logits))
    target = labels if kind == "labels" else shares
    loss = focal_loss(logits, target, gamma=gamma, weight=weight, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_the_right_gradient(gamma):
    logits, labels, shares, weight = examples()
    logits.requires_grad_()
    for target in (labels, shares):
        assert torch.autograd.gradcheck(
            lambda x, target=target: focal_loss(x, target, gamma=gamma, weight=weight, label_smoothing=0.1), logits
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_and_its_gradient_are_finite_for_extreme_logits(dtype, gamma):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e30, 0.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    for target in (torch.zeros(4, dtype=torch.long), torch.full((4, 2), 0.5, dtype=dtype)):
        loss = focal_loss(logits, target, gamma=gamma)
        (slope,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert slope.isfinite().all()


def test_focal_loss_counts_a_sure_example_for_less():
    sure, torn = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    label = torch.tensor([0])
    for logits, p in ((sure, 1 / (1 + math.exp(-3))), (torn, 0.5)):
        loss = focal_loss(logits, label, gamma=2.0)
        assert loss.item() == pytest.approx((1 - p) ** 2 * -math.log(p), rel=1e-5)


def test_l2_sp_is_half_the_squared_distance_and_pulls_back_by_the_distance():
    chance = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(2, 3, 2, 2, generator=chance).to(memory_format=torch.channels_last).requires_grad_(),
        torch.randn(5, generator=chance, requires_grad=True),
    ]
    starts = [torch.randn(part.shape, generator=chance) for part in weights]
    penalty = l2_sp(zip(weights, starts, strict=True))
    expected = 0.0
    for part, start in zip(weights, starts, strict=True):
        for now, before in zip(part.flatten().tolist(), start.flatten().tolist(), strict=True):
            expected += (now - before) ** 2 / 2
    assert penalty.item() == pytest.approx(expected, rel=1e-6)
    for slope, part, start in zip(torch.autograd.grad(penalty, weights), weights, starts, strict=True):
        torch.testing.assert_close(slope, part.detach() - start)


def test_l2_sp_of_nothing_is_zero():
    assert torch.equal(l2_sp([]), torch.zeros(()))


def classifier(**options):
    torch.manual_seed(0)
    task = ClassificationTask("timm/test_efficientnet", ["a", "b", "c"], weights="none", **options)
    return task.eval()


@pytest.fixture(scope="module")
def batch():
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=chance)
    return {"image": images, "label": torch.tensor([0, 1, 2, 0])}


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_task_trains_on_mixed_targets_and_validates_on_labels(loss, batch, monkeypatch):
    task = classifier(loss=loss, focal_gamma=1.5, label_smoothing=0.1, class_weights="balanced")
    task.set_training_targets(torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    weight = torch.tensor([8 / 12, 8 / 6, 8 / 6])
    torch.testing.assert_close(task.objective.loss_weights, weight)
    mixed = {**batch, "target": torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 0.8], [1.0, 0.0, 0.0]])}
    logged = {}
    monkeypatch.setattr(task, "log_dict", lambda figures, **_: logged.update(figures))

    def expected(target):
        """A label for each class, as far as it is the sample's, by that class's weight; the mean over the samples."""
        shares = target if target.is_floating_point() else functional.one_hot(target, 3).float()
        logits, options = task(batch["image"]), {"label_smoothing": 0.1, "reduction": "none"}
        labels = [torch.full((len(logits),), k) for k in range(3)]
        if loss == "focal":
            losses = [focal_loss(logits, label, gamma=1.5, **options) for label in labels]
        else:
            losses = [functional.cross_entropy(logits, label, **options) for label in labels]
        return (torch.stack(losses, dim=1) * shares * weight).sum(dim=1).mean()

    torch.testing.assert_close(task.training_step(mixed, 0), expected(mixed["target"]))
    torch.testing.assert_close(task.training_step(batch, 0), expected(batch["label"]))
    task.validation_step(mixed, 0)
    task.on_validation_epoch_end()
    task.test_step(mixed, 0)
    task.on_test_epoch_end()
    torch.testing.assert_close(logged["val/loss"], expected(batch["label"]))
    torch.testing.assert_close(logged["test/loss"], expected(batch["label"]))


def test_a_tasks_training_loss_includes_its_penalty(batch, monkeypatch):
    task = classifier()
    plain = task.training_step(batch, 0)
    monkeypatch.setattr(task, "penalty", lambda: torch.tensor(0.25))
    torch.testing.assert_close(task.training_step(batch, 0), plain + 0.25)


@pytest.mark.parametrize(
    ("kept", "given"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_only_half_precision_logits_are_made_float32(kept, given, loss, batch):
    task = classifier(loss=loss, class_weights="balanced").to(kept)
    task.set_training_targets(torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    assert task(batch["image"]).dtype == given
    for target in ({}, {"target": torch.full((4, 3), 1 / 3)}):
        assert task.training_step({**batch, **target}, 0).dtype == given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"focal_gamma": -0.5}, r"^model\.focal_gamma is -0\.5; it must be 0 or more$"),
        ({"focal_gamma": math.inf}, r"^model\.focal_gamma is inf"),
        ({"focal_gamma": math.nan}, r"^model\.focal_gamma is nan"),
        ({"loss": "hinge"}, r"^model\.loss is 'hinge'; it must be cross_entropy or focal$"),
    ],
)
def test_impossible_losses_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        classifier(**options)
