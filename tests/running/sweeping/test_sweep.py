"""``tl sweep`` as its users run it: processes that are killed, interrupted, or fail, and what is left in the end."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tiny import write_images

from tl_lightning.cli import main
from tl_lightning.running.sweeping.lease import read

BASE = {
    "data": {"source": "images", "image_size": 32, "batch_size": 4, "augmentation": "flips"},
    "model": {"backbone": "timm/test_efficientnet", "weights": "none", "head_dropout": 0.2},
    "trainer": {"max_epochs": 3, "precision": "32-true", "accelerator": "cpu"},
}
MISBEHAVING = """
import os, signal, time
from lightning import Callback
class Crash(Callback):
    def on_train_epoch_end(self, *_): raise RuntimeError("a cable\\nfell out")
class Killed(Callback):
    def on_train_epoch_end(self, *_): os.kill(os.getpid(), signal.SIGKILL)
class Slow(Callback):
    def on_train_epoch_end(self, *_): time.sleep(1)
"""
SLOW = [{"class_path": "misbehaving.Slow"}]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with images, a configuration, and callbacks that do what trials may do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_images(tmp_path / "images", count=12, size=(48, 40))
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    Path("misbehaving.py").write_text(MISBEHAVING)
    return tmp_path


def write_sweep(parameters, name="sweep.yaml", **keys):
    command = ["${env}", "${interpreter}", "-m", "tl_lightning", "fit", "--config=base.yaml"]
    content = {
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": parameters,
        "command": [*command, "--config", "${args_json_file}"],
        **keys,
    }
    Path(name).write_text(yaml.safe_dump(content))


def tl(*args, **options):
    command = [sys.executable, "-m", "tl_lightning", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def printed(process, code=0):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def trials(folder):
    return json.loads(Path(folder, "summary.json").read_text())["trials"]


def assert_the_same(run, other):
    one, two = (torch.load(Path(folder, "checkpoints/best.ckpt"), weights_only=True) for folder in (run, other))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(tensor, two["state_dict"][key]) for key, tensor in one["state_dict"].items())
    assert Path(run, "metrics.csv").read_bytes() == Path(other, "metrics.csv").read_bytes()


def running_trial(folder, number=1, rows=2):
    """The lease of a trial, once it has logged that many rows."""
    metrics, lease = Path(folder, f"trials/{number:03}/metrics.csv"), Path(folder, f"leases/{number:03}.json")
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > rows):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return read(lease)


@pytest.mark.slow
def test_a_warm_trial_gives_what_a_cold_process_gives_and_best_yaml_gives_it_again(place):
    write_sweep({"model.lr": {"values": [0.001, 0.01]}, "seed_everything": {"values": [1, 2]}})
    shown = printed(tl("sweep", "sweep.yaml", "--run_dir", "s"))
    assert shown.splitlines()[-1].split() == ["report", "s/report.html"]
    assert [trial["state"] for trial in trials("s")] == ["completed"] * 4
    values = '{"model": {"lr": 0.01}, "seed_everything": 2}'
    printed(tl("fit", "--test=false", "--config", "base.yaml", "--config", values, "--run_dir", "cold"))
    assert_the_same("s/trials/004", "cold")
    best = json.loads(Path("s/summary.json").read_text())["best"]
    printed(tl("fit", "--test=false", "--config", "s/best.yaml", "--run_dir", "again"))
    assert_the_same(f"s/trials/{best['number']:03}", "again")
    tested = {
        path.parent.name: json.loads(path.read_text())["test"] for path in Path("s/trials").glob("*/summary.json")
    }
    assert [name for name, metrics in tested.items() if metrics is not None] == [f"{best['number']:03}"]


@pytest.mark.slow
def test_a_trial_that_crashes_is_killed_or_is_wrong_is_a_result(place):
    misbehaving = [[{"class_path": f"misbehaving.{name}"}] for name in ("Crash", "Killed", "Missing")]
    write_sweep({"trainer.callbacks": {"values": [None, *misbehaving]}})
    printed(tl("sweep", "sweep.yaml", "--run_dir", "s"))
    good, crashed, killed, wrong = trials("s")
    assert good["state"] == "completed"
    assert [trial["state"] for trial in (crashed, killed, wrong)] == ["failed"] * 3
    assert crashed["error"] == "RuntimeError: a cable fell out"
    assert killed["error"].startswith("its process was killed by SIGKILL, as when memory runs out")
    assert "misbehaving.Missing" in wrong["error"]
    assert "Traceback" in Path("s/trials/002.log").read_text()


@pytest.mark.slow
def test_when_all_of_the_first_trials_fail_the_sweep_ends_with_the_reason(place):
    write_sweep({"model.lr": {"values": [-1.0, -2.0, -3.0, 0.01]}})
    shown = printed(tl("sweep", "sweep.yaml", "--run_dir", "s"), code=1)
    assert len(trials("s")) == 3
    assert "1 of 4 trials are missing" in shown
    assert "no trial came to its end: " in shown
    assert "lr" in shown.splitlines()[-2]


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_gives_its_trial_back(place):
    write_sweep({"trainer.callbacks": {"value": SLOW}, "seed_everything": {"values": [1, 2]}})
    sweep = tl("sweep", "sweep.yaml", "--run_dir", "s")
    os.kill(running_trial("s")["pid"], signal.SIGTERM)
    assert "2 of 2 trials are missing" in printed(sweep, code=1)
    assert [trial["state"] for trial in trials("s")] == ["waiting"]
    assert "waiting" in Path("s/report.html").read_text()


@pytest.mark.slow
def test_the_trial_of_a_worker_that_is_killed_is_gone_on_with_to_the_same_weights(place):
    write_sweep({"trainer.callbacks": {"value": SLOW}, "seed_everything": {"values": [1, 2]}})
    sweep = tl("sweep", "sweep.yaml", "--run_dir", "s", "--workers", "2")
    worker = running_trial("s")["pid"]
    os.kill(worker, signal.SIGKILL)
    printed(sweep)
    first, second = trials("s")
    assert [trial["state"] for trial in (first, second)] == ["completed"] * 2
    assert (first["attempts"], second["attempts"]) == (2, 1)
    values = json.dumps({"trainer": {"callbacks": SLOW}, "seed_everything": 1})
    printed(tl("fit", "--test=false", "--config", "base.yaml", "--config", values, "--run_dir", "whole"))
    assert_the_same("s/trials/001", "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_was(place, number, code):
    write_sweep({"trainer.callbacks": {"value": SLOW}, "seed_everything": {"values": [1, 2]}})
    sweep = tl("sweep", "sweep.yaml", "--run_dir", "s")
    worker = running_trial("s")["pid"]
    sweep.send_signal(number)
    shown = printed(sweep, code=code)
    assert number == signal.SIGKILL or "the same tl sweep with --run_dir s goes on" in shown
    while Path(f"/proc/{worker}").exists():  # of a driver that was killed
        time.sleep(0.05)
    assert not Path("s/trials/002").exists()
    assert "owner" not in read(Path("s/leases/001.json"))
    printed(tl("sweep", "sweep.yaml", "--run_dir", "s"))
    assert [(trial["number"], trial["state"]) for trial in trials("s")] == [(1, "completed"), (2, "completed")]
    values = json.dumps({"trainer": {"callbacks": SLOW}, "seed_everything": 1})
    printed(tl("fit", "--test=false", "--config", "base.yaml", "--config", values, "--run_dir", "whole"))
    assert_the_same("s/trials/001", "whole")


@pytest.mark.slow
def test_two_that_share_a_storage_take_part_in_one_sweep(place):
    write_sweep({"model.lr": {"min": 0.001, "max": 0.01}}, method="random", run_cap=6)
    both = [tl("sweep", "sweep.yaml", "--storage", "shared/journal.log") for _ in range(2)]
    for sweep in both:
        printed(sweep)
    assert [(trial["number"], trial["state"]) for trial in trials("shared")] == [(n, "completed") for n in range(1, 7)]
    assert len({trial["values"]["model.lr"] for trial in trials("shared")}) == 6
    assert {read(path)["attempt"] for path in Path("shared/leases").iterdir()} == {1}


@pytest.mark.slow
def test_weak_trials_end_early_and_all_others_do_not(place):
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    write_sweep({"model.lr": {"values": [0.01, 1.0e-7, 1.0e-8]}}, early_terminate=early)
    printed(tl("sweep", "sweep.yaml", "--run_dir", "s"))
    assert [trial["state"] for trial in trials("s")] == ["completed", "stopped", "stopped"]
    assert not Path("s/trials/002/checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_a_trial_of_several_processes_is_one_trial_and_goes_on_as_one(place, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")  # all processes of a trial find what is in the current folder
    monkeypatch.setenv("SLURM_PROCID", "1")  # as a task of an array: what it starts is a world of its own
    options = {"devices": 2, "strategy": "ddp", "callbacks": SLOW}
    write_sweep({"trainer": {"value": options}, "seed_everything": {"values": [1, 2]}})
    sweep = tl("sweep", "sweep.yaml", "--run_dir", "s")
    running_trial("s")
    sweep.send_signal(signal.SIGINT)
    printed(sweep, code=130)
    printed(tl("sweep", "sweep.yaml", "--run_dir", "s"))
    assert [trial["state"] for trial in trials("s")] == ["completed"] * 2
    assert sorted(path.name for path in Path("s/trials").iterdir()) == ["001", "001.log", "002", "002.log"]
    assert "2 processes" in Path("s/trials/001.log").read_text()


def refused(capsys, *args):
    assert main(["sweep", *map(str, args)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_are_one_line_and_leave_nothing_behind(place, capsys):
    write_sweep({"model.lr": {"min": 0.001, "max": 0.01}}, method="random")
    before = sorted(os.listdir())
    assert "random search has no end of its own" in refused(capsys, "sweep.yaml")
    assert "--workers is 0" in refused(capsys, "sweep.yaml", "--workers", 0)
    assert "--run_cap is 0" in refused(capsys, "sweep.yaml", "--run_cap", 0)
    assert "give one of them" in refused(capsys, "sweep.yaml", "--run_cap", 1, "--run_dir", "s", "--storage", "s/j.log")
    assert "is a folder" in refused(capsys, "sweep.yaml", "--run_cap", 1, "--storage", "images")
    assert "is not empty" in refused(capsys, "sweep.yaml", "--run_cap", 1, "--run_dir", "images")
    assert "did you mean" in refused(capsys, "sweeep.yaml", "--run_cap", 1)
    assert sorted(os.listdir()) == before


def test_another_sweep_in_the_same_folder_is_refused(place, capsys):
    write_sweep({"model.lr": {"value": 0.001}})
    recipe = Path("sweep.yaml").read_text()
    Path("s").mkdir()
    digest = hashlib.sha256(Path("base.yaml").read_bytes()).hexdigest()[:16]
    Path("s/sweep.yaml").write_text(f"{recipe.rstrip()}\n# --seed 0\n# base.yaml: {digest}\n")
    assert "--run_dir s holds a sweep with other options" in refused(
        capsys, "sweep.yaml", "--run_dir", "s", "--seed", 1
    )
    Path("base.yaml").write_text("")  # trials before and after would not be of one kind
    assert "of --storage s holds a sweep with other" in refused(capsys, "sweep.yaml", "--storage", "s/journal.log")
    write_sweep({"model.lr": {"value": 0.002}})
    assert "holds a sweep with other options" in refused(capsys, "sweep.yaml", "--run_dir", "s")
