"""The best trial as a command and as a configuration, held against the experiment's own parser."""

import json

import pytest
import yaml

from sweeps import a_trial, make_sweep
from tl_lightning.core.quiet import quiet
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.running.sweeping.best import best_trial, command_of, write_best
from tl_lightning.running.sweeping.fit_options import configuration, options, to_repeat
from tl_lightning.running.sweeping.trials import nested

REGRESSION = "tl_lightning.tasks.RegressionTask"
BAR = "lightning.pytorch.callbacks.TQDMProgressBar"
RATES = "lightning.pytorch.callbacks.LearningRateMonitor"
LOGGER = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "a", "name": "b"}}
OTHER = "lightning.pytorch.loggers.TensorBoardLogger"
BLUR = "torchvision.transforms.v2.GaussianBlur"
BASE = ["--model.backbone=timm/test_efficientnet", "--model.weights", "none", "--data.source=2024"]
CASES = {
    "lists, mappings and words": (
        [
            {"phases": [{"epochs": 2, "train": "head"}], "data": {"augmentation": {"a": 1, "b": 2}}, "cache": "off"},
            {"trainer": {"max_epochs": 9}, "model.lr": 1e-4, "model.label_smoothing": 0.1},
        ],
        [
            "--cache",
            "off",
            "--model.lr",
            "3e-4",
            "--data.augmentation.b=3",
            "--data.classes=['1e-3', '1.5e3', b]",
            "--ema=null",
        ],
        {"phases": [{"epochs": 3, "train": "last:2"}, {"train": "all", "lr_scale": 1e-5}], "model.weight_decay": 2e-7},
    ),
    "a class in another's place": (
        [{"model": {"lr": 0.5, "label_smoothing": 0.1}, "data": {"augmentation": {"a": 1}}}],
        [f"--model={REGRESSION}", "--model.backbone=timm/test_resnet", '--data={"augmentation": {"b": 2}}'],
        {"model": {"class_path": REGRESSION, "init_args": {"weight_decay": 0.25}}, "model.init_args.lr": 0.125},
    ),
    "what is appended": (
        [{"trainer": {"callbacks": [{"class_path": BAR}]}}, {"trainer": {"callbacks+": {"class_path": RATES}}}],
        [f"--trainer.callbacks+={BAR}", "--trainer.callbacks.refresh_rate=3", "--trainer.max_epochs=4"],
        {"model": {"head": "mlp", "head_hidden": 64}, "model.head_dropout": 0.5, "phases": "lp_ft"},
    ),
    "lists and classes in another's place": (
        [
            {"trainer": {"callbacks": [{"class_path": BAR, "init_args": {"refresh_rate": 3}}], "logger": LOGGER}},
            {"trainer": {"callbacks": [{"class_path": BAR}], "logger": {"init_args": {"name": "x"}}}},
            {"data": {"augmentation": {"class_path": BLUR, "init_args": {"kernel_size": 3}}}},
            {"data": {"augmentation": {"class_path": BLUR, "init_args": {"sigma": 2}}}},
        ],
        [
            f"--trainer.logger={OTHER}",
            "--trainer.logger.sub_dir=7",
            "--early_stopping.patience=3",
            "--early_stopping={min_delta: 1e-5}",
        ],
        {"trainer.logger.init_args.prefix": "1e-3", "early_stopping": {"mode": "min"}, "save_every": None},
    ),
    "what is appended to a default": (
        [{"trainer": {"callbacks+": [{"class_path": BAR}]}}],
        [f"--trainer.callbacks+={RATES}", "--trainer.callbacks.logging_interval=step", "--compile", "true"],
        {"data": {"source": "1e-3", "batch_size": 16}, "data.image_size": None, "seed_everything": 3},
    ),
}


@pytest.fixture
def parsed(monkeypatch):
    """What a command resolves to; nothing is built from it."""
    quiet()
    monkeypatch.setattr(Configuration, "instantiate_classes", lambda self: None)
    return lambda args: Configuration([*args], folder=None).resolved


@pytest.mark.parametrize("case", CASES)
def test_best_yaml_and_the_command_are_what_the_trial_was_started_with(tmp_path, parsed, case):
    configs, flags, values = CASES[case]
    files = [tmp_path / f"{number}.yaml" for number in range(len(configs))]
    for file, config in zip(files, configs, strict=True):
        file.write_text(yaml.safe_dump(config))
    args = [*BASE, *(f"--config={file}" for file in files), *flags]
    trial = a_trial(values=values, folder=tmp_path)
    trial.folder.mkdir()
    own = [*args, "--config", json.dumps(nested(values))]
    (trial.folder / "config.yaml").write_text(parsed(["--test=false", *own]))  # as the trial's own run writes it
    sweep = make_sweep(fit_args=args)
    assert parsed(["--config", str(write_best(sweep, trial, tmp_path))]) == parsed(own)
    assert parsed(command_of(sweep, trial)[2:]) == parsed(own)


def test_best_yaml_says_where_it_is_from_and_is_the_trials_own_with_its_test(tmp_path):
    values = {"model.lr": 1e-5, "model.label_smoothing": 0.0, "phases": "lp_ft", "data.source": "1e-3"}
    trial = a_trial(7, 0.75, values=values, folder=tmp_path)
    trial.folder.mkdir()
    (trial.folder / "config.yaml").write_text("data:\n  test: false\ntest: false\nema: null\n")
    lines = write_best(make_sweep(), trial, tmp_path).read_text().splitlines()
    assert lines[0] == "# The best of sweep a: trial 7, with val/accuracy 0.7500."
    assert lines[2] == "# What varied: lr 1e-05, label_smoothing 0, phases lp_ft."
    assert lines[3] == f"# Run it where the sweep was started: tl fit --config {tmp_path / 'best.yaml'}"
    assert lines[4:] == ["data:", "  test: false", "ema: null"]


def test_the_best_is_completed_and_of_equal_ones_the_earlier():
    trials = [
        *(a_trial(5, 0.5), a_trial(4, 0.5), a_trial(3, 0.9, "stopped"), a_trial(2, 0.9, "failed")),
        *(a_trial(6, float("nan")), a_trial(1, None), a_trial(7, 0.0)),
    ]
    assert best_trial(make_sweep(), trials).number == 4
    assert best_trial(make_sweep(goal="minimize"), trials).number == 7
    assert best_trial(make_sweep(), trials[2:4]) is None


def test_the_command_has_every_value_exactly():
    values = {
        "model.lr": 1e-05,
        "phases": [{"train": "head"}],
        "data.fold": None,
        "model": {"head": "mlp"},
        "cache": "off",
    }
    words = command_of(make_sweep(), a_trial(values=values))
    assert words[:3] == ["tl", "fit", "--config=x.yaml"]
    assert words[3:6] == ["--model.lr=1e-05", '--phases=[{"train": "head"}]', "--data.fold=null"]
    assert words[6:] == ['--config={"model": {"head": "mlp"}}', "--cache=off"]


def test_options_stand_in_every_way_of_writing():
    args = ["--a", "1", "--b.c=x=y", "--d", "--e+=z", "--f", "-1"]
    assert options(args) == [("a", "1"), ("b.c", "x=y"), ("d", "true"), ("e+", "z"), ("f", "-1")]
    with pytest.raises(UserError, match="'stray' belongs to no option"):
        options(["--a=1", "stray"])


def test_the_best_is_tested_when_it_is_trained_again_though_trials_are_not():
    args = ["--test=false", "-c", "a.yaml", "--test", "false", "--ema", "0.9"]
    assert to_repeat(args) == ["--config=a.yaml", "--ema=0.9"]


def test_a_configuration_that_is_gone_is_a_mistake_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.yaml cannot be read: No such file or directory"):
        configuration(f"{tmp_path}/gone.yaml")
