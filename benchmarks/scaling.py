"""What several processes gain, and what precision, memory layout and compilation gain on one device.

    uv run python benchmarks/scaling.py                 # two CPU processes beside one with two threads
    uv run python benchmarks/scaling.py --devices gpu   # each way to train on one GPU, beside a bare loop

Processes: the same configuration, the same global batch. Efficiency is the images/s of n processes over n times the
images/s of one with one thread; the ratio to one process with n threads is what DDP is worth on a CPU. Without
BatchNorm that trains and in float64 both have to end with the same weights. Ways to train: rates are medians over
steps, of `tl fit` and of a loop with nothing but forward, backward and AdamW over a batch in memory. Runs take turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from several_processes import finish, largest, weights
from torch.nn import functional
from training import fitted

from tl_lightning.core.console import console
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration

COUNT = 2
WAYS = {
    "fp32": ("32-true", False),
    "bf16-mixed": ("bf16-mixed", False),
    "bf16-mixed, compiled": ("bf16-mixed", True),
}


def options(size: int, batch: int, accelerator: str) -> list[str]:
    """Of all runs: everything trains, on as many images per step."""
    return [
        *("--config", str(Path(__file__).parent.parent / "configs" / "elpv.yaml"), "--phases", "full"),
        *("--data.image_size", str(size), "--global_batch", str(batch), "--trainer.accelerator", accelerator),
        *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1", "--test", "false"),
        *("--data.augmentation", "none", "--data.on_leak", "ignore", "--trainer.limit_val_batches", "1"),
    ]


def processes(size: int, batch: int, steps: int, rounds: int) -> None:
    """Prints what n processes make of a CPU's cores, beside one process with as many threads."""
    common = ["fit", *options(size, batch, "cpu"), "--trainer.precision", "32-true"]
    common += ["--trainer.limit_train_batches", str(steps)]
    cases = {"1 process, 1 thread": (1, 1), f"1 process, {COUNT} threads": (1, COUNT), f"{COUNT} processes": (COUNT, 1)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, (ranks, threads) in cases.items():
            os.environ["OMP_NUM_THREADS"] = os.environ["TL_BENCHMARK_THREADS"] = str(threads)
            run = f"{ranks}-{threads}-{number}"
            finish(*common, "--trainer.devices", str(ranks), *THREADS, "--run_dir", run, processes=ranks)
            found[name] += json.loads(Path(run, "summary.json").read_text())["throughput"]
    rates = {name: statistics.median(speed["images_per_s"] for speed in speeds) for name, speeds in found.items()}
    for name, speeds in found.items():
        shares = (f"{word.replace('_', ' ')} {_median(speeds, word):.0%}" for word in WAITS if word in speeds[0])
        print(f"{name:<22}{rates[name]:>8.1f} images/s   {', '.join(shares)}")
    alone, threaded, together = rates.values()
    print(f"{COUNT} processes to {COUNT} threads of one: {together / threaded:.2f}")
    print(f"efficiency: {together / (COUNT * alone):.0%} of {COUNT} times one process with one thread")

    exact = [
        "fit",
        *options(size, batch, "cpu"),
        "--trainer.precision",
        "64-true",
        "--trainer.limit_train_batches",
        "3",
    ]
    for ranks in (1, COUNT):
        finish(*exact, "--trainer.devices", str(ranks), *THREADS, "--run_dir", f"exact-{ranks}", processes=ranks)
    print(
        f"largest difference of the weights after 3 steps: {largest(weights('exact-1'), weights(f'exact-{COUNT}')):.1e}"
    )


WAITS = ("waiting_for_data", "waiting_for_others")
THREADS = ["--trainer.callbacks+=scaling.Threads"]


def _median(speeds: list[dict[str, Any]], name: str) -> float:
    return statistics.median(speed[name] for speed in speeds)


class Threads(Callback):
    """Gives each process as many threads as its case says: a forked one has those of its parent."""

    def setup(self, *args: object, **kwargs: object) -> None:
        """Sets them before anything is computed."""
        torch.set_num_threads(int(os.environ["TL_BENCHMARK_THREADS"]))


def bare(parts: Configuration, steps: int, *, precision: str, compiled: bool, channels_last: bool) -> float:
    """Seconds per step of the bare loop."""
    device = parts.trainer.strategy.root_device
    loaded = next(iter(parts.datamodule.train_dataloader()))
    batch = {name: tensor.to(device) for name, tensor in loaded.items()}
    batch = parts.datamodule.on_after_batch_transfer(batch, 0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = parts.model.to(device)
    model.backbone.to(memory_format=layout)
    images = batch["image"].contiguous(memory_format=layout)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.train()
    seconds = []
    for _ in range(steps + 3):
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = forward(images)
        functional.cross_entropy(logits, batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    model.backbone.to(memory_format=torch.channels_last)
    return statistics.median(seconds[3:])


def ways(size: int, batch: int, steps: int, accelerator: str, only: list[str]) -> None:
    """Prints a line per way to train on one device."""
    print(f"{'':<24}{'bare, contiguous':>18}{'bare, channels_last':>21}{'tl fit':>9}   images/s")
    for name in only:
        precision, compiled = WAYS[name]
        args = [*options(size, batch, accelerator), "--trainer.limit_train_batches", str(steps + 3)]
        args += ["--trainer.precision", precision, "--compile", str(compiled).lower()]
        rates = []
        for channels_last in (False, True):
            parts = _built(args)
            seconds = bare(parts, steps, precision=precision, compiled=compiled, channels_last=channels_last)
            rates.append(batch / seconds)
        rates.append(batch / statistics.median(list(fitted(_built(args)))[3:]))
        first, second, ours = rates
        print(f"{name:<24}{first:>18,.0f}{second:>21,.0f}{ours:>9,.0f}   {ours / second:.0%} of the bare loop")


def _built(args: list[str]) -> Configuration:
    parts = Configuration([*args, "--run_dir", tempfile.mkdtemp(dir=".")])
    parts.datamodule.prepare_data()
    parts.datamodule.setup("fit")
    parts.model.start_phase(parts.phases[0])
    parts.model.on_fit_start()
    return parts


def main() -> None:
    """Runs what `--devices` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", choices=("processes", "cpu", "gpu"), default="processes")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step, over all processes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        quiet()
        if chosen.devices == "processes":
            torch.set_num_threads(1)  # a child that is forked cannot use its parent's threads
            processes(chosen.size, chosen.batch, chosen.steps, chosen.rounds)
        else:
            console.quiet = True
            ways(chosen.size, chosen.batch, chosen.steps, chosen.devices, chosen.ways)


if __name__ == "__main__":
    main()
