import math
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from tiny import TINY, write_images, write_tiny
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from tl_lightning.cli import main
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import Phase
from tl_lightning.tasks.classification import ClassificationTask


def classifier(**options):
    torch.manual_seed(0)
    return ClassificationTask("timm/test_efficientnet", ["a", "b"], **{"weights": "none", **options})


def with_dropout(**options):
    task = classifier(drop_path_rate=0.5, **options)
    task.backbone.blocks[1].append(nn.Dropout(0.5))
    return task


def two_images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bn", ["frozen", "train"])
def test_a_frozen_backbone_gives_the_same_features_in_train_and_eval_mode(bn):
    task, images = with_dropout(), two_images()
    task.start_phase(Phase(train="head", bn=bn))
    before = {name: value.clone() for name, value in task.backbone.state_dict().items()}
    assert task.train() is task
    assert task.training
    assert task.head.training
    trained = task.backbone(images)
    assert torch.equal(trained, task.eval().backbone(images))
    assert all(torch.equal(value, before[name]) for name, value in task.backbone.state_dict().items())

    task.start_phase(Phase(train="all", bn=bn))  # it is not that nothing there could differ
    assert not torch.allclose(task.backbone(images), trained)


def place(task, epoch, batch_idx, *, rank=0):
    """A step's random draws, as the hook before it seeds them."""
    task._trainer = SimpleNamespace(
        current_epoch=epoch, global_rank=rank, global_step=1, log_every_n_steps=10, loggers=[]
    )
    task.on_train_batch_start({}, batch_idx)
    return task(two_images())


def test_dropout_depends_on_the_seed_the_process_the_epoch_and_the_batch_alone(monkeypatch):
    task = with_dropout(head_dropout=0.5)
    task.start_phase(Phase())
    monkeypatch.setattr(type(task), "trainer", property(lambda self: self._trainer))
    for name in ("current_epoch", "global_rank", "global_step"):
        monkeypatch.setattr(type(task), name, property(lambda self, name=name: getattr(self._trainer, name)))
    first = place(task, 3, 5)
    for _ in range(2):
        torch.rand(100)  # whatever was drawn before
        assert torch.equal(place(task, 3, 5), first)
    others = [place(task, 3, 6), place(task, 4, 5), place(task, 5, 3), place(task, 3, 5, rank=1)]
    task.seed_steps(1)
    others.append(place(task, 3, 5))
    assert not any(torch.equal(one, other) for k, one in enumerate([first, *others]) for other in others[k:])


def test_learning_rates_are_scaled_from_those_configured_however_often():
    task = classifier(lr=0.5, backbone_lr_scale=0.5)
    configured = dict(task.learning_rates)
    task.scale_learning_rates(4.0)
    task.scale_learning_rates(2.0)
    assert task.learning_rates == {name: 2 * lr for name, lr in configured.items()}
    assert task.learning_rates["head"] == 1.0
    assert task.hparams.lr == 0.5


def test_the_penalty_is_half_the_squared_way_of_the_backbone_s_trainable_weights(tmp_path):
    torch.save(classifier().backbone.state_dict(), tmp_path / "start.pth")
    task = classifier(weights=str(tmp_path / "start.pth"), l2_sp=0.5)
    task.start_phase(Phase(train="last:2"))
    assert float(task.penalty().detach()) == 0.0
    with torch.no_grad():
        task.head[1].weight += 1.0  # it has no pretrained weights to stay close to
        task.backbone.conv_stem.weight += 1.0  # frozen
        task.backbone.bn2.weight += 2.0
        task.backbone.bn2.bias[0] -= 3.0
    expected = 0.5 * (2.0**2 * task.backbone.bn2.weight.numel() + 3.0**2) / 2
    assert float(task.penalty().detach()) == pytest.approx(expected, rel=1e-6)
    task.penalty().backward()
    torch.testing.assert_close(task.backbone.bn2.weight.grad, torch.full_like(task.backbone.bn2.weight, 0.5 * 2.0))
    assert task.head[1].weight.grad is None
    assert classifier().penalty() == 0.0


def test_a_run_with_the_penalty_can_be_scored_and_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12)
    torch.save(classifier().backbone.state_dict(), "start.pth")
    args = ["--model.backbone", "timm/test_efficientnet", "--model.weights", "start.pth", "--model.l2_sp", "0.1"]
    args += ["--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"]
    args += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *args]) == 0
    assert main(["validate", "--run_dir", "runs/run-1"]) == 0
    assert main(["predict", "--run_dir", "runs/run-1", "--input", "images"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"l2_sp": 0.1}, r"^model\.l2_sp is 0\.1, but with model\.weights none there is nothing to stay close to$"),
        ({"l2_sp": -1.0}, r"^model\.l2_sp is -1\.0; it must be 0 or more$"),
        ({"weight_decay": math.nan}, r"^model\.weight_decay is nan; it must be 0 or more$"),
        ({"lr": 0.0}, r"^model\.lr is 0\.0; it must be above 0$"),
        ({"bottom_ratio": math.inf}, r"^model\.bottom_ratio is inf; it must be above 0$"),
    ],
)
def test_impossible_numbers_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        classifier(**options)


def test_a_plateau_is_looked_for_once_per_validation_of_training(monkeypatch):
    task = classifier()
    optimizer = torch.optim.SGD(task.head.parameters(), 1.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    trainer = SimpleNamespace(
        lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler, monitor="val/loss")],
        callback_metrics={},
        sanity_checking=True,
    )
    monkeypatch.setattr(type(task), "trainer", property(lambda self: trainer))
    task.on_validation_end()  # of Lightning's sanity check, whose figures it throws away
    task.on_train_epoch_end()
    trainer.sanity_checking = False
    rates = []
    for validated, loss in ((True, 1.0), (False, 1.0), (True, 2.0), (False, 2.0), (True, 0.5), (True, 0.6)):
        trainer.callback_metrics["val/loss"] = torch.tensor(loss)
        if validated:
            task.on_validation_end()
        task.lr_scheduler_step(scheduler, torch.tensor(loss))  # Lightning's own call does nothing
        task.on_train_epoch_end()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_a_last_step_of_fewer_batches_has_the_mean_gradient_of_these(tmp_path):
    # Lightning divides by the batches of a whole step, also in a last one that has fewer.
    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            norms.append(float(next(pl_module.head.parameters()).grad.norm()))

    norms: list[float] = []
    task = classifier(lr=1e-9)
    batch = {"image": torch.randn(2, 3, 32, 32), "label": torch.tensor([0, 1])}
    trainer = Trainer(
        **{"accelerator": "cpu", "max_epochs": 1, "accumulate_grad_batches": 3, "callbacks": [Norms()]},
        **{"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 1},
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    task.start_phase(Phase(train="head"))
    trainer.fit(task, DataLoader([batch] * 5, batch_size=None))
    assert norms == pytest.approx([norms[0]] * 2, rel=1e-4)


def trained_in(monkeypatch, precision):
    """A task that thinks it is being trained in a precision, with its optimizer."""
    task = classifier()
    task._trainer = SimpleNamespace(
        precision=precision,
        datamodule=SimpleNamespace(training_batches=3),
        limit_train_batches=1.0,
        accumulate_grad_batches=1,
        max_epochs=1,
        checkpoint_callback=None,
    )
    monkeypatch.setattr(type(task), "trainer", property(lambda self: self._trainer))
    return task, task.configure_optimizers()["optimizer"]


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_the_optimizer_is_fused_unless_the_loss_is_scaled(monkeypatch, precision, fused):
    _, optimizer = trained_in(monkeypatch, precision)
    assert optimizer.defaults["fused"] is fused


@pytest.mark.parametrize("algorithm", ["norm", "value", None])
def test_gradients_are_clipped_with_a_fused_optimizer(monkeypatch, algorithm):
    task, optimizer = trained_in(monkeypatch, "bf16-mixed")
    for parameter in task.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    task.configure_gradient_clipping(optimizer, None, algorithm)
    task.configure_gradient_clipping(optimizer, 0.0, algorithm)
    assert all((parameter.grad == 3.0).all() for parameter in task.parameters())
    task.configure_gradient_clipping(optimizer, 0.5, algorithm)
    gradients = torch.cat([parameter.grad.flatten() for parameter in task.parameters()])
    if algorithm == "value":
        assert (gradients == 0.5).all()
    else:
        assert float(gradients.norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("phase", ["{train: head}", "{train: all}"])
def test_a_run_in_reduced_precision_clips(tmp_path, monkeypatch, algorithm, phase):
    monkeypatch.chdir(write_tiny(tmp_path))
    args = ["fit", *TINY, "--phases", f"[{phase}]", "--trainer.max_epochs", "1", "--model.head_solver", "sgd"]
    args += ["--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_algorithm", algorithm]
    for run, limit in (("free", "100.0"), ("clipped", "1.0e-14")):
        assert main([*args, "--trainer.gradient_clip_val", limit, "--run_dir", run, "--model.weight_decay", "0"]) == 0
    free, clipped = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]["heads.target.1.weight"]
        for run in ("free", "clipped")
    )
    assert not torch.allclose(free, clipped, atol=1e-3)
    args[args.index("--trainer.max_epochs") + 1] = "2"
    assert main([*args, "--trainer.gradient_clip_val", "1.0e-14", "--run_dir", "two", "--model.weight_decay", "0"]) == 0
    again = torch.load("two/checkpoints/last.ckpt", weights_only=True)["state_dict"]["heads.target.1.weight"]
    torch.testing.assert_close(again, clipped, rtol=0, atol=1e-5)  # gradients that are clipped away move nothing
