"""``tl lr_find``: a learning-rate range test before the first real run; it leaves an image and nothing else."""

import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from rich.table import Table

from tl_lightning.core.console import console, track
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.plots import INSTALL, can_draw, new_figure, save_figure
from tl_lightning.errors import UserError
from tl_lightning.experiment.preamble import assemble, read_data, refuse_run_dir
from tl_lightning.feature_cache.phase_cache import PhaseCache
from tl_lightning.finetuning.batch_norm import estimate_statistics
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.finetuning.phases import Phase
from tl_lightning.tasks.base import TransferTask
from tl_lightning.training.micro_batches import divide_batches

FEWEST_STEPS = 20
DIVERGED = 4.0  # times the best smoothed loss, as fastai and Lightning have it
CLEAR = 5.0  # times the mean's own noise; of curves that are nothing but noise about one in twenty falls as far


@dataclass(frozen=True)
class Curve:
    """The loss while one factor on all learning rates rises.

    Attributes:
        factors: Of each optimizer step, rising geometrically.
        losses: Of each step's batch, before the step was taken; all finite.
        smoothed: The bias-corrected exponential mean of the losses.
        window: How many steps the mean looks back over, a tenth of the whole test.
        end: ``complete``, ``diverged`` (the smoothed loss exceeded `DIVERGED` times its best) or ``not_finite``.
    """

    factors: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    window: int
    end: Literal["complete", "diverged", "not_finite"]

    @property
    def best(self) -> int:
        """The step with the lowest smoothed loss."""
        return min(range(len(self.smoothed)), key=self.smoothed.__getitem__)


def range_test(step: Callable[[float], float], *, steps: int, lowest: float, highest: float) -> Curve:
    """Trains while the learning rate rises, and records the loss (Smith 2017, arXiv:1506.01186).

    The mean forgets by ``1 - 10 / steps`` per step (0.9 in 100 steps), so that it looks back over a tenth of the range
    however many steps are taken. fastai's 0.98 looks back over half of its 100 steps: the curve would show a fall
    decades of learning rate after it happened.

    Args:
        step: Takes one optimizer step at a factor times the learning rates; returns the loss before it.
        steps: At most how many steps to take, at least 2.
        lowest: The first step's factor.
        highest: The last step's factor.
    """
    window = max(steps // 10, 1)
    decay = 1 - 1 / window
    factors: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    end: Literal["complete", "diverged", "not_finite"] = "complete"
    rising = (lowest * (highest / lowest) ** (number / (steps - 1)) for number in range(steps))
    for number, factor in enumerate(track(rising, "learning rates", total=steps), 1):
        loss = step(factor)
        if not math.isfinite(loss):
            end = "not_finite"
            break
        mean = decay * mean + (1 - decay) * loss
        factors.append(factor)
        losses.append(loss)
        smoothed.append(mean / (1 - decay**number))
        # The mean of less than a window is little more than one batch's luck.
        if number > window and smoothed[-1] > DIVERGED * min(smoothed):
            end = "diverged"
            break
    return Curve(tuple(factors), tuple(losses), tuple(smoothed), window, end)


def suggestion(curve: Curve) -> float | None:
    """Picks the factor half-way, on a log scale, between the steepest fall of the smoothed loss and its minimum.

    Steepness is the fall over a whole window: from one step to the next the noise of the batches outweighs the fall
    (Lightning's ``suggestion`` takes the steepest single step). Of the steepest window its start is taken, because the
    mean trails the losses by nearly a window. The minimum itself is bold: the loss goes on falling, on the strength of
    all the steps so far, at rates at which longer training would diverge. A tenth of it, fastai's ``minimum`` rule, was
    measured to be timid here: of three rates tried for fine-tuning on ELPV with AdamW (one seed each), five times the
    minimum's did best, the minimum's next, a tenth of it worst. fastai's ``valley``, the middle of the longest falling
    sequence, moves with every chance fall at the rates too low to matter.

    Args:
        curve: From `range_test`.

    Returns:
        The factor; `None` where the smoothed loss does not fall by `CLEAR` times its noise: the median jump from batch
        to batch, over the square root of the number of batches that an exponential mean is worth.
    """
    window, smoothed = curve.window, curve.smoothed
    first = window - 1  # the first mean that a whole window stands behind
    starts = range(first, curve.best - window + 1) if smoothed else range(0)
    if not starts:
        return None
    jumps = [abs(after - before) for before, after in itertools.pairwise(curve.losses[: curve.best + 1])]
    noise = statistics.median(jumps) / math.sqrt(2 * window - 1)
    if smoothed[first] - smoothed[curve.best] <= CLEAR * noise:
        return None
    steepest = max(starts, key=lambda start: smoothed[start] - smoothed[start + window])
    return math.sqrt(curve.factors[steepest] * curve.factors[curve.best])


def draw(curve: Curve, path: Path, *, head_rate: float, suggested: float | None, title: str) -> None:
    """Draws the loss over the head's learning rate, 900 x 540 pixels, whole or not at all.

    Args:
        curve: At least one step of it.
        path: The PNG, replaced where it exists.
        head_rate: The head's learning rate at factor 1.
        suggested: The suggested factor, if there is one.
        title: Above the image.
    """
    rates = [head_rate * factor for factor in curve.factors]
    figure, axes = new_figure()
    axes.set_xscale("log")
    axes.plot(rates, curve.losses, color="tab:blue", alpha=0.3, linewidth=1, label="loss of each batch")
    axes.plot(rates, curve.smoothed, color="tab:blue", linewidth=2, label="smoothed")
    axes.axvline(head_rate, color="gray", linestyle="--", label=f"configured: {head_rate:.2g}")
    if suggested is not None:
        rate = head_rate * suggested
        axes.axvline(rate, color="tab:red", label=f"suggested: {rate:.2g}")
    # One exploding batch would press everything worth seeing into a flat line.
    top = min(max(curve.losses), 2.5 * max(curve.smoothed[: curve.best + 1]))
    bottom = min(curve.losses)
    margin = 0.05 * (top - bottom) or 0.1
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_title(title)
    axes.set_xlabel("learning rate of the head; the stages' rates rise in proportion")
    axes.set_ylabel("training loss")
    axes.legend()
    save_figure(figure, path)


def batches(data: LightningDataModule, trainer: Trainer) -> Iterator[Any]:
    """The training batches, epoch after epoch without end, as a task gets them.

    Args:
        data: Set up.
        trainer: They come to its device.

    Yields:
        Each batch.
    """
    # By these the data module knows that a batch is for training, and mixes each in a way of its own.
    data.trainer, trainer.training = trainer, True
    progress = trainer.fit_loop.epoch_loop.batch_progress
    loader = data.train_dataloader()
    for epoch in itertools.count():
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield _moved(data, batch, trainer.strategy.root_device)
            progress.increment_ready()


def _moved(data: LightningDataModule, batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - a batch of any task
    return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)


class RateStep:
    """One optimizer step at a given share of a phase's learning rates; it trains the model it is given.

    Args:
        task: Moved to the trainer's device, and put into the phase.
        data: Set up.
        trainer: Its device, precision, gradient clipping and accumulation are used; it does not run.
        phase: What trains.
    """

    def __init__(self, task: TransferTask, data: LightningDataModule, trainer: Trainer, *, phase: Phase) -> None:
        device = trainer.strategy.root_device
        self.task = task.to(device)
        self.trainer = trainer
        self.precision = trainer.precision_plugin
        if phase.bn == "adapt":  # the task would, with a trainer that runs; afterwards the statistics are frozen
            loader = data.plain_loader("train", shuffle=True)  # type: ignore[attr-defined]  # of the package's own data modules
            images = (_moved(data, batch, device)["image"] for batch in loader)
            with self.precision.forward_context():
                estimate_statistics(task.backbone, images)
            phase = replace(phase, bn="frozen")
        task.start_phase(phase)
        task.on_fit_start()
        self.optimizer = task.build_optimizer(fused=False)  # Lightning's clipping, which is used here, refuses it
        scaled = getattr(self.precision, "scaler", None) is not None  # float16 loses small gradients without
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.batches = batches(data, trainer)
        self.number = 0

    def __call__(self, factor: float) -> float:
        """Takes the step.

        Args:
            factor: Multiplies the rate of every group.

        Returns:
            The loss before the step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.task.phase.lr_scale * factor
        total = 0.0
        parts = self.trainer.accumulate_grad_batches
        for _ in range(parts):
            loss = self._loss() / parts
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        self.precision.clip_gradients(
            self.optimizer,
            self.trainer.gradient_clip_val or 0.0,
            self.trainer.gradient_clip_algorithm or GradClipAlgorithmType.NORM,
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return total

    def _loss(self) -> torch.Tensor:
        batch = next(self.batches)
        with self.precision.forward_context(), warnings.catch_warnings():
            # A task of the user's own may log, which means nothing where no trainer runs.
            warnings.filterwarnings("ignore", message=r"You are trying to `self\.log")
            output = self.task.training_step(batch, self.number)
        self.number += 1
        loss = output["loss"] if isinstance(output, Mapping) else output
        assert isinstance(loss, torch.Tensor)
        return loss


def lr_find_command(args: list[str]) -> None:
    """``tl lr_find``: tests a range of learning rates on a configuration, suggests one, and draws the curve.

    Args:
        args: ``--phase N``, ``--steps N``, ``--lowest F``, ``--highest F``, ``--output FILE.png|none``, and everything
            that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, matplotlib is missing, or something that ``tl fit`` would say.
    """
    parser = OptionParser(
        "lr_find",
        "Tests which learning rates train: one factor on the rates of all stages rises from step to step until the "
        "loss diverges. Takes every option of tl fit too (tl fit --help). Writes nothing but the image.",
    )
    parser.add_argument("--phase", type=int, default=1, help="the phase to test, from its beginning; 1 is the first")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps at most (default: 100)")
    parser.add_argument("--lowest", type=float, default=1e-4, help="factor on the rates at first (default: 1e-4)")
    parser.add_argument("--highest", type=float, default=1e2, help="factor on the rates at last (default: 100)")
    parser.add_argument(
        "--output", type=_image, default="lr_find.png", help="a PNG file (default: lr_find.png), or none"
    )
    options, rest = parser.parse_known_args(args)
    if options.steps < FEWEST_STEPS:
        raise UserError(f"--steps is {options.steps}; it must be {FEWEST_STEPS} or more: fewer steps show no slope")
    if not 0 < options.lowest < options.highest < math.inf:
        raise UserError(f"--lowest {options.lowest:g} --highest {options.highest:g}: give factors above 0 that rise")
    refuse_run_dir(rest, "lr_find")
    configuration = assemble(rest, command="lr_find")
    task, data, phases = configuration.model, configuration.datamodule, configuration.phases
    if not 1 <= options.phase <= len(phases):
        known = ", ".join(f"{number} ({phase.name})" for number, phase in enumerate(phases, 1))
        raise UserError(f"--phase is {options.phase}, but the phases are {known}; name one of them by its number")
    phase = phases[options.phase - 1]
    read_data(configuration)
    data.set_augmentation(phase.augmentation)
    task.set_training_targets(data.answers("train").labels)
    divide_batches(task, data, configuration.trainer, [phase])
    task.start_phase(phase)
    rows = task.phase_rows()
    if PhaseCache(task, data, configuration.trainer, configuration.config.cache).plan_for(phase).solved:
        solved = (
            f"phase {phase.name} is solved, not trained by steps: it will use no rate (--model.head_solver sgd would)"
        )
        console.print(f"caution    {solved}", style="yellow")
    curve = range_test(
        RateStep(task, data, configuration.trainer, phase=phase),
        steps=options.steps,
        lowest=options.lowest,
        highest=options.highest,
    )
    if not curve.losses:
        raise UserError(
            f"the loss is not a finite number at the very first step, at {options.lowest:g} times the configured "
            "rates: no learning rate mends that; look at the data, the weights and trainer.precision"
        )
    factor = suggestion(curve)
    title = f"learning-rate range test, phase {options.phase}/{len(phases)}: {phase.name}"
    console.print(_rate_table(rows, factor, title=title))
    head_lr = task.head_learning_rate
    head_rate = head_lr * phase.lr_scale
    for line in _explanation(curve, factor, head_rate=head_rate, lr=head_lr / configuration.lr_factor):
        console.print(line)
    if options.output is not None:
        draw(curve, options.output, head_rate=head_rate, suggested=factor, title=title)
        console.print(f"curve in {options.output}")


def _image(path: str) -> Path | None:
    """Checks, before anything is trained, that the curve can be drawn there."""
    if path == "none":
        return None
    if not can_draw():
        raise UserError(f"--output needs matplotlib: {INSTALL}, or --output none for the table alone")
    return writable(path)


def _rate_table(rows: list[StageRow], factor: float | None, *, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("group")
    for column in ("configured rate", "suggested rate"):
        table.add_column(column, justify="right")
    for row in rows:
        if row.learning_rate is not None:
            suggested = "" if factor is None else f"{row.learning_rate * factor:.2e}"
            table.add_row(row.name, f"{row.learning_rate:.2e}", suggested)
    return table


def _explanation(curve: Curve, factor: float | None, *, head_rate: float, lr: float) -> Iterator[str]:
    """What came out, in words: the lines below the table."""
    tested = f"{curve.factors[0] * head_rate:.1e} to {curve.factors[-1] * head_rate:.1e}"
    ends = {
        "complete": "to the end without diverging",
        "diverged": "until the loss diverged",
        "not_finite": "until the loss was no finite number",
    }
    yield f"tested the head's rate from {tested} in {len(curve.factors)} steps, {ends[curve.end]}"
    if factor is None:
        yield (
            "no suggestion: the loss never fell clearly, by more than its noise from batch to batch; "
            "try more --steps, a lower --lowest, or look at the data"
        )
        return
    if curve.end == "complete" and len(curve.factors) - curve.best <= curve.window:
        yield "the loss was still falling at the end: a higher --highest may show better rates"
    yield f"--model.lr {lr * factor:.2g}"
