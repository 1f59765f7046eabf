import hashlib
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from tiny import write_images
from torch import nn

from tl_lightning.cli import main
from tl_lightning.errors import UserError
from tl_lightning.finetuning.audit import check_gradients, check_groups, frozen_digests
from tl_lightning.tasks.classification import ClassificationTask

FIT = [
    *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
]
TINY = ["--model.backbone", "timm/test_efficientnet", "--model.weights", "none"]
TOP = ["--phases", "[{train: 'last:2', bn: train}]", "--trainer.max_epochs", "2"]


def block():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module.eval()
    return module.requires_grad_(False)


def test_what_is_frozen_is_hashed_and_nothing_else():
    module = nn.Sequential(block(), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.BatchNorm1d(3))
    module[2].eval()  # its statistics are frozen, its weights train
    parameters = {f"0.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    statistics = {f"{prefix}.{name}" for prefix in ("0.1", "2") for name in module[2]._buffers}
    before = frozen_digests(module)
    assert before.keys() == parameters | statistics
    content = module[0][0].weight.numpy().tobytes()
    assert before["0.0.weight"] == hashlib.sha256(content).hexdigest()[:16]

    module(torch.randn(4, 2)).sum().backward()
    module[2].weight.data += 1
    assert frozen_digests(module) == before
    for name in sorted(before):
        tensor = module.state_dict()[name]
        kept = tensor.clone()
        tensor.flatten()[-1] += 1
        assert {key for key, digest in frozen_digests(module).items() if digest != before[key]} == {name}
        tensor.copy_(kept)
    assert frozen_digests(module) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])
def test_tensors_of_any_type_and_shape_are_hashed(dtype):
    module = nn.Module()
    values = {"scalar": torch.ones((), dtype=dtype), "one": torch.ones(1, dtype=dtype), "none": torch.ones(0, 3)}
    values["image"] = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(dtype)
    values["last"] = values["image"].contiguous(memory_format=torch.channels_last)
    for name, value in values.items():
        module.register_buffer(name, value)
    before = frozen_digests(module.eval())
    assert before.keys() == values.keys()
    assert before["image"] == before["last"]  # the same numbers, laid out otherwise
    module.scalar.zero_()
    assert {name for name, digest in frozen_digests(module).items() if digest != before[name]} == {"scalar"}


def two_layers():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    return module, torch.optim.AdamW([{"params": [module[0].weight]}, {"params": list(module[1].parameters())}])


def test_a_trainable_parameter_is_in_exactly_one_group():
    module, optimizer = two_layers()
    check_groups(module, optimizer)
    optimizer.param_groups[0]["params"].append(module[1].bias)
    with pytest.raises(UserError, match=r"^the parameter 1\.bias trains, but is in 2 optimizer groups; put it into"):
        check_groups(module, optimizer)
    module[1].bias.requires_grad_(False)
    check_groups(module, optimizer)

    module, optimizer = two_layers()
    # Equal is not the same: an equal tensor in the group does not stand for the parameter.
    optimizer.param_groups[0]["params"] = [module[0].weight.detach().clone()]
    with pytest.raises(UserError, match=r"^the parameter 0\.weight trains, but is in no optimizer group, so it would"):
        check_groups(module, optimizer)
    module[0].weight.requires_grad_(False)
    check_groups(module, optimizer)


def test_each_trainable_parameter_has_a_gradient():
    module, _ = two_layers()
    module[1](torch.ones(1, 2)).sum().backward()
    with pytest.raises(UserError, match=r"^no gradient reaches 0\.weight, which this phase trains"):
        check_gradients(module)
    module[0].requires_grad_(False)
    check_gradients(module)
    many = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    with pytest.raises(UserError, match=r"reaches 0\.weight, 0\.bias, 1\.weight, 1\.bias, 2\.weight and 3 others, w"):
        check_gradients(many)


class WritesToAFrozenWeight(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == 2:
            pl_module.backbone.blocks[0][0].conv.weight.data[0, 0, 0, 0] += 1e-3


class MovesAFrozenStatistic(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        pl_module.backbone.bn1.running_mean[0] += 1e-6


class Interrupts(Callback):
    """Stops the run where the test says, once."""

    place = None

    def reached(self, hook, trainer):
        if Interrupts.place == (hook, trainer.current_epoch):
            Interrupts.place = None
            raise KeyboardInterrupt

    def on_train_start(self, trainer, pl_module):
        self.reached("on_train_start", trainer)

    def on_train_epoch_start(self, trainer, pl_module):
        self.reached("on_train_epoch_start", trainer)


class WithAForgottenLayer(ClassificationTask):
    """A layer beside backbone and head, which no optimizer group holds."""

    def __init__(self, backbone: str, classes: list[str], *, weights: str = "none", preprocess: dict | None = None):
        super().__init__(backbone, classes, weights=weights, preprocess=preprocess)
        self.extra = nn.Linear(2, 2)


class WithAnUnusedLayer(ClassificationTask):
    """A layer in the head on which the loss does not depend."""

    def __init__(self, backbone: str, classes: list[str], *, weights: str = "none", preprocess: dict | None = None):
        super().__init__(backbone, classes, weights=weights, preprocess=preprocess)
        self.head.unused = nn.Linear(2, 2)

    def outputs(self, features):
        return {"target": self.head[1](features)}


class WithADoubledParameter(ClassificationTask):
    """The head's bias is in its own group and in another."""

    def __init__(self, backbone: str, classes: list[str], *, weights: str = "none", preprocess: dict | None = None):
        super().__init__(backbone, classes, weights=weights, preprocess=preprocess)

    def configure_optimizers(self):
        configured = super().configure_optimizers()
        configured["optimizer"].param_groups[0]["params"].append(self.head[1].bias)
        return configured


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12)
    return tmp_path


def summary():
    return json.loads(Path("runs/run-1/summary.json").read_text())


@pytest.mark.parametrize(
    ("callback", "name"),
    [("WritesToAFrozenWeight", "blocks.0.0.conv.weight"), ("MovesAFrozenStatistic", "bn1.running_mean")],
)
def test_a_callback_that_writes_to_what_is_frozen_fails_the_run(here, capsys, callback, name):
    assert main([*FIT, *TINY, *TOP, f"--trainer.callbacks+=test_audit.{callback}"]) == 2
    line = f"frozen, but changed while the phase trained; a callback or a hook writes to it: {name} (1 in all)"
    assert capsys.readouterr().err.splitlines() == [f"tl fit: {line}"]
    assert (summary()["status"], summary()["error"]) == ("failed", f"UserError: {line}")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("WithAForgottenLayer", "the parameter extra.weight trains, but is in no optimizer group"),
        ("WithADoubledParameter", "the parameter heads.target.1.bias trains, but is in 2 optimizer groups"),
        (
            "WithAnUnusedLayer",
            "no gradient reaches heads.target.unused.weight, heads.target.unused.bias, which",
        ),
    ],
)
def test_a_task_that_forgets_a_parameter_fails_at_once(here, capsys, task, said):
    assert main([*FIT, f"--model=test_audit.{task}", *TINY, *TOP]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tl fit: {said}")
    assert summary()["phases"][0]["epochs"] == 0


@pytest.fixture
def interrupted(here):
    """A run that was stopped in its second phase, after a first epoch of that."""
    phases = ["--phases", "[{train: head, epochs: 1}, {train: 'last:2', bn: train}]", "--trainer.max_epochs", "3"]
    Interrupts.place = ("on_train_epoch_start", 2)
    assert main([*FIT, *TINY, *phases, "--trainer.callbacks+=test_audit.Interrupts"]) == 130
    assert Interrupts.place is None
    return [Path("runs/run-1/checkpoints", name) for name in ("last.ckpt", "previous.ckpt")]


@pytest.mark.parametrize("name", ["blocks.1.0.conv_exp.weight", "bn1.running_var"])
def test_a_checkpoint_whose_frozen_part_was_edited_is_not_resumed(interrupted, capsys, name):
    for path in interrupted:
        checkpoint = torch.load(path, weights_only=True)
        tensor = checkpoint["state_dict"][f"backbone.{name}"]
        tensor[(0,) * tensor.ndim] += 1e-3
        torch.save(checkpoint, path)
    capsys.readouterr()
    assert main(["resume", "--run_dir", "runs/run-1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"tl resume: frozen, but changed in the checkpoint that was resumed: {name} (1 in all)"
    ]


def test_an_untouched_run_passes_and_a_resumed_one_too(interrupted):
    assert main(["resume", "--run_dir", "runs/run-1"]) == 0
    assert summary()["status"] == "completed"
    assert [phase["epochs"] for phase in summary()["phases"]] == [1, 2]


def test_a_run_that_was_stopped_between_two_phases_goes_on_with_the_second(here):
    phases = ["--phases", "[{train: head, epochs: 1}, {train: all, bn: train}]", "--trainer.max_epochs", "2"]
    Interrupts.place = ("on_train_start", 1)
    assert main([*FIT, *TINY, *phases, "--trainer.callbacks+=test_audit.Interrupts"]) == 130
    assert Interrupts.place is None
    assert main(["resume", "--run_dir", "runs/run-1"]) == 0
    assert [phase["epochs"] for phase in summary()["phases"]] == [1, 1]
