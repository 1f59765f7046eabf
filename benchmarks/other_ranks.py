"""Runs of two processes that are pre-empted within an epoch go on with one, and the other way round.

    uv run python benchmarks/other_ranks.py

Each step has to see the same images, and the weights have to end where those of the run that was left alone do,
apart from rounding. Without augmentation and BatchNorm that trains, which depend on the process. Runs on CPUs (gloo).
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from kill_and_resume import write_images
from lightning.pytorch import Callback, LightningModule, Trainer
from several_processes import CONFIG, finish, largest, together, weights

STEPS = {"save_every": 3, "phases": "full", "trainer": {"max_epochs": 3}}


class Seen(Callback):
    """Writes down which images each step sees; pre-empts once, in the second epoch, where a file asks for it."""

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, k: int) -> None:  # noqa: ANN401
        """Adds a line for this process."""
        with Path(f"seen-{trainer.global_rank}.txt").open("a") as file:
            print(trainer.global_step, *batch["index"].tolist(), file=file)
        wanted = Path(f"pre-empt-{trainer.global_rank}")
        if trainer.current_epoch == 1 and k == 2 and wanted.exists():
            wanted.unlink()
            os.kill(os.getpid(), signal.SIGUSR1)


def seen() -> dict[int, list[int]]:
    """The images of each step of all processes; what was said is gone."""
    steps: dict[int, list[int]] = {}
    for path in Path().glob("seen-*.txt"):
        for line in path.read_text().splitlines():
            step, *images = map(int, line.split())
            steps[step] = sorted(steps.get(step, []) + images)
        path.unlink()
    return steps


def main() -> int:
    """Prints the differences; exits with 1 if one is too large."""
    torch.set_num_threads(1)  # a child that is forked cannot use its parent's threads
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["TL_CACHE_DIR"] = f"{folder}/cache"
        write_images(Path("images"))
        Path("run.yaml").write_text(json.dumps(CONFIG))
        Path("steps.yaml").write_text(json.dumps(STEPS))
        fit = ["fit", "--config", "run.yaml", "--config", "steps.yaml", "--trainer.callbacks+=other_ranks.Seen"]
        finish(*fit, "--run_dir", "whole", "--trainer.devices", "1", "--data.batch_size", "8", processes=1)
        whole = seen()
        for before, after in ((2, 1), (1, 2)):
            run = f"{before}-to-{after}"
            for rank in range(before):
                Path(f"pre-empt-{rank}").touch()
            parts = ["--data.micro_batch_size", str(8 // before)]  # a share at once, whatever that is
            sizes = ["--trainer.devices", str(before), "--global_batch", "8", *parts]
            codes = together(*fit, "--run_dir", run, *sizes, processes=before)
            first = seen()
            finish("resume", "--run_dir", run, "--trainer.devices", str(after), processes=after)
            both = {**first, **seen()}
            apart = largest(weights("whole"), weights(run))
            alike = both == whole
            print(
                f"{before} processes, pre-empted ({codes}) after step {max(first)} of {max(whole)}, go on as {after}: "
                f"{'the same images' if alike else 'other images'} in every step, weights {apart:.1e} apart"
            )
            good = good and alike and apart < 1e-5 and codes == [138] * before
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
