"""Training that goes on from a checkpoint sees what it would have seen without the break."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.preprocess.image import ImagePreprocess

Seen = list[tuple[int, int, list[int], bytes]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]


class Recorder(LightningModule):
    """Notes every training batch: epoch, number, indices and pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)
        self.seen: Seen = []

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        pixels = batch["image"].numpy().tobytes() + batch["target"].numpy().tobytes()
        self.seen.append((self.current_epoch, number, batch["index"].tolist(), pixels))
        return self.head(batch["image"].mean((2, 3))).pow(2).mean()

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        assert "target" not in batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEverywhere(Callback):
    """Writes a checkpoint after each training batch, validation and epoch, and notes how many batches came before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before: dict[str, int] = {}

    def save(self, trainer: Trainer, model: Recorder, place: str) -> None:
        self.before[f"{place} {len(model.seen)}"] = len(model.seen)
        trainer.save_checkpoint(self.folder / f"{place} {len(model.seen)}.ckpt")

    def on_train_batch_end(self, trainer: Trainer, model: Recorder, *args: Any) -> None:
        self.save(trainer, model, "batch")

    def on_validation_end(self, trainer: Trainer, model: Recorder) -> None:
        self.save(trainer, model, "validation")

    def on_train_epoch_end(self, trainer: Trainer, model: Recorder) -> None:
        self.save(trainer, model, "epoch")


@pytest.fixture
def train(folder: Path, small: ImagePreprocess) -> Callable[..., Seen]:
    def run(*callbacks: Callback, workers: int = 0, checkpoint: Path | None = None) -> Seen:
        data = ImageDataModule(
            str(folder), small.to_dict(), batch_size=2, val_fraction=0.4, mixup=0.4, num_workers=workers, seed=1
        )
        model = Recorder()
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=3,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
        return model.seen

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_every_checkpoint_goes_on_with_the_batch_that_came_next(
    train: Callable[..., Seen], tmp_path: Path, workers: int
) -> None:
    saves = SaveEverywhere(tmp_path)
    whole = train(saves)
    assert [place[:2] for place in whole] == [(epoch, number) for epoch in range(3) for number in range(3)]
    states = {
        place: torch.load(tmp_path / f"{place}.ckpt", weights_only=False)["ImageDataModule"] for place in saves.before
    }
    assert states == {
        **{f"batch {count}": {"epoch": count // 3, "batches": count % 3} for count in range(1, 10)},
        **{f"validation {count}": {"epoch": count // 3, "batches": 0} for count in (3, 6, 9)},
        **{f"epoch {count}": {"epoch": count // 3, "batches": 0} for count in (3, 6, 9)},
    }
    # With workers, the second epoch's places stand for all.
    for place, before in saves.before.items():
        if not workers or 3 < before <= 6:
            assert train(workers=workers, checkpoint=tmp_path / f"{place}.ckpt") == whole[before:], place
