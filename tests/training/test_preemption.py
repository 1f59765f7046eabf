"""Several processes: what one of them was asked for, what is left when one is lost, and who shares a batch."""

import pytest
import torch
from lightning import Callback
from tiny import TINY, write_tiny
from torch import distributed

from tl_lightning.cli import main
from tl_lightning.core.processes import ProcessLost
from tl_lightning.experiment.session import Experiment
from tl_lightning.training.preemption import is_of_a_lost_process

FIT = ["fit", *TINY, "--phases", "[{train: 'last:2'}]", "--trainer.max_epochs", "1"]


class Stop(Callback):
    """Ends the run in its middle."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9", True),
        ("NCCL communicator was aborted on rank 1", True),
        ("Connection reset by peer", True),
        ("out of luck; could not restore", False),
    ],
)
def test_a_lost_process_is_told_from_a_bug(monkeypatch, said, lost):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert is_of_a_lost_process(RuntimeError(said)) is lost
    monkeypatch.setattr(distributed, "get_world_size", lambda: 1)
    assert not is_of_a_lost_process(RuntimeError(said))


def test_a_lost_process_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_tiny(tmp_path))

    def lose(self):
        raise ProcessLost("another process of the run was lost")

    monkeypatch.setattr(Experiment, "prepare", lose)
    assert main([*FIT, "--run_dir", "run"]) == 1
    assert capsys.readouterr().err == "tl fit: another process of the run was lost\n"


def test_processes_that_cannot_share_a_batch_are_told_how_many_could(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_tiny(tmp_path))
    assert main([*FIT, "--run_dir", "run", "--trainer.callbacks+=test_preemption.Stop"]) == 130
    path = "run/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    assert (content["run"]["batch_size"], content["run"]["processes"]) == (4, 1)
    assert main(["resume", "--run_dir", "run", "--trainer.devices", "3"]) == 2
    assert capsys.readouterr().err == (
        "tl resume: a step of the run has 4 images, which 3 processes cannot share evenly; 2 or 4 could\n"
    )
    # As if two processes had trained it, each in two parts: one takes their batches together, in two parts as well.
    torch.save({**content, "run": {**content["run"], "processes": 2, "micro_batch_size": 2}}, path)
    shared = []
    monkeypatch.setattr(Experiment, "check", lambda self: shared.append(self.data) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["resume", "--run_dir", "run"])
    assert [(data.batch_size, data.micro_batch_size) for data in shared] == [(8, 4)]
