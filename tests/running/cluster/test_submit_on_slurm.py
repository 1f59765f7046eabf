"""``tl submit`` on a real SLURM of two nodes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TINY

pytestmark = pytest.mark.slow

NOTING = """
import hashlib, os
from pathlib import Path
from lightning import Callback
class Weights(Callback):
    def on_fit_end(self, trainer, module):
        state = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
        Path(f"rank-{trainer.global_rank}-of-{trainer.world_size}-{os.environ.get('SLURMD_NODENAME')}").write_text(state)
"""
FIT = [*TINY, "--trainer.max_epochs", "2"]


def jobs(printed):
    return re.search(r"scancel ([\d ]+) ends", printed)[1].split()


def logs():
    return "\n".join(path.read_text() for path in sorted(Path("slurm").glob("*.log")))


def state(run, name="last"):
    return torch.load(Path(run, f"checkpoints/{name}.ckpt"), weights_only=True)["state_dict"]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_two_nodes_train_one_model_which_is_that_of_two_processes_here(on_cluster, lab, tl):
    Path("noting.py").write_text(NOTING)
    fit = [*FIT, "--trainer.callbacks+=noting.Weights"]
    printed = tl("submit", "slurm", "--nodes", "2", "--", "fit", *fit)
    assert "8 images a step: 4 in each of 2 processes" in printed
    (job,) = jobs(printed)
    assert printed.splitlines()[-1] == (f"job {job}: log slurm/run-{job}.log, folder runs/run-1; scancel {job} ends it")
    assert lab.wait(job) == ["COMPLETED"], logs()
    hashes = {path.name: path.read_text() for path in Path().glob("rank-*")}
    assert set(hashes) == {"rank-0-of-2-node1", "rank-1-of-2-node2"}
    assert len(set(hashes.values())) == 1
    assert json.loads(Path("runs/run-1/summary.json").read_text())["status"] == "completed"
    tl("fit", *FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--run_dir", "here")
    assert_equal(state("runs/run-1"), state("here"))
    lab("sbatch", "slurm/run-1.sh")  # what is complete is left alone
    assert lab.wait(int(job) + 1) == ["COMPLETED"]
    assert Path(f"slurm/run-{int(job) + 1}.log").read_text() == "runs/run-1 is complete already\n"


def test_an_array_has_a_run_for_each_seed(on_cluster, lab, tl):
    (job,) = jobs(tl("submit", "slurm", "--seeds", "7,11", "--job_name", "seeds", "--", "fit", *FIT))
    assert lab.wait(job) == ["COMPLETED"] * 2, logs()
    for task, seed in enumerate((7, 11)):
        folder = Path(f"runs/run-seeds-1/seed-{seed}")
        assert json.loads((folder / "summary.json").read_text())["seed"] == seed
        assert f"run folder {folder}" in Path(f"slurm/seeds-{job}_{task}.log").read_text()
    tl("fit", *FIT, "--seed_everything", "11", "--run_dir", "here")
    assert_equal(state("runs/run-seeds-1/seed-11"), state("here"))


def test_folds_are_trained_side_by_side_and_then_scored_together(on_cluster, lab, tl):
    training, scoring = jobs(tl("submit", "slurm", "--", "crossval", *FIT, "--data.folds", "2"))
    assert lab.wait(training) == ["COMPLETED"] * 2, logs()
    assert lab.wait(scoring) == ["COMPLETED"], logs()
    summary = json.loads(Path("runs/run-crossval-1/summary.json").read_text())
    assert summary["images"] == 24
    assert [fold["run"] for fold in summary["folds"]] == [f"runs/run-crossval-1/fold-{k}" for k in range(2)]
    assert logs().count("is complete already") == 2


def test_a_comparison_finds_the_runs_that_were_trained_side_by_side(on_cluster, lab, tl):
    Path("wrong.yaml").write_text("model: {lr: 1.0e+30}\n")
    strategies = ["--strategies", "scratch,full,wrong.yaml", "--seeds", "1", "--trainer.max_epochs", "1"]
    runs, comparing = jobs(tl("submit", "slurm", "--", "compare", *FIT, *strategies))
    assert sorted(lab.wait(runs)) == ["COMPLETED", "COMPLETED", "FAILED"], logs()  # the last diverges
    assert lab.wait(comparing) == ["FAILED"], logs()  # as one of the runs did
    summary = json.loads(Path("runs/run-compare-1/summary.json").read_text())
    found = {run["strategy"]: run["status"] for run in summary["runs"]}
    assert found == {"scratch": "completed", "full": "completed", "wrong": "failed"}
    assert logs().count("is complete already") == 2


def test_workers_of_a_sweep_share_its_trials(on_cluster, lab, tl):
    command = ["${interpreter}", "-m", "tl_lightning", "fit", *FIT, "--config", "${args_json_file}"]
    sweep = {
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {"model.lr": {"values": [0.001, 0.003, 0.01, 0.03]}},
        "command": command,
    }
    Path("rates.yaml").write_text(yaml.safe_dump(sweep))
    (job,) = jobs(tl("submit", "slurm", "--", "sweep", "rates.yaml", "--workers", "2"))
    assert lab.wait(job) == ["COMPLETED"] * 2, logs()
    summary = json.loads(Path("runs/rates-sweep-1/summary.json").read_text())
    assert [trial["state"] for trial in summary["trials"]] == ["completed"] * 4
    assert len(list(Path("runs/rates-sweep-1/workers").glob("*.log"))) == 2


def test_a_mistake_queues_nothing(on_cluster, lab):
    queued = lab("squeue", "--noheader", "--states=all", "--format=%i")
    command = [sys.executable, "-m", "tl_lightning", "submit", "slurm"]
    for options, said in (
        (["--partition", "lap"], "--partition lap: the cluster has none of that name; did you mean lab? (lab, small)"),
        (["--nodes", "3"], "--nodes is 3, but partition lab has 2 nodes"),
        (["--partition", "small"], "--time is 4:00:00, but in partition small a job may take 10 min"),
        (["--gpus_per_node", "1"], "SLURM refuses: "),
    ):
        words = [*command, *options, "--", "fit", *FIT, "--trainer.accelerator", "auto"]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"tl submit: {said}")
        assert ended.stderr.count("\n") == 1
    assert lab("squeue", "--noheader", "--states=all", "--format=%i") == queued
    assert not list(Path("runs").glob("*"))
