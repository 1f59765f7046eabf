"""A task of the user's own, named by its class path: it trains, is scored, predicts and is loaded."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.errors import UserError
from tl_lightning.tasks.loading import described_task, load_task

MODULE = '''
from typing import Any

import torch
from tl_lightning.tasks import ClassificationTask


class Sharpened(ClassificationTask):
    """Sharpens what it predicts."""

    def __init__(self, backbone: str, classes: list[str], *, sharpness: float = 1.0, **shared: Any) -> None:
        super().__init__(backbone, classes, **shared)
        self.sharpness = sharpness

    def outputs(self, features):
        return {name: output * self.sharpness for name, output in super().outputs(features).items()}


class NoTask:
    pass
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    Path("my_tasks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_tasks", None)
    options = [*TINY, "--model", "my_tasks.Sharpened", "--model.sharpness", "3.0", "--model.lr", "0.01"]
    args = ["--phases", "[{train: head}]", "--trainer.max_epochs", "1", "--run_dir", "run"]
    assert main(["fit", *options, *args]) == 0
    return tmp_path


def test_it_is_loaded_with_its_own_arguments_and_predicts_what_it_was_tested_with(here):
    run = load("run")
    assert type(run.task).__name__ == "Sharpened"
    assert run.task.sharpness == 3.0
    assert run.task.hparams["sharpness"] == 3.0 and run.task.hparams["lr"] == 0.01
    assert main(["test", "--run_dir", "run", "--output", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == pytest.approx(run.summary["test"])
    assert main(["predict", "--run_dir", "run", "--input", "images", "--output", "all.csv"]) == 0
    with Path("all.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 24
    path = next(iter(rows))
    (one,) = run.predict([path])
    assert one.row["class"] == rows[path]["class"]


def test_a_checkpoint_alone_names_its_class(here):
    Path("run/checkpoints/best.ckpt").rename("alone.ckpt")
    assert load_task(Path("alone.ckpt")).sharpness == 3.0


def test_the_run_names_the_class_where_an_earlier_checkpoint_does_not(here):
    path = Path("run/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    del content["class_path"]
    torch.save({**content, "task": "ClassificationTask", "own_task": True}, path)
    assert type(load_task(path)).__name__ == "Sharpened"
    path.rename("alone.ckpt")
    with pytest.raises(UserError, match="of a task of your own, whose class it does not name: give its run folder"):
        load_task(Path("alone.ckpt"))


@pytest.mark.parametrize(
    ("class_path", "said"),
    [
        ("my_other_tasks.Sharpened", "which cannot be imported"),
        ("my_tasks.Sharp", "my_tasks has no 'Sharp'"),
        ("my_tasks.NoTask", "which is no TransferTask"),
        ("os.system", "which is no TransferTask"),
    ],
)
def test_a_class_that_is_no_task_is_one_line(here, capsys, class_path, said):
    path = Path("run/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "class_path": class_path}, path)
    capsys.readouterr()
    assert main(["predict", "--run_dir", "run", "--input", "images"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_runs_of_the_first_version_were_classifiers():
    old = Path(__file__).parents[1] / "fixtures" / "run_0.1" / "checkpoints" / "best.ckpt"
    content = torch.load(old, weights_only=True)
    kind, arguments = described_task(content)
    assert kind.__name__ == "ClassificationTask"
    assert (arguments["weights"], arguments["l2_sp"]) == ("none", 0.0)
    assert yaml.safe_load((old.parents[1] / "config.yaml").read_text())["model"]["class_path"].endswith(kind.__name__)
    task = load_task(old)
    assert torch.equal(task.heads["target"][1].weight, content["state_dict"]["head.1.weight"])
    assert torch.equal(task.objective.loss_weights, content["state_dict"]["loss_weights"])
