"""Scoring a checkpoint: the metrics of a split, their noise, and the tables that show them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tl_lightning.backbones.engines import pick_engine
from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.core.console import console
from tl_lightning.core.files import user_path, write_text
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.quiet import quiet
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.samples import EVALUATION, name_some
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.earlier import configuration_of, precision_of
from tl_lightning.experiment.tables import result_table, score_table
from tl_lightning.experiment.trained_on import check_unseen, training_targets
from tl_lightning.metrics.words import TABLES, in_words
from tl_lightning.preprocess.image import SETTINGS

DECIDED = tuple(f"--data.{name}" for name in SETTINGS)


def refuse_decided(arguments: Sequence[str]) -> None:
    """Says which of the options have no effect on an evaluation.

    Args:
        arguments: What is left for the configuration.

    Raises:
        UserError: If one is of the model or of what the checkpoint decides.
    """
    for argument in arguments:
        if argument.startswith(("--model", *DECIDED, "--data.classes", "--phases")):
            raise UserError(f"{argument.partition('=')[0]} has no effect here: the checkpoint decides it; leave it out")


def score(configuration: Configuration, split: str) -> dict[str, float]:
    """Runs the model over a split.

    Args:
        configuration: With the weights to score in its model, and its data set up.
        split: ``validation`` or ``test``.

    Returns:
        The value of each metric, by its plain name.
    """
    run_split = configuration.trainer.validate if split == "validation" else configuration.trainer.test
    task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
    samples = len(data.samples) if isinstance(data, TransferDataModule) else 0
    device = trainer.strategy.root_device
    engine = pick_engine(configuration.config.engine, task.transferred, samples=samples, device=device)
    with task.evaluating_by(engine, say=trainer.is_global_zero):
        (logged,) = run_split(task, datamodule=data, verbose=False)
    return {name.partition("/")[2]: float(value) for name, value in logged.items()}


def show_result(
    task: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    metrics: Mapping[str, float],
    split: str,
    *,
    training: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """Prints the tables of one evaluation and returns what a summary keeps of them.

    Args:
        task: Just evaluated on the split.
        data: The data module.
        metrics: The value of each metric, by its plain name.
        split: ``validation`` or ``test``.
        training: The targets of the training samples by head, for the baseline; `None` where they are not known.
    """
    name = "val" if split == "validation" else split
    groups, several = data.groups(name), len(task.objectives) > 1
    details: dict[str, Any] = {"standard_errors": {}}
    for head, found in task.predicted(name).items():
        objective, prefix = task.objectives[head], f"{head}/" if several else ""
        own = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
        rows = np.searchsorted(data.splits[name], found.indices.numpy())  # those that have this target
        report = objective.report(found.predictions.float(), found.labels, None if groups is None else groups[rows])
        baseline = {} if training is None else objective.baseline(training[head], found.labels)
        title = f"{split}{f', {head}' if several else ''}: {len(found.labels):,} images"
        console.print(result_table(own, report["standard_errors"], baseline, objective.baseline_name, title=title))
        for table, word in TABLES.items():
            if table in report:
                shown = f"{split}, {f'{head}, ' if several else ''}{word} by {word}"
                console.print(score_table(report[table], word, title=shown))
                absent = [repr(row["name"]) for row in report[table] if _says_nothing(row)]
                if absent:
                    said = f"no {split} image tells how good {word} {name_some(absent)} is: left out of means"
                    console.print(f"note       {said}", style="yellow")
        if blank := [in_words(key) for key, value in own.items() if math.isnan(value)]:
            console.print(f"note       these {split} images give no value to {', '.join(blank)}", style="yellow")
        errors = report.pop("standard_errors")
        details["standard_errors"] |= {prefix + key: value for key, value in errors.items()}
        details |= {prefix + key: value for key, value in report.items()}
    return details


def _says_nothing(row: Mapping[str, Any]) -> bool:
    """Whether a class or label has no image, or a number does not vary."""
    return row.get("examples") == 0 or math.isnan(row.get("r2", 0.0))


def baseline(
    task: Any,  # noqa: ANN401
    data: Any,  # noqa: ANN401
    split: str,
    *,
    training: Mapping[str, Tensor],
) -> dict[str, float]:
    """The metrics of the baseline, as the summary names them: ``majority_accuracy`` and the like.

    Args:
        task: Says what the baseline is.
        data: The data module.
        split: ``val`` or ``test``.
        training: The targets of the training samples, by head.
    """
    targets = targets_by_head(task, data, split)
    several = len(task.objectives) > 1
    found: dict[str, float] = {}
    for head, objective in task.objectives.items():
        prefix = f"{head}/" if several else ""
        word = objective.baseline_name.split()[0]
        metrics = objective.baseline(training[head], targets[head])
        found |= {f"{prefix}{word}_{name}": value for name, value in metrics.items()}
    return found


def targets_by_head(task: Any, data: Any, split: str) -> dict[str, Tensor]:  # noqa: ANN401
    """The targets of a split by the name of each head, without the samples that lack them.

    Args:
        task: Says what the heads are.
        data: The data module.
        split: ``train``, ``val`` or ``test``.
    """
    labels = data.targets(split).labels
    if not isinstance(labels, Mapping):
        return {head: labels for head in task.objectives}
    return {head: labels[head][objective.known(labels[head])] for head, objective in task.objectives.items()}


def validate_command(args: list[str]) -> None:
    """``tl validate``: scores a checkpoint on the validation split."""
    evaluate("validation", args)


def test_command(args: list[str]) -> None:
    """``tl test``: scores a checkpoint on the test split."""
    evaluate("test", args)


def evaluate(split: str, args: list[str]) -> dict[str, float]:
    """Scores a checkpoint, which decides the model, the classes and the preprocessing.

    Args:
        split: ``validation`` or ``test``.
        args: ``--run_dir R``, or ``--config FILE --ckpt_path FILE``; ``--output FILE.json``; and ``--data.*`` and
            ``--trainer.*`` to change what is read and how it runs.

    Returns:
        The value of each metric, by its plain name.

    Raises:
        UserError: If there is no such run or checkpoint, an argument contradicts the checkpoint, or images are to be
            scored that the run has seen.
    """
    parser = OptionParser(
        "validate" if split == "validation" else "test",
        f"Scores a run on its {split} split. --data.* and --trainer.* options, as of tl fit, change what is read and "
        "how it runs; the model, the classes and the preprocessing are the checkpoint's.",
    )
    parser.add_argument("--run_dir", help="the run whose best weights, data and settings are used")
    parser.add_argument("--ckpt_path", help="a checkpoint, instead of the run's best")
    parser.add_argument("--config", action="append", default=[], help="a configuration, instead of the run's own")
    parser.add_argument(
        "--on_seen",
        choices=("stop", "skip", "warn"),
        default="stop",
        help="what to do about samples that the run was trained on or chosen by: stop before scoring, leave them out, "
        "or score them all the same (default: stop)",
    )
    parser.add_argument("--output", type=writable, help="a JSON file to write the metrics to")
    known, rest = parser.parse_known_args(args)
    refuse_decided(rest)
    configured = [argument for config in known.config for argument in ("--config", config)]
    if known.run_dir is not None:
        folder = RunFolder.open(known.run_dir)
        configured = [*configuration_of(folder), *configured]
        known.ckpt_path = known.ckpt_path or folder.best_checkpoint
    if known.ckpt_path is None:
        raise UserError("name what to evaluate: --run_dir RUN, or --config FILE --ckpt_path FILE")
    quiet()
    checkpoint = load_checkpoint(user_path(known.ckpt_path))
    if "run" not in checkpoint and known.run_dir is not None:  # of version 0.1
        checkpoint["run"] = {"split_digest": folder.summary["data"]["split_digest"]}
    configuration = Configuration([*configured, *precision_of(checkpoint), *rest], checkpoint=checkpoint)
    task, data = configuration.model, configuration.datamodule
    task.load_state_dict(checkpoint["state_dict"])
    data.prepare_data()
    data.setup("test")
    part, own = "val" if split == "validation" else split, configuration.own_split
    if not len(data.splits[part]):
        raise UserError(f"{data.source} has no {split} split to evaluate on")
    if not own and data.samples.split is None and data.split == EVALUATION:
        count = len(data.splits[part])
        console.print(f"note       {data.source} is not what the run began with: all {count:,} {data.noun} are scored")
    run = None if known.run_dir is None else folder
    check_unseen(data, part, checkpoint=checkpoint, own=own, on_seen=known.on_seen, folder=run)
    training = targets_by_head(task, data, "train") if own else training_targets(checkpoint)
    metrics = score(configuration, split)
    scores = show_result(task, data, metrics, split, training=training)
    if known.output is not None:
        constant = {} if training is None else baseline(task, data, part, training=training)
        write_text(known.output, json.dumps({split: metrics, **scores, "baseline": constant}, indent=2) + "\n")
    return metrics
