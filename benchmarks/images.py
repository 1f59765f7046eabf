"""Images per second of the training loader, beside tensors that lie ready in memory.

    uv run python benchmarks/images.py

5,000 JPEGs of 500 x 375 are cut at random from photographs of scikit-image and cells of ELPV. The first epoch decodes
them all into the store, the second reads them from there; the limit is a bare loop over tensors in memory, with the
same collation and nothing else. Each number of workers gets a process and a cache of its own. The memory is the
highest sum of anonymous resident memory over that process and its workers (Linux); what they share counts in each.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from torch.utils.data import default_collate

from tl_lightning.core.console import console
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.sources.elpv import read_elpv
from tl_lightning.preprocess.image import ImagePreprocess

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
)
PREPROCESS = ImagePreprocess(224, 3, 0.875, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
AUGMENTATIONS = ("none", "flips", "dihedral", "standard", "randaugment", "trivial")
BATCH = 32
IN_MEMORY = 512  # tensors of the bare loop, again and again; more would only cost memory


def write_images(folder: Path, count: int) -> None:
    """Random cuts, 500 x 375, in two classes."""
    rng = np.random.default_rng(0)
    photographs = [Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB") for name in PHOTOGRAPHS]
    cells = read_elpv(targets=["defect"]).paths
    for number in range(count):
        source = number % (len(photographs) + 1)
        if source < len(photographs):
            image = photographs[source]
        else:
            image = Image.open(cells[rng.integers(len(cells))]).convert("RGB")
        width = rng.uniform(0.5, 1) * min(image.width, image.height * 4 / 3)
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - width * 3 / 4)
        path = folder / "ab"[number % 2] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        box = (left, top, left + width, top + width * 3 / 4)
        image.resize((500, 375), Image.Resampling.BICUBIC, box=box).save(path, quality=90)


def epochs(folder: Path, augmentation: str, workers: int) -> Iterator[float]:
    """Images per second of the first epoch, with the decoding before it, and of the second."""
    data = ImageDataModule(
        str(folder),
        PREPROCESS.to_dict(),
        batch_size=BATCH,
        val_fraction=0.02,
        test_fraction=0.0,
        augmentation=augmentation,
        num_workers=workers,
    )
    begun = time.perf_counter()
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        images = sum(len(batch["label"]) for batch in loader)
        yield images / (time.perf_counter() - begun)
        begun = time.perf_counter()


def from_memory(count: int) -> float:
    """Images per second of the bare loop."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IN_MEMORY, 3, 224, 224), dtype=torch.uint8, generator=generator)
    begun = time.perf_counter()
    for rows in torch.randperm(count, generator=generator).split(BATCH):
        default_collate([{"image": images[row % IN_MEMORY], "label": 0, "index": row} for row in rows.tolist()])
    return count / (time.perf_counter() - begun)


def anonymous(process: int) -> float:
    """MiB of a process and its children, 0 for one that has ended."""
    total = 0.0
    with suppress(OSError, StopIteration):
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        total = next(float(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            total += sum(anonymous(int(child)) for child in children.read_text().split())
    return total


def in_a_process(work: Callable[[], Iterable[float]]) -> tuple[list[float], float, float]:
    """What some work gives in a process and with a cache of its own; its memory before, and at its highest."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "rates"
        child = os.fork()
        if not child:
            os.environ["TL_CACHE_DIR"] = f"{scratch}/cache"
            result.write_text(" ".join(str(rate) for rate in work()))
            os._exit(0)
        start = peak = anonymous(child)
        while not os.waitpid(child, os.WNOHANG)[0]:
            peak = max(peak, anonymous(child))
            time.sleep(0.05)
        return [float(rate) for rate in result.read_text().split()], start, peak


def main() -> None:
    """Prints a table of workers and one of augmentations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--quick", action="store_true", help="200 images")
    options = parser.parse_args()
    count = 200 if options.quick else options.images
    console.quiet = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        write_images(folder, count)
        print(f"{count:,} images, flips    first epoch   second epoch   from memory   memory: before    peak")
        for workers in (0, 1, 2):
            (first, second), start, peak = in_a_process(partial(epochs, folder, "flips", workers))
            (limit,), _, _ = in_a_process(lambda: [from_memory(count)])
            rates = f"{first:>18.0f}/s{second:>13.0f}/s{limit:>12.0f}/s"
            print(f"{workers} workers{rates}{start:>13.0f} MiB{peak:>5.0f} MiB", flush=True)
        print("\naugmentation   second epoch, no workers")
        for name in AUGMENTATIONS:
            (_, second), _, _ = in_a_process(partial(epochs, folder, name, 0))
            print(f"{name:<15}{second:>11.0f}/s", flush=True)


if __name__ == "__main__":
    main()
