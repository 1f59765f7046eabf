"""One experiment from its configuration to its run folder: what the command line and notebooks both call."""

import json
import os
import platform
import signal
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping

from tl_lightning.configuration import Configuration, quiet
from tl_lightning.console import console
from tl_lightning.errors import UserError
from tl_lightning.evaluation import score, show_result
from tl_lightning.finetuning.phases import Phase
from tl_lightning.run import Run, load_checkpoint
from tl_lightning.run_folder import RunFolder, write_text
from tl_lightning.tables import data_line, stage_table


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
    first = json.dumps(dict(config), default=os.fspath) if isinstance(config, Mapping) else str(config)
    args = ["--config", first]
    for key, value in overrides.items():
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        args += ["--config", json.dumps(nested, default=os.fspath)]
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
    quiet()
    with console.status("building the model"):
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
        # Lightning turns Ctrl-C into an exit of its own, after which a notebook's process would be deaf to the next.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        experiment.write_summary("interrupted")
        console.print(f"interrupted; what was finished is in {folder.path}")
        raise KeyboardInterrupt from stop
    except BaseException as error:
        experiment.write_summary("failed", error=f"{type(error).__name__}: {error}")
        if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
            raise UserError(" ".join(str(error).split())) from error
        raise
    finally:
        experiment.close_loggers()
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
        if self.configuration.implied:
            implied = ", ".join(f"model.{name} {value}" for name, value in self.configuration.implied.items())
            console.print(f"phases     {self.configuration.config.phases}, which means {implied}")
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
        self.results["validation"] = score(self.configuration, "validation")
        begun = time.perf_counter()
        split = "validation"
        if self.data.summary()["test"]:
            self.results["test"] = score(self.configuration, "test")
            self.timing["test_s"] = time.perf_counter() - begun
            split = "test"
        self.scores = show_result(self.task, self.data, self.results[split], split)

    def close_loggers(self) -> None:
        """Ends what a logger has open (a run of W&B's), so that the next experiment of this process gets its own."""
        for logger in self.trainer.loggers:
            finish = getattr(getattr(logger, "experiment", None), "finish", None)
            if callable(finish):
                finish()

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


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("tl_lightning", "torch", "torchvision", "timm", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
