"""Several heads on one backbone: weights, targets that are lacking, names, and what each head alone would do."""

import math

import pytest
import torch

from tl_lightning.errors import UserError
from tl_lightning.tasks import ClassificationTask, MultiTask
from tl_lightning.tasks.objectives import Multiclass, Regression

CLASSES = {"type": ["a", "b", "c"], "size.mm": ["size.mm"]}
HEADS = {"type": {"problem_type": "multiclass"}, "size.mm": {"problem_type": "regression", "weight": 3}}


def build(heads=HEADS, classes=CLASSES, **options):
    torch.manual_seed(0)
    return MultiTask("timm/test_efficientnet", classes, heads=heads, weights="none", **options).eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets(rows):
    return {"type": torch.arange(rows) % 3, "size.mm": 100 + 10 * normal(rows, 1, seed=5)}


def test_heads_take_names_that_modules_do_not():
    task = build()
    assert list(task.heads) == list(task.objectives) == ["type", "size.mm"]
    names = [name for name in task.state_dict() if name.startswith("heads.")]
    assert len(names) == 4 and len(set(names)) == 4
    other = build()
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.heads["type"][1].weight, task.heads["type"][1].weight)
    assert task.hparams["heads"] == HEADS and task.hparams["classes"] == CLASSES


def test_each_head_has_its_own_optimizer_groups():
    task = build(lr=0.5)
    groups = {group["name"]: group for group in task.build_optimizer(fused=False).param_groups}
    for name, head in task.heads.items():
        assert groups[f"head/{name}"]["params"] == [head[1].weight]
        assert groups[f"head/{name}/no_decay"]["params"] == [head[1].bias]
        assert groups[f"head/{name}"]["lr"] == 0.5
    assert "head" not in groups
    assert [row.name for row in task.phase_rows()][-2:] == ["head/type", "head/size.mm"]


def test_a_head_that_predicts_a_constant_loses_1_whatever_its_kind():
    task, given = build(), targets(300)
    task.set_training_targets(given)
    assert task.constant_losses.tolist() == pytest.approx([math.log(3), 1.0], rel=1e-4)
    outputs = {
        name: objective.constant_outputs(given[name]).float().expand(300, -1)
        for name, objective in task.objectives.items()
    }
    assert float(task.losses(outputs, given).mean()) == pytest.approx(1.0, rel=1e-4)


def test_the_loss_is_the_mean_of_the_heads_by_their_weights():
    task, given = build(), targets(30)
    task.set_training_targets(given)
    outputs = {"type": normal(30, 3, seed=1), "size.mm": normal(30, 1, seed=2)}
    one, other = (task.objectives[name].losses(outputs[name], given[name]) for name in CLASSES)
    expected = 0.25 * one / task.constant_losses[0] + 0.75 * other / task.constant_losses[1]
    torch.testing.assert_close(task.losses(outputs, given), expected)


def test_a_sample_that_lacks_a_target_counts_for_the_other_heads_only():
    task, given = build(), targets(6)
    task.set_training_targets(given)
    outputs = {"type": normal(6, 3, seed=1), "size.mm": normal(6, 1, seed=2)}
    whole = task.losses(outputs, given)
    lacking = {"type": given["type"].clone(), "size.mm": given["size.mm"].clone()}
    lacking["type"][0], lacking["size.mm"][1] = -1, math.nan
    losses = task.losses(outputs, lacking)
    torch.testing.assert_close(losses[2:], whole[2:])
    number = task.objectives["size.mm"].losses(outputs["size.mm"], given["size.mm"])[0]
    torch.testing.assert_close(losses[0], 0.75 * number / task.constant_losses[1])
    assert 0 < float(losses[1]) < float(whole[1])
    # Nothing of it reaches the head, and no gradient is lost to a NaN.
    task.train()
    batch = {"image": normal(6, 3, 32, 32, seed=3), "label": {**lacking, "type": torch.full((6,), -1)}}
    task.training_step(batch, 0).backward()
    assert not task.heads["type"][1].weight.grad.any()
    assert task.heads["size.mm"][1].weight.grad.isfinite().all() and task.heads["size.mm"][1].weight.grad.any()


def test_training_targets_that_are_lacking_are_left_out():
    task, given = build(), targets(300)
    less = {name: torch.cat([values, values[:1] * 0 + lack]) for (name, values), lack in
            zip(given.items(), (-1, math.nan), strict=True)}  # fmt: skip
    task.set_training_targets(less)
    assert float(task.objectives["size.mm"].mean) == pytest.approx(float(given["size.mm"].mean()))
    assert task.constant_losses.tolist() == pytest.approx([math.log(3), 1.0], rel=1e-4)


def test_metrics_are_those_of_each_head_alone_over_the_samples_that_have_its_target():
    task, given = build(), targets(12)
    task.set_training_targets(given)
    given["type"][3] = -1
    batch = {"image": normal(12, 3, 32, 32, seed=4), "label": given, "index": torch.arange(12)}
    task.evaluations["val"].begin(keeps_predictions=True)
    with torch.no_grad():
        task.validation_step(batch, 0)
        outputs = task(batch["image"])
    results = task.evaluations["val"].results(task.objectives)
    known = given["type"] >= 0
    chances = outputs["type"][known].softmax(dim=1)
    expected = task.objectives["type"].evaluate(chances, given["type"][known])
    for name, value in expected.items():
        assert float(results[f"val/type/{name}"]) == pytest.approx(value, rel=1e-5)
    assert float(results["val/type/loss"]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(outputs["type"][known], given["type"][known])), rel=1e-5
    )
    assert set(results) == {f"val/{name}" for name in task.logged(task.hparams)}
    found = task.predicted("val")
    assert found["type"].indices.tolist() == [0, 1, 2, *range(4, 12)]
    assert len(found["size.mm"].indices) == 12
    torch.testing.assert_close(found["type"].predictions, chances)


def test_rows_of_predictions_have_the_columns_of_every_head():
    task = build()
    predictions = {"type": torch.tensor([[0.25, 0.5, 0.25]]), "size.mm": torch.tensor([[2.5]])}
    ((row,),) = task.rows(predictions)
    assert row == {
        "type/class": "b",
        "type/probability_a": 0.25,
        "type/probability_b": 0.5,
        "type/probability_c": 0.25,
        "size.mm/size.mm": 2.5,
    }


def test_each_head_has_the_options_of_its_own_kind():
    heads = {
        "type": {"loss": "focal", "focal_gamma": 1.0, "head": "mlp", "head_hidden": 8},
        "size.mm": {"problem_type": "regression", "loss": "mae", "head_solver": "sgd"},
    }
    task = build(heads, head_dropout=0.5)
    assert isinstance(task.objectives["type"], Multiclass) and task.objectives["type"].focal_gamma == 1.0
    assert isinstance(task.objectives["size.mm"], Regression) and task.objectives["size.mm"].loss == "mae"
    assert (task.head_options["type"].hidden, task.head_options["type"].dropout) == (8, 0.5)
    assert task.head_options["size.mm"].kind == "linear"
    assert task.unsolvable == "type: model.loss focal has no solver"
    assert build().unsolvable is None


def test_what_is_monitored_is_the_loss_unless_a_head_is_named():
    arguments = {"heads": HEADS}
    assert MultiTask.default_monitor(arguments) == "loss"
    modes = MultiTask.logged(arguments)
    assert (modes["loss"], modes["type/macro_f1"], modes["size.mm/mean_absolute_error"]) == ("min", "max", "min")
    assert MultiTask.problem_types(arguments) == {"type": "multiclass", "size.mm": "regression"}
    assert build().headlines == ["type/accuracy", "size.mm/r2"]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({}, "model.heads are none, but the targets are type, size.mm"),
        ({"kind": {}, "size.mm": {}}, "model.heads are kind, size.mm, but the targets are type, size.mm"),
        ({**HEADS, "type": {"problem_type": "classes"}}, "model.heads.type.problem_type is 'classes'"),
        ({**HEADS, "type": {"weigth": 2}}, r"unknown key 'model.heads.type.weigth'; did you mean .*weight"),
        ({**HEADS, "type": {"weight": 0}}, "model.heads.type.weight is 0.0; it must be above 0"),
        ({**HEADS, "type": {"loss": "mse"}}, "model.heads.type.loss is 'mse'; it must be cross_entropy or focal"),
        ({**HEADS, "type": "multiclass"}, "model.heads.type is 'multiclass'; give a mapping"),
        ({**HEADS, "type": {"head": "deep"}}, "model.heads.type.head is 'deep'; it must be linear or mlp"),
    ],
)
def test_wrong_heads_are_named(heads, message):
    with pytest.raises(UserError, match=message):
        build(heads)


def test_what_takes_one_head_says_so():
    with pytest.raises(UserError, match=r"this takes a model with one head, and here there are type, size\.mm"):
        _ = build().objective
    torch.manual_seed(0)
    single = ClassificationTask("timm/test_efficientnet", ["a", "b"], weights="none")
    assert single.head is single.heads["target"]
