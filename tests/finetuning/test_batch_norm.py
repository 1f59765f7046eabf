from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tiny import write_images
from torch import nn

from tl_lightning.backbones import build_backbone, preprocess_of
from tl_lightning.cli import main
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.finetuning.batch_norm import SyncBatchNorm, average_statistics, batch_norms, estimate_statistics

NAME = "timm/test_efficientnet"


def normalise_and_mix():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.3))


def unbiased(rows):
    return ((rows - rows.mean(0)) ** 2).sum(0) / (len(rows) - 1)


def test_the_statistics_are_the_mean_over_the_batches_of_each_batch_s_own():
    backbone = normalise_and_mix()
    backbone[0].running_mean.fill_(5.0)
    backbone[0].weight.data = torch.tensor([1.0, 2.0, -1.0])
    batches = [torch.randn(size, 3) * scale + scale for size, scale in ((4, 1.0), (4, 3.0), (2, 100.0))]
    estimate_statistics(backbone, [[batch] for batch in batches])

    whole = batches[:2]  # the last one is smaller, and left out
    torch.testing.assert_close(backbone[0].running_mean, (whole[0].mean(0) + whole[1].mean(0)) / 2)
    torch.testing.assert_close(backbone[0].running_var, (unbiased(whole[0]) + unbiased(whole[1])) / 2)
    inner = []
    for rows in whole:  # what comes to the second layer: without dropout, each batch normalised by itself
        spread = ((rows - rows.mean(0)) ** 2).mean(0)
        inner.append((rows - rows.mean(0)) / (spread + 1e-5).sqrt() * backbone[0].weight @ backbone[2].weight.T)
        inner[-1] = (inner[-1] + backbone[2].bias).detach()
    torch.testing.assert_close(backbone[3].running_mean, (inner[0].mean(0) + inner[1].mean(0)) / 2)
    torch.testing.assert_close(backbone[3].running_var, (unbiased(inner[0]) + unbiased(inner[1])) / 2)


def test_the_modes_and_the_momentum_are_what_they_were_also_after_an_error():
    backbone = normalise_and_mix()
    backbone[0].eval()

    def failing():
        yield [torch.randn(4, 3)]
        raise ValueError

    modes = [module.training for module in backbone.modules()]
    assert modes == [True, False, True, True, True]
    weights = backbone[2].weight.clone()
    estimate_statistics(backbone, [[torch.randn(4, 3)]])
    with pytest.raises(ValueError):
        estimate_statistics(backbone, failing())
    assert [module.training for module in backbone.modules()] == modes
    assert [layer.momentum for layer in batch_norms(backbone)] == [0.1, 0.3]
    assert torch.equal(backbone[2].weight, weights)
    assert not backbone[0].running_mean.requires_grad


def test_layers_without_running_statistics_have_none_to_estimate():
    backbone = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3))
    estimate_statistics(backbone, [[torch.randn(4, 3)]])
    assert backbone[0].running_mean is None
    assert batch_norms(backbone) == [backbone[1]]


def tiny():
    torch.manual_seed(0)
    module = build_backbone(NAME, "none").module
    for layer in batch_norms(module):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
        layer.weight.data.uniform_(0.5, 2.0)
    return module.eval()


def test_synchronised_layers_keep_the_activation_that_timm_fuses_into_its_own():
    backbone, images = tiny(), torch.randn(2, 3, 32, 32)
    before = backbone(images)
    assert torch.equal(SyncBatchNorm().apply(backbone)(images), before)
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in batch_norms(backbone))
    # Torch's own conversion loses it, which is why this one exists.
    assert not torch.allclose(nn.SyncBatchNorm.convert_sync_batchnorm(tiny())(images), before, atol=0.1)


def test_reverting_brings_back_the_same_layers_with_what_the_synchronised_ones_have_learned():
    backbone, images = tiny(), torch.randn(2, 3, 32, 32)
    names = [name for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)]
    layers = batch_norms(backbone)
    layers[3].train()
    parameters = {name: id(parameter) for name, parameter in backbone.named_parameters()}
    sync = SyncBatchNorm()
    sync.apply(backbone)
    synchronised = batch_norms(backbone)
    assert [layer.training for layer in synchronised] == [layer is layers[3] for layer in layers]
    assert {name: id(parameter) for name, parameter in backbone.named_parameters()} == parameters
    for number, layer in enumerate(synchronised):
        layer.running_mean.fill_(number)
        layer.running_var = torch.full_like(layer.running_var, number + 1)
    synchronised[5].train()
    backbone.eval()
    learned = backbone(images)

    sync.revert(backbone)
    assert [backbone.get_submodule(name) for name in names] == layers == batch_norms(backbone)
    assert [float(layer.running_mean[0]) for layer in layers] == list(range(len(layers)))
    assert [float(layer.running_var[-1]) for layer in layers] == list(range(1, len(layers) + 1))
    assert not any(layer.training for layer in layers)
    assert {name: id(parameter) for name, parameter in backbone.named_parameters()} == parameters
    assert torch.equal(backbone(images), learned)


def in_process(rank, folder):
    wait = timedelta(minutes=5)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2, timeout=wait)
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3), nn.SyncBatchNorm(2))
    module[1].eval()
    for number, layer in enumerate(module):
        layer.running_mean.fill_(10 * number + rank)
        layer.running_var.fill_(2.0 + 3 * rank)
    average_statistics(module)
    torch.save(module.state_dict(), Path(folder, f"training-{rank}"))
    average_statistics(module, of_all=True)
    torch.save(module.state_dict(), Path(folder, f"all-{rank}"))
    torch.distributed.destroy_process_group()


def in_second_process(_, folder):
    in_process(1, folder)


def test_two_processes_share_the_mean_of_their_statistics(tmp_path):
    second = torch.multiprocessing.spawn(in_second_process, args=(str(tmp_path),), join=False)
    in_process(0, str(tmp_path))
    assert second.join()
    for rank in (0, 1):
        training = torch.load(tmp_path / f"training-{rank}", weights_only=True)
        everything = torch.load(tmp_path / f"all-{rank}", weights_only=True)
        for state in (training, everything):
            assert state["0.running_mean"].tolist() == [0.5, 0.5]
            assert state["0.running_var"].tolist() == [3.5, 3.5]
            # Synchronised layers see all batches as it is.
            assert state["2.running_mean"].tolist() == [20.0 + rank] * 2
        assert training["1.running_mean"].tolist() == [10.0 + rank] * 3
        assert everything["1.running_mean"].tolist() == [10.5] * 3
        assert everything["1.running_var"].tolist() == [3.5] * 3


class StopOnce(Callback):
    """Interrupts the run before its second epoch, once."""

    armed = False

    def on_train_epoch_start(self, trainer, pl_module):
        if StopOnce.armed and trainer.current_epoch == 1:
            StopOnce.armed = False
            raise KeyboardInterrupt


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", count=12)
    torch.save(tiny().state_dict(), tmp_path / "start.pth")
    return tmp_path


def is_statistic(name):
    return name.endswith(("running_mean", "running_var"))


def statistics(state):
    return {name.removeprefix("backbone."): value.clone() for name, value in state.items() if is_statistic(name)}


def training_images():
    preprocess = preprocess_of(NAME, "start.pth").to_dict()
    data = ImageDataModule("images", preprocess, image_size=32, batch_size=4)
    data.setup("fit")
    order = np.random.default_rng((0, 0)).permutation(data.splits["train"])
    plain = {
        int(batch["index"][k]): image
        for batch in data.plain_loader("train")
        for k, image in enumerate(data.normalized(batch)["image"])
    }
    assert len(order) == 15
    return [torch.stack([plain[index] for index in order[start : start + 4].tolist()]) for start in (0, 4, 8)]


def test_a_phase_may_adapt_the_statistics_to_its_images_once(here):
    args = [
        *("fit", "--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4"),
        *("--data.augmentation", "dihedral", "--model.backbone", NAME, "--model.weights", "start.pth"),
        *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
        *("--phases", "[{train: all, bn: adapt}]", "--trainer.max_epochs", "2"),
        "--trainer.callbacks+=test_batch_norm.StopOnce",
    ]
    StopOnce.armed = True
    assert main([*args, "--run_dir", "runs/run"]) == 130
    assert not StopOnce.armed
    begun = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert main(["resume", "--run_dir", "runs/run"]) == 0  # the audit of what is frozen passes
    ended = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(begun["backbone.conv_stem.weight"], ended["backbone.conv_stem.weight"])

    images, expected = training_images(), tiny()
    before = statistics(expected.state_dict())
    estimate_statistics(expected, [[batch] for batch in images])
    adapted = statistics(expected.state_dict())
    for state in (statistics(begun), statistics(ended)):
        assert state.keys() == adapted.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, adapted[name], rtol=1e-4, atol=1e-5)
            assert not torch.allclose(value, before[name], rtol=1e-2)
    assert all(torch.equal(statistics(begun)[name], value) for name, value in statistics(ended).items())

    # The classes differ in brightness: batches of one class each would have missed most of the variance.
    responses = expected.conv_stem(torch.cat(images)).transpose(0, 1).flatten(1)
    assert (statistics(ended)["bn1.running_var"] > 0.6 * responses.var(dim=1)).all()
