"""A Lightning callback that times the epochs and counts what goes through the backbone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from peers.measure import now

FILE = "watch.json"

Batch = dict[str, Tensor] | Sequence[Tensor]


class Watch(Callback):
    """Times training epochs without their validation; for any module with a ``backbone``.

    It also writes what it found to ``watch.json`` in the trainer's root folder, where it can be read once ``tl fit``
    has ended.

    Attributes:
        seconds: Of each epoch.
        images: Of the last epoch.
        passed: Images that went through the backbone's first layer, as a whole or as a part of it.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.images = 0
        self.passed = 0
        self._begun = self._ended = 0.0
        self._hooked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts counting; one call per batch."""
        if not self._hooked:
            self._hooked = True
            backbone = pl_module.backbone
            assert isinstance(backbone, nn.Module)
            layers = (module for module in backbone.modules() if not list(module.children()))
            next(layer for layer in layers if list(layer.parameters())).register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.passed += len(inputs[0])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the watch."""
        self._begun, self.images = now(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Remembers when the last batch ended, since validation belongs to Lightning's epoch."""
        if batch_idx + 1 == trainer.num_training_batches:  # a GPU need not be waited for before
            self._ended = now()
        self.images += len(batch["label"] if isinstance(batch, dict) else batch[1])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the watch."""
        self.seconds.append(self._ended - self._begun)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes down what there is so far."""
        found = {"seconds": self.seconds, "images": self.images, "passed": self.passed}
        Path(trainer.default_root_dir, FILE).write_text(json.dumps(found))
