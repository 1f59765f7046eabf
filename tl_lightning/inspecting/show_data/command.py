"""``tl show_data``: a page that shows what the model will see."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from rich import table as rich_table

from tl_lightning.core.class_path import resolve
from tl_lightning.core.console import console, new_table, track
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.pages.page import Bar, Bars, Facts, Part, Strips, Table, TableRow, Text, to_html
from tl_lightning.core.quiet import quiet
from tl_lightning.data.images.augmentations import title
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.images.store import ImageStore
from tl_lightning.data.samples import SPLITS, name_some
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import refuse_run_dir
from tl_lightning.experiment.tables import data_line, split_table
from tl_lightning.inspecting.show_data.image_sizes import read_headers, size_bars, size_line
from tl_lightning.inspecting.show_data.strips import Group, Shown, choose_groups, groups_of
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks.objectives import OBJECTIVES

MOST_NUMBERS = 12  # whose histograms are shown
MOST_ROWS = 200  # of counts
MOST_PER_CLASS = 30
BINS = 10  # of a number's histogram
LEGEND = (
    "drawn by chance from the training split: the whole file; as prepared for evaluation and prediction; and augmented "
    "as the first epochs of a training see it, mixup and CutMix left out"
)


class DataConfiguration(Configuration):
    """A configuration of which the data module alone is built: no weights are read or fetched.

    Args:
        args: As ``tl fit`` takes them.
    """

    datamodule: ImageDataModule

    def __init__(self, args: list[str]) -> None:
        super().__init__(args, folder=None)

    def instantiate_classes(self) -> None:
        """Builds the data module."""
        config = self.config.data
        kind = resolve(config.class_path, "data.class_path")
        if not issubclass(kind, ImageDataModule):
            raise UserError(f"tl show_data shows images of an ImageDataModule, and data is {config.class_path}")
        self.datamodule = kind(**config.init_args.as_dict())


def count_bars(data: ImageDataModule) -> Iterator[Bars]:
    """How many images of each class each split has; of numbers, how many in each part of their range."""
    samples, columns = data.samples, ["train", "validation", "test"]
    if OBJECTIVES[samples.problem_type].counts:
        counts = np.stack([samples.counts(data.splits[name]) for name in SPLITS], axis=1).tolist()
        rows = [Bar(name, count) for name, count in zip(samples.classes, counts, strict=True)]
        left = f"the first {MOST_ROWS} of {len(rows):,}" if len(rows) > MOST_ROWS else ""
        yield Bars("images in each split", left, [OBJECTIVES[samples.problem_type].noun, *columns], rows[:MOST_ROWS])
        return
    for name, column in list(zip(samples.classes, samples.labels.T, strict=True))[:MOST_NUMBERS]:
        edges = np.histogram_bin_edges(column, BINS)
        counts = np.stack([np.histogram(column[data.splits[split]], edges)[0] for split in SPLITS], axis=1).tolist()
        ranges = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
        rows = [Bar(title, count) for title, count in zip(ranges, counts, strict=True)]
        yield Bars(f"{name} in each split", "", [name, *columns], rows)


def number_table(data: ImageDataModule) -> rich_table.Table:
    """The range and the quartiles of each number in each split."""
    table = new_table("numbers", "number", "split", numbers=("lowest", "quartile", "median", "quartile", "highest"))
    for name, column in zip(data.classes, data.samples.labels.T, strict=True):
        for split, word in zip(SPLITS, ("train", "validation", "test"), strict=True):
            if len(data.splits[split]):
                figures = np.quantile(column[data.splits[split]], [0, 0.25, 0.5, 0.75, 1])
                table.add_row(name, word, *(f"{figure:.4g}" for figure in figures))
    return table


def page_parts(configuration: DataConfiguration, store: ImageStore, *, per_class: int) -> list[Part]:
    """Chooses the images and puts the page together; what stands out on it is printed too.

    Args:
        configuration: The data module has no broken images in its splits any more.
        store: The decoded images.
        per_class: How many images of each class.
    """
    data = configuration.datamodule
    samples, preprocess = data.samples, ImagePreprocess.from_dict(data.prepared)
    headers = read_headers(samples.paths)
    known = [header for header in headers if header]
    groups = groups_of(samples, data.splits["train"])
    chosen = choose_groups(groups)
    drawn = []
    for number, group in enumerate(chosen):
        rng = np.random.default_rng((data.seed, number))
        drawn.append(np.sort(rng.choice(group.rows, min(per_class, len(group.rows)), replace=False)))
    shown = Shown(data, store, headers, sum(map(len, drawn)))
    parts: list[Part] = [Facts(_facts(data, preprocess, configuration))]
    for warning in _warnings(data, store, groups, chosen):
        console.print(f"note       {warning}", style="yellow")
        parts.append(Text(warning, "warning"))
    parts += count_bars(data)
    if known:
        console.print(f"sizes      {size_line(known, preprocess)}")
        parts.append(size_bars(known, preprocess))
    if store.broken:
        rows = [TableRow([str(samples.paths[index]), reason]) for index, reason in store.broken.items()]
        parts.append(Table("images that cannot be read", [("file", False), ("reason", False)], rows))
    if chosen:
        parts.append(Text(LEGEND, title="images"))
    for group, indices in zip(track(chosen, "drawing images", total=len(chosen)), drawn, strict=True):
        strips = [shown.strip(int(index)) for index in indices]
        parts.append(Strips(group.title, f"{len(group.rows):,} in training", strips, small=preprocess.size < 100))
    return parts


def _facts(
    data: ImageDataModule, preprocess: ImagePreprocess, configuration: DataConfiguration
) -> list[tuple[str, str]]:
    numbers = [" ".join(f"{value:.3g}" for value in values) for values in (preprocess.mean, preprocess.std)]
    modes = {
        "center": "shorter side resized to {}, the middle cut out",
        "squash": "both sides resized to {}, the middle cut out",
        "border": "longer side resized to {}, the rest filled",
    }
    made = modes[preprocess.crop_mode].format(preprocess.resized)
    facts = [
        ("data", data_line(data.summary()).removeprefix("data").strip()),
        ("split", f"{data.split}, seed {data.split_seed}"),
        ("model", str(configuration.config.model.init_args.backbone)),
        ("sees", f"{preprocess.size} x {preprocess.size} pixels: {made} ({preprocess.interpolation})"),
        ("normalised", f"mean {numbers[0]}, standard deviation {numbers[1]}"),
        ("augmentation", title(data.augmentation)),
    ]
    for phase in configuration.phases:
        name = phase.name or phase.train
        if phase.augmentation is not None:
            facts.append((f"phase {name}", f"has its own augmentation: {title(phase.augmentation)}"))
        elif phase.keeps_backbone and phase.views is None and data.augmentation != "none":
            facts.append((f"phase {name}", "trains the head alone, on images as prepared"))
    return facts


def _warnings(
    data: ImageDataModule, store: ImageStore, groups: Sequence[Group], chosen: Sequence[Group]
) -> Iterator[str]:
    if store.broken:
        happens = "tl fit leaves them out" if data.on_error == "skip" else "tl fit stops at them"
        yield f"{len(store.broken):,} of {len(data.samples):,} images cannot be read, as the page lists; {happens}"
    if data.on_leak == "move":
        yield "data.on_leak is move: these are the counts before that, as copies are looked for by tl fit and tl leaks"
    yield from data.notes()
    names = {group.title for group in chosen}
    left = [group.title for group in groups if group.title not in names]
    if left:
        yield f"images are shown of {len(chosen)} out of {len(groups):,}; left out: {name_some(left, most=50)}"


def show_data_command(args: list[str]) -> None:
    """``tl show_data``: writes a page with images as the model will see them, counts and sizes.

    Args:
        args: ``--output NAME``, ``--per_class N`` and everything that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, or the data cannot be used; images that cannot be read are shown as such.
    """
    parser = OptionParser(
        "show_data",
        "Writes one HTML page for you to look at before you train: images of every class as the model will see them, "
        "plain and augmented, how many there are in each split, how large the files are, and which cannot be read. "
        "Takes every option of tl fit too (tl fit --help).",
    )
    parser.add_argument("--output", default="data", metavar="NAME", help="writes NAME.html (default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=4, help="images of each class (default: %(default)s)")
    options, rest = parser.parse_known_args(args)
    file = writable(options.output, suffix=".html")
    if not 1 <= options.per_class <= MOST_PER_CLASS:
        raise UserError(f"--per_class is {options.per_class}; it must be from 1 to {MOST_PER_CLASS}")
    refuse_run_dir(rest, "show_data")
    quiet()
    with console.status("reading the configuration"):
        configuration = DataConfiguration(rest)
    data = configuration.datamodule
    # The data module's own setup would stop at broken images, which are to be shown.
    store = ImageStore.open(data.samples.paths, ImagePreprocess.from_dict(data.prepared))
    data.leave_out(store.broken)
    console.print(data_line(data.summary()))
    console.print(split_table(data.summary()) if OBJECTIVES[data.samples.problem_type].counts else number_table(data))
    parts = page_parts(configuration, store, per_class=options.per_class)
    write_text(file, to_html(f"{data.source}: what the model will see", parts))
    console.print(f"page in {file}: open it in a browser")
