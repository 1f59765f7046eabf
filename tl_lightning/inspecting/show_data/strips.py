"""Training images for a person to look at: chosen from every class, and each shown as the model will see it."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_lightning.core.pages.page import EncodedImage, Strip
from tl_lightning.core.randomness import seeded
from tl_lightning.data.dataset import Transform
from tl_lightning.data.images.augmentations import augmentation, evaluation
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.preparing import prepare
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.samples import Samples
from tl_lightning.inspecting.show_data.image_sizes import Header
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks.objectives import OBJECTIVES

MOST_GROUPS = 12  # classes and the like whose images are shown
DRAWS = 3  # of the augmentation
PARTS = 5  # of the range of a number
PAGE_BYTES = 6e6  # of images; base64 makes a third more of it
BYTES_PER_PIXEL = 0.5  # of a detailed JPEG


@dataclass(frozen=True)
class Group:
    """Training images that belong together.

    Attributes:
        title: Their class, level, label, or range of a number.
        rows: Indices among the samples.
    """

    title: str
    rows: NDArray[np.int64]


def groups_of(samples: Samples, rows: NDArray[np.int64]) -> list[Group]:
    """Groups images by their targets: by class or level, by each label, by fifths of each number.

    Args:
        samples: All of them.
        rows: Those to be grouped.
    """
    labels = samples.labels[rows]
    if not OBJECTIVES[samples.problem_type].counts:
        parts = []
        for name, column in zip(samples.classes, labels.T, strict=True):
            for part in np.array_split(column.argsort(kind="stable"), PARTS):
                if len(part):
                    title = f"{name} {column[part].min():.4g} to {column[part].max():.4g}"
                    parts.append(Group(title, rows[part]))
        return parts
    having = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.arange(len(samples.classes))
    groups = [Group(name, rows[mask]) for name, mask in zip(samples.classes, having.T, strict=True)]
    bare = rows[~having.any(axis=1)]
    return [*groups, Group("no label", bare)] if len(bare) else groups


def choose_groups(groups: Sequence[Group]) -> list[Group]:
    """The groups whose images are shown: up to `MOST_GROUPS`, evenly from first to last."""
    places = np.linspace(0, len(groups) - 1, min(len(groups), MOST_GROUPS)).round().astype(int)
    return [groups[place] for place in places]


def target_in_words(samples: Samples, index: int) -> str:
    """What is to be learned of one image."""
    return OBJECTIVES[samples.problem_type].target_in_words(samples.labels[index], samples.classes)


def image_side(count: int) -> int:
    """The longest side that the images of a page can have, for the page not to become too large to open.

    Args:
        count: How many there are.
    """
    return max(64, min(256, int(math.sqrt(PAGE_BYTES / BYTES_PER_PIXEL / max(1, count)))))


class Shown:
    """Makes the strips of a page.

    Args:
        data: The data module; broken images are out of its splits.
        store: The decoded images.
        headers: What the header of each image says.
        count: How many strips there will be, which decides how large their images can be.
    """

    def __init__(self, data: ImageDataModule, store: ImageStore, headers: Sequence[Header | None], count: int) -> None:
        self._data, self._store, self._headers = data, store, headers
        self._preprocess = ImagePreprocess.from_dict(data.prepared)
        self._evaluation: Transform = evaluation(self._preprocess)
        self._augment: Transform = augmentation(data.augmentation, self._preprocess)
        self._draws = 0 if data.augmentation == "none" else DRAWS
        self._side = image_side(count * (2 + self._draws))

    def strip(self, index: int) -> Strip:
        """One sample: whole, as evaluation sees it, and as the first epochs of a training would see it."""
        data, header = self._data, self._headers[index]
        path, stored = data.samples.paths[index], self._store.sample(index)
        images = [
            EncodedImage("file", encoded(self._whole(path, header), self._side)),
            EncodedImage("as prepared", encoded(self._evaluation(stored)["image"], self._side)),
        ]
        for epoch in range(self._draws):
            with seeded(data.seed, epoch, index):
                images.append(EncodedImage(f"epoch {epoch + 1}", encoded(self._augment(stored)["image"], self._side)))
        size = f", {header.width} x {header.height}" if header else ""
        return Strip(f"{path.parent.name}/{path.name}", target_in_words(data.samples, index) + size, images)

    def _whole(self, path: Path, header: Header | None) -> Tensor:
        """The whole image without the border that makes it a square."""
        side = self._side
        whole = prepare(path, replace(self._preprocess, size=side, crop_pct=1.0, crop_mode="border"))
        if header is None:
            return whole
        longest = max(header.width, header.height)
        height, width = (max(1, round(side * part / longest)) for part in (header.height, header.width))
        top, left = (side - height) // 2, (side - width) // 2
        return whole[:, top : top + height, left : left + width]


def encoded(pixels: Tensor, side: int) -> bytes:
    """An image file for a page: without loss where it is small, else a JPEG.

    Args:
        pixels: ``uint8`` of shape ``(channels, height, width)``.
        side: The longest that it may have.
    """
    shown = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
    image = Image.fromarray(shown.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    small = max(image.size) <= 64
    image.thumbnail((side, side))
    file = io.BytesIO()
    if small:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=88)
    return file.getvalue()
