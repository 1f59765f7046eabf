"""What phases do within a run: patience, cool-downs, augmentation, cautions, and what cannot work with them."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback
from tiny import write_images

from tl_lightning.cli import main

FIT = [
    *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"),
    *("--model.backbone", "timm/test_efficientnet", "--model.weights", "none", "--model.lr", "0.01"),
    *("--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    *("--trainer.precision", "32-true", "--run_dir", "run"),
]
STEPPED = ["--model.head_solver", "sgd"]  # the head alone would be solved, without epochs, rates or patience
STEPS = 3  # an epoch: 15 of the 24 images are trained on


class Batches(Callback):
    """Keeps the pixels of every training image, by epoch and index."""

    seen: dict[tuple[int, int], torch.Tensor] = {}  # noqa: RUF012 - each test sets its own

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            Batches.seen[trainer.current_epoch, index] = image.clone()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12, size=(48, 40))
    return tmp_path


def fit(*phases, epochs, options=()):
    return main([*FIT, "--phases", json.dumps(phases), "--trainer.max_epochs", str(epochs), *options])


def phases_of_the_run():
    summary = json.loads(Path("run/summary.json").read_text())
    return [(phase["name"], phase["first_epoch"], phase["epochs"]) for phase in summary["phases"]]


def head_rates():
    with Path("run/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr/head"]]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [float(row["lr/head"]) for row in rows]


def refused(capsys, *options):
    """The one line with which ``tl fit`` refuses."""
    assert main([*FIT, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("run").exists()
    return line


def test_a_phase_has_a_patience_of_its_own(here, capsys):
    # Nothing can gain 2 in macro F1: one validation sets the mark, each other one costs patience.
    first = {"train": "head", "epochs": 5, "patience": 2, "min_delta": 2}
    second = {"train": "last:1", "epochs": 2, "lr_scale": 0.5}
    last = {"train": "all", "patience": 1, "min_delta": 2}
    assert fit(first, second, last, epochs=10, options=STEPPED) == 0
    assert phases_of_the_run() == [("head", 0, 3), ("last:1", 3, 2), ("all", 5, 2)]
    shown = capsys.readouterr().out
    assert "phase head stopped early after 3 epochs" in shown
    assert "phase all stopped early after 2 epochs" in shown
    assert "phase last:1 stopped" not in shown


FALLING = {"train": "head", "epochs": 4, "patience": 1, "min_delta": 2, "schedule": "linear", "warmup": 0.0}


@pytest.mark.parametrize(
    ("patience", "options"),
    [(1, []), (5, ["--trainer.val_check_interval", "0.34"])],  # in validations: one an epoch, or one after each step
)
def test_a_cool_down_takes_the_rates_from_where_they_stand_to_0_in_exactly_its_epochs(here, patience, options):
    last = {"train": "last:1", "schedule": "constant", "warmup": 0.0}
    assert fit({**FALLING, "patience": patience, "cooldown": 3}, last, epochs=5, options=[*options, *STEPPED]) == 0
    assert phases_of_the_run() == [("head", 0, 2), ("head, cooling down", 2, 3), ("last:1", 5, 1)]
    rates = head_rates()
    assert len(rates) == 6 * STEPS
    # The phase's 4 epochs have 12 steps; after 6 of them the rate is half of 0.01.
    assert rates[: 2 * STEPS] == pytest.approx([0.01 * (1 - step / 12) for step in range(6)])
    assert rates[2 * STEPS : 5 * STEPS] == pytest.approx([0.005 * (1 - step / 9) for step in range(9)])
    assert rates[5 * STEPS :] == pytest.approx([0.01] * 3)


def test_a_phase_that_reaches_its_end_does_not_cool_down(here):
    first = {**FALLING, "epochs": 2, "patience": 2, "cooldown": 3}
    assert fit(first, {"train": "last:1"}, epochs=3, options=STEPPED) == 0
    assert phases_of_the_run() == [("head", 0, 2), ("last:1", 2, 1)]


def test_a_solved_phase_takes_one_epoch_and_has_nothing_to_cool_down(here, capsys):
    assert fit({**FALLING, "cooldown": 3}, {"train": "last:1"}, epochs=6) == 0
    assert phases_of_the_run() == [("head", 0, 1), ("last:1", 1, 2)]
    assert "stopped early" not in capsys.readouterr().out


def test_the_last_phase_cools_down_too(here):
    assert fit({**FALLING, "train": "all", "cooldown": 1}, epochs=4) == 0
    assert phases_of_the_run() == [("all", 0, 2), ("all, cooling down", 2, 1)]
    assert head_rates()[2 * STEPS :] == pytest.approx([0.005, 0.005 * 2 / 3, 0.005 / 3])


def symmetries(image):
    turned = [torch.rot90(image, quarter, (1, 2)) for quarter in range(4)]
    return turned + [each.flip(2) for each in turned]


def test_each_phase_has_an_augmentation_of_its_own(here, monkeypatch):
    monkeypatch.setattr(Batches, "seen", {})
    none = {"train": "head", "epochs": 2, "augmentation": "none"}
    dihedral = {"train": "head", "epochs": 2, "augmentation": "dihedral"}
    # What is configured for the data is for phases that say nothing.
    options = ["--data.augmentation", "flips", "--cache", "off", f"--trainer.callbacks+={__name__}.Batches"]
    assert fit(none, dihedral, {"train": "last:1"}, epochs=6, options=options) == 0
    seen = Batches.seen
    indices = {index for _, index in seen}
    plain = {index: next(seen[key] for key in seen if key[0] < 2 and key[1] == index) for index in indices}
    used: dict[int, set[int]] = {epoch: set() for epoch in range(6)}
    for (epoch, index), image in seen.items():
        (symmetry,) = [k for k, each in enumerate(symmetries(plain[index])) if torch.equal(each, image)]
        used[epoch].add(symmetry)
    assert used[0] == used[1] == {0}
    assert len(used[2] | used[3]) > 4
    assert used[4] | used[5] == {0, 4}  # as it is, and mirrored


def test_an_augmentation_by_class_may_hold_others_in_the_data_and_in_a_phase(here):
    flip = {"class_path": "torchvision.transforms.v2.RandomHorizontalFlip", "init_args": {"p": 1.0}}
    nested = {"class_path": "torchvision.transforms.v2.RandomApply", "init_args": {"transforms": [flip], "p": 1.0}}
    head = {"train": "head", "epochs": 1, "augmentation": [nested], "views": 2}
    assert fit(head, {"train": "all"}, epochs=2, options=["--data.augmentation", json.dumps(nested)]) == 0
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["data"]["init_args"]["augmentation"] == nested
    assert config["phases"][0]["augmentation"] == [nested]


def test_a_schedule_by_its_import_path_reaches_the_phase(here):
    # jsonargparse makes an object of its own of it, where nothing but the optimizer is missing.
    step = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    assert fit({"train": "all", "schedule": step}, epochs=1) == 0


def test_an_augmentation_that_does_not_exist_is_refused_before_anything_trains(here, capsys):
    phases = json.dumps([{"train": "head", "epochs": 1}, {"train": "all", "augmentation": "dihedra"}])
    line = refused(capsys, "--phases", phases, "--trainer.max_epochs", "2")
    assert "augmentation 'dihedra' is unknown" in line
    assert "did you mean dihedral?" in line
    wrong = {"class_path": "torchvision.transforms.v2.RandomHorizontalFlip", "init_args": {"q": 1}}
    line = refused(capsys, "--phases", json.dumps([{"train": "all", "augmentation": wrong}]))
    assert "phase all: augmentation: torchvision.transforms.v2.RandomHorizontalFlip refuses its init_args" in line


def test_bfloat16_is_refused_of_a_gpu_that_would_emulate_it(here, capsys, monkeypatch):
    monkeypatch.setattr("tl_lightning.experiment.configuration.fast_precision", lambda: "32-true")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    line = refused(capsys, "--trainer.accelerator", "gpu", "--trainer.precision", "bf16-mixed")
    assert "trainer.precision bf16-mixed needs bfloat16, which this GPU lacks; use 32-true or 16-mixed" in line


def test_a_caution_is_shown_unless_it_is_silenced(here, capsys):
    text = "caution    the backbone's weights are random and no phase trains them"
    assert fit({"train": "head"}, epochs=1) == 0
    assert text in capsys.readouterr().out
    assert (
        fit({"train": "head"}, epochs=1, options=["--silence", "random_frozen,input_size", "--run_dir", "silent"]) == 0
    )
    assert "caution" not in capsys.readouterr().out


def test_a_step_over_several_batches_logs_its_rates_once(here):
    assert fit({"train": "head"}, epochs=2, options=["--trainer.accumulate_grad_batches", "2", *STEPPED]) == 0
    assert len(head_rates()) == 4  # of 3 batches, the last one is a step of its own


def test_a_run_that_keeps_no_weights_fails(here, capsys):
    assert fit({"train": "head"}, epochs=2, options=["--checkpoint.every_n_epochs", "3"]) == 2
    assert "the run has no best weights: it ended before a validation could keep any" in capsys.readouterr().err
    assert json.loads(Path("run/summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--silence", "[random_frozn]"], "silence: 'random_frozn' is no caution; did you mean random_frozen?"),
        (["--trainer.max_steps", "5"], "trainer.max_steps: phases are counted in epochs; use --trainer.max_epochs"),
        (["--trainer.max_epochs", "-1"], "trainer.max_epochs is -1; phases need a length"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs is 0; phases need a length"),
        (["--trainer.max_epochs", "null"], "trainer.max_epochs is None; phases need a length"),
        (["--trainer.log_every_n_steps", "0"], "trainer.log_every_n_steps is 0; it must be 1 or more"),
        (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches is 0; it must be 1 or more"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch is 0; it must be 1 or more"),
        (["--trainer.check_val_every_n_epoch", "3"], "is 3, but phase all has epochs 10: its end would not"),
        (
            ["--trainer.check_val_every_n_epoch", "2", "--phases", "[{train: all, cooldown: 1}]"],
            "is 2, but phase all has cooldown 1: its end would not be validated",
        ),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval is 0; it must be a share of the epoch"),
        (["--trainer.val_check_interval", "4"], "trainer.val_check_interval is 4, but an epoch has 3 batches"),
        (["--trainer.overfit_batches", "2"], "trainer.overfit_batches would also validate on what it trains"),
        (["--trainer.min_epochs", "2"], "trainer.min_epochs would count the run, not the phase"),
        (["--trainer.min_steps", "2"], "trainer.min_steps would count the run, not the phase"),
        (["--trainer.max_time", "00:01:00:00", "--phases", "lp_ft"], "trainer.max_time would end one phase"),
        (["--trainer.devices", "many"], "trainer: `devices` selected with `CPUAccelerator` should be an int > 0."),
        (
            ["--trainer.precision", "16-mixed"],
            "trainer.precision 16-mixed needs a GPU, and this is a CPU; use 32-true or bf16-mixed",
        ),
        (["--trainer.precision", "16-true"], "trainer.precision 16-true needs a GPU, and this is a CPU"),
        (["--trainer.precision", "transformer-engine"], "trainer: Requirement 'transformer_engine>=0.11.0' not met"),
        (["--trainer.sync_batchnorm", "true"], "trainer.sync_batchnorm needs GPUs, and this is a CPU; leave"),
        (["--trainer.callbacks+=BackboneFinetuning"], "BackboneFinetuning cannot work beside phases; use --phases"),
        (["--trainer.callbacks+=EMAWeightAveraging"], "EMAWeightAveraging cannot work beside phases; use --ema"),
        (["--trainer.callbacks+=LearningRateFinder"], "LearningRateFinder cannot work beside phases; use tl lr_find"),
        (["--trainer.callbacks+=BatchSizeFinder"], "BatchSizeFinder cannot work beside phases; use --data.micro_batch"),
        (
            ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{0: 2}"],
            "GradientAccumulationScheduler cannot work beside phases; use --trainer.accumulate_grad_batches",
        ),
        (
            ["--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn", "l1_unstructured"],
            "ModelPruning cannot work beside phases; prune the finished model",
        ),
        (["--trainer.callbacks+=Timer"], "Timer cannot work beside phases; use --trainer.max_time"),
        (["--trainer.use_distributed_sampler", "true"], "trainer.use_distributed_sampler: the data module shares"),
        (["--trainer.strategy", "fsdp"], "trainer.strategy fsdp cannot run here: it shards parameters once"),
        (["--trainer.strategy", "deepspeed_stage_2"], "trainer.strategy deepspeed_stage_2 cannot run here"),
        (["--trainer.strategy", "dpp"], "trainer: You selected an invalid strategy name: `strategy='dpp'`"),
        (["--trainer.strategy", "ddp_spawn", "--trainer.devices", "2"], "trainer.strategy starts new processes"),
        (["--trainer.strategy", "ddp_fork", "--trainer.devices", "2"], "trainer.strategy starts new processes"),
        (["--phases", "gradual", "--trainer.max_epochs", "1"], "phases[0]: gradual has 1 epoch"),
        (["--phases", "[{train: all, epochs: 2}, {train: 'last:6'}]"], "'last:6' changes nothing after 'all'"),
        (["--phases", "[head, all]"], "phases"),
    ],
)
def test_what_a_run_of_phases_cannot_do_is_one_line_and_leaves_nothing(here, capsys, options, words):
    assert words in refused(capsys, *options)
