"""Each private name of Lightning and torch that is used is still there, and does what the package takes it to do."""

import inspect
import signal
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tl_lightning.core.private import (
    BatchNorm,
    SubprocessLauncher,
    broadcast_no_buffers,
    ends_step,
    exchange_clocks,
    move_towards,
    synchronizes_batch_norm,
    take_over_signals,
    validates_next,
)


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watcher(Callback):
    def __init__(self):
        self.ends, self.validates, self.handlers = [], [], set()

    def on_train_batch_end(self, trainer, *args):
        self.ends.append(ends_step(trainer))
        self.validates.append(validates_next(trainer))
        self.handlers.add(signal.getsignal(signal.SIGTERM))


def trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", devices=1, max_epochs=1, default_root_dir=tmp_path, **quiet, **options)


def train(trainer):
    loader = torch.utils.data.DataLoader(torch.ones(5, 1))
    trainer.fit(Line(), loader, loader)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_which_batch_ends_a_step_and_which_a_validation_follows(tmp_path):
    watcher = Watcher()
    train(trainer(tmp_path, accumulate_grad_batches=2, val_check_interval=3, callbacks=[watcher]))
    assert watcher.ends == [False, True, False, True, True]  # the last of an epoch always does
    assert watcher.validates == [False, False, True, False, False]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("handled", [True, False])
def test_signals_are_lightnings_only_while_nobody_else_handles_them(tmp_path, handled):
    watcher, before = Watcher(), signal.getsignal(signal.SIGTERM)
    ours = trainer(tmp_path, callbacks=[watcher])
    take_over_signals(ours, handled=handled)
    train(ours)
    assert (watcher.handlers == {before}) == handled


def test_a_job_of_slurm_is_not_queued_again_by_lightning(tmp_path):
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    environment = SLURMEnvironment(auto_requeue=True)
    take_over_signals(trainer(tmp_path, plugins=[environment]), handled=False)
    assert not environment.auto_requeue


def test_ddp_takes_the_word_for_leaving_buffers_alone():
    strategy = DDPStrategy()
    broadcast_no_buffers(strategy)
    ((name, value),) = strategy._ddp_kwargs.items()
    assert name in inspect.signature(DistributedDataParallel).parameters
    assert value is False


def test_the_other_processes_are_those_of_the_launcher(tmp_path):
    several = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, default_root_dir=tmp_path)
    launcher = several.strategy.launcher
    assert isinstance(launcher, SubprocessLauncher)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher.procs.append(process)
    launcher.kill(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_ddp_says_what_it_has_timed(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(nn.Linear(2, 2))
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
        clocks = exchange_clocks(model)
    finally:
        distributed.destroy_process_group()
    assert clocks["avg_backward_comm_time"] >= clocks["avg_backward_compute_comm_overlap_time"] >= 0


def test_tensors_move_a_share_of_the_way():
    tensors = [torch.tensor([0.0, 4.0]), torch.tensor(1.0)]
    move_towards(tensors, [torch.tensor([4.0, 0.0]), torch.tensor(-1.0)], 0.25)
    assert [tensor.tolist() for tensor in tensors] == [[1.0, 3.0], 0.5]


def test_batch_norm_is_the_base_of_its_kind_alone():
    layers = [nn.BatchNorm1d(1), nn.BatchNorm2d(1), nn.BatchNorm3d(1), nn.SyncBatchNorm(1)]
    assert all(isinstance(layer, BatchNorm) for layer in layers)
    assert not any(
        isinstance(layer, BatchNorm) for layer in [nn.LayerNorm(1), nn.GroupNorm(1, 1), nn.InstanceNorm2d(1)]
    )


@pytest.mark.parametrize("asked", [False, True])
def test_batch_norm_is_synchronized_where_it_is_asked_for(tmp_path, asked):
    quiet = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    several = Trainer(devices=2, strategy="ddp", sync_batchnorm=asked, **quiet)
    assert synchronizes_batch_norm(several) == asked
    assert not synchronizes_batch_norm(Trainer(devices=1, **quiet))
