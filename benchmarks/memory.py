"""Peak memory of a training step: what is frozen costs no gradient, no optimizer state and no stored activations.

    uv run python benchmarks/memory.py

Each strategy trains three steps of MobileNetV2 on ELPV (224 px, batches of 32) in a process of its own. The peak is
that of the process's resident memory (Linux), less what it held before the first step.
"""

import os
import tempfile
from pathlib import Path

import torch

from tl_lightning.core.console import console
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration

MEBIBYTE = 2**20


def resident(field: str) -> float:
    """A measure of this process's memory in MiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(phases: str, more: list[str], runs: str) -> str:
    """Trains three steps and describes them in one line."""
    configuration = Configuration(
        [
            *("--model.backbone", "timm/mobilenetv2_100", "--model.weights", "none", "--phases", phases),
            *("--data.source", "elpv", "--data.batch_size", "32", "--trainer.precision", "32-true"),
            *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "2"),
            *("--trainer.enable_progress_bar", "false", "--run_dir", f"{runs}/{os.getpid()}", *more),
        ]
    )
    task, data = configuration.model, configuration.datamodule
    data.prepare_data()
    data.setup("fit")
    task.start_phase(configuration.phases[0])
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    configuration.trainer.fit(task, datamodule=data)
    peak = resident("VmHWM") - before
    optimizer = task.configure_optimizers()["optimizer"]
    held = sum(value.nbytes for state in optimizer.state.values() for value in state.values()) / MEBIBYTE
    frozen = [parameter for parameter in task.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None and parameter not in optimizer.state for parameter in frozen)
    count = f"{len(frozen)} of {len(list(task.parameters()))} tensors frozen"
    return f"{count:<30}{peak:>6.0f} MiB peak{held:>8.1f} MiB of it optimizer state"


def main() -> None:
    """Prints a line per strategy."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1)))
    quiet()
    console.quiet = True
    with tempfile.TemporaryDirectory() as runs:
        for phases in ("feature_extraction", "partial", "full", "full, checkpointed"):
            child = os.fork()
            if not child:
                more = ["--model.gradient_checkpointing", "true"] if "," in phases else []
                print(f"{phases:<20}{measure(phases.partition(',')[0], more, runs)}", flush=True)
                os._exit(0)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
