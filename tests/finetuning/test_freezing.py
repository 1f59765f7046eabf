import torch
from torch import nn

from tl_lightning.backbones import Stage
from tl_lightning.finetuning.freezing import freeze_all_but, set_training_modes, stage_rows

STAGES = (
    Stage("0", ("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"), ("0.1.running_mean", "0.1.running_var")),
    Stage("1", ("1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"), ("1.1.running_mean", "1.1.running_var")),
)


def block():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def two_blocks(trainable, bn):
    torch.manual_seed(0)
    backbone = nn.Sequential(block(), block())
    freeze_all_but(backbone, trainable)
    set_training_modes(backbone.train(), bn=bn)
    return backbone


def test_a_frozen_backbone_gives_the_same_features_in_train_and_eval_mode_and_moves_nothing():
    backbone = two_blocks(set(), "train")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    x = torch.randn(8, 4)
    trained = backbone(x)
    assert torch.equal(trained, backbone.eval()(x))
    assert not trained.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_frozen_stage_stays_in_eval_mode_below_one_that_trains():
    backbone = two_blocks(set(STAGES[1].parameters), "train")
    assert [module.training for module in backbone[0]] == [False, False, False]
    assert [module.training for module in backbone[1]] == [True, True, True]
    mean = backbone[0][1].running_mean.clone()
    backbone(torch.randn(8, 4))
    assert torch.equal(backbone[0][1].running_mean, mean)
    assert not torch.equal(backbone[1][1].running_mean, torch.zeros(4))


def test_frozen_batchnorm_keeps_its_statistics_while_its_affine_weights_train():
    backbone = two_blocks(set(STAGES[1].parameters), "frozen")
    assert [module.training for module in backbone[1]] == [True, False, True]
    backbone(torch.randn(8, 4)).sum().backward()
    assert torch.equal(backbone[1][1].running_mean, torch.zeros(4))
    assert backbone[1][1].weight.grad is not None
    assert backbone[0][1].weight.grad is None


def test_a_gradient_from_the_phase_before_is_dropped():
    backbone = two_blocks(set(STAGES[0].parameters), "frozen")
    backbone(torch.randn(8, 4)).sum().backward()
    freeze_all_but(backbone, set(STAGES[1].parameters))
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_rows_say_what_the_parameters_say():
    backbone = two_blocks({"1.0.weight"}, "frozen")
    rates = {"0": 1e-5, "1": 1e-4, "head": 1e-3}
    rows = stage_rows(backbone, {"head": nn.Linear(4, 2)}, STAGES, rates=rates, bn="train")
    assert [(r.name, r.parameters, r.trainable, r.learning_rate, r.batch_norm) for r in rows] == [
        ("0", 28, 0, None, "frozen"),
        ("1", 28, 16, 1e-4, "train"),
        ("head", 10, 10, 1e-3, ""),
    ]
