"""The best trial as a command and as a configuration, held against the experiment's own parser."""

import json

import pytest
import yaml

from sweeps import a_trial, make_sweep
from tl_lightning.configuration import Configuration, quiet
from tl_lightning.running.sweeping.best import command_of, write_best
from tl_lightning.running.sweeping.trials import nested

REGRESSION = "tl_lightning.tasks.RegressionTask"
BAR = "lightning.pytorch.callbacks.TQDMProgressBar"
RATES = "lightning.pytorch.callbacks.LearningRateMonitor"
BASE = ["--model.backbone=timm/test_efficientnet", "--model.weights", "none", "--data.source=2024"]
CASES = {
    "lists, mappings and words": (
        [
            {"phases": [{"epochs": 2, "train": "head"}], "data": {"augmentation": {"a": 1, "b": 2}}, "cache": "off"},
            {"trainer": {"max_epochs": 9}, "model": {"lr": 1e-4, "label_smoothing": 0.1}},
        ],
        ["--cache", "off", "--model.lr", "3e-4", "--data.augmentation.b=3", "--data.classes=[1e-3, b]", "--ema=null"],
        {"phases": [{"epochs": 3, "train": "last:2"}, {"train": "all", "lr_scale": 1e-5}], "model.weight_decay": 2e-7},
    ),
    "a class in another's place": (
        [{"model": {"lr": 0.5, "label_smoothing": 0.1}, "data": {"augmentation": {"a": 1}}}],
        [f"--model={REGRESSION}", "--model.backbone=timm/test_resnet", '--data={"augmentation": {"b": 2}}'],
        {"model": {"class_path": REGRESSION, "init_args": {"weight_decay": 0.25}}, "model.lr": 0.125},
    ),
    "what is appended": (
        [{"trainer": {"callbacks": [{"class_path": BAR}]}}, {"trainer": {"callbacks+": {"class_path": RATES}}}],
        [f"--trainer.callbacks+={BAR}", "--trainer.callbacks.refresh_rate=3", "--trainer.max_epochs=4"],
        {"model": {"head": "mlp", "head_hidden": 64}, "model.head_dropout": 0.5, "phases": "lp_ft"},
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
    return lambda args: yaml.safe_load(Configuration([*args], folder=None).resolved)


@pytest.mark.parametrize("case", CASES)
def test_best_yaml_is_what_the_trial_was_started_with(tmp_path, parsed, case):
    configs, flags, values = CASES[case]
    files = [tmp_path / f"{number}.yaml" for number in range(len(configs))]
    for file, config in zip(files, configs, strict=True):
        file.write_text(yaml.safe_dump(config))
    args = [*BASE, *(f"--config={file}" for file in files), *flags]
    trial = a_trial(values=values, folder=tmp_path)
    sweep = make_sweep(fit_args=args)
    own = parsed([*args, "--config", json.dumps(nested(values))])
    assert parsed(["--config", str(write_best(sweep, trial, tmp_path))]) == own
    assert parsed(command_of(sweep, trial)[2:]) == own
