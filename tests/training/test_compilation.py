"""``--compile``: the same training, other code, and one line about what it gained."""

import csv
from pathlib import Path

import pytest
import torch
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.tasks.base import TransferTask
from tl_lightning.training import compilation


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    return write_tiny(tmp_path)


def fit(phases, *options, run="run"):
    return main(["fit", *TINY, "--phases", phases, "--trainer.max_epochs", "2", "--run_dir", run, *options])


def weights(run):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def losses(run):
    with Path(run, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("train/loss_step", "val/loss") if row.get(name)]


@pytest.mark.parametrize(
    ("phases", "options"),
    [
        ("[{train: 'last:1', bn: train}]", []),
        ("[{train: all, bn: train}]", ["--cache", "off", "--model.drop_path_rate", "0.2"]),
        ("[{train: head, epochs: 1}, {train: 'last:1'}]", []),
    ],
)
def test_compiled_training_gives_the_same_losses_and_says_what_it_gained(here, capsys, phases, options):
    assert fit(phases, *options, run="eager") == 0
    assert "compiled" not in capsys.readouterr().out
    assert fit(phases, *options, "--compile", "aot_eager", run="compiled") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compiled")]
    assert len(lines) == 1
    assert "times the speed of eager steps" in lines[0]
    assert losses("compiled") == pytest.approx(losses("eager"), rel=1e-4)
    eager, compiled = weights("eager"), weights("compiled")
    assert eager.keys() == compiled.keys()
    for name, tensor in eager.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_only_training_runs_compiled_and_measuring_leaves_everything_as_it_was(here, monkeypatch):
    modes, before_and_after = [], []
    real, measure = TransferTask.compile_training, compilation.Compilation.on_train_batch_start

    def compiling(self, backend):
        real(self, backend)
        (code,) = self._compiled

        def noting(*args):
            modes.append((self.training, self.trainer.validating))
            return code(*args)

        self._compiled = [noting]

    def measuring(self, trainer, task, batch, batch_idx):
        if not self._due:
            return
        before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
        measure(self, trainer, task, batch, batch_idx)
        before_and_after.append((before, {name: tensor.clone() for name, tensor in task.state_dict().items()}))
        assert all(parameter.grad is None for parameter in task.parameters())

    monkeypatch.setattr(TransferTask, "compile_training", compiling)
    monkeypatch.setattr(compilation.Compilation, "on_train_batch_start", measuring)
    assert fit("[{train: all, bn: train}]", "--compile", "eager") == 0
    steps = 2 * 3
    assert modes == [(True, False)] * (1 + compilation.STEPS + 1 + steps)
    ((before, after),) = before_and_after
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_worker_processes_lose_no_batch_to_the_measuring(here):
    for run, options in (("eager", []), ("compiled", ["--compile", "eager"])):
        assert fit("full", "--data.num_workers", "1", *options, run=run) == 0
    assert losses("compiled") == losses("eager")
    assert len(losses("eager")) > 2 * 3


def test_without_a_compiler_training_goes_on(here, capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda trunk, backend: broken)
    assert fit("full", "--compile", "eager") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not compiled")]
    assert lines == ["not compiled: RuntimeError: no compiler; going on without"]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert fit("full", run="eager") == 0
    assert losses("run") == losses("eager")


def test_a_phase_with_a_frozen_backbone_has_nothing_to_compile(here, capsys):
    assert fit("feature_extraction", "--compile", "eager") == 0
    assert fit("feature_extraction", "--compile", "eager", "--model.head_solver", "sgd", run="stepped") == 0
    assert "compiled" not in capsys.readouterr().out


def test_an_unknown_backend_is_one_line_and_leaves_nothing(here, capsys):
    assert fit("full", "--compile", "inducto") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "compile is 'inducto'; it must be true, false, or a backend of torch" in line
    assert not Path("run").exists()
