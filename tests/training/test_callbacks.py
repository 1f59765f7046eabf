"""What a run logs and remembers, also across a resume; every figure here was worked out by hand."""

import csv
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from tl_lightning.training.checkpoints import BestCheckpoint
from tl_lightning.training.metrics_csv import MetricsCsv
from tl_lightning.training.progress import EpochLine
from tl_lightning.training.training_loss import TrainingLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]


class KnownLoss(LightningModule):
    """Batch k of epoch e has a loss of 10 e + k + 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.means = []

    def training_step(self, batch, number):
        return self.weight.sum() + 10 * self.current_epoch + number + 1

    def on_train_epoch_start(self):
        if "train/loss_epoch" in self.trainer.callback_metrics:
            self.means.append(self.trainer.callback_metrics["train/loss_epoch"].item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class SaveAfter(Callback):
    """Writes a checkpoint after a batch of the second epoch."""

    def __init__(self, path, batch):
        self.path = path
        self.batch = batch

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if (trainer.current_epoch, number) == (1, self.batch):
            trainer.save_checkpoint(self.path)


def train(log, *callbacks, epochs=2, batches=5, accumulate=1, every=1, checkpoint=None):
    model = KnownLoss()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=every,
        callbacks=[TrainingLoss(), *callbacks],
        logger=MetricsCsv(log),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(range(batches)), ckpt_path=checkpoint, weights_only=True)
    return model


def logged(path, name):
    with path.open() as file:
        return [(int(row["epoch"]), int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row[name]]


def test_the_loss_of_every_step_and_the_mean_of_every_epoch_are_logged(tmp_path):
    log = tmp_path / "metrics.csv"
    train(log, batches=3)
    steps = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 3, 11), (1, 4, 12), (1, 5, 13)]
    assert logged(log, "train/loss_step") == steps
    assert logged(log, "train/loss_epoch") == [(0, 2, 2), (1, 5, 12)]


def test_steps_are_logged_as_often_as_the_trainer_says(tmp_path):
    log = tmp_path / "metrics.csv"
    train(log, batches=5, every=2)
    assert logged(log, "train/loss_step") == [(0, 1, 2), (0, 3, 4), (1, 5, 11), (1, 7, 13), (1, 9, 15)]
    assert logged(log, "train/loss_epoch") == [(0, 4, 3), (1, 9, 13)]


def test_a_step_over_several_batches_is_logged_with_their_mean(tmp_path):
    log = tmp_path / "metrics.csv"
    train(log, batches=5, accumulate=2)
    assert logged(log, "train/loss_step") == [
        (0, 0, 1.5),
        (0, 1, 3.5),
        (0, 2, 5),
        (1, 3, 11.5),
        (1, 4, 13.5),
        (1, 5, 15),
    ]
    assert logged(log, "train/loss_epoch") == [(0, 2, 3), (1, 5, 13)]


def test_the_mean_can_be_monitored(tmp_path):
    assert train(tmp_path / "metrics.csv", epochs=3).means == [3, 13]


@pytest.mark.parametrize(("accumulate", "batch"), [(1, 0), (1, 2), (2, 1), (2, 3)])
def test_a_run_that_goes_on_within_an_epoch_logs_the_mean_of_the_whole_epoch(tmp_path, accumulate, batch):
    whole, rest, saved = tmp_path / "whole.csv", tmp_path / "rest.csv", tmp_path / "saved.ckpt"
    train(whole, SaveAfter(saved, batch), accumulate=accumulate)
    train(rest, accumulate=accumulate, checkpoint=saved)
    assert logged(rest, "train/loss_epoch") == logged(whole, "train/loss_epoch")[1:]
    done = 3 + (batch + 1) // 2 if accumulate == 2 else 5 + batch + 1
    assert logged(rest, "train/loss_step") == logged(whole, "train/loss_step")[done:]


ROWS = [
    ({"lr/head": 0.1}, 0),
    ({"epoch": 0, "train/loss_step": 1.5}, 0),
    ({"epoch": 0, "val/loss": float("nan"), "val/accuracy": torch.tensor(0.25)}, 1),
    ({"lr/head": 0.05}, 2),
    ({"epoch": 1, "train/loss_step": 1 / 3}, 2),
]
LATER = [
    ({"lr/head": 0.01, "lr/top": 0.001}, 3),
    ({"epoch": 1, "val/loss": 2.0, "only/later": 1}, 4),
    ({"epoch": 1, "train/loss_step": 0.125}, 14),
]


def write(path, rows):
    log = MetricsCsv(path)
    for metrics, step in rows:
        log.log_metrics(metrics, step)


def test_the_file_has_a_column_for_each_name_that_ever_came(tmp_path):
    write(tmp_path / "metrics.csv", ROWS)
    assert (tmp_path / "metrics.csv").read_text() == (
        "epoch,step,lr/head,train/loss_step,val/loss,val/accuracy\n"
        ",0,0.1,,,\n"
        "0,0,,1.5,,\n"
        "0,1,,,nan,0.25\n"
        ",2,0.05,,,\n"
        "1,2,,0.3333333333333333,,\n"
    )


TORN = ["", "1,1", "1,15,,0.5", "\0\0\0", '"', "1,15,,0.5,,,,"]


@pytest.mark.parametrize("torn", TORN)
def test_rows_from_a_step_on_go_as_if_they_had_never_been_written(tmp_path, torn):
    expected, path = tmp_path / "expected.csv", tmp_path / "metrics.csv"
    write(expected, ROWS)
    write(path, [*ROWS, *LATER])
    path.write_text(path.read_text() + torn)  # "1,1" was a row of step 15
    log = MetricsCsv(path)
    log.drop_from(3)
    assert path.read_bytes() == expected.read_bytes()

    for metrics, step in LATER:
        log.log_metrics(metrics, step)
    write(expected, LATER)
    assert path.read_bytes() == expected.read_bytes()


def test_dropping_everything_starts_the_file_anew(tmp_path):
    expected, path = tmp_path / "expected.csv", tmp_path / "metrics.csv"
    write(path, [*LATER, *ROWS])
    log = MetricsCsv(path)
    log.drop_from(0)
    assert path.read_text() == "epoch,step\n"
    for metrics, step in ROWS:
        log.log_metrics(metrics, step)
    write(expected, ROWS)
    assert path.read_bytes() == expected.read_bytes()


def test_dropping_from_a_file_that_is_not_there_writes_none(tmp_path):
    MetricsCsv(tmp_path / "metrics.csv").drop_from(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "epo"])
def test_a_file_without_a_whole_line_is_taken_as_empty(tmp_path, text):
    expected, path = tmp_path / "expected.csv", tmp_path / "metrics.csv"
    path.write_text(text)
    write(path, ROWS)
    write(expected, ROWS)
    assert path.read_bytes() == expected.read_bytes()


def test_the_memory_of_the_best_moves_with_the_folder(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    before = BestCheckpoint(old, filename="best", monitor="val/loss", mode="min")
    before.best_model_path = before.kth_best_model_path = str(old / "best.ckpt")
    before.best_model_score = torch.tensor(0.25)
    before.best_k_models = {str(old / "best.ckpt"): torch.tensor(0.25)}
    before.kth_value = torch.tensor(0.25)

    after = BestCheckpoint(new, filename="best", monitor="val/loss", mode="min")
    after.load_state_dict(before.state_dict())  # Lightning's own warns of another folder, and forgets
    assert after.dirpath == str(new)
    assert after.best_model_path == after.kth_best_model_path == str(new / "best.ckpt")
    assert after.best_k_models == {str(new / "best.ckpt"): torch.tensor(0.25)}
    assert (after.best_model_score, after.kth_value, after.last_model_path) == (0.25, 0.25, "")


class KnownScores(KnownLoss):
    """Epoch k is validated with the k-th score and loss."""

    KNOWN = ((0.5, 1.0), (0.75, 0.9), (0.75, 0.7), (0.75, 0.8), (0.25, 0.1), (0.75, 0.6))

    def validation_step(self, batch, number):
        pass

    def on_validation_epoch_end(self):
        score, loss = self.KNOWN[self.current_epoch]
        self.log_dict({"val/score": score, "val/loss": loss})


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
@pytest.mark.parametrize(("epochs", "best"), [(2, 1), (3, 2), (5, 2), (6, 5)])
def test_of_epochs_with_the_same_score_the_one_with_the_lowest_loss_is_kept_also_across_a_resume(
    tmp_path, epochs, best
):
    def train(epochs, resume=None):
        options = {"filename": "best", "monitor": "val/score", "mode": "max", "enable_version_counter": False}
        checkpoint = BestCheckpoint(tmp_path, **options)
        trainer = Trainer(
            **{"accelerator": "cpu", "max_epochs": epochs, "callbacks": [checkpoint], "logger": False},
            **{"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0},
        )
        trainer.fit(KnownScores(), DataLoader(range(1)), DataLoader(range(1)), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / "resumed.ckpt")

    train(1)
    train(epochs, tmp_path / "resumed.ckpt")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == best


def test_a_run_that_had_no_best_yet_goes_on_without(tmp_path):
    before, after = (BestCheckpoint(tmp_path / name, monitor="val/loss") for name in ("old", "new"))
    after.load_state_dict(before.state_dict())
    assert (after.best_model_path, after.best_model_score, after.best_k_models) == ("", None, {})


def lines(callback, capsys, *values):
    for epoch, value in enumerate(values):
        metrics = {"train/loss_epoch": torch.tensor(0.5), callback.monitor: torch.tensor(value)}
        callback.on_train_epoch_end(SimpleNamespace(callback_metrics=metrics, current_epoch=epoch), None)
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_an_epoch_is_one_line_that_says_whether_it_is_the_best_so_far(capsys):
    assert lines(EpochLine("val/macro_f1", "max", 12), capsys, 0.5, 0.25, 0.75, 0.75) == [
        "epoch   1/12  train/loss 0.5000  val/macro_f1 0.5000  best",
        "epoch   2/12  train/loss 0.5000  val/macro_f1 0.2500",
        "epoch   3/12  train/loss 0.5000  val/macro_f1 0.7500  best",
        "epoch   4/12  train/loss 0.5000  val/macro_f1 0.7500",
    ]


def test_of_equal_epochs_the_one_with_the_lower_loss_is_called_the_best(capsys):
    line = EpochLine("val/score", "max", 6)
    for epoch, (score, loss) in enumerate(KnownScores.KNOWN):
        metrics = {"val/score": torch.tensor(score), "val/loss": torch.tensor(loss)}
        line.on_train_epoch_end(SimpleNamespace(callback_metrics=metrics, current_epoch=epoch), None)
    printed = capsys.readouterr().out.splitlines()
    assert [text.rstrip().endswith("best") for text in printed] == [True, True, True, False, False, True]


@pytest.mark.parametrize(("mode", "best"), [("max", [False, True, False]), ("min", [False, False, True])])
def test_the_best_so_far_is_remembered_by_a_run_that_goes_on(capsys, mode, best):
    before = EpochLine("val/accuracy", mode, 9)
    lines(before, capsys, 0.5)
    after = EpochLine("val/accuracy", mode, 9)
    after.load_state_dict(before.state_dict())
    assert [line.endswith("best") for line in lines(after, capsys, 0.5, 0.75, 0.25)] == best
