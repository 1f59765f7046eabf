"""The images of a benchmark: ELPV, or any number that are drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from tl_lightning.data.sources.read import read_source
from tl_lightning.data.splits import split_samples

SIDE = 256
CLASSES = ("plain", "scratched")


def draw(folder: Path, count: int) -> None:
    """Draws textured colour images of two classes, with or without a dark scratch; half are PNG, half JPEG.

    Args:
        folder: Gets a sub-folder per class.
        count: How many.
    """
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    along = np.linspace(0, 1, 4 * SIDE)
    for number in range(count):
        coarse = generator.normal(128, 25, (SIDE // 16, SIDE // 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
        pixels = coarse + generator.normal(0, 12, (SIDE, SIDE, 3))
        label = number % 2
        if label:
            start, end = generator.uniform(0, SIDE - 4, (2, 2))
            rows, columns = (start[:, None] + (end - start)[:, None] * along).astype(int)
            for shift in range(3):
                pixels[rows + shift, columns] -= 60
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / CLASSES[label] / f"{number:07}.{'png' if number % 4 < 2 else 'jpg'}")


def divide(source: str) -> dict[str, list[tuple[str, str]]]:
    """Path and label of each image under ``train``, ``val`` and ``test``, as ``tl fit`` divides them by default.

    Args:
        source: What ``data.source`` would be.
    """
    samples = read_source(source)
    splits = split_samples(samples, "stratified", seed=0)
    return {
        name: [(str(samples.paths[index]), samples.classes[samples.labels[index]]) for index in indices]
        for name, indices in splits.items()
    }


def read_all(splits: dict[str, list[tuple[str, str]]]) -> None:
    """Reads every file once, so that no contestant pays for a cold disk."""
    for rows in splits.values():
        for path, _ in rows:
            Path(path).read_bytes()
