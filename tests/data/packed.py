"""Archives and shards of small images, made in memory."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(number: int = 0, *, mean: int = 120) -> bytes:
    """A small image, another for each number."""
    pixels = np.random.default_rng(number).normal(mean, 40, (20, 24, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tree(count: int = 8, *, top: str = "") -> dict[str, bytes]:
    """Files of two classes, in folders of their names."""
    return {
        f"{top}{name}/{number}.png": png(number + 100 * place, mean=60 + 120 * place)
        for place, name in enumerate(("cat", "dog"))
        for number in range(count)
    }


def write_zip(path: Path, files: dict[str, bytes], *, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], *, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(first: int, count: int = 8, *, ending: str = "cls", **more: object) -> dict[str, bytes]:
    """Samples of a shard, classes by turns; with `more`, JSON beside them."""
    files: dict[str, bytes] = {}
    for number in range(first, first + count):
        files[f"{number:06}.png"] = png(number, mean=60 + 120 * (number % 2))
        files[f"{number:06}.{ending}"] = (
            json.dumps({"label": ("cat", "dog")[number % 2], **more}) if ending == "json" else str(number % 2)
        ).encode()
    return files
