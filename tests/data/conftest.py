from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_lightning.preprocess.image import ImagePreprocess


@pytest.fixture
def small() -> ImagePreprocess:
    return ImagePreprocess(16, 3, 0.8, "center", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def image() -> Callable[..., Path]:
    def make(path: Path, *, size: tuple[int, int] = (24, 20), mode: str = "RGB", seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path, image: Callable[..., Path]) -> Path:
    """Two classes of eight images."""
    for number in range(16):
        image(tmp_path / "images" / ("cat" if number < 8 else "dog") / f"{number:02}.png", seed=number)
    return tmp_path / "images"
