"""What an image costs on this machine: a few real steps of the real task, timed."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tl_lightning.backbones import CannotSplit
from tl_lightning.choosing.advising.facts import Speeds
from tl_lightning.core.console import track
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.selection import frozen_stages
from tl_lightning.inspecting.learning_rates.steps import batches
from tl_lightning.tasks.base import TransferTask

WARM_UP, STEPS = 2, 5  # the first steps choose kernels and fill memory pools
SELECTIONS = ("last:2", "all")


def measure_speeds(configuration: Configuration, selections: Sequence[str] = SELECTIONS) -> Speeds:
    """Times forward passes and training steps, from images and from the feature cache of what lies below the cut.

    The task's weights are afterwards what they were.

    Args:
        configuration: The data are set up.
        selections: What is to be timed, in the language of phases; the head is never worth it, as it is solved.
    """
    task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
    task.to(trainer.strategy.root_device)
    before = {name: tensor.detach().clone() for name, tensor in task.state_dict().items()}
    task.set_training_targets(data.targets("train").labels)
    source = batches(data, trainer)
    batch = next(source)
    inputs = task.inputs_of(batch)
    count = len(inputs[0])
    train: dict[str, float] = {}
    cached: dict[str, float] = {}
    try:
        task.start_phase(Phase(train="head"))
        forward = _seconds(lambda: _forward(task, trainer, inputs), task) / count
        for selection in track(selections, "timing training steps", total=len(selections)):
            task.start_phase(Phase(train=selection))
            task.on_fit_start()
            train[selection] = _seconds(_step(task, trainer, lambda: next(source)), task) / count
            cut = frozen_stages(task.stages, selection)
            if cut and (crossing := _crossing(task, trainer, inputs, cut)) is not None:
                content = {**{k: v for k, v in batch.items() if k not in task.inputs}, "activations": crossing}
                cached[selection] = _seconds(_step(task, trainer, lambda c=content: c), task) / count  # type: ignore[misc]
                task.start_above(None)
    finally:
        task.start_above(None)
        task.load_state_dict(before)
        trainer.training = False
    return Speeds(int(inputs[0].shape[-1]), forward, train, cached)


def _seconds(work: Callable[[], object], task: TransferTask) -> float:
    """The median time of a few calls, after a warm-up."""
    times = []
    for _ in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        work()
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[WARM_UP:])


def _forward(task: TransferTask, trainer: Trainer, inputs: Sequence[Tensor]) -> None:
    mode = task.training
    task.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        task.backbone(*inputs)
    task.train(mode)


def _crossing(task: TransferTask, trainer: Trainer, inputs: Sequence[Tensor], cut: int) -> list[Tensor] | None:
    """What crosses the cut of a batch, with the task set to start above it; `None` where it cannot be split."""
    try:
        split = task.transferred.split(cut)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            crossing = [tensor.clone() for tensor in split.prefix(*inputs)]
    except CannotSplit:
        return None
    task.start_above(split.suffix)
    return crossing


def _step(task: TransferTask, trainer: Trainer, batch: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
    optimizer = task.build_optimizer(fused=True)

    def step() -> None:
        content = batch()
        if "activations" in content:  # the suffix may work in place
            content = {**content, "activations": [tensor.clone() for tensor in content["activations"]]}  # type: ignore[dict-item]
        with trainer.precision_plugin.forward_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"You are trying to `self\.log")  # a task of the user's own
            output = task.training_step(content, 0)
        torch.autograd.backward(output["loss"] if isinstance(output, dict) else output)
        optimizer.step()
        optimizer.zero_grad()

    return step
