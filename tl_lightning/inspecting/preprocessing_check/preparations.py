"""Ways to prepare an image: the right one, and those that people mistake for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.console import track
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import INTERPOLATIONS, prepare, to_channels
from tl_lightning.preprocess.image import ImagePreprocess

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Variant:
    """A way to prepare images.

    Attributes:
        name: In words.
        preprocess: From the file to pixels, and from pixels to numbers.
        recolour: What happens to the pixels in between, ``uint8`` ``(n, channels, size, size)``.
    """

    name: str
    preprocess: ImagePreprocess
    recolour: Callable[[Tensor], Tensor] = lambda pixels: pixels

    @property
    def pixels(self) -> ImagePreprocess:
        """What decides the pixels; variants in which it is equal share them."""
        channels = len(self.preprocess.mean)
        fill = self.preprocess.mean if self.preprocess.crop_mode == "border" else (0.0,) * channels
        return replace(self.preprocess, mean=fill, std=(1.0,) * channels)

    def numbers(self, pixels: Mapping[ImagePreprocess, Tensor]) -> Tensor:
        """What the model is given, ``float32`` ``(n, channels, size, size)``.

        Args:
            pixels: By what decides them, ``uint8`` of that shape.
        """
        return self.preprocess.normalize(self.recolour(pixels[self.pixels]))


def variants(own: ImagePreprocess) -> list[Variant]:
    """The right preparation, then others: those that people mistake for it.

    Args:
        own: The right one.
    """
    mean, std = (of if own.channels == 3 else (sum(of) / 3,) * own.channels for of in IMAGENET)
    ones = (1.0,) * own.channels
    zeros, halves, bytes_ = (0.0,) * own.channels, (0.5,) * own.channels, (1 / 255,) * own.channels

    def scaled(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Variant:
        return Variant(name, replace(own, mean=mean, std=std))

    def resized(factor: float) -> Variant:
        size = round(own.size * factor)
        return Variant(f"{size} x {size} pixels", replace(own, size=size))

    words = {"center": "cropped", "squash": "squashed"}
    return [
        Variant("as trained", own),
        scaled("ImageNet's mean/std", mean, std),
        scaled("mean and std of 0.5", halves, halves),
        scaled("only scaled to 0..1", zeros, ones),
        scaled("raw 0..255", zeros, bytes_),
        *([Variant("BGR instead of RGB", own, _bgr), Variant("greyscale", own, _grey)] if own.channels == 3 else []),
        *(
            Variant(f"{word} to square", replace(own, crop_mode=mode))
            for mode, word in words.items()
            if mode != own.crop_mode
        ),
        Variant("without the crop", replace(own, crop_pct=1.0)),
        *(
            Variant(f"{name} resizing", replace(own, interpolation=name))
            for name in INTERPOLATIONS
            if name not in ("lanczos", own.interpolation)
        ),
        resized(0.75),
        resized(1.25),
    ]


def _bgr(pixels: Tensor) -> Tensor:
    return pixels.flip(1)


def _grey(pixels: Tensor) -> Tensor:
    return torch.stack([to_channels(to_channels(image, 1), 3) for image in pixels])


def prepared_batches(
    paths: Sequence[Path], rows: NDArray[np.int64], kinds: Sequence[ImagePreprocess], *, batch_size: int
) -> Iterator[tuple[NDArray[np.int64], dict[ImagePreprocess, Tensor]]]:
    """Prepares batches in threads, one batch ahead of the model; decodes anew, and fills no cache.

    Args:
        paths: The files of all samples.
        rows: Indices among them, one or more.
        kinds: What pixels are wanted; see `Variant.pixels`.
        batch_size: Images per batch.

    Yields:
        The rows of a batch that could be read, and their pixels of each kind, ``uint8`` ``(n, channels, size, size)``;
        no pixels where none could.
    """

    def attempt(row: int) -> list[Tensor] | None:
        try:
            return [prepare(paths[row], kind) for kind in kinds]
        except BrokenImage:
            return None

    batches = np.split(rows, list(range(batch_size, len(rows), batch_size)))
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(attempt, row) for row in batches[0].tolist()]
        for batch, following in zip(
            track(batches, "checking", total=len(batches)), [*batches[1:], rows[:0]], strict=True
        ):
            ahead = [pool.submit(attempt, row) for row in following.tolist()]
            found = [(row, future.result()) for row, future in zip(batch.tolist(), waiting, strict=True)]
            whole = [(row, images) for row, images in found if images is not None]
            pixels = {kind: torch.stack([images[k] for _, images in whole]) for k, kind in enumerate(kinds) if whole}
            yield np.array([row for row, _ in whole], dtype=np.int64), pixels
            waiting = ahead
