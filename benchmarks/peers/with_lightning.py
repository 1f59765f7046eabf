"""Stock Lightning, as its documentation says: a plain module, `BackboneFinetuning`, images decoded in two workers.

Words: ``head`` or ``full``, then ``default``, ``fast`` (bfloat16 where the machine has it, and channels_last) or
``frozen_bn`` (fast, and BatchNorm frozen with the rest, which `BackboneFinetuning` does not do by itself).
"""

import tempfile
import warnings
from collections.abc import Sequence

import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms

from peers.measure import Attempt
from peers.task import Task
from peers.watch import Watch

NEVER = 10**6


class Images(Dataset[tuple[Tensor, int]]):
    """Images that are decoded whenever they are asked for, as torchvision's `ImageFolder` does."""

    def __init__(self, task: Task, split: str) -> None:
        self.paths = [path for path, _ in task.rows(split)]
        self.labels = task.labels(split)
        self.transform = transforms.Compose(
            [
                transforms.Resize(task.resized, transforms.InterpolationMode(task.interpolation)),
                transforms.CenterCrop(task.size),
                transforms.ToTensor(),
                transforms.Normalize(task.mean, task.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The prepared image and its class."""
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


class Classifier(LightningModule):
    """A linear head on a timm backbone."""

    def __init__(self, task: Task, *, lr: float, channels_last: bool) -> None:
        super().__init__()
        self.backbone = timm.create_model(task.model, num_classes=0)
        self.backbone.load_state_dict(torch.load(task.folder / "weights.pt", weights_only=True))
        self.head = nn.Linear(self.backbone.num_features, len(task.classes))
        self.accuracy = MulticlassAccuracy(len(task.classes), average="micro")
        self.lr, self.format = lr, torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.format)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        return self.head(self.backbone(images.contiguous(memory_format=self.format)))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts the right predictions."""
        self.accuracy(self(batch[0]), batch[1])
        self.log("val_accuracy", self.accuracy, on_epoch=True)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The predicted classes."""
        return self(batch[0]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains, as the documentation of `BaseFinetuning` asks for."""
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=self.lr)


class AllFrozen(BackboneFinetuning):
    """Freezes the weights of BatchNorm, too."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes the backbone."""
        self.freeze(pl_module.backbone, train_bn=False)


def main() -> None:
    """Trains once."""
    attempt = Attempt()
    warnings.simplefilter("ignore")
    task, result, (way, variant) = attempt.task, attempt.result, attempt.words
    fast, watch = variant != "default", Watch()
    finetuning = {"head": [AllFrozen(NEVER) if variant == "frozen_bn" else BackboneFinetuning(NEVER)], "full": []}
    with tempfile.TemporaryDirectory() as folder:
        loaders = {
            split: DataLoader(
                Images(task, split), batch_size=task.batch, shuffle=split == "train", num_workers=task.threads
            )
            for split in ("train", "val", "test")
        }
        model = Classifier(task, lr=1e-3 if way == "head" else 3e-4, channels_last=fast)
        trainer = Trainer(
            max_epochs=task.epochs if way == "head" else task.full_epochs,
            precision="bf16-mixed" if fast and task.reduced else "32-true",
            devices=1,
            callbacks=[*finetuning[way], watch],
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(model, loaders["train"], loaders["val"])
        attempt.done()
        result.epochs_s, result.epoch_images, result.passed = watch.seconds, watch.images, watch.passed
        result.parts = {"training": sum(watch.seconds)}
        result.val_accuracy = float(trainer.callback_metrics["val_accuracy"])
        predicted = trainer.predict(model, loaders["test"])
    attempt.report(torch.cat(predicted).tolist())


if __name__ == "__main__":
    main()
