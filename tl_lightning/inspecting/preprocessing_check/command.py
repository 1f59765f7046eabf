"""The command: its options, its table, and the worst in one sentence."""

import json
from dataclasses import asdict

import numpy as np
from rich.table import Table

from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.core.console import console, new_table
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.earlier import configuration_of, precision_of
from tl_lightning.experiment.evaluation import refuse_decided
from tl_lightning.experiment.preamble import assemble
from tl_lightning.experiment.trained_on import check_unseen
from tl_lightning.inspecting.preprocessing_check.check import Checked, check_preprocessing
from tl_lightning.metrics.words import in_words
from tl_lightning.preprocess.image import ImagePreprocess

SPLITS = {"validation": "val", "test": "test"}


def worst(checked: Checked, *, points: bool) -> str:
    """Says in a sentence what would cost most.

    Args:
        checked: What `check_preprocessing` found.
        points: Whether the metric is a share, of which people speak in points.
    """
    costly = next((result for result in checked.results if result.verdict == "worse"), None)
    if costly is None:
        return "no other preparation of the images would cost more than the noise"
    cost = f"{100 * costly.cost:.1f} points of" if points else f"{costly.cost:.3g} in"
    beside = f"{costly.metrics[checked.metric]:.3f} instead of {checked.results[0].metrics[checked.metric]:.3f}"
    return f"{costly.name} would cost {cost} {in_words(checked.metric)}: {beside}"


def _table(checked: Checked, split: str) -> Table:
    title = (
        f"{checked.images:,} {split} images, prepared otherwise: what it costs, and the share of predictions changed"
    )
    table = new_table(title, "preparation", numbers=(in_words(checked.metric), "cost", "changed"))
    table.add_column("")
    for result in checked.results:
        compared = bool(result.metrics) and result.verdict not in ("right", "the same")
        value = f"{result.metrics[checked.metric]:.4f}" if result.metrics else ""
        cost = f"{result.cost:.3f} ± {result.standard_error:.3f}" if compared else ""
        changed = f"{result.changed:.1%}" if compared else ""
        style = {"right": "bold", "worse": None}.get(result.verdict, "dim")
        table.add_row(
            result.name, value, cost, changed, "" if result.verdict == "right" else result.verdict, style=style
        )
    return table


def check_command(args: list[str]) -> None:
    """``tl check_preprocessing``: scores a run's best weights on images prepared rightly and wrongly.

    Args:
        args: ``--run_dir R``, and perhaps ``--split``, ``--limit``, ``--output``, ``--data.*`` and ``--trainer.*``.

    Raises:
        UserError: If there is no such run, or an option is wrong.
    """
    parser = OptionParser(
        "check_preprocessing",
        "Measures what wrong preprocessing would cost a run: other normalisation, BGR, other crops, sizes and "
        "interpolations, on the same images. --data.* and --trainer.* options, as of tl fit, change what is read and "
        "how it runs.",
    )
    parser.add_argument("--run_dir", required=True, help="the run whose best weights, data and settings are used")
    parser.add_argument("--split", choices=list(SPLITS), default="validation", help="(default: %(default)s)")
    parser.add_argument("--limit", type=int, default=1000, help="images at most, drawn by chance (default: 1000)")
    parser.add_argument("--output", type=writable, help="a JSON file to write the metrics to")
    known, rest = parser.parse_known_args(args)
    if known.limit < 1:
        raise UserError(f"--limit is {known.limit}; it must be 1 or more")
    refuse_decided(rest)
    folder = RunFolder.open(known.run_dir)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    options = [*configuration_of(folder), *precision_of(checkpoint), *rest]
    configuration = assemble(options, command="check_preprocessing", checkpoint=checkpoint)
    task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
    task.load_state_dict(checkpoint["state_dict"])
    own = configuration.own_split
    if data.on_leak == "move" or not own:  # the split depends on what the images show
        data.prepare_data()
        data.setup("validate")
    part = SPLITS[known.split]
    if not len(data.splits[part]):
        raise UserError(f"{data.source} has no {known.split} split to check on")
    if not own:
        check_unseen(data, part, checkpoint=checkpoint, own=own, folder=folder)
    rows = data.splits[part]
    if len(rows) > known.limit:
        rows = np.sort(np.random.default_rng(0).choice(rows, known.limit, replace=False))
    right, engine = ImagePreprocess.from_dict(data.prepared), configuration.config.engine
    checked = check_preprocessing(task, data, trainer, rows, own=right, engine=engine)
    console.print(_table(checked, known.split))
    if checked.broken:
        console.print(f"{checked.broken:,} images that cannot be read were left out", style="yellow")
    console.print(worst(checked, points=task.objective.in_points))
    if known.output is not None:
        write_text(known.output, json.dumps({"split": known.split, **asdict(checked)}, indent=2) + "\n")
