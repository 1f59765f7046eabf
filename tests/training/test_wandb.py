"""A run's counterpart on W&B, offline: what is in the files that W&B keeps of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from test_experiment_resume import Interrupt
from tiny import TINY, write_tiny
from wandb.util import get_core_path

from tl_lightning.cli import main

CONFIG = str(Path(__file__).parents[2] / "configs" / "loggers" / "wandb.yaml")
PHASES = [
    *("--phases", "[{train: head, epochs: 1}, {train: 'last:1', epochs: 1}]"),
    *("--trainer.max_epochs", "2", "--model.head_solver", "sgd"),
]
FIT = ["fit", *TINY, *PHASES, "--config", CONFIG]
INTERRUPT = f"--trainer.callbacks+={Interrupt.__module__}.Interrupt"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr(Interrupt, "place", None)
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path)


def records(run, kind):
    """What W&B wrote of a kind for a run folder: an offline run each time that it went on."""
    # As `wandb leet inspect`, without its second of imports.
    read = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    found = []
    for path in sorted(Path(run).glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        lines = subprocess.run([*read, path], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        found += map(json.loads, lines)
    return [record[kind] for record in found if kind in record]


def history(run):
    return [record["item"] for record in records(run, "history")]


def config(run):
    return {key: value for record in records(run, "config") for key, value in record["update"].items()}


def summary(run):
    return {key: value for record in records(run, "summary") for key, value in record["update"].items()}


def codes(run):
    return [record.get("exit_code", 0) for record in records(run, "exit")]


@pytest.fixture
def forgetful():
    """W&B reads its environment once in a process."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def agent(monkeypatch, forgetful):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "trial1")


def test_a_run_is_told_whole(here):
    assert main([*FIT, "--run_dir", "run"]) == 0
    told, logged, kept = config("run"), history("run"), json.loads(Path("run/summary.json").read_text())
    assert (told["model.lr"], told["data.batch_size"], told["data.image_size"]) == (0.01, 4, 32)
    assert told["phases"] == yaml.safe_load(PHASES[1])
    assert not {"lr", "backbone", "preprocess", "model"} & set(told)  # the hyperparameters stand there once

    assert [(row["phase"], row["phase_name"]) for row in logged if "phase" in row] == [(1, "head"), (2, "last:1")]
    rates = [(row["trainer/global_step"], set(row)) for row in logged if "lr/head" in row]
    assert [step for step, _ in rates] == [0, 1, 2, 3, 4, 5]
    assert "lr/blocks.4" not in rates[0][1] and "lr/blocks.4" in rates[-1][1]

    final = summary("run")
    for split, prefix in (("validation", "val"), ("test", "test")):
        assert {name: pytest.approx(value) for name, value in kept[split].items()} == {
            name: final[f"{prefix}/{name}"] for name in kept[split]
        }
    assert final["status"] == "completed"
    assert [phase["train"] for phase in final["phases"]] == ["head", "last:1"]
    paths = here.rglob("run/wandb/offline-run-*/files/media/table/test/*.json")
    tables = {path.name.rsplit("_", 2)[0]: json.loads(path.read_text()) for path in paths}
    assert [row[:2] for row in tables["per_class"]["data"]] == [["cat", 3], ["dog", 3]]
    assert tables["confusion_table"]["columns"] == ["Actual", "Predicted", "nPredictions"]
    counts = [row[2] for row in tables["confusion_table"]["data"]]
    assert counts == [count for row in kept["confusion"] for count in row]
    assert codes("run") == [0]


def test_the_best_checkpoint_goes_as_an_artifact_that_says_what_it_is(here):
    assert main([*FIT, "--run_dir", "run"]) == 0
    (model,) = (artifact for artifact in records("run", "artifact") if artifact["type"] == "model")
    assert set(model["aliases"]) == {"latest", "best"}
    files = {entry["path"]: Path(entry["local_path"]) for entry in model["manifest"]["contents"]}
    assert files == {
        "best.ckpt": here / "run" / "checkpoints" / "best.ckpt",
        "config.yaml": here / "run" / "config.yaml",
    }
    metadata, kept = json.loads(model["metadata"]), json.loads(Path("run/summary.json").read_text())
    assert metadata["classes"] == ["cat", "dog"]
    for name in ("monitor", "validation", "backbone", "phases", "versions"):
        assert metadata[name] == pytest.approx(kept[name]) if name == "validation" else metadata[name] == kept[name]


def test_a_resumed_run_goes_on_as_the_same_one_and_a_repeated_one_is_new(monkeypatch):
    monkeypatch.setattr(Interrupt, "place", ("train_batch_end", 1))
    assert main([*FIT, INTERRUPT, "--run_dir", "run"]) == 130
    assert summary("run")["status"] == "interrupted"
    Path("run/summary.json").unlink()  # as if it had been killed
    assert main(["resume", "--run_dir", "run"]) == 0
    (run_id,) = {run["run_id"] for run in records("run", "run")}
    assert Path("run/wandb_run_id").read_text() == f"{run_id}\n"
    assert codes("run") == [130, 0]
    assert [row["phase"] for row in history("run") if "phase" in row] == [1, 2, 2]  # from the second phase's start

    assert main(["fit", "--config", "run/config.yaml", "--run_dir", "again"]) == 0
    (again,) = {run["run_id"] for run in records("again", "run")}
    assert again != run_id


def test_a_run_that_fails_is_not_shown_as_finished(monkeypatch):
    from tl_lightning.tasks.classification import ClassificationTask

    def fail(self, *args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(ClassificationTask, "on_validation_epoch_end", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        main([*FIT, "--run_dir", "run"])
    assert codes("run") == [1]
    assert (summary("run")["status"], summary("run")["error"]) == ("failed", "RuntimeError: out of luck")
    assert not [artifact for artifact in records("run", "artifact") if artifact["type"] == "model"]


def test_a_trial_of_an_agent_has_its_own_folder_and_goes_on_when_it_is_given_out_again(agent, monkeypatch, capsys):
    fit = ["fit", "--config", CONFIG, *TINY, *PHASES]
    monkeypatch.setattr(Interrupt, "place", ("train_batch_end", 1))
    assert main([*fit, INTERRUPT]) == 130
    assert main([*fit, INTERRUPT]) == 0  # the same command line
    run = Path("runs/wandb-trial1")
    assert list(Path("runs").iterdir()) == [run]
    assert {found["run_id"] for found in records(run, "run")} == {"trial1"}
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    capsys.readouterr()
    assert main(fit) == 0
    assert capsys.readouterr().out == f"{run} is complete already\n"
    assert codes(run) == [130, 0]

    assert main([*fit, "--run_dir", "mine"]) == 0  # who names a folder gets it
    assert json.loads(Path("mine/summary.json").read_text())["status"] == "completed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # W&B leaves its file open
def test_what_a_sweep_has_set_is_left_to_it(agent, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_SILENT", "false")
    parameters = Path("parameters.yaml")
    parameters.write_text("wandb_version: 1\nmodel:\n  value: {lr: 0.02}\ndata.batch_size:\n  value: 6\n")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    assert main([*FIT, "--model.lr", "0.02", "--data.batch_size", "6"]) == 0
    assert "locked" not in "".join(capfd.readouterr())
    told = config("runs/wandb-trial1")
    assert not {"model.lr", "data.batch_size"} & set(told)
    assert told["model.weight_decay"] == 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "cell", "table"),
    [
        ("RegressionTask", lambda k, cat: k, "per_number"),
        ("MultiLabelTask", lambda k, cat: "a|b" if k % 2 else "a|c" if cat else "b|c", "per_label"),
        ("OrdinalTask", lambda k, cat: "low" if cat else "high", "per_class"),
    ],
)
def test_answers_of_every_kind_have_their_table(here, task, cell, table):
    paths = sorted(Path("images").rglob("*.png"))
    rows = [f"{path},{cell(k, path.parent.name == 'cat')}" for k, path in enumerate(paths)]
    Path("table.csv").write_text("\n".join(["image,answer", *rows]))
    options = ["--data.label_column", "answer", *(["--data.classes", "[low, high]"] if task == "OrdinalTask" else [])]
    start = ["fit", "--model", task, *TINY, *PHASES, "--config", CONFIG, "--data.source", "table.csv"]
    assert main([*start, *options, "--run_dir", "run"]) == 0
    assert len(list(here.rglob(f"run/wandb/offline-run-*/files/media/table/test/{table}_*.json"))) == 1
    assert codes("run") == [0]


def test_wandb_that_is_not_installed_is_one_line_and_leaves_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*FIT, "--run_dir", "run"]) == 2
    assert "wandb is not installed: pip install 'tl_lightning[wandb]'" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert not Path("run").exists()


def test_who_is_not_logged_in_is_told_so_in_one_line_and_nothing_is_left(monkeypatch, capsys):
    def refuse(**options):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main([*FIT, "--run_dir", "run"]) == 2
    assert capsys.readouterr().err == (
        "tl fit: trainer.logger: W&B said 'No API key configured. Use `wandb login` to log in.'; log in by wandb "
        "login, or keep everything on this machine by WANDB_MODE=offline\n"
    )
    assert not Path("run").exists()


def test_wandb_can_be_switched_off(forgetful, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main([*FIT, "--run_dir", "run"]) == 0
    assert not list(Path("run").glob("wandb/*run-*"))


def test_a_run_without_it_needs_no_wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["fit", *TINY, *PHASES, "--run_dir", "run"]) == 0
    assert not list(Path("run").glob("wandb*"))


@pytest.mark.slow
def test_two_processes_are_one_trial(agent):
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "tl_lightning", *FIT, *processes]
    subprocess.run(command, check=True, timeout=300)
    run = Path("runs/wandb-trial1")
    assert list(Path("runs").iterdir()) == [run]
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert [found["run_id"] for found in records(run, "run")] == ["trial1"]
    assert codes(run) == [0]
