"""What fine-tuning did to the pretrained weights: measured right, once, and without touching the run."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny import TINY, write_images, write_tiny

from tl_lightning import load
from tl_lightning.backbones import Backbone, CannotSplit, build_backbone
from tl_lightning.backbones.splitting import stage_outputs
from tl_lightning.cli import main
from tl_lightning.core.quiet import quiet
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.training.forgetting import Forgetting, ForgettingMeter, meter
from tl_lightning.training.forgetting.cka import linear_cka

STAGES = ["conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]
OPTIONS = [*TINY, "--data.val_fraction", "0.4"]  # 7 images


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


@pytest.fixture
def begun(here):
    """A configuration whose data are there, and a meter for it."""

    quiet()

    def begin(*arguments, **options):
        configuration = Configuration([*OPTIONS, *arguments], folder=None)
        configuration.datamodule.prepare_data()
        configuration.datamodule.setup("fit")
        task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
        return configuration, ForgettingMeter(task, data, trainer, Forgetting(**options))

    return begin


def change(task, prefix, *, buffers=False):
    """Moves the parameters, or the BatchNorm statistics, whose names begin so."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in task.backbone.named_buffers() if buffers else task.backbone.named_parameters():
            if name.startswith(prefix) and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))


def features(module, data, rows):
    module = module.eval()
    images = torch.stack([data.plain_view.transform(data.store.sample(int(row)))["image"] for row in rows])
    with torch.no_grad():
        stages = build_backbone("timm/test_efficientnet", "none").stages
        return stage_outputs(module, stages, inputs=("image",))(data.normalized({"image": images})["image"])


def test_distance_and_similarity_of_each_stage_are_those_of_the_formulas(begun, capsys):
    configuration, measuring = begun()
    task, data = configuration.model, configuration.datamodule
    change(task, ("blocks.2.", "blocks.4."))
    record = measuring.measure("all")

    start = build_backbone("timm/test_efficientnet", "start.pth").module
    before, after = dict(start.named_parameters()), dict(task.backbone.named_parameters())
    rows = data.splits["val"]
    pairs = zip(features(start, data, rows), features(task.backbone, data, rows), strict=True)
    similarities = [linear_cka(*pair) for pair in pairs]
    assert [row["stage"] for row in record["stages"]] == STAGES
    assert record["images"] == len(rows) == 7
    for row, stage, similarity in zip(record["stages"], task.stages, similarities, strict=True):
        one = torch.cat([before[name].flatten() for name in stage.parameters]).detach().double()
        other = torch.cat([after[name].flatten() for name in stage.parameters]).detach().double()
        assert row["weight_distance"] == pytest.approx(float((other - one).norm() / one.norm()), rel=1e-9)
        assert row["cka"] == pytest.approx(similarity, abs=1e-5)
    assert [row["weight_distance"] == 0 for row in record["stages"]] == [True, True, True, False, True, False]
    assert [row["cka"] == 1 for row in record["stages"]] == [True, True, True, False, False, False]  # exactly
    shown = capsys.readouterr().out
    assert "what differs from the start after phase all, 7 validation images" in shown
    assert f"{record['stages'][3]['cka']:.3f}" in shown


def test_statistics_that_were_adapted_count_as_a_change(begun):
    configuration, measuring = begun()
    change(configuration.model, "blocks.3.", buffers=True)
    stages = measuring.measure("head")["stages"]
    assert [row["weight_distance"] for row in stages] == [0.0] * 6
    assert [row["cka"] == 1 for row in stages] == [True, True, True, True, False, False]


def test_an_unchanged_backbone_costs_and_shows_nothing(begun, monkeypatch, capsys):
    _, measuring = begun()
    monkeypatch.setattr(ForgettingMeter, "_outputs", None)
    monkeypatch.setattr(meter, "weights_digest", None)
    assert measuring.measure("head") is None
    assert "what differs" not in capsys.readouterr().out


def test_what_was_measured_already_is_not_computed_again(begun, monkeypatch, capsys):
    configuration, measuring = begun()
    change(configuration.model, "blocks.4.")
    record = measuring.measure("all")
    capsys.readouterr()
    monkeypatch.setattr(ForgettingMeter, "_outputs", None)
    assert measuring.measure("head") == record
    assert capsys.readouterr().out == ""


def test_the_features_of_the_start_are_computed_once(begun, monkeypatch):
    configuration, measuring = begun()
    calls, outputs = [], ForgettingMeter._outputs
    monkeypatch.setattr(ForgettingMeter, "_outputs", lambda *arguments: calls.append(1) or outputs(*arguments))
    for _ in range(2):
        change(configuration.model, "blocks.4.")
        measuring.measure("all")
    assert len(calls) == 3


def test_a_backbone_whose_stages_cannot_be_seen_is_compared_by_its_features(begun, monkeypatch):
    configuration, measuring = begun()
    change(configuration.model, "blocks.0.")
    whole = measuring.measure("all")

    def refuse(backbone):
        raise CannotSplit("no")

    monkeypatch.setattr(Backbone, "stage_outputs", refuse)
    _, measuring = begun()
    measuring._task = configuration.model
    stages = measuring.measure("all")["stages"]
    assert [row["cka"] for row in stages[:-1]] == [None] * 5
    assert stages[-1]["cka"] == pytest.approx(whole["stages"][-1]["cka"], abs=1e-6)
    assert [row["weight_distance"] for row in stages] == [row["weight_distance"] for row in whole["stages"]]


@pytest.mark.parametrize(
    ("options", "arguments"), [({"images": 0}, []), ({}, ["--data.val_fraction", "0.15"])], ids=["none", "too few"]
)
def test_without_images_only_the_weights_are_compared(begun, capsys, options, arguments):
    configuration, measuring = begun(*arguments, **options)
    change(configuration.model, "blocks.4.")
    record = measuring.measure("all")
    assert record["images"] == 0
    assert [row["cka"] for row in record["stages"]] == [None] * 6
    assert record["stages"][-1]["weight_distance"] > 0
    assert "CKA" not in capsys.readouterr().out


def test_some_of_the_validation_images_are_looked_at_the_same_for_every_seed(begun):
    found = []
    for seed in ("0", "1"):
        configuration, measuring = begun("--seed_everything", seed, images=5)
        found.append(measuring._rows().tolist())
        assert set(found[-1]) < set(configuration.datamodule.splits["val"].tolist())
    assert found[0] == found[1] == sorted(found[0])
    assert len(found[0]) == 5


def test_random_weights_and_all_but_the_first_process_measure_nothing(begun, monkeypatch):
    configuration, measuring = begun("--model.weights", "none")
    change(configuration.model, "blocks.4.")
    assert measuring.measure("all") is None
    configuration, _ = begun()
    monkeypatch.setattr(type(configuration.trainer), "is_global_zero", False)
    others = ForgettingMeter(configuration.model, configuration.datamodule, configuration.trainer, Forgetting())
    change(configuration.model, "blocks.4.")
    assert others.measure("all") is None


def test_nothing_of_the_run_is_touched(begun):
    configuration, measuring = begun()
    task = configuration.model
    change(task, "blocks.4.")
    task.train()
    task.backbone.blocks[2].eval()
    modes = [module.training for module in task.backbone.modules()]
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    identities = [id(tensor) for tensor in [*task.parameters(), *task.buffers()]]
    state = torch.get_rng_state()
    measuring.measure("all")
    assert torch.equal(torch.get_rng_state(), state)
    assert modes == [module.training for module in task.backbone.modules()]
    assert identities == [id(tensor) for tensor in [*task.parameters(), *task.buffers()]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())


@pytest.mark.parametrize("images", [-1, 1, 3])
def test_a_number_of_images_that_says_nothing_is_refused(images):
    with pytest.raises(UserError, match=rf"^forgetting.images is {images}; it must be 0 for none, or 4 or more"):
        Forgetting(images=images)
    assert Forgetting(images=4).images == 4


PHASES = "[{train: head, epochs: 1}, {train: 'last:2', epochs: 2}, {train: all}]"
RUN = [*OPTIONS, "--phases", PHASES, "--trainer.max_epochs", "4", "--checkpoint.monitor", "val/loss"]
RUN += ["--model.head_solver", "sgd"]  # solved, it would leave the others nothing to better


class Interrupt(Callback):
    """Presses Ctrl-C once, in an epoch that a test names."""

    epoch: int | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1 and Interrupt.epoch == trainer.current_epoch:
            Interrupt.epoch = None
            raise KeyboardInterrupt


def summary(run):
    return json.loads(Path(run, "summary.json").read_text())


def forgotten(run):
    return [phase.get("forgetting") for phase in summary(run)["phases"]]


def test_a_run_tells_what_each_phase_did_resumed_or_not_and_ends_with_the_weights_it_would_have_had(here, monkeypatch):
    assert main(["fit", *RUN, "--run_dir", "whole"]) == 0
    first, second, third = forgotten("whole")
    assert first is None  # the head alone
    assert [row["cka"] == 1 for row in second["stages"]] == [True] * 4 + [False] * 2
    assert [row["weight_distance"] > 0 for row in second["stages"]] == [False] * 4 + [True] * 2
    assert not math.isclose(third["stages"][0]["cka"], 1)
    assert all(row["weight_distance"] > 0 for row in third["stages"])

    monkeypatch.setattr(Interrupt, "epoch", 3)
    args = ["fit", *RUN, f"--trainer.callbacks+={__name__}.Interrupt", "--run_dir", "run"]
    assert main(args) == 130
    assert forgotten("run") == [None, second, None]
    assert main(["resume", "--run_dir", "run"]) == 0
    assert forgotten("run") == [None, second, third]

    monkeypatch.setattr(ForgettingMeter, "measure", lambda self, phase: None)
    assert main(["fit", *RUN, "--run_dir", "without"]) == 0
    assert forgotten("without") == [None] * 3
    one, other = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "without"))
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert Path("whole/metrics.csv").read_bytes() == Path("without/metrics.csv").read_bytes()


def test_a_cool_down_counts_as_a_phase(here, monkeypatch):
    class Counting(ForgettingMeter):
        def measure(self, phase):
            return {"phase": phase}

    monkeypatch.setattr("tl_lightning.experiment.phase_loop.ForgettingMeter", Counting)
    phases = "[{train: all, epochs: 4, patience: 1, min_delta: 9, cooldown: 1}]"
    assert main(["fit", *OPTIONS, "--phases", phases, "--trainer.max_epochs", "4", "--run_dir", "run"]) == 0
    assert forgotten("run") == [{"phase": "all"}, {"phase": "all, cooling down"}]


@pytest.fixture
def two_stages(here, capsys):
    """A run on bright and dark images, and others for a second run from its weights."""
    options = ["--phases", "[{train: 'last:2'}]", "--trainer.max_epochs", "2", "--run_dir", "first"]
    assert main(["fit", *OPTIONS, *options]) == 0
    write_images(here / "others", classes=("ash", "elm", "oak"), count=8, size=(48, 40))
    capsys.readouterr()
    second = ["--data.source", "others", "--model.weights", "first", "--forgetting.source", "images"]
    return ["fit", *OPTIONS, *second]


def first_is_right(count):
    """The share of the first run's images that it gets right itself."""
    paths = sorted(Path("images").rglob("*.png"))
    right = [answer.label == answer.path.split("/")[-2] for answer in load("first").predict(paths)]
    assert len(right) == count
    return sum(right) / count


def test_full_fine_tuning_at_a_high_rate_forgets_the_task_before_and_feature_extraction_does_not(two_stages, capsys):
    known = first_is_right(24)
    assert known > 0.8
    assert main([*two_stages, "--phases", "feature_extraction", "--run_dir", "kept"]) == 0
    (record,) = forgotten("kept")
    assert record["source"] == {"before": known, "after": known, "images": 24}
    assert [(row["weight_distance"], row["cka"]) for row in record["stages"]] == [(0.0, 1.0)] * 6
    shown = capsys.readouterr().out
    assert f"forgetting the source head still gets {100 * known:.1f} % of 24 source images right" in shown
    assert "what differs" not in shown

    rates = ["--model.lr", "0.1", "--model.backbone_lr_scale", "1", "--model.bottom_ratio", "1"]
    assert main([*two_stages, "--phases", "full", *rates, "--trainer.max_epochs", "2", "--run_dir", "lost"]) == 0
    (record,) = forgotten("lost")
    assert record["source"]["before"] == known
    assert record["source"]["after"] < 0.75
    after = f"{100 * record['source']['after']:.1f} % of 24 source images right instead of {100 * known:.1f} %"
    assert f"the source head would now get {after}" in capsys.readouterr().out


def test_a_wrong_source_is_said_before_anything_trains_and_leaves_no_run(two_stages, capsys):
    shutil.copytree("images/cat", "images/cats")
    assert main([*two_stages, "--run_dir", "run"]) == 2
    line = "the folder 'cats' in images is no class of the source head; did you mean cat?"
    assert line in capsys.readouterr().err
    assert main([*two_stages, "--model.weights", "none", "--run_dir", "run"]) == 2
    assert "model.weights is none" in capsys.readouterr().err
    assert not Path("run").exists()
