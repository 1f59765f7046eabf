"""One forward pass of a candidate: the features that a later fit finds, the source's own answers, and the cost."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, write_images, write_tiny
from torch import nn

from tl_lightning.backbones import build_backbone, load_source_model, source_classifier
from tl_lightning.backbones.macs import count_macs
from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.measure import SourceProbabilities, measure
from tl_lightning.cli import main
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.core.quiet import quiet
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.feature_cache import activation_store as activations
from tl_lightning.feature_cache import extractor as extraction
from tl_lightning.preprocess import ImagePreprocess

PREPROCESS = ImagePreprocess(32, 3, 1.0, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
EFFICIENTNET = Candidate("timm/test_efficientnet", "start.pth")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet()
    return write_tiny(tmp_path)


def test_features_and_answers_are_those_of_the_training_and_validation_images(here):
    found = measure(TINY, EFFICIENTNET)
    data = Configuration(TINY, folder=None).datamodule
    data.prepare_data()
    data.setup("fit")
    assert found.rows.tolist() == sorted([*data.splits["train"], *data.splits["val"]])
    assert not set(found.rows) & set(data.splits["test"]) and found.kin is None
    assert found.labels.tolist() == data.samples.labels[found.rows].tolist()
    backbone = build_backbone("timm/test_efficientnet", "start.pth").module.eval()
    loader = data.view_loader(data.plain_view, found.rows, 100)
    with torch.no_grad():
        expected = backbone(data.normalized(next(iter(loader)))["image"])
    torch.testing.assert_close(found.features[0 : len(found.rows)], expected, rtol=1e-4, atol=1e-5)
    assert (found.image_size, found.computed, found.classes) == (32, len(found.rows), ("cat", "dog"))
    assert found.parameters == sum(parameter.numel() for parameter in backbone.parameters())
    assert torch.bincount(found.fold_of).tolist() == [4, 4, 4, 3, 3] and found.speed > 0
    assert all(abs(int((found.fold_of[found.labels == k] == f).sum()) - 1.8) < 1 for k in (0, 1) for f in range(5))


def test_a_later_fit_finds_the_features_and_computes_nothing(here, capsys, monkeypatch):
    found = measure(TINY, EFFICIENTNET)

    def fail(*args, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(extraction.Extractor, "_compute", fail)
    fit = ["fit", *TINY, "--phases", "feature_extraction", "--run_dir", "run", "--trainer.max_epochs", "1"]
    assert main(fit) == 0
    assert f"{len(found.rows)} found in the cache" in capsys.readouterr().out
    again = measure(TINY, EFFICIENTNET)
    assert again.computed == 0
    assert torch.equal(again.features[0:18], found.features[0:18])


def test_phases_and_weights_of_the_configuration_do_not_matter(here):
    one = measure([*TINY, "--phases", '[{"train": "from:blocks.2"}]'], Candidate("timm/test_resnet", "none"))
    other = measure([*TINY, "--phases", "scratch"], EFFICIENTNET)
    assert one.candidate.name == "test_resnet" and one.source is None
    assert torch.equal(other.features[0:18], measure(TINY, EFFICIENTNET).features[0:18])


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        *(pytest.param(f"test_{name}", marks=pytest.mark.slow) for name in ("efficientnet", "convnext", "resnet")),
    ],
)
def test_the_source_classifier_on_kept_features_is_the_source_model_on_images(here, name):
    torch.manual_seed(1)
    model = build_and_save(name)
    found = measure(TINY_160, Candidate(f"timm/{name}", "whole.pth"))
    data = Configuration([*TINY_160, "--model.backbone", f"timm/{name}", "--model.weights", "whole.pth"], folder=None)
    data = data.datamodule
    data.prepare_data()
    data.setup("fit")
    batch = data.normalized(next(iter(data.view_loader(data.plain_view, found.rows, 100))))["image"]
    with torch.no_grad():
        expected = model.eval()(batch).softmax(dim=1)
    assert found.source.shape == expected.shape == (18, 1000)
    torch.testing.assert_close(found.source[0:18], expected, rtol=1e-3, atol=1e-6)


TINY_160 = [*TINY, "--data.image_size", "160"]


def build_and_save(name):
    """A whole model with a classifier that says something."""
    model = load_source_model(f"timm/{name}", "none")
    nn.init.normal_(model.get_classifier().weight, std=0.5)
    torch.save(model.state_dict(), "whole.pth")
    return model


def test_weights_without_a_classifier_have_no_source(here):
    assert measure(TINY, EFFICIENTNET).source is None


def test_source_probabilities_are_read_slice_by_slice():
    classifier, features = nn.Linear(4, 3), torch.randn(10, 4, dtype=torch.bfloat16)
    source = SourceProbabilities(features, classifier)
    assert source.shape == (10, 3)
    torch.testing.assert_close(source[2:5], classifier(features.float()).softmax(dim=1)[2:5].detach())


def test_macs_are_those_of_convolutions_and_products_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 5),
    )
    expected = 16 * 16 * 8 * (3 * 9) + 16 * 16 * 8 * 9 + 8 * 16 * 16 * 5
    assert count_macs(module, PREPROCESS.with_size(32)) == expected
    assert module.training


def test_macs_of_a_transformer_count_its_attention():
    vit = build_backbone("timm/test_vit", "none").module
    tokens, width, hidden, blocks, patch = 101, 64, 192, 6, 16
    assert vit.embed_dim == width and len(vit.blocks) == blocks and vit.blocks[0].mlp.fc1.out_features == hidden
    block = tokens * width * 4 * width + 2 * tokens * tokens * width + 2 * tokens * width * hidden
    assert count_macs(vit, PREPROCESS.with_size(160)) == 100 * width * 3 * patch**2 + blocks * block


def test_groups_stay_whole_in_the_folds(here):
    table = [(path, path.parent.name, f"g{number // 3}") for number, path in enumerate(sorted(Path().rglob("*.png")))]
    with Path("table.csv").open("w") as file:
        csv.writer(file).writerows([("image", "label", "patient"), *table])
    options = [*TINY, "--data.source", "table.csv", "--data.group_column", "patient", "--data.test_fraction", "0"]
    found = measure(options, EFFICIENTNET)
    for group in np.unique(found.groups):
        assert len(np.unique(found.fold_of.numpy()[found.groups == group])) == 1
        assert len(np.unique(found.kin.numpy()[found.groups == group])) == 1
    assert len(found.kin.unique()) == len(np.unique(found.groups))


def test_blocks_are_divided_into_blocks(here):
    options = [*TINY, "--data.source", "table.csv", "--data.split", "blocks"]
    paths = sorted(Path().rglob("*.png"), key=lambda path: (int(path.stem), path.parent.name))
    with Path("table.csv").open("w") as file:
        csv.writer(file).writerows([("image", "label"), *((path, path.parent.name) for path in paths)])
    found = measure(options, EFFICIENTNET)
    assert found.fold_of.tolist() == sorted(found.fold_of.tolist()) and found.fold_of.max() == 4
    assert torch.equal(found.kin, found.fold_of)


def test_too_few_images_or_groups_are_one_line(here):
    write_images(here / "few", count=3)
    with pytest.raises(UserError, match=r"4 training and validation images are too few to compare backbones on: 5"):
        measure([*TINY, "--data.source", "few"], EFFICIENTNET)


def test_without_room_it_is_one_line(here, monkeypatch):
    def no_room(needed):
        raise NoRoom("the cache is full")

    monkeypatch.setattr(activations, "make_room", no_room)
    with pytest.raises(UserError, match="the features cannot be cached: the cache is full"):
        measure(TINY, EFFICIENTNET)


def test_several_processes_are_refused(here):
    with pytest.raises(UserError, match=r"one process, and trainer.devices asks for 2"):
        measure([*TINY, "--trainer.devices", "2"], EFFICIENTNET)


@pytest.mark.parametrize(("outputs", "known"), [(1000, True), (21843, True), (512, False), (37, False)])
def test_a_projection_is_no_classifier(outputs, known):
    class Model(nn.Module):
        def get_classifier(self):
            return self.last

    model = Model()
    model.last = nn.Linear(4, outputs)
    assert (source_classifier("timm/x", model) is model.last) == known
    model.last = nn.Identity()
    assert source_classifier("timm/x", model) is None and source_classifier("timm/x", nn.Identity()) is None
