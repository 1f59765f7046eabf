import pytest
import timm
from timm.optim import param_groups_weight_decay
from torch import nn

from tl_lightning.backbones import Stage
from tl_lightning.finetuning.groups import build_optimizer, learning_rates, parameter_groups

STAGES = tuple(Stage(str(k), (f"{k}.weight", f"{k}.bias"), ()) for k in range(3))


def model():
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), nn.Linear(2, 2)


def test_rates_fall_geometrically_from_the_top_stage_to_the_first():
    rates = learning_rates(STAGES, 1.0, backbone_lr_scale=0.1, bottom_ratio=0.01)
    assert list(rates) == ["0", "1", "2", "head"]
    assert rates == pytest.approx({"0": 0.001, "1": 0.01, "2": 0.1, "head": 1.0})


def test_one_stage_gets_the_top_rate():
    assert learning_rates(STAGES[:1], 1.0, backbone_lr_scale=0.1, bottom_ratio=0.01)["0"] == pytest.approx(0.1)


def test_every_parameter_is_in_one_named_group_with_a_real_rate_and_only_matrices_decay():
    backbone, head = model()
    rates = learning_rates(STAGES, 1.0, backbone_lr_scale=0.1, bottom_ratio=0.01)
    groups = parameter_groups(backbone, {"head": head}, STAGES, learning_rates=rates, weight_decay=0.5)
    named = [(group["name"], round(group["lr"], 9), group["weight_decay"]) for group in groups]
    assert named == [
        ("0", 0.001, 0.5),
        ("0/no_decay", 0.001, 0.0),
        ("1", 0.01, 0.5),
        ("1/no_decay", 0.01, 0.0),
        ("2", 0.1, 0.5),
        ("2/no_decay", 0.1, 0.0),
        ("head", 1.0, 0.5),
        ("head/no_decay", 1.0, 0.0),
    ]
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in (*backbone.parameters(), *head.parameters()))


def decays(model: nn.Module, **options: bool) -> dict[str, float]:
    """The weight decay of each parameter of a backbone, by name."""
    stages = (Stage("all", tuple(name for name, _ in model.named_parameters()), ()),)
    rates = {"all": 1.0, "head": 1.0}
    groups = parameter_groups(
        model, {"head": nn.Linear(2, 2)}, stages, learning_rates=rates, weight_decay=0.5, **options
    )
    found = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "test_efficientnet"])
def test_what_decays_is_what_timm_decays(name):
    # Tokens and position embeddings are no vectors by their shape, (1, N, width), and no weights by their meaning.
    model = timm.create_model(name, num_classes=0)
    theirs = param_groups_weight_decay(model, 0.5, no_weight_decay_list=getattr(model, "no_weight_decay", tuple)())
    expected = {id(parameter): group["weight_decay"] for group in theirs for parameter in group["params"]}
    assert decays(model) == {name: expected[id(parameter)] for name, parameter in model.named_parameters()}


def test_wildcards_of_a_model_are_followed_and_runs_of_earlier_versions_decay_as_they_did():
    model = nn.ModuleDict({"table": nn.ModuleList([nn.Linear(2, 3)]), "layer": nn.Linear(2, 2)})
    model.no_weight_decay = lambda: {"table.*"}
    assert decays(model) == {"table.0.weight": 0.0, "table.0.bias": 0.0, "layer.weight": 0.5, "layer.bias": 0.0}
    assert decays(model, decays_embeddings=True)["table.0.weight"] == 0.5


def test_equal_valued_parameters_are_told_apart():
    # Comparing parameters by value leaves all but one of the equal ones without training.
    norms = nn.Sequential(nn.LayerNorm(2), nn.LayerNorm(2), nn.LayerNorm(2))
    rates = learning_rates(STAGES, 1.0, backbone_lr_scale=1.0, bottom_ratio=1.0)
    groups = parameter_groups(norms, {"head": nn.Linear(2, 2)}, STAGES, learning_rates=rates, weight_decay=0.0)
    assert sum(len(group["params"]) for group in groups) == 8


def test_the_optimizer_has_a_group_for_each_of_several_heads():
    backbone, head = model()
    rates = {**learning_rates(STAGES, 1.0, backbone_lr_scale=0.1, bottom_ratio=0.01), "head/a": 2.0, "head/b": 3.0}
    heads = {"head/a": head, "head/b": nn.Linear(2, 1, bias=False)}
    optimizer = build_optimizer(backbone, heads, STAGES, learning_rates=rates, weight_decay=0.5, fused=True)
    named = [(group["name"], group["lr"], group["base_lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert named[-3:] == [("head/a", 2.0, 2.0, 0.5), ("head/a/no_decay", 2.0, 2.0, 0.0), ("head/b", 3.0, 3.0, 0.5)]
    assert optimizer.defaults["fused"]
