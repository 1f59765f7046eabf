"""A small image and a perceptual hash of each image: what resemblance is looked for in."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import imagehash
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_lightning.core.console import track
from tl_lightning.data.workers import usable_cores

SIDE = 32
TURNS = 8
_CHUNK = 64


class Pixels(Protocol):
    """What `ImageStore` is: ``uint8`` pixels of shape ``(channels, height, width)`` by index."""

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """One row for each image.

    Attributes:
        thumbnails: The image in grey, squeezed into a square: ``uint8`` of shape ``(n, 32, 32)``.
        hashes: The perceptual hash of the image as it is and in the seven other positions of `turn`: ``uint64`` of
            shape ``(n, 8)``.
    """

    thumbnails: NDArray[np.uint8]
    hashes: NDArray[np.uint64]


def turn(images: NDArray[np.uint8], position: int) -> NDArray[np.uint8]:
    """Turns images by ``position % 4`` quarters, and mirrors them first from position 4 on.

    Args:
        images: Squares of shape ``(..., side, side)``.
        position: From 0 (as they are) to 7.
    """
    mirrored = images[..., ::-1] if position >= 4 else images
    return np.rot90(mirrored, position % 4, axes=(-2, -1))


def take_fingerprints(pixels: Pixels, indices: Sequence[int] | NDArray[np.int64]) -> Fingerprints:
    """Shrinks and hashes images, in threads.

    The hash is the 64-bit pHash of the ``imagehash`` library: signs of the low frequencies of the cosine transform.

    Args:
        pixels: Images that are decoded already.
        indices: Those to take, each of which can be read.

    Returns:
        A row for each index.
    """
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    thumbnails = np.empty((len(indices), SIDE, SIDE), dtype=np.uint8)
    hashes = np.empty((len(indices), TURNS), dtype=np.uint64)

    def work(chunk: int) -> None:
        for row, index in enumerate(chunks[chunk], start=chunk * _CHUNK):
            thumbnails[row] = thumbnail(pixels[int(index)])
            hashes[row] = [_hash(turn(thumbnails[row], position)) for position in range(TURNS)]

    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in track(pool.map(work, range(len(chunks))), "looking for duplicates", total=len(chunks)):
            pass
    return Fingerprints(thumbnails, hashes)


def thumbnail(pixels: Tensor, side: int = SIDE) -> NDArray[np.uint8]:
    """Shrinks an image to a grey square, by the mean of what falls into each pixel.

    Args:
        pixels: ``uint8`` of shape ``(channels, height, width)``; three channels are colours, of which green is the
            brightest, and of any other number each counts the same.
        side: Side of the square, in pixels.

    Returns:
        ``uint8`` of shape ``(side, side)``.
    """
    if len(pixels) == 3:
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).convert("L")
    else:  # PIL would take the last of two or four for the opacity and drop it
        image = Image.fromarray(pixels.float().mean(dim=0).round().to(torch.uint8).numpy())
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _hash(small: NDArray[np.uint8]) -> np.uint64:
    bits = imagehash.phash(Image.fromarray(small)).hash
    return np.uint64(np.packbits(bits).view(np.uint64)[0])
