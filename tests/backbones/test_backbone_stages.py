import pytest
import timm
import torch
from torch import nn

from tl_lightning.backbones.stages import stages_of


def numbered(name: str, count: int) -> list[str]:
    return [f"{name}.{index}" for index in range(count)]


STAGES = {
    "tf_efficientnet_lite0": ["conv_stem", *numbered("blocks", 7)],
    "mobilenetv2_100": ["conv_stem", *numbered("blocks", 7)],
    "mobilenetv3_small_050": ["conv_stem", *numbered("blocks", 6), "conv_head"],
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "resnet50": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "vgg11": [*(f"features.{index}" for index in (0, 3, 6, 8, 11, 13, 16, 18)), "pre_logits"],
    "vgg11_bn": [*(f"features.{index}" for index in (0, 4, 8, 11, 15, 18, 22, 25)), "pre_logits"],
    "densenet121": ["features.conv0", *(f"features.denseblock{index}" for index in (1, 2, 3, 4))],
    "inception_v3": [
        *("Conv2d_1a_3x3", "Conv2d_3b_1x1", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b"),
        *("Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"),
    ],
    "vit_tiny_patch16_224": ["patch_embed", *numbered("blocks", 12)],
    "deit3_small_patch16_224": ["patch_embed", *numbered("blocks", 12)],
    "eva02_tiny_patch14_224": ["patch_embed", *numbered("blocks", 12)],
    "convnext_atto": ["stem", *numbered("stages", 4)],
    "swin_tiny_patch4_window7_224": ["patch_embed", *numbered("layers", 4)],
    "maxvit_tiny_tf_224": ["stem", *numbered("stages", 4), "head.norm"],
}


def weightless(model: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(model, num_classes=0).eval()


@pytest.mark.parametrize("model", STAGES)
def test_every_tensor_is_in_one_stage_and_stages_follow_the_forward_pass(model):
    module = weightless(model)
    stages = stages_of(module, f"timm/{model}")
    assert [stage.name for stage in stages] == STAGES[model]
    parameters = [name for stage in stages for name in stage.parameters]
    buffers = [name for stage in stages for name in stage.buffers]
    assert sorted(parameters) == sorted(name for name, _ in module.named_parameters())
    assert sorted(buffers) == sorted(name for name, _ in module.named_buffers())

    depth = {name: index for index, stage in enumerate(stages) for name in (*stage.parameters, *stage.buffers)}
    visited: list[int] = []
    for path, part in module.named_modules():
        own = [f"{path}.{name}" for name, _ in part.named_parameters(recurse=False)]
        if path and own:
            assert {depth[f"{path}.{name}"] for name, _ in part.named_buffers(recurse=False)} <= {depth[own[0]]}
            part.register_forward_pre_hook(lambda *_, stage=depth[own[0]]: visited.append(stage))
    with torch.no_grad():
        module(torch.empty(1, *module.pretrained_cfg["input_size"], device="meta"))
    assert visited == sorted(visited)
    assert set(visited) == set(range(len(stages)))


def test_a_lone_norm_joins_the_stage_below():
    assert stages_of(weightless("vgg11_bn"), "timm/vgg11_bn")[0].parameters == (
        *("features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias"),
    )
    top = stages_of(weightless("convnext_atto"), "timm/convnext_atto")[-1]
    assert top.name == "stages.3"
    assert top.parameters[-2:] == ("head.norm.weight", "head.norm.bias")


def test_tables_without_parameters_stay_with_the_module_around_them():
    stages = stages_of(weightless("swin_tiny_patch4_window7_224"), "timm/swin")
    assert [stage.name for stage in stages if "layers.1.blocks.1.attn_mask" in stage.buffers] == ["layers.1"]
    rotary = stages_of(weightless("eva02_tiny_patch14_224"), "timm/eva02")
    assert {name for name in rotary[0].buffers if name.startswith("rope.")} == {"rope.bands", "rope.pos_embed"}


@pytest.mark.parametrize("model", ["caformer_s18", "rdnet_tiny"])
def test_a_model_without_depth_order_is_one_clear_line(model, line_of):
    line = line_of(stages_of, weightless(model), f"timm/{model}")
    assert line.startswith(f"model.backbone is 'timm/{model}': timm states no depth order")
