"""How large the image files are, from their headers alone."""

import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from tl_lightning.core.pages.page import Bar, Bars
from tl_lightning.data.archives.files import is_file, open_file
from tl_lightning.data.images.decoding import FORMATS
from tl_lightning.data.parts import file_of
from tl_lightning.data.workers import usable_cores
from tl_lightning.preprocess.image import ImagePreprocess

MOST_BARS = 12
TURNED = range(5, 9)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
GREY = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        width: In pixels, of the image as it is to be seen.
        height: In pixels, of the image as it is to be seen.
        grey: Whether it is stored without colours.
    """

    width: int
    height: int
    grey: bool

    def side(self, crop_mode: str) -> int:
        """The side that is resized to `ImagePreprocess.resized`."""
        return max(self.width, self.height) if crop_mode == "border" else min(self.width, self.height)


def read_headers(paths: Sequence[Path]) -> list[Header | None]:
    """Reads the headers, in threads; `None` where that fails.

    Args:
        paths: The image files.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(usable_cores()) as pool:
        warnings.simplefilter("ignore")  # PIL's cautions about what is in a file
        return list(pool.map(_header, paths))


def _header(path: Path) -> Header | None:
    path = file_of(path)  # all pages count as the first
    try:
        if not is_file(path):  # a pipe would be waited at for ever
            return None
        with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION) in TURNED:
                width, height = height, width
            return Header(width, height, image.mode.split(";")[0] in GREY)
    except Exception:  # decoders raise whatever a damaged file leads them to
        return None


def size_line(headers: Sequence[Header], preprocess: ImagePreprocess) -> str:
    """Says in one line how large the images are, beside what the model sees.

    Args:
        headers: One or more.
        preprocess: What the model expects.
    """
    smallest, largest = (pick(headers, key=lambda header: header.width * header.height) for pick in (min, max))
    enlarged = sum(header.side(preprocess.crop_mode) < preprocess.resized for header in headers)
    grey = sum(header.grey for header in headers)
    extent = f"{smallest.width}x{smallest.height}"
    if (smallest.width, smallest.height) != (largest.width, largest.height):
        extent += f" to {largest.width}x{largest.height}"
    longish = float(np.median([max(h.width, h.height) / min(h.width, h.height) for h in headers]))
    shape = "" if longish < 1.01 else f", the longer side {longish:.2f} times the shorter (median)"
    small = (
        f"{enlarged:,} of {len(headers):,} have to be enlarged to {preprocess.resized}"
        if enlarged
        else "none is enlarged"
    )
    return f"{extent} pixels{shape}; {small}; {grey / len(headers):.0%} greyscale"


def size_bars(headers: Sequence[Header], preprocess: ImagePreprocess) -> Bars:
    """Counts the sizes, or ranges of them where there are many, and marks where the model's own stands.

    Args:
        headers: One or more.
        preprocess: What the model expects.
    """
    mode, target = preprocess.crop_mode, preprocess.resized
    sides = np.array([header.side(mode) for header in headers])
    sizes = Counter((header.side(mode), header.width, header.height) for header in headers)
    if len(sizes) <= MOST_BARS:
        name = "width x height"
        rows = [(side, Bar(f"{width} x {height}", [count])) for (side, width, height), count in sorted(sizes.items())]
    else:
        name = "longer side" if mode == "border" else "shorter side"
        ends = np.geomspace(sides.min(), sides.max() + 1, MOST_BARS).round().astype(int)
        edges = np.unique([*ends, min(max(target, ends[0]), ends[-1])])  # no bar stands on both sides of the mark
        counts = np.histogram(sides, edges)[0].tolist()
        bins = zip(pairwise(edges.tolist()), counts, strict=True)
        rows = [(low, Bar(f"{low} to {high - 1}", [count])) for (low, high), count in bins]
    place = sum(side < target for side, _ in rows)
    cut = "" if target == preprocess.size else f", of which the model sees {preprocess.size} x {preprocess.size}"
    bars = [row for _, row in rows]
    bars.insert(place, Bar(f"resized to {target}{cut}; smaller ones are enlarged"))
    return Bars("sizes of the files", size_line(headers, preprocess), [name, "images"], bars)
