"""Images per second while training: `tl fit` beside the bare loop over the same model, in one process.

    uv run python benchmarks/training.py

The bare loop has its images ready in memory and does nothing but forward, backward and AdamW: the limit of what any
training loop can reach. The two take turns, and the ratio is what to quote: a machine's speed drifts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator

import torch
from lightning.pytorch import Callback
from torch.nn import functional

from tl_lightning.core.console import console
from tl_lightning.core.precision import fast_precision
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration


class Stopwatch(Callback):
    """Notes when each training batch ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())


def configuration(phases: str, size: int, steps: int, runs: str) -> Configuration:
    """The ELPV demo, shortened to one epoch of a few steps."""
    return Configuration(
        [
            *("--config", "configs/elpv.yaml", "--phases", phases, "--data.image_size", str(size)),
            *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(steps)),
            *("--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"),
            *("--run_dir", tempfile.mkdtemp(dir=runs)),
        ]
    )


def bare(parts: Configuration, steps: int) -> Iterator[float]:
    """Seconds per step of the bare loop."""
    batch = parts.datamodule.on_after_batch_transfer(next(iter(parts.datamodule.train_dataloader())), 0)
    trainable = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable)
    parts.model.train()
    for _ in range(steps):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == "bf16-mixed"):
            logits = parts.model(batch["image"])
        functional.cross_entropy(logits, batch["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - begun


def fitted(parts: Configuration) -> Iterator[float]:
    """Seconds per step of Lightning's loop with everything that `tl fit` adds."""
    watch = Stopwatch()
    parts.trainer.callbacks.append(watch)
    parts.trainer.fit(parts.model, datamodule=parts.datamodule)
    yield from (end - start for start, end in zip(watch.ends, watch.ends[1:], strict=False))


def main() -> None:
    """Prints a line per strategy and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    quiet()
    console.print(f"{'phases':<20}{'size':>5}{'bare loop':>12}{'tl fit':>10}   images/s, medians of {steps} steps")
    with tempfile.TemporaryDirectory() as runs:
        for phases, size in (("feature_extraction", 224), ("partial", 160), ("full", 128)):
            console.quiet = True
            parts = configuration(phases, size, steps, runs)
            parts.datamodule.setup("fit")
            parts.model.start_phase(parts.phases[0])
            parts.model.on_fit_start()
            list(bare(parts, 2))
            rates = [
                parts.datamodule.batch_size / statistics.median(seconds)
                for seconds in (list(bare(parts, steps)), list(fitted(parts)), list(bare(parts, steps)))
            ]
            limit = (rates[0] + rates[2]) / 2
            console.quiet = False
            console.print(f"{phases:<20}{size:>5}{limit:>12.0f}{rates[1]:>10.0f}   {rates[1] / limit:.0%} of the limit")


if __name__ == "__main__":
    main()
