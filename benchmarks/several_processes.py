"""Two processes train one model: how far the ranks are apart, how far from one process, and after a resume.

    uv run python benchmarks/several_processes.py

Gradual unfreezing changes what trains in every phase, each process sees other images, and the ranks still have to
end with the same weights and buffers to the last bit. Without augmentation and BatchNorm they have to agree with one
process at the same global batch. Runs on CPUs (gloo), in forked children, since importing takes longer than the runs.
"""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from kill_and_resume import compare, write_images
from lightning.pytorch import Callback, LightningModule, Trainer

from tl_lightning.cli import main as tl
from tl_lightning.experiment.experiment import resume  # noqa: F401 - imported here, it need not be in every child

CONFIG = {
    "data": {"source": "images", "image_size": 32, "augmentation": "none"},
    "global_batch": 8,
    "model": {"backbone": "timm/test_efficientnet", "weights": "none", "lr": 0.003},
    "phases": "gradual",
    "trainer": {
        "max_epochs": 7,
        "accelerator": "cpu",
        "devices": 2,
        "precision": "64-true",
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
    },
}
LIVELY = {
    "data": {"augmentation": "dihedral", "mixup": 0.2},
    "model": {"head_dropout": 0.2, "drop_path_rate": 0.1},
    "phases": [{"train": "gradual", "epochs": 7, "bn": "train"}, {"train": "last:1", "bn": "adapt"}],
    "ema": "auto",
    "save_every": 2,
    "trainer": {"max_epochs": 8, "precision": "32-true"},
}


class Dump(Callback):
    """Writes down what each process ends a phase with."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the state of this rank."""
        torch.save(pl_module.state_dict(), f"rank-{trainer.global_rank}.pt")


class Stop(Callback):
    """Kills all processes in the middle of the fourth epoch, without a word."""

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Ends this process."""
        if trainer.current_epoch == 3 and trainer.fit_loop.batch_idx == 4:
            os._exit(9)


def together(*args: str, processes: int = 2) -> list[int]:
    """Runs ``tl`` in several processes at once, as a cluster's launcher would, and returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        if processes > 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(processes))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0")
        sink = os.open("child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os._exit(tl(list(args)))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def finish(*args: str, processes: int = 2) -> None:
    """Runs ``tl`` to its end."""
    if any(together(*args, processes=processes)):
        sys.exit(f"tl {' '.join(args)} failed:\n{Path('child.log').read_text()[-5000:]}")


def largest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference over all parameters and buffers."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def weights(run: str) -> dict[str, Any]:
    """What a run ended with."""
    state: dict[str, Any] = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


def main() -> int:
    """Prints the differences; exits with 1 if one is too large."""
    torch.set_num_threads(1)  # a child that is forked cannot use its parent's threads
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["TL_CACHE_DIR"] = f"{folder}/cache"
        write_images(Path("images"))
        Path("run.yaml").write_text(json.dumps(CONFIG))
        Path("lively.yaml").write_text(json.dumps(LIVELY))
        plain, lively = ["fit", "--config", "run.yaml"], ["fit", "--config", "run.yaml", "--config", "lively.yaml"]

        finish(*plain, "--run_dir", "two")
        finish(*plain, "--run_dir", "one", "--trainer.devices", "1", processes=1)
        to_one = largest(weights("one"), weights("two"))
        print(f"two processes to one at the same global batch, gradual: {to_one:.1e}")
        tests = [json.loads(Path(run, "summary.json").read_text())["test"] for run in ("one", "two")]
        to_test = max(abs(tests[0][name] - tests[1][name]) for name in tests[0])
        print(f"their test metrics: {to_test:.1e}")

        finish(*lively, "--run_dir", "lively", "--trainer.callbacks+=several_processes.Dump")
        ranks = [torch.load(f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
        apart = largest(*ranks)
        print(f"between the ranks, with augmentation, BatchNorm that trains and an EMA: {apart}")

        codes = together(*lively, "--run_dir", "stopped", "--trainer.callbacks+=several_processes.Stop")
        text = Path("stopped/config.yaml").read_text()
        Path("stopped/config.yaml").write_text(text.replace("several_processes.Stop", "several_processes.Dump"))
        finish("resume", "--run_dir", "stopped")
        found = compare(Path("lively"), Path("stopped"))
        print(f"killed in an epoch ({codes}) and resumed: {'the same to the last bit' if not found else found}")
    return int(not (to_one < 1e-5 and to_test < 1e-5 and apart == 0 and not found))


if __name__ == "__main__":
    sys.exit(main())
