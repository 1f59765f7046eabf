"""One experiment from its configuration to its run folder: what the command line and notebooks both call."""

import json
import math
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping

from tl_lightning.arguments import OptionParser
from tl_lightning.backbones import preprocess_of
from tl_lightning.callbacks import LastCheckpoint, MetricsCsv
from tl_lightning.checkpoints import latest_checkpoint, load_checkpoint
from tl_lightning.configuration import Configuration, process_rank, quiet
from tl_lightning.console import console
from tl_lightning.errors import UserError
from tl_lightning.evaluation import score, show_result
from tl_lightning.final_weights import FinalWeights, keep_start
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.schedules import parse_schedule
from tl_lightning.guards import Caution, cautions
from tl_lightning.memory import divide_batches
from tl_lightning.run import Run
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
    return _run(args, folder="new", checkpoint=None)


def resume_command(args: list[str]) -> None:
    """``tl resume``: goes on where a run stopped, to the weights that it would have ended with."""
    parser = OptionParser("resume", resume_command.__doc__)
    parser.add_argument("--run_dir", required=True, help="the folder of the run that stopped")
    known, rest = parser.parse_known_args(args)
    for option in rest:
        if re.match("--?[a-zA-Z]", option) and not option.startswith("--trainer."):
            parser.error(f"{option.partition('=')[0]}: only --trainer.* options may change, such as --trainer.devices")
    resume(known.run_dir, rest)


def resume(run_dir: str | Path, args: Sequence[str] = ()) -> Run:
    """Goes on with a run that was interrupted, killed or failed, to the same final weights as if it had not been.

    Args:
        run_dir: Its folder.
        args: ``--trainer.*`` options to change; a run resumed on other hardware ends near its weights, not at them.

    Returns:
        The finished run.

    Raises:
        UserError: If the run is complete, its checkpoints cannot be read, or its data have changed.
    """
    folder = RunFolder.open(run_dir)
    if (folder.path / "summary.json").is_file() and folder.summary["status"] == "completed":
        raise UserError(f"{folder.path} is complete; there is nothing to resume (tl test --run_dir scores it again)")
    for leftover in folder.checkpoints.glob(".*.tmp"):  # of a write that was cut off
        leftover.unlink()
    return _run(["--config", str(folder.config), *args], folder=folder, checkpoint=latest_checkpoint(folder))


def _run(args: list[str], *, folder: RunFolder | Literal["new"], checkpoint: Path | None) -> Run:
    started = time.perf_counter()
    console.quiet = console.quiet or process_rank() != 0
    quiet()
    with console.status("building the model"):
        configuration = Configuration(args, folder=folder)
    experiment = Experiment(configuration, started, checkpoint)
    try:
        experiment.prepare()
    except BaseException:
        if configuration.folder is not None and configuration.created:
            configuration.folder.discard()
        raise
    try:
        experiment.train()
        experiment.evaluate()
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit of its own, after which a notebook's process would be deaf to the next.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        experiment.write_summary("interrupted")
        path = experiment.folder.path
        console.print(f"interrupted; tl resume --run_dir {path} goes on with what is there")
        raise KeyboardInterrupt from stop
    except BaseException as error:
        experiment.write_summary("failed", error=f"{type(error).__name__}: {error}")
        if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
            raise UserError(" ".join(str(error).split())) from error
        raise
    finally:
        experiment.close_loggers()
    experiment.write_summary("completed")
    console.print(f"run folder {experiment.folder.path}   ({time.perf_counter() - started:.0f} s in all)")
    return Run(experiment.folder)


class Experiment:
    """A training run under way: what it has done so far is what its summary says, and what its checkpoints remember.

    Args:
        configuration: Everything built from the arguments.
        started: ``time.perf_counter()`` at the start.
        checkpoint: The state to go on from; `None` at the beginning.
    """

    def __init__(self, configuration: Configuration, started: float, checkpoint: Path | None) -> None:
        self.task = configuration.model
        self.data = configuration.datamodule
        self.trainer = configuration.trainer
        self.configuration = configuration
        self.started = started
        self.checkpoint = checkpoint
        self.phases: list[dict[str, Any]] = []
        self.position = 0  # among the configured phases
        self.cooling: float | None = None  # in a cool-down, the share of the phase's rates that it starts from
        self.averages: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, Any] = {}
        self.timing = {"cache_s": 0.0, "fit_s": 0.0, "test_s": 0.0}
        self._epochs, self._stopped, self._before = 0, False, 0.0  # of the checkpoint; the last is seconds of training
        self._begun = started
        self.task.seed = int(configuration.config.seed_everything)
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(LastCheckpoint(every=configuration.config.save_every, state=self._state))
        self._stopping = next((callback for callback in callbacks if isinstance(callback, EarlyStopping)), None)
        if self._stopping is not None:
            self._patience, self._min_delta = self._stopping.patience, abs(self._stopping.min_delta)

    @property
    def folder(self) -> RunFolder:
        """Where the run writes; the first process knows it from the start, the others once they have trained."""
        if self.configuration.folder is not None:
            return self.configuration.folder
        return RunFolder(Path(self.trainer.checkpoint_callback.dirpath or "").parent)  # type: ignore[union-attr]

    def prepare(self) -> None:
        """Reads the data and checks everything that can be checked before anything is trained or written."""
        begun = time.perf_counter()
        self.data.prepare_data()
        self.data.setup("fit")
        self.timing["cache_s"] = time.perf_counter() - begun
        self.task.set_class_counts(self.data.class_counts)
        for phase in self.configuration.phases:
            self.task.start_phase(phase)
            try:
                self.data.set_augmentation(phase.augmentation)
            except UserError as error:
                raise UserError(f"phase {phase.name}: {error}") from error
        config, hyper_parameters = self.configuration.config, self.task.hparams
        if config.wise_ft is not False:
            self._check_wise_ft()
        if self.configuration.created:
            write_text(self.folder.config, self.configuration.resolved)
        console.print(data_line(self.data.summary()))
        console.print(f"backbone   {hyper_parameters.backbone}, weights {hyper_parameters.weights}")
        if self.configuration.implied:
            implied = ", ".join(f"model.{name} {value}" for name, value in self.configuration.implied.items())
            console.print(f"phases     {config.phases}, which means {implied}")
        processes = f", {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        console.print(f"machine    {self.trainer.accelerator.name()}{processes}, precision {self.trainer.precision}")
        if self.configuration.folder is not None:
            console.print(f"run folder {self.folder.path}")
        for caution in self._cautions():
            console.print(f"caution    {caution.text}", style="yellow")
        self._take_up()
        divide_batches(self.task, self.data, self.trainer, self.configuration.phases)

    def _check_wise_ft(self) -> None:
        if self.task.hparams.weights == "none":
            raise UserError("wise_ft goes back towards the pretrained weights, but model.weights is none")
        if all(_frozen(phase) for phase in self.configuration.phases):
            raise UserError("wise_ft goes back towards the pretrained weights, but no phase trains the backbone")

    def _cautions(self) -> list[Caution]:
        hyper_parameters = self.task.hparams
        own = preprocess_of(hyper_parameters.backbone, hyper_parameters.weights).to_dict()
        found = cautions(
            name=self.configuration.run_name,
            phases=self.configuration.phases,
            pretrained=hyper_parameters.weights != "none",
            top_rate=max(rate for name, rate in self.task.rates.items() if name != "head"),
            image_size=self.task.preprocess["size"],
            own_size=own["size"],
            preprocess=self.task.preprocess,
            own_preprocess=own,
            training_pictures=self.data.summary()["train"],
            patience=math.inf if self._stopping is None else self._stopping.patience,
        )
        return [caution for caution in found if caution.key not in self.configuration.config.silence]

    def train(self) -> None:
        """Trains phase after phase; each starts from the best weights so far, under a fresh schedule."""
        self._begun = time.perf_counter()
        try:
            while self.position < len(self.configuration.phases):
                phase = self.configuration.phases[self.position]
                if self.cooling is None:
                    self._train_phase(phase)
                    stopped = self.phases[-1]["epochs"] < (phase.epochs or 0)
                    self.cooling = self.task.share_of_rates() if stopped and phase.cooldown else None
                    self._restore_best()
                if self.cooling is not None:
                    self._train_phase(_cooling_down(phase, self.cooling))
                    self._restore_best()
                self.position, self.cooling = self.position + 1, None
        finally:
            self.timing["fit_s"] = self._fit_seconds()

    def _fit_seconds(self) -> float:
        return self._before + time.perf_counter() - self._begun

    def _state(self) -> dict[str, Any]:
        """What a checkpoint remembers of the run."""
        return {
            "phases": self.phases,
            "position": self.position,
            "cooling": self.cooling,
            "stopped": bool(self.trainer.should_stop),
            "fit_s": self._fit_seconds(),
            "split_digest": self.data.split_digest,
            "micro_batch_size": self.data.micro_batch_size,
        }

    def _take_up(self) -> None:
        """Goes back to the state of the checkpoint."""
        step = 0
        if self.checkpoint is not None:
            content = load_checkpoint(self.checkpoint)
            if "run" not in content:
                raise UserError(f"{self.checkpoint} is of a version that could not resume; tl fit --config starts anew")
            run, step = content["run"], int(content["global_step"])
            if run["split_digest"] != self.data.split_digest:
                raise UserError(f"the pictures of {self.data.source} are not those that {self.folder.path} began with")
            self.phases, self.position, self.cooling = run["phases"], run["position"], run["cooling"]
            self.data.micro_batch_size = run["micro_batch_size"]
            self._stopped, self._before = run["stopped"], float(run["fit_s"])
            self._epochs = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
            console.print(f"resuming   phase {self.phases[-1]['name']} after epoch {self._epochs}, step {step}")
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.drop_from(step)

    def _train_phase(self, phase: Phase) -> None:
        self.task.start_phase(phase)
        self.data.set_augmentation(phase.augmentation)
        rows = self.task.phase_rows()
        title = f"phase {self.position + 1}/{len(self.configuration.phases)}: {phase.name}, {phase.epochs} epochs"
        console.print(stage_table(phase, rows, title=title))
        assert phase.epochs is not None  # parse_phases filled it in
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is None:
            self._begin(phase, rows)
        record = self.phases[-1]
        end = record["first_epoch"] + phase.epochs
        # A phase that had already run out of patience only takes up its state.
        self.trainer.fit_loop.max_epochs = self._epochs if checkpoint is not None and self._stopped else end
        self._be_patient(phase)
        try:
            path = None if checkpoint is None else str(checkpoint)
            self.trainer.fit(self.task, datamodule=self.data, ckpt_path=path, weights_only=True)
        finally:
            record["epochs"] = self.trainer.current_epoch - record["first_epoch"]
        if self.trainer.current_epoch < end:
            console.print(f"phase {phase.name} stopped early after {record['epochs']} epochs")

    def _begin(self, phase: Phase, rows: Sequence[StageRow]) -> None:
        """Notes a phase that starts at its beginning."""
        earlier = self.configuration.phases[: self.position]
        first = self.cooling is None and not _frozen(phase) and all(map(_frozen, earlier))
        if self.configuration.config.wise_ft is not False and first and self.configuration.folder is not None:
            keep_start(self.task, self.configuration.folder, head_is_trained=bool(earlier))
        self.phases.append(
            {
                "name": phase.name,
                "first_epoch": self.trainer.current_epoch,
                "epochs": 0,
                "train": phase.train,
                "trainable_parameters": sum(row.trainable for row in rows),
                "total_parameters": sum(row.parameters for row in rows),
                "learning_rates": {row.name: row.learning_rate for row in rows if row.learning_rate is not None},
            }
        )
        if self._stopping is not None:  # it ends a phase, not the run
            self._stopping.wait_count = 0
            self._stopping.best_score = torch.tensor(math.inf if self._stopping.mode == "min" else -math.inf)

    def _be_patient(self, phase: Phase) -> None:
        if self._stopping is not None:
            self._stopping.patience = self._patience if phase.patience is None else phase.patience
            delta = self._min_delta if phase.min_delta is None else phase.min_delta
            self._stopping.min_delta = delta if self._stopping.mode == "max" else -delta

    def _restore_best(self) -> None:
        checkpoint = self.trainer.checkpoint_callback
        path = getattr(checkpoint, "best_model_path", "")
        if path:
            self.task.load_state_dict(load_checkpoint(Path(path))["state_dict"])

    def evaluate(self) -> None:
        """Scores the final weights on the validation split and, where there is one, on the test split."""
        config = self.configuration.config
        if config.soup or config.wise_ft is not False:
            final = FinalWeights(self.task, self.data, self.trainer)
            self.averages = final.choose(soup=bool(config.soup), wise=config.wise_ft)
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
            **({"averages": self.averages} if self.averages else {}),
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


def _frozen(phase: Phase) -> bool:
    """Whether the backbone keeps its weights in a phase."""
    return phase.train == "head"


def _cooling_down(phase: Phase, share: float) -> Phase:
    """The end of a phase that was stopped while its rates were still high: they fall from there to 0."""
    return replace(
        phase,
        name=f"{phase.name}, cooling down",
        epochs=phase.cooldown,
        lr_scale=phase.lr_scale * max(share, 1e-6),
        schedule=parse_schedule("linear", "cooldown"),
        warmup=0.0,
        bn="train" if phase.bn == "train" else "frozen",
        patience=sys.maxsize,  # it counts validations, and an epoch may have several
        cooldown=0,
    )


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("tl_lightning", "torch", "torchvision", "timm", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
