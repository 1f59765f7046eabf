"""``tl advise`` from the command line, on small images."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY, write_tiny

from tl_lightning.choosing.advising.gather import image_facts, machine_facts, model_facts, set_up
from tl_lightning.choosing.advising.recipe import MARK
from tl_lightning.choosing.advising.timing import measure_speeds
from tl_lightning.cli import main
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration

OWN = [option for option in TINY if option not in ("--data.batch_size", "4", "--data.augmentation", "none")]
MACHINE = [*TINY[TINY.index("--trainer.accelerator") :]]


@pytest.fixture
def here(tmp_path, monkeypatch):
    quiet()
    monkeypatch.chdir(write_tiny(tmp_path))
    return tmp_path


def written(name="advice.yaml"):
    return yaml.safe_load(Path(name).read_text())


def test_the_advice_runs_as_it_is(here, capsys):
    assert main(["advise", *OWN, "--explain", "--budget", "1h"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "facts",
        "by stage",
        "advice",
        "strategy rule",
        "==> feature_extraction",
        "within the budget of 60 min",
    ):
        assert words in shown
    found = written()
    assert found["phases"] == "feature_extraction"
    assert (found["data"]["source"], found["data"]["image_size"], found["model"]["lr"]) == ("images", 32, 0.01)
    assert Path("advice.yaml").read_text().startswith(MARK)
    assert main(["fit", "--config", "advice.yaml", "--run_dir", "run"]) == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["phases"] == "feature_extraction"
    assert main(["advise", *OWN]) == 2
    assert "advice.yaml is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "tl_lightning.tasks.OrdinalTask", "--data.classes", "[cat, dog]"],
        ["--phases", "lp_ft", "--trainer.max_epochs", "3", "--model.class_weights", "balanced"],
        ["--phases", "[{train: head, epochs: 1}, {train: last:1, epochs: 2}]", "--trainer.max_epochs", "3"],
    ],
)
def test_what_the_user_said_stays(here, options):
    assert main(["advise", *TINY, *options, "--output", "a.yaml", "--budget", "1s"]) == 0
    asked = yaml.safe_load(Configuration([*TINY, *options], folder=None).resolved)
    advised = yaml.safe_load(Configuration(["--config", "a.yaml"], folder=None).resolved)
    assert advised["model"]["class_path"] == asked["model"]["class_path"]
    for option in (option for option in [*TINY, *options] if option.startswith("--") and "." in option):
        group, name = option.removeprefix("--").split(".")
        inside = [config[group].get("init_args", config[group])[name] for config in (advised, asked)]
        assert inside[0] == inside[1]
    if "--phases" in options:
        assert advised["phases"] == asked["phases"]


@pytest.mark.parametrize(
    ("task", "answers", "what"), [("RegressionTask", ["1.5", "7"], "R2"), ("MultiLabelTask", ["a|b", "b"], "label acc")]
)
def test_other_answers_are_advised_too(here, capsys, task, answers, what):
    paths = sorted(Path("images").rglob("*.png"))
    rows = [f"{path},{answers[path.parent.name == 'dog']}" for path in paths]
    Path("table.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    options = [*TINY, "--data.source", "table.csv", "--model", f"tl_lightning.tasks.{task}"]
    assert main(["advise", *options]) == 0
    assert f"probe, {what}" in capsys.readouterr().out
    assert written()["model"]["class_path"].endswith(task)
    assert written()["phases"] == "feature_extraction"


def test_of_several_backbones_one_is_chosen(here, capsys):
    backbones = "timm/test_efficientnet=start.pth,timm/test_resnet=none"
    rest = [option for option in OWN if option not in ("--model.backbone", "timm/test_efficientnet")]
    rest = [option for option in rest if option not in ("--model.weights", "start.pth")]
    assert main(["advise", *rest, "--backbones", backbones]) == 0
    assert "behind the best" in capsys.readouterr().out
    assert written()["model"]["backbone"] in ("timm/test_efficientnet", "timm/test_resnet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "soon"], "--budget 'soon' is no length of time"),
        (["--output", "nowhere/a.yaml"], "there is no folder nowhere"),
        (["--output", "start.pth"], "tl advise has not written it"),
        (["--run_dir", "run"], "--run_dir has no effect here"),
        (["--ckpt_path=x"], "--ckpt_path has no effect here"),
        (["--backbones", "timm/test_efficientne=none"], "did you mean"),
        (["--data.labelled_fraction", "0.2"], "too few to probe"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["advise", *TINY, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not Path("advice.yaml").exists()


def test_facts_are_counted(here):
    configuration, args = set_up([option for option in TINY if option not in ("--data.image_size", "32")])
    assert args[-2:] == ["--data.image_size", "96"]  # half of 160, in steps of 32; the images are 48 x 40
    facts = image_facts(configuration.datamodule)
    assert (facts.training, facts.validation, facts.test, facts.classes) == (15, 3, 6, 2)
    assert (facts.short_side, facts.grey, facts.groups, facts.problem_type) == (40, 0.0, None, "multiclass")
    assert facts.imbalance == pytest.approx(8 / 7) and facts.smallest == 7
    model = model_facts(configuration)
    assert (model.own_size, model.convolutions, model.batch_norm, model.solvable) == (160, True, True, True)
    assert machine_facts(configuration).precision == "32-true"


def test_timing_leaves_the_weights_alone(here):
    configuration, _ = set_up(TINY)
    task = configuration.model
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    speeds = measure_speeds(configuration)
    assert speeds.size == 32
    assert set(speeds.train) == {"last:2", "all"}
    assert set(speeds.cached) == {"last:2"}
    assert all(seconds > 0 for seconds in (speeds.forward, *speeds.train.values(), *speeds.cached.values()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.state_dict().items())
