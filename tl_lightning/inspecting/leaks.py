"""``tl leaks``: which images are there more than once, also as sections of others, in which splits."""

import numpy as np
from numpy.typing import NDArray

from tl_lightning.backbones import CannotSplit
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.core.console import console
from tl_lightning.core.files import write_csv
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.leaks import Duplicate
from tl_lightning.errors import UserError, shown
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import assemble, read_data, refuse
from tl_lightning.experiment.tables import leak_table
from tl_lightning.feature_cache.extractor import Extractor, every_stage

DECIDED = {
    "--run_dir": "tl leaks makes no run folder",
    "--data.on_leak": "tl leaks lists copies and moves none",
    "--data.on_error": "tl leaks leaves out images that cannot be read",
}


def leaks_command(args: list[str]) -> None:
    """``tl leaks``: lists images that are there more than once.

    Args:
        args: ``--output FILE``, ``--crops false`` and everything that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, or something that ``tl fit`` would say.
    """
    parser = OptionParser(
        "leaks",
        "Lists images that are there more than once: the same file, the same pixels, re-encoded, mirrored or turned, "
        "or a section of another. Takes every option of tl fit too (tl fit --help).",
    )
    parser.add_argument("--output", type=writable, default="leaks.csv", help="the CSV file to write (%(default)s)")
    parser.add_argument(
        "--crops",
        choices=("true", "false"),
        default="true",
        help="look for sections, by one forward pass (%(default)s)",
    )
    options, rest = parser.parse_known_args(args)
    refuse(rest, DECIDED)
    configuration = assemble([*rest, "--data.on_leak", "ignore", "--data.on_error", "skip"], command="leaks")
    data = configuration.datamodule
    read_data(configuration)
    features = _features(configuration) if options.crops == "true" else None
    duplicates = data.duplicates(data.store, features)
    report = data.report_leaks(duplicates)
    if not duplicates:
        console.print("no image is there more than once")
    else:
        console.print(leak_table(report, title="images that are there more than once"))
    write_csv(options.output, _rows(data, duplicates))
    console.print(f"{len(duplicates):,} {'pair' if len(duplicates) == 1 else 'pairs'} written to {options.output}")


def _features(configuration: Configuration) -> NDArray[np.float32]:
    """What the backbone makes of every readable image, ``(n, num_features)``; 0 for broken ones."""
    task, data = configuration.model, configuration.datamodule
    task.to(configuration.trainer.strategy.root_device)
    extractor = Extractor(task, data, configuration.trainer, configuration.config.engine)
    readable = np.setdiff1d(np.arange(len(data.samples)), list(data.store.broken))
    view = data.plain_view

    try:  # as tl probe does, so that the two share what they compute
        store = extractor.extract(every_stage(task.transferred), [(view, readable)])[view.name]
    except (CannotSplit, NoRoom) as error:
        raise UserError(f"{error}; --crops false looks for copies only") from error
    last = store.rows(readable, len(task.stages) - 1)
    features = np.zeros((len(data.samples), last.shape[1]), dtype=np.float32)
    features[readable] = last[:].float().numpy()
    return features


def _rows(data: TransferDataModule, duplicates: list[Duplicate]) -> list[list[object]]:
    split_of = np.full(len(data.samples), "", dtype=object)  # copies are of images that can be read; some are unused
    for name, members in data.splits.items():
        split_of[members] = name
    labels, names = data.samples.targets_in_words()
    rows: list[list[object]] = [["kind", *(f"{what}_{k}" for k in (1, 2) for what in ("path", "split", "label"))]]
    for pair in duplicates:
        cells = []
        for index in (pair.first, pair.second):
            cells += [shown(data.samples.paths[index]), split_of[index], names[labels[index]]]
        rows.append([pair.kind, *cells])
    return rows
