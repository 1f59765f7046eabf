"""What a phase freezes is computed once, and training goes on as if it had not been."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny import TINY, write_tiny
from torch import nn

from tl_lightning.backbones import Backbone, CannotSplit, Split
from tl_lightning.cli import main
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.feature_cache import activation_store as activations
from tl_lightning.feature_cache import extractor as extraction
from tl_lightning.feature_cache import phase_cache as keeping
from tl_lightning.tasks.classification import ClassificationTask

STEPPED = ["--model.head_solver", "sgd"]


class Batches(Callback):
    """Notes what training and validation batches hold, by epoch."""

    seen: set[tuple[int, str]] = set()  # noqa: RUF012 - each test sets its own

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Batches.seen.add((trainer.current_epoch, "activations" if "activations" in batch else "image"))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.state.fn == "fit":
            self.on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


@pytest.fixture
def images_run(monkeypatch):
    """How many images went through the first convolution so far."""
    monkeypatch.setattr(extraction, "BATCH", 1)  # no batch is filled up
    count = [0]

    def note(module, inputs):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and inputs[0].device.type != "meta":
            count[0] += len(inputs[0])

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    yield count
    handle.remove()


def fit(phases, *options, epochs=3, run="run"):
    text = phases if isinstance(phases, str) else json.dumps(phases)
    return main(["fit", *TINY, "--phases", text, "--trainer.max_epochs", str(epochs), "--run_dir", run, *options])


def summary(run="run"):
    return json.loads(Path(run, "summary.json").read_text())


def weights(run="run"):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def rows(run="run"):
    with Path(run, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def stores():
    folder = Path(os.environ["TL_CACHE_DIR"], "activations")
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def said(text, word):
    return [line for line in text.splitlines() if line.startswith(word)]


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_each_image_goes_through_a_frozen_backbone_once_and_in_a_second_run_never(here, images_run, solver):
    options = ["--model.head_solver", solver]
    assert fit("feature_extraction", *options, epochs=4) == 0
    data = summary()["data"]
    # Two images show, in parts and as a whole, what crosses the cut; a finished run is tested from images.
    assert images_run[0] == 2 + 2 + data["train"] + data["validation"] + data["test"]
    images_run[0] = 0
    assert fit("feature_extraction", *options, "--seed_everything", "9", epochs=7, run="again") == 0
    assert images_run[0] == data["test"]


def test_what_is_logged_of_kept_features_is_what_images_give(here):
    assert fit("feature_extraction") == 0
    kept, final = [float(row["val/loss"]) for row in rows() if row["val/loss"]]
    assert kept == pytest.approx(final, abs=1e-6)
    assert summary()["validation"]["loss"] == final
    assert main(["test", "--run_dir", "run", "--output", "test.json"]) == 0
    assert json.loads(Path("test.json").read_text())["test"] == summary()["test"]

    assert main(["predict", "--run_dir", "run", "--input", "images", "--output", "predictions.csv"]) == 0
    with Path("predictions.csv").open() as file:
        right = sum(row["class"] == Path(row["path"]).parent.name for row in csv.DictReader(file))
    assert right >= 20  # of 24


@pytest.mark.parametrize(
    "phase",
    [
        {"train": "head"},
        {"train": "last:1"},
        {"train": "last:2", "bn": "train"},
        {"train": "from:blocks.1", "bn": "adapt"},
        {"train": "regex:^blocks\\.2\\."},
    ],
)
def test_training_on_what_is_kept_is_training_on_images(here, phase):
    assert fit([phase], *STEPPED, "--cache", "require", run="kept") == 0
    assert fit([phase], *STEPPED, "--cache", "off", run="off") == 0
    kept, off = weights("kept"), weights("off")
    assert kept.keys() == off.keys()
    for name in off:
        torch.testing.assert_close(kept[name], off[name], rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(off["heads.target.1.weight"], off["heads.target.1.weight"].new_zeros(()), atol=1e-3)
    assert [(row["epoch"], row["step"], row["lr/head"]) for row in rows("kept")] == [
        (row["epoch"], row["step"], row["lr/head"]) for row in rows("off")
    ]
    phases = [summary(run)["phases"][0] for run in ("kept", "off")]
    assert [found.pop("cached") is None for found in phases] == [False, True]
    moved = [[row["weight_distance"] for row in found.pop("forgetting", {"stages": []})["stages"]] for found in phases]
    assert moved[0] == pytest.approx(moved[1], rel=1e-6)
    assert phases[0] == phases[1]


def test_a_phase_that_trains_everything_goes_back_to_images(here, monkeypatch, capsys):
    monkeypatch.setattr(Batches, "seen", set())
    assert fit("lp_ft", f"--trainer.callbacks+={__name__}.Batches", epochs=4) == 0
    assert Batches.seen == {(0, "activations"), *((epoch, "image") for epoch in range(1, 4))}
    assert len(said(capsys.readouterr().out, "cached ")) == 1


def test_nothing_is_kept_with_the_cache_off(here, monkeypatch, capsys):
    monkeypatch.setattr(Batches, "seen", set())
    assert fit("feature_extraction", "--cache", "off", f"--trainer.callbacks+={__name__}.Batches") == 0
    assert Batches.seen == {(epoch, "image") for epoch in range(3)}
    assert stores() == []
    shown = capsys.readouterr().out
    assert said(shown, "cached") == said(shown, "not cached") == said(shown, "head ") == []


def test_statistics_that_were_adapted_give_other_activations(here):
    assert fit([{"train": "head"}], run="frozen") == 0
    (first,) = stores()
    assert fit([{"train": "head", "bn": "adapt"}], run="adapted") == 0
    assert len(set(stores()) - {first}) == 1
    kept, final = [float(row["val/loss"]) for row in rows("adapted") if row["val/loss"]]
    assert kept == pytest.approx(final, abs=1e-6)
    assert final != pytest.approx(summary("frozen")["validation"]["loss"], abs=1e-4)


def test_changed_images_and_changed_weights_are_computed_anew(here, capsys):
    assert fit("feature_extraction", run="first") == 0
    pixels = Path("images/cat/1.png").read_bytes()
    Path("images/cat/0.png").write_bytes(pixels)
    assert fit("feature_extraction", run="image") == 0
    assert len(stores()) == 2
    state = torch.load("start.pth", weights_only=True)
    state["bn2.running_mean"] += 1e-3  # a buffer counts as well
    torch.save(state, "start.pth")
    assert fit("feature_extraction", run="weights") == 0
    assert len(stores()) == 3
    assert "found in the cache" not in capsys.readouterr().out
    assert fit("feature_extraction", run="again") == 0
    assert "found in the cache" in capsys.readouterr().out
    assert len(stores()) == 3


def test_every_version_that_an_augmentation_has_is_kept_where_that_pays(here, capsys):
    assert fit([{"train": "last:1", "augmentation": "flips"}], epochs=3) == 0
    train, validation = (summary()["data"][name] for name in ("train", "validation"))
    (line,) = said(capsys.readouterr().out, "cached ")
    assert f"{2 * train + validation} images in 2 views after" in line
    assert len(stores()) == 2


def test_eight_versions_for_three_epochs_are_not_kept_unless_they_have_to_be(here, capsys):
    phases = [{"train": "last:1", "augmentation": "dihedral"}]
    assert fit(phases, epochs=3) == 0
    (line,) = said(capsys.readouterr().out, "not cached")
    assert "computing 8 views once is no less work than 3 epochs" in line
    assert stores() == []
    assert fit(phases, "--cache", "require", epochs=3, run="required") == 0
    assert fit([{**phases[0], "views": 8}], epochs=3, run="asked") == 0
    assert [len(said(capsys.readouterr().out, "cached ")), len(stores())] == [2, 8]


@pytest.mark.parametrize("train", ["head", "last:1"])
def test_four_versions_of_an_endless_augmentation_are_kept_where_a_phase_asks_for_them(here, capsys, train):
    assert fit([{"train": train, "augmentation": "standard", "views": 4}]) == 0
    assert "in 4 views after" in said(capsys.readouterr().out, "cached ")[0]
    assert len(stores()) == 5  # and the images as validation sees them


def test_more_versions_than_there_are_is_one_line_and_leaves_nothing(here, capsys):
    assert fit([{"train": "head", "augmentation": "flips", "views": 3}]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "tl fit: phase head: views is 3, but augmentation flips has only 2"
    assert not Path("run").exists()


@pytest.mark.parametrize("phase", [{"train": "head"}, {"train": "all"}])
def test_views_that_nothing_reads_are_said(here, capsys, phase):
    views = {**phase, "augmentation": "flips", "views": 2}
    assert fit([views], "--cache", "off") == (0 if phase["train"] == "head" else 2)
    shown = capsys.readouterr()
    words = "cache is off: views has no effect" if phase["train"] == "head" else "there is nothing to cache"
    assert words in shown.out + shown.err
    assert fit([{**views, "views": 3}], "--cache", "off", run="more") == 2


class ImagesOfItsOwn(ImageDataModule):
    """Prepares images otherwise than the cache would know."""

    def normalized(self, batch):
        return {**super().normalized(batch), "image": super().normalized(batch)["image"] * 0.5}


class TaskOfItsOwn(ClassificationTask):
    """Trains in a way of its own."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * 2.0


class HeadOfItsOwn(ClassificationTask):
    """Has a head that no solver knows."""

    def __init__(self, backbone: str, classes: list[str], *, weights: str = "none", preprocess: dict | None = None):
        super().__init__(backbone, classes, weights=weights, preprocess=preprocess)
        self.heads["target"] = nn.Sequential(
            nn.LayerNorm(self.num_features), nn.Linear(self.num_features, len(classes))
        )


@pytest.mark.parametrize(
    ("own", "line"),
    [
        ("data=ImagesOfItsOwn", "not cached ImagesOfItsOwn has its own normalized"),
        ("model=TaskOfItsOwn", "not cached TaskOfItsOwn has its own training_step"),
        ("model=HeadOfItsOwn", "not solved its head is not one linear layer"),
    ],
)
def test_a_users_own_class_is_not_passed_by(here, capsys, own, line):
    kind, _, name = own.partition("=")
    rates = [option for option in ("--model.lr", "0.01") if kind == "data"]
    start = TINY.index("--model.lr")
    options = [*TINY[:start], *TINY[start + 2 :], *rates]
    phases = ["--phases", '[{"train": "head"}]', "--trainer.max_epochs", "2", "--run_dir", "run"]
    assert main(["fit", f"--{kind}={__name__}.{name}", *options, *phases]) == 0
    assert said(capsys.readouterr().out, "not ") == [line]
    assert summary()["phases"][0]["epochs"] == 2


def test_numbers_that_are_not_finite_are_one_line_that_names_the_image(here, capsys):
    state = torch.load("start.pth", weights_only=True)
    state["conv_stem.weight"][0] = 3e38  # more than its sums can hold
    torch.save(state, "start.pth")
    assert fit("feature_extraction") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the frozen part of the backbone gives numbers that are not finite in precision 32-true" in line
    assert "images/" in line


def test_a_cool_down_reads_what_its_phase_read(here, capsys):
    phase = {"train": "last:1", "augmentation": "flips", "patience": 1, "min_delta": 2, "cooldown": 2}
    assert fit([{**phase, "schedule": "constant", "warmup": 0.0}], epochs=6) == 0
    assert [(found["epochs"], found["cached"]) for found in summary()["phases"]] == [(2, "blocks.3"), (2, "blocks.3")]
    assert said(capsys.readouterr().out, "not cached") == []


def test_a_store_that_was_left_half_filled_asks_for_room_again(here, capsys, monkeypatch):
    assert fit("feature_extraction", run="first") == 0
    (store,) = Path(os.environ["TL_CACHE_DIR"], "activations").glob("[0-9a-f]*")
    (store / "done.bin").write_bytes(bytes((store / "done.bin").stat().st_size))
    monkeypatch.setattr(extraction, "make_room", no_room)
    assert fit("feature_extraction", epochs=2) == 0
    assert said(capsys.readouterr().out, "not cached") == ["not cached the cache is full; going on from images"]


def cannot_split(*args):
    raise CannotSplit("blocks go round in circles")


OBSTACLES = [
    ({"train": "last:1"}, ["--data.mixup", "0.2"], "data.mixup and data.cutmix"),
    ({"train": "head"}, ["--data.cutmix", "1.0"], "data.mixup and data.cutmix"),
    ({"train": "head"}, ["--trainer.limit_train_batches", "2"], "trainer.limit_*_batches"),
    ({"train": "last:1"}, ["--trainer.limit_val_batches", "2"], "trainer.limit_*_batches"),
    ({"train": "last:1"}, ["--model.gradient_checkpointing", "true"], "checkpoint"),
    ({"train": "last:1", "augmentation": "standard"}, [], "augmentation standard draws anew in each epoch"),
]


@pytest.mark.parametrize(("phase", "options", "words"), OBSTACLES)
def test_what_stands_against_keeping_is_said_and_the_run_goes_on(here, capsys, phase, options, words):
    assert fit([phase], *options) == 0
    (line,) = said(capsys.readouterr().out, "not cached")
    assert words in line
    assert (summary()["phases"][0]["epochs"], stores()) == (3, [])


@pytest.mark.parametrize(("phase", "options", "words"), OBSTACLES)
def test_with_the_cache_required_it_is_one_line_and_leaves_nothing(here, capsys, phase, options, words):
    assert fit([phase], *options, "--cache", "require") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cache is require" in line
    assert words in line
    assert not Path("run").exists()


def test_a_model_that_cannot_be_split_runs_whole(here, capsys, monkeypatch):
    monkeypatch.setattr(Backbone, "split", cannot_split)
    assert fit([{"train": "last:1"}]) == 0
    assert len(said(capsys.readouterr().out, "not cached blocks go round in circles")) == 1
    assert fit([{"train": "last:1"}], "--cache", "require", run="required") == 2
    assert "blocks go round in circles" in capsys.readouterr().err


def test_parts_that_do_not_make_the_whole_are_not_used(here, capsys, monkeypatch):
    real = Backbone.split

    def wrong(backbone, cut):
        split = real(backbone, cut)
        return Split(split.prefix, nn.Sequential(split.suffix, nn.ReLU(), nn.Hardtanh(0.0, 0.01)))

    monkeypatch.setattr(Backbone, "split", wrong)
    assert fit([{"train": "last:1"}]) == 0
    (line,) = said(capsys.readouterr().out, "not cached")
    assert "the two parts of the backbone do not compute what the whole does" in line


def test_a_data_module_that_serves_only_images_is_trained_on_images(here, capsys, monkeypatch):
    monkeypatch.setattr(keeping, "TransferDataModule", type("Another", (), {}))
    assert fit([{"train": "head"}]) == 0
    assert len(said(capsys.readouterr().out, "not cached ImageDataModule can serve samples only")) == 1
    assert summary()["phases"][0]["epochs"] == 3


def no_room(needed):
    raise NoRoom("the cache is full")


def full_disk(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("module", "name", "broken", "words"),
    [(activations, "make_room", no_room, "the cache is full"), (os, "pwrite", full_disk, "No space left on device")],
)
@pytest.mark.parametrize("train", ["head", "last:1"])
def test_without_room_the_run_goes_on_from_images_for_all_its_epochs(
    here, capsys, monkeypatch, module, name, broken, words, train
):
    monkeypatch.setattr(module, name, broken)
    assert fit([{"train": train}]) == 0
    (line,) = said(capsys.readouterr().out, "not cached")
    assert words in line
    assert line.endswith("going on from images")
    assert summary()["phases"][0]["epochs"] == 3
    assert fit([{"train": train}], *STEPPED, "--cache", "off", run="off") == 0
    assert all(torch.equal(tensor, weights("off")[key]) for key, tensor in weights().items())


def test_without_room_the_summary_names_the_rates_that_the_head_was_trained_at(here, monkeypatch):
    monkeypatch.setattr(activations, "make_room", no_room)
    assert fit([{"train": "head"}]) == 0
    assert summary()["phases"][0]["learning_rates"] == {"head": 0.01}


def test_without_room_a_run_that_requires_the_cache_fails(here, capsys, monkeypatch):
    monkeypatch.setattr(activations, "make_room", no_room)
    assert fit([{"train": "head"}], "--cache", "require") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "tl fit: phase head: cache is require, but what is frozen cannot be cached: the cache is full"
