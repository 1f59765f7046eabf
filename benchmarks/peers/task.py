"""What all contestants are given: the same files, weights, preparation and settings."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """The task of one benchmark, as plain data; its files lie in `folder`.

    ``weights.pt`` holds the backbone's state dict under timm's names, ``images.csv`` (image, label, split) what is
    trained on and validated with, ``test.csv`` the held-out images that score every contestant in the end.

    Attributes:
        folder: Of the files.
        model: timm's name.
        weights: What ``tl fit`` calls the same weights.
        size: Side in pixels of the square that the model sees.
        crop_pct: The share of the resized image that the crop keeps.
        interpolation: PIL's name in small letters, such as ``bicubic``.
        mean: Of the normalisation.
        std: Of the normalisation.
        batch: Images per step.
        epochs: Of the head alone, and of the head with the top stages.
        full_epochs: Of the whole model.
        threads: Of torch; and worker processes where a contestant has any.
        reduced: Whether the fast variants compute in bfloat16; not where the hardware only emulates it.
        seed: Of initialisation and shuffling.
    """

    folder: Path
    model: str
    weights: str
    size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int
    epochs: int
    full_epochs: int
    threads: int
    reduced: bool
    seed: int = 0

    @property
    def resized(self) -> int:
        """Side in pixels that an image is resized to before the crop."""
        return math.floor(self.size / self.crop_pct)

    @property
    def images(self) -> Path:
        """The table of training and validation images."""
        return self.folder / "images.csv"

    def rows(self, split: str) -> list[tuple[str, str]]:
        """Path and label of each image.

        Args:
            split: ``train``, ``val`` or ``test``.
        """
        table = self.folder / "test.csv" if split == "test" else self.images
        with table.open(newline="", encoding="utf-8") as file:
            return [(row["image"], row["label"]) for row in csv.DictReader(file) if row["split"] == split]

    @property
    def classes(self) -> list[str]:
        """The labels, sorted."""
        return sorted({label for _, label in self.rows("train")})

    def labels(self, split: str) -> list[int]:
        """The class of each image of a split, as its place among `classes`."""
        places = {label: place for place, label in enumerate(self.classes)}
        return [places[label] for _, label in self.rows(split)]

    def write(self, splits: dict[str, Sequence[tuple[str, str]]]) -> None:
        """Writes the tables and the task itself.

        Args:
            splits: Path and label of the images under ``train``, ``val`` and ``test``.
        """
        for table, names in (("images.csv", ("train", "val")), ("test.csv", ("test",))):
            with (self.folder / table).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("image", "label", "split"))
                writer.writerows((*row, name) for name in names for row in splits[name])
        (self.folder / "task.json").write_text(json.dumps({**asdict(self), "folder": str(self.folder)}))

    @classmethod
    def read(cls, folder: Path) -> "Task":
        """Reads what `write` wrote."""
        values = json.loads((folder / "task.json").read_text())
        return cls(**{**values, "folder": folder, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
