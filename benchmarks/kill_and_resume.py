"""Kills runs at random moments, resumes them, and compares them with a run that was never interrupted.

    uv run python benchmarks/kill_and_resume.py --runs 20

A run has several phases, augmentation, dropout, stochastic depth, BatchNorm that trains, an EMA, mixup, accumulated
gradients and checkpoints within epochs. Each is killed with SIGKILL at one or two random moments, and resumed. Weights
(``best.ckpt``, ``last.ckpt``), the optimizer's and the schedule's state and every logged row have to be the same to the
last bit. Every third run also loses the end of its ``last.ckpt``, as after a full disk.

The process that imports everything forks one child for each attempt, since importing takes longer than the run.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tl_lightning.cli import main as tl
from tl_lightning.experiment.experiment import resume  # noqa: F401 - imported here, it need not be in every child

CONFIG = {
    "data": {"source": "images", "image_size": 32, "batch_size": 4, "augmentation": "standard", "mixup": 0.2},
    "model": {
        "backbone": "timm/test_efficientnet",
        "weights": "none",
        "lr": 0.01,
        "head_dropout": 0.2,
        "drop_path_rate": 0.1,
    },
    "phases": [
        {"train": "head", "epochs": 2, "bn": "adapt", "schedule": "OneCycleLR"},
        {"train": "last:2", "epochs": 3, "bn": "train", "patience": 1, "cooldown": 1},
        {"train": "all", "lr_scale": 0.3, "schedule": "ReduceLROnPlateau"},
    ],
    "ema": 0.9,
    "save_every": 3,
    "trainer": {
        "max_epochs": 8,
        "precision": "32-true",
        "accumulate_grad_batches": 2,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
}


def write_images(folder: Path) -> None:
    """Two classes of noise of different brightness."""
    generator = np.random.default_rng(0)
    for name, brightness in (("dark", 90), ("light", 140)):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            pixels = generator.normal(brightness, 50, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def start(*args: str) -> int:
    """Runs ``tl`` in a child, silently, and returns its process."""
    child = os.fork()
    if child:
        return child
    sink = os.open("child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os._exit(tl(list(args)))


def finish(*args: str) -> None:
    """Runs ``tl`` in a child to its end."""
    _, status = os.waitpid(start(*args), 0)
    if status:
        sys.exit(f"tl {' '.join(args)} failed:\n{Path('child.log').read_text()[-3000:]}")


def kill(child: int, after: float) -> bool:
    """Kills a child after some seconds; `False` if it had ended by itself."""
    deadline = time.perf_counter() + after
    while time.perf_counter() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def completed(run: str) -> bool:
    """Whether nothing was left to interrupt: a process that is killed late may have written all it had to."""
    summary = Path(run, "summary.json")
    return summary.exists() and json.loads(summary.read_text())["status"] == "completed"


def interrupt(run: str, dice: random.Random, seconds: float, *, cut: bool) -> list[str]:
    """Trains, killed at one or two random moments and resumed; tells what was done to it, if anything was."""
    told: list[str] = []
    child = start("fit", "--config", "run.yaml", "--run_dir", run)
    while not Path(run, "config.yaml").exists():
        time.sleep(0.001)
    for _ in range(dice.choice((1, 2))):
        moment = dice.uniform(0, 0.9 * seconds)
        if not kill(child, moment) or completed(run):
            return told
        told.append(f"killed after {moment:.2f} s")
        last = Path(run, "checkpoints", "last.ckpt")
        if cut and last.exists():
            os.truncate(last, last.stat().st_size // 2)
            told.append("last.ckpt cut in half")
        child = start("resume", "--run_dir", run)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"{', '.join(told)}, and then it did not go on:\n{Path('child.log').read_text()[-3000:]}")
    return told


def differences(one: Any, other: Any, where: str = "") -> list[str]:  # noqa: ANN401 - whatever a checkpoint holds
    """Names what is not the same to the last bit; times and folders may differ."""
    if where.endswith(("/fit_s", "/throughput", "/dirpath", "_path", "/best_k_models")):
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(map(str, {*one, *other}))
        named_one, named_other = ({str(key): value for key, value in side.items()} for side in (one, other))
        return [d for key in keys for d in differences(named_one.get(key), named_other.get(key), f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [d for k, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{where}/{k}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other else [where]


def compare(one: Path, other: Path) -> list[str]:
    """Names what two runs do not have in common."""
    found = []
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        for part in ("state_dict", "unaveraged", "optimizer_states", "lr_schedulers", "run", "epoch", "global_step"):
            found += differences(first[part], second[part], f"{name}/{part}")
    if (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    first, second = (json.loads((run / "summary.json").read_text()) for run in (one, other))
    return found + differences(first["test"], second["test"], "summary.json/test")


def main() -> int:
    """Prints a line per run, and how many were the same; exits with 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a child that is forked cannot use its parent's threads
    dice = random.Random(options.seed)
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["TL_CACHE_DIR"] = f"{folder}/cache"
        write_images(Path("images"))
        Path("run.yaml").write_text(json.dumps(CONFIG))
        finish("fit", "--config", "run.yaml", "--run_dir", "reference")
        begun = time.perf_counter()
        finish("fit", "--config", "run.yaml", "--run_dir", "again")
        seconds = time.perf_counter() - begun
        print(f"never interrupted: {seconds:.1f} s; twice the same: {not compare(Path('reference'), Path('again'))}")
        for number in range(1, options.runs + 1):
            run = f"run-{number}"
            told: list[str] = []
            while not told:  # a run that was quicker than its killer shows nothing
                shutil.rmtree(run, ignore_errors=True)
                told = interrupt(run, dice, seconds, cut=number % 3 == 0)
            found = compare(Path("reference"), Path(run))
            same += not found
            print(f"{number:>3}  {', '.join(told)}: {'the same' if not found else found[:8]}", flush=True)
    print(f"{same} of {options.runs} bit-identical to the run that was never interrupted")
    return int(same < options.runs)


if __name__ == "__main__":
    sys.exit(main())
