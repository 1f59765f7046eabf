"""Bare loops over images that are in memory: the limit of what any training can reach.

In bfloat16 where the machine has it, and channels_last. Words: ``limit`` (decode once, run the backbone once, and
nothing else), ``head`` (a frozen backbone and a head, by epochs), ``last2`` (what is above the cut, on activations in
memory) or ``full``.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from peers.measure import Attempt, now
from peers.task import Task
from tl_lightning.backbones.splitting import split_backbone
from tl_lightning.backbones.stages import stages_of
from tl_lightning.core.precision import train_depthwise_in_float32
from tl_lightning.data.images.preparing import prepare
from tl_lightning.preprocess.image import ImagePreprocess

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOP = 2  # stages that `last:2` trains

Inputs = Sequence[Tensor]  # of all images: the pixels, or the activations that cross the cut


def decode(task: Task, split: str) -> Tensor:
    """All images of a split, ``uint8`` ``(n, 3, size, size)``."""
    preprocess = ImagePreprocess(
        size=task.size,
        channels=3,
        crop_pct=task.crop_pct,
        crop_mode="center",
        interpolation=task.interpolation,
        mean=task.mean,
        std=task.std,
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = pool.map(lambda row: prepare(Path(row[0]), preprocess), task.rows(split))
        return torch.stack(list(images))


def build(task: Task) -> nn.Module:
    """The model of timm without a classifier, with the weights of all attemptants."""
    backbone = timm.create_model(task.model, num_classes=0)
    backbone.load_state_dict(torch.load(task.folder / "weights.pt", weights_only=True))
    if DEVICE == "cpu":
        train_depthwise_in_float32(backbone)  # a loop that is slower than it has to be is no limit
    return backbone.to(DEVICE, memory_format=torch.channels_last)


class Loop:
    """Forward, loss, backward, AdamW; and validation after each epoch.

    Args:
        attempt: Whose result the loop fills in.
        backbone: The module below the head.
        width: Of the features.
        learning_rates: Those of backbone and head.
    """

    def __init__(
        self, attempt: Attempt, backbone: nn.Module, *, width: int, learning_rates: tuple[float, float]
    ) -> None:
        self.attempt, self.task, self.backbone = attempt, attempt.task, backbone
        self.head = nn.Linear(width, len(self.task.classes)).to(DEVICE)
        self.trains = any(parameter.requires_grad for parameter in backbone.parameters())
        groups = [{"params": [each for each in backbone.parameters() if each.requires_grad], "lr": learning_rates[0]}]
        groups = groups if self.trains else []
        self.optimizer = torch.optim.AdamW(
            [*groups, {"params": self.head.parameters(), "lr": learning_rates[1]}], fused=True
        )

    def logits(self, batch: Inputs, *, train: bool) -> Tensor:
        """What the model makes of some rows."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.task.reduced):
            with torch.set_grad_enabled(train and self.trains):
                features = self.backbone(*batch)
            return self.head(features)

    def fit(self, training: Inputs, held_out: Inputs, *, epochs: int, ready: Callable[[Tensor], Tensor]) -> None:
        """Trains.

        Args:
            training: Rows of the training images.
            held_out: Rows of the validation images.
            epochs: How many.
            ready: Makes a batch of a tensor's rows ready for the model.
        """
        labels, result = torch.tensor(self.task.labels("train"), device=DEVICE), self.attempt.result
        size = self.task.batch
        steps = max(len(labels) // size, 1)
        result.epoch_images = min(steps * size, len(labels))
        for _ in range(epochs):
            self.backbone.train()
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm) or not self.trains:
                    module.eval()
            begun, order = now(), torch.randperm(len(labels))
            for step in range(steps):
                rows = order[step * size : (step + 1) * size]
                logits = self.logits([ready(tensor[rows]) for tensor in training], train=True)
                functional.cross_entropy(logits, labels[rows.to(DEVICE)]).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
            result.epochs_s.append(now() - begun)
            with self.attempt.part("validation"):
                predicted = self.predicted(held_out, ready)
                right = predicted == torch.tensor(self.task.labels("val"))
                result.val_accuracy = float(right.float().mean())
        result.parts["training"] = sum(result.epochs_s)

    @torch.no_grad()
    def predicted(self, inputs: Inputs, ready: Callable[[Tensor], Tensor]) -> Tensor:
        """The class of each row."""
        self.backbone.eval()
        batches = (range(start, min(start + 64, len(inputs[0]))) for start in range(0, len(inputs[0]), 64))
        found = [self.logits([ready(tensor[list(rows)]) for tensor in inputs], train=False) for rows in batches]
        return torch.cat(found).argmax(1).cpu()


class Pixels:
    """Normalises a batch on the device.

    Args:
        task: Says how.
    """

    def __init__(self, task: Task) -> None:
        std, mean = torch.tensor(task.std, device=DEVICE), torch.tensor(task.mean, device=DEVICE)
        self.scale, self.shift = (1 / (255 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """``uint8`` to what the model expects."""
        return (pixels.to(DEVICE) * self.scale + self.shift).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def forward(module: nn.Module, pixels: Tensor, task: Task) -> list[Tensor]:
    """One pass over all images in eval mode; every tensor that comes out, as it comes out."""
    ready, outputs = Pixels(task), []
    module.eval()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=task.reduced):
        for batch in pixels.split(32):
            output = module(ready(batch))
            outputs.append(output if isinstance(output, tuple) else (output,))
    return [torch.cat(tensors) for tensors in zip(*outputs, strict=True)]


def limit(attempt: Attempt) -> None:
    """Decodes once and runs the backbone once; the work of building the model is left out, to be strict."""
    backbone = build(attempt.task)
    attempt.restart()
    with attempt.part("decoding"):
        pixels = [decode(attempt.task, split) for split in ("train", "val")]
    with attempt.part("forward"):
        for tensor in pixels:
            forward(backbone, tensor, attempt.task)
    attempt.done()
    attempt.report()


def by_epochs(attempt: Attempt, *, trains: bool, epochs: int) -> None:
    """Trains the head, or everything, from pixels."""
    task = attempt.task
    with attempt.part("decoding"):
        training, held_out = decode(task, "train"), decode(task, "val")
    backbone, ready = build(task).requires_grad_(trains), Pixels(task)
    loop = Loop(attempt, backbone, width=backbone.num_features, learning_rates=(3e-4, 3e-3))
    loop.fit([training], [held_out], epochs=epochs, ready=ready)
    attempt.done()
    attempt.report(loop.predicted([decode(task, "test")], ready).tolist())


def last_two(attempt: Attempt) -> None:
    """Trains what is above the cut on activations that are in memory."""
    task = attempt.task
    with attempt.part("decoding"):
        training, held_out = decode(task, "train"), decode(task, "val")
    backbone = build(task)
    stages = stages_of(backbone, task.model)
    split = split_backbone(backbone, stages, len(stages) - TOP, inputs=("image",))
    with attempt.part("forward"):
        cached = [forward(split.prefix, tensor, task) for tensor in (training, held_out)]
    loop = Loop(attempt, split.suffix, width=backbone.num_features, learning_rates=(9e-4, 3e-3))
    loop.fit(*cached, epochs=task.epochs, ready=_to_device)
    attempt.done()
    attempt.result.numbers = _operations(split.prefix, split.suffix, training[:1], task)
    attempt.report(loop.predicted(forward(split.prefix, decode(task, "test"), task), _to_device).tolist())


def _to_device(tensor: Tensor) -> Tensor:
    return tensor.to(DEVICE)


def _operations(prefix: nn.Module, suffix: nn.Module, pixels: Tensor, task: Task) -> dict[str, float]:
    """Multiplications and additions of one image's forward pass below and above the cut."""
    counted = []
    with torch.no_grad():
        crossing: Inputs = [Pixels(task)(pixels)]
        for module in (prefix, suffix):
            with FlopCounterMode(display=False) as counter:
                output = module.eval()(*crossing)
            counted.append(float(counter.get_total_flops()))
            crossing = output if isinstance(output, tuple) else [output]
    return dict(zip(("prefix_operations", "suffix_operations"), counted, strict=True))


def main() -> None:
    """Runs it once."""
    attempt = Attempt()
    (way,) = attempt.words
    if way == "limit":
        limit(attempt)
    elif way == "last2":
        last_two(attempt)
    else:
        by_epochs(
            attempt, trains=way == "full", epochs=attempt.task.full_epochs if way == "full" else attempt.task.epochs
        )


if __name__ == "__main__":
    main()
