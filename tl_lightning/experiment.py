"""One experiment from its configuration to its run folder: what the command line and notebooks both call."""

import json
import logging
import platform
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping

from tl_lightning.arguments import OptionParser
from tl_lightning.configuration import Configuration
from tl_lightning.console import console
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import Phase
from tl_lightning.metrics import per_class, standard_errors
from tl_lightning.run import Run, load_checkpoint
from tl_lightning.run_folder import RunFolder, write_text
from tl_lightning.tables import class_table, data_line, result_table, stage_table


def fit_command(args: list[str]) -> None:
    """``tl fit``: trains, then evaluates the best weights on the test split."""
    run(args)


def fit(config: str | Path | Mapping[str, Any], /, **overrides: Any) -> Run:  # noqa: ANN401 - values of any key
    """Trains as ``tl fit --config`` does.

    Args:
        config: A YAML file, or its content as a mapping.
        **overrides: Values for dotted keys, such as ``**{"model.lr": 1e-3}``.

    Returns:
        The run: its ``folder``, its ``summary``, and ``predict``.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong.
    """
    first = json.dumps(dict(config)) if isinstance(config, Mapping) else str(config)
    args = ["--config", first]
    for key, value in overrides.items():
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        args += ["--config", json.dumps(nested)]
    return run(args)


def run(args: list[str]) -> Run:
    """Runs one experiment: phases, best weights, test, summary.

    Args:
        args: Command-line arguments such as ``["--config", "configs/elpv.yaml", "--model.lr", "1e-3"]``.

    Returns:
        The finished run.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong; nothing is left behind then.
    """
    started = time.perf_counter()
    _quiet()
    configuration = Configuration(args)
    folder = configuration.folder
    assert folder is not None  # a training configuration always makes one
    experiment = Experiment(configuration, folder, started)
    try:
        experiment.prepare()
    except BaseException:
        folder.discard()
        raise
    try:
        experiment.train()
        experiment.evaluate()
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit of its own.
        experiment.write_summary("interrupted")
        console.print(f"interrupted; what was finished is in {folder.path}")
        raise KeyboardInterrupt from stop
    except BaseException as error:
        experiment.write_summary("failed", error=f"{type(error).__name__}: {error}")
        raise
    experiment.write_summary("completed")
    console.print(f"run folder {folder.path}   ({time.perf_counter() - started:.0f} s in all)")
    return Run(folder)


class Experiment:
    """A training run under way: what it has done so far is what its summary says.

    Args:
        configuration: Everything built from the arguments.
        folder: Where the run writes.
        started: ``time.perf_counter()`` at the start.
    """

    def __init__(self, configuration: Configuration, folder: RunFolder, started: float) -> None:
        self.task = configuration.model
        self.data = configuration.datamodule
        self.trainer = configuration.trainer
        self.configuration = configuration
        self.folder = folder
        self.started = started
        self.phases: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, Any] = {}
        self.timing = {"cache_s": 0.0, "fit_s": 0.0, "test_s": 0.0}

    def prepare(self) -> None:
        """Reads the data and checks everything that can be checked before anything is trained or written."""
        begun = time.perf_counter()
        self.data.prepare_data()
        self.data.setup("fit")
        self.timing["cache_s"] = time.perf_counter() - begun
        self.task.set_class_counts(self.data.class_counts)
        for phase in self.configuration.phases:
            self.task.start_phase(phase)
        write_text(self.folder.config, self.configuration.resolved)
        precision, hyper_parameters = self.trainer.precision, self.task.hparams
        console.print(data_line(self.data.summary()))
        console.print(f"backbone   {hyper_parameters.backbone}, weights {hyper_parameters.weights}")
        console.print(f"machine    {self.trainer.accelerator.name()}, precision {precision}")
        console.print(f"run folder {self.folder.path}")

    def train(self) -> None:
        """Trains phase after phase; each starts from the best weights so far, under a fresh schedule."""
        begun = time.perf_counter()
        try:
            for number, phase in enumerate(self.configuration.phases, 1):
                self._train_phase(phase, number)
                self._restore_best()
        finally:
            self.timing["fit_s"] = time.perf_counter() - begun

    def _train_phase(self, phase: Phase, number: int) -> None:
        first_epoch = self.trainer.current_epoch
        self.task.start_phase(phase)
        rows = self.task.phase_rows()
        title = f"phase {number}/{len(self.configuration.phases)}: {phase.name}, {phase.epochs} epochs"
        console.print(stage_table(phase, rows, title=title))
        self.phases.append(
            {
                "name": phase.name,
                "first_epoch": first_epoch,
                "epochs": 0,
                "train": phase.train,
                "trainable_parameters": sum(row.trainable for row in rows),
                "total_parameters": sum(row.parameters for row in rows),
                "learning_rates": {row.name: row.learning_rate for row in rows if row.learning_rate is not None},
            }
        )
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):  # it ends a phase, not the run, so each phase has its patience
                callback.wait_count = 0
                callback.best_score = torch.tensor(float("inf") if callback.mode == "min" else -float("inf"))
        assert phase.epochs is not None  # parse_phases filled it in
        self.trainer.fit_loop.max_epochs = first_epoch + phase.epochs
        try:
            self.trainer.fit(self.task, datamodule=self.data)
        finally:
            self.phases[-1]["epochs"] = self.trainer.current_epoch - first_epoch
        if self.trainer.current_epoch < first_epoch + phase.epochs:
            console.print(f"phase {phase.name} stopped early after {self.trainer.current_epoch - first_epoch} epochs")

    def _restore_best(self) -> None:
        checkpoint = self.trainer.checkpoint_callback
        path = getattr(checkpoint, "best_model_path", "")
        if path:
            self.task.load_state_dict(load_checkpoint(Path(path))["state_dict"])

    def evaluate(self) -> None:
        """Scores the best weights on the validation split and, where there is one, on the test split."""
        self.results["validation"] = _plain(self.trainer.validate(self.task, datamodule=self.data, verbose=False))
        begun = time.perf_counter()
        split = "validation"
        if self.data.summary()["test"]:
            self.results["test"] = _plain(self.trainer.test(self.task, datamodule=self.data, verbose=False))
            self.timing["test_s"] = time.perf_counter() - begun
            split = "test"
        self.scores = show_result(self.task, self.data, self.results[split], split)

    def write_summary(self, status: str, *, error: str | None = None) -> None:
        """Writes ``summary.json``.

        Args:
            status: ``completed``, ``interrupted`` or ``failed``.
            error: What failed.
        """
        if not self.trainer.is_global_zero:
            return
        checkpoint = self.trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_score", None)
        data = self.data.summary()
        hyper_parameters = self.task.hparams
        summary = {
            "status": status,
            **({} if error is None else {"error": error}),
            "monitor": {
                "name": self.configuration.config.checkpoint.monitor,
                "best": None if best is None else float(best),
            },
            "validation": self.results.get("validation"),
            "test": self.results.get("test"),
            **self.scores,
            "baseline": {"majority_accuracy": self.data.majority_accuracy("test" if data["test"] else "val")},
            "phases": self.phases,
            "timing": {"total_s": time.perf_counter() - self.started, **self.timing},
            "data": data,
            "ledger": {
                "trained": data["train"],
                "selected": data["validation"],
                "calibrated": 0,
                "tested": data["test"],
            },
            "backbone": {
                "name": hyper_parameters.backbone,
                "weights": hyper_parameters.weights,
                "lineage": list(self.task.lineage),
                "preprocess": hyper_parameters.preprocess,
            },
            "seed": self.configuration.config.seed_everything,
            "versions": versions(),
        }
        self.folder.write_summary(summary)


def show_result(task: Any, data: Any, metrics: Mapping[str, float], split: str) -> dict[str, Any]:  # noqa: ANN401
    """Prints the tables of one evaluation and returns what a summary keeps of them.

    Args:
        task: Just evaluated; its confusion matrix is that of the split.
        data: The data module.
        metrics: Plain names to figures.
        split: ``validation`` or ``test``.
    """
    confusion = task.confusion.compute().cpu().numpy()
    errors = standard_errors(confusion)
    majority = data.majority_accuracy("val" if split == "validation" else split)
    scores = per_class(confusion, task.classes)
    title = f"{split}: {int(confusion.sum()):,} pictures"
    console.print(result_table(metrics, errors, majority_accuracy=majority, title=title))
    console.print(class_table(scores, title=f"{split}, class by class"))
    return {
        "standard_errors": errors,
        "per_class": [vars(score) for score in scores],
        "confusion": confusion.tolist(),
    }


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
        Plain names to figures.

    Raises:
        UserError: If there is no such run or checkpoint, or an argument contradicts the checkpoint.
    """
    parser = OptionParser("validate" if split == "validation" else "test", add_help=False)
    parser.add_argument("--run_dir")
    parser.add_argument("--ckpt_path")
    parser.add_argument("--output")
    known, rest = parser.parse_known_args(args)
    for argument in rest:
        if argument.startswith(("--model", "--data.image_size", "--data.classes", "--phases")):
            raise UserError(f"{argument.partition('=')[0]} has no effect here: the checkpoint decides it; leave it out")
    if known.run_dir is not None:
        folder = RunFolder.open(known.run_dir)
        rest = ["--config", str(folder.config), *rest]
        known.ckpt_path = known.ckpt_path or folder.best_checkpoint
    if known.ckpt_path is None:
        raise UserError("name what to evaluate: --run_dir RUN, or --config FILE --ckpt_path FILE")
    _quiet()
    checkpoint = load_checkpoint(Path(known.ckpt_path))
    configuration = Configuration(rest, checkpoint=checkpoint)
    task, data, trainer = configuration.model, configuration.datamodule, configuration.trainer
    task.load_state_dict(checkpoint["state_dict"])
    data.prepare_data()
    data.setup("test")
    if not data.summary()[split]:
        raise UserError(f"{data.summary()['source']} has no {split} split to evaluate on")
    run_split = trainer.validate if split == "validation" else trainer.test
    metrics = _plain(run_split(task, datamodule=data, verbose=False))
    scores = show_result(task, data, metrics, split)
    if known.output is not None:
        write_text(Path(known.output), json.dumps({split: metrics, **scores}, indent=2) + "\n")
    return metrics


def _plain(results: Any) -> dict[str, float]:  # noqa: ANN401 - Lightning's list of one mapping
    return {name.partition("/")[2]: float(value) for name, value in results[0].items()}


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("tl_lightning", "torch", "torchvision", "timm", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _quiet() -> None:
    """Leaves out what Lightning says to people who assemble a trainer by hand."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*args parameter is intended to run from within Python.*",  # tests and notebooks call the command in-process
        ".*does not have many workers.*",  # the decoded pictures make workers needless on a CPU
        ".*in eval mode at the start of training.*",  # frozen stages are, on purpose
        ".*is smaller than the logging interval.*",
        ".*LeafSpec.* is deprecated.*",  # Lightning's own use of torch
        ".*Checkpoint directory .* exists and is not empty.*",  # the second phase writes where the first did
    ):
        warnings.filterwarnings("ignore", message=message)
