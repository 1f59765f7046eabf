"""The phases of a run, one after the other, each from the best weights so far; resumed where one was interrupted."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping

from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.core.console import console
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.evaluation import targets_by_head
from tl_lightning.experiment.tables import stage_table
from tl_lightning.experiment.trained_on import check_same_contents, record_of
from tl_lightning.feature_cache.head_solver import HeadSolver
from tl_lightning.feature_cache.phase_cache import PhaseCache, Plan
from tl_lightning.finetuning.freezing import StageRow
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.schedules import parse_schedule
from tl_lightning.training.checkpoints import LastCheckpoint
from tl_lightning.training.final_weights import keep_start
from tl_lightning.training.forgetting import ForgettingMeter
from tl_lightning.training.metrics_csv import MetricsCsv
from tl_lightning.training.throughput import Throughput


class Training:
    """Trains phase after phase with one ``trainer.fit`` each, and remembers in every checkpoint where it is.

    Attributes:
        records: What each phase trained so far, as ``summary.json`` tells it; the last one may be under way.
        throughput: How fast each phase was that was trained by steps; see `Throughput`.
        seconds_before: How long it had trained when it was interrupted.
        patience: Validations without a gain that end a phase which says nothing else.
        forgetting: Compares the backbone with the weights that the configuration builds.

    Args:
        configuration: Everything built from the arguments.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._task, self._data = configuration.model, configuration.datamodule
        self._trainer = configuration.trainer
        self._task.seed_steps(int(configuration.config.seed_everything))
        self.records: list[dict[str, Any]] = []
        self.throughput: list[dict[str, Any]] = []
        self._position = 0  # among the configured phases
        self._cooling: float | None = (
            None  # in a cool-down, the share of the phase's learning rates that it starts from
        )
        self._checkpoint: Path | None = None  # to go on from
        self._run: dict[str, Any] = {}  # what that checkpoint remembers
        self._epochs, self._step, self._stopped = 0, 0, False  # of it
        self.seconds_before = 0.0
        self._seconds, self._begun = 0.0, math.nan
        callbacks = self._trainer.callbacks  # type: ignore[attr-defined]
        config = configuration.config
        self._cache = PhaseCache(self._task, self._data, self._trainer, config.cache, config.engine)
        self.forgetting = ForgettingMeter(self._task, self._data, self._trainer, configuration.config_init.forgetting)
        self._solver = HeadSolver(self._cache, self._data, self._head_report)
        callbacks.insert(0, self._solver)
        self._throughput = Throughput()
        callbacks.insert(1, self._throughput)
        callbacks.append(LastCheckpoint(every=configuration.config.save_every, state=self._state))
        self._stopping = next((callback for callback in callbacks if isinstance(callback, EarlyStopping)), None)
        self.patience: Any = math.inf if self._stopping is None else self._stopping.patience
        self._min_delta = 0.0 if self._stopping is None else abs(self._stopping.min_delta)

    @property
    def number(self) -> int:
        """The number of the phase under way, from 1; a cool-down is part of its phase."""
        return self._position + 1

    @property
    def seconds(self) -> float:
        """How long it has trained, also before it was resumed."""
        under_way = 0.0 if math.isnan(self._begun) else time.perf_counter() - self._begun
        return self.seconds_before + self._seconds + under_way

    @property
    def cache_seconds(self) -> float:
        """How long the frozen parts took to compute."""
        return self._cache.seconds

    def _head_report(self) -> Path | None:
        folder = self._configuration.folder
        return None if folder is None else folder.path / f"head-{self._position + 1}"

    def check(self, phase: Phase) -> None:
        """Makes sure that a phase can be started.

        Raises:
            UserError: If its augmentation or its views are wrong, or it cannot be cached though it has to be.
        """
        self._task.start_phase(phase)
        try:
            self._data.set_augmentation(phase.augmentation)
            self._cache.plan_for(phase)
        except UserError as error:
            raise UserError(f"phase {phase.name}: {error}") from error

    def read(self, checkpoint: Path) -> None:
        """Reads where a run stopped, and shares its batches out among the processes that there are now.

        Raises:
            UserError: If the checkpoint is too old, or these processes cannot share a batch evenly.
        """
        content = load_checkpoint(checkpoint)
        if "run" not in content:
            raise UserError(f"{checkpoint} is of a version that could not resume; tl fit --config starts anew")
        run = content["run"]
        self._run, self._step = run, int(content["global_step"])
        self._epochs = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        self._checkpoint = checkpoint
        if "processes" in run:
            self._share_batches(run["batch_size"], run["micro_batch_size"], run["processes"])
        else:  # an older run, whose batch is that of its configuration
            self._data.set_batch_size(self._data.batch_size, run["micro_batch_size"])

    def _share_batches(self, batch_size: int, part: int | None, processes: int) -> None:
        """Keeps the images of a step, and in how many parts each process takes its share of them."""
        now, together = self._trainer.world_size, batch_size * processes
        parts = batch_size // (part or batch_size)
        fitting = [count for count in range(1, together // parts + 1) if together % (count * parts) == 0]
        if now not in fitting:
            near = [[count for count in fitting if count < now][-1:], [count for count in fitting if count > now][:1]]
            divided = f" in {parts} parts each" if parts > 1 else ""
            raise UserError(
                f"a step of the run has {together} images, which {now} processes cannot share evenly{divided}; "
                f"{' or '.join(str(count) for counts in near for count in counts)} could"
            )
        share = together // now
        self._data.set_batch_size(share, None if part is None else share // parts)

    def take_up(self) -> None:
        """Goes back to the state that was read, or to the beginning.

        Raises:
            UserError: If the images have changed since.
        """
        step = self._step
        if self._checkpoint is not None:
            run = self._run
            if run["split_digest"] != self._data.split_digest:
                raise UserError(f"the images of {self._data.source} are not those that the run began with")
            if run.get("targets_digest", self._data.targets_digest) != self._data.targets_digest:  # older runs lack it
                raise UserError(f"the targets of {self._data.source} are not those that the run began with")
            if "trained_on" in run:
                check_same_contents(run["trained_on"], self._trained_on, self._data)
            self._position, self._cooling = run["position"], run["cooling"]
            self.records = [_in_todays_words(record) for record in run["phases"]]
            self._stopped, self.seconds_before = run["stopped"], float(run["fit_s"])
            self.throughput = run.get("throughput", [])  # older runs lack it
            self._cache.seconds = float(run.get("cache_s", 0.0))
            console.print(f"resuming   phase {self.records[-1]['name']} after epoch {self._epochs}, step {step}")
        for logger in self._trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.drop_from(step)

    def run(self) -> None:
        """Trains what is left; each phase starts from the best weights so far, under a fresh schedule.

        Raises:
            UserError: If no validation came in time to keep the best weights, or training diverged from the start.
        """
        self._begun = time.perf_counter()
        try:
            while self._position < len(self._configuration.phases):
                phase = self._configuration.phases[self._position]
                if self._cooling is None:
                    self._train(phase)
                    stopped = not self._task.solved and self.records[-1]["epochs"] < (phase.epochs or 0)
                    self._cooling = self._task.share_of_learning_rate() if stopped and phase.cooldown else None
                    self._end_phase()
                if self._cooling is not None:
                    self._train(_cooling_down(phase, self._cooling))
                    self._end_phase()
                self._position, self._cooling = self._position + 1, None
            if not getattr(self._trainer.checkpoint_callback, "best_model_path", ""):
                raise UserError(
                    "the run has no best weights: it ended before a validation could keep any; validate and keep "
                    "more often (trainer.val_check_interval, checkpoint.every_n_epochs)"
                )
        finally:
            self._cache.end()
            self._seconds, self._begun = time.perf_counter() - self._begun, math.nan

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Has the final weights validated on cached features, where the last phase cached its whole backbone."""
        last = self._configuration.phases[-1]
        if last.keeps_backbone and self.records[-1].get("cached") is not None:
            with self._cache.validating(last):
                yield
        else:
            yield

    def _state(self) -> dict[str, Any]:
        """What a checkpoint remembers of the run."""
        self.records[-1] |= self._ways()  # as there may not have been room to cache anything
        if self._task.solved:
            self.records[-1]["head"] = self._solver.solution
        return {
            "phases": self.records,
            "position": self._position,
            "cooling": self._cooling,
            "stopped": bool(self._trainer.should_stop),
            "diverged": self._has_diverged(),
            "fit_s": self.seconds,
            "throughput": self.throughput,
            "cache_s": self._cache.seconds,
            "split_digest": self._data.split_digest,
            "targets_digest": self._data.targets_digest,
            "trained_on": self._trained_on,
            "batch_size": self._data.batch_size,
            "micro_batch_size": self._data.micro_batch_size,
            "processes": self._trainer.world_size,
        }

    @cached_property
    def _trained_on(self) -> dict[str, Any]:
        return record_of(self._data, targets_by_head(self._task, self._data, "train"))

    def _has_diverged(self) -> bool:
        """Whether the loss of the latest validation is no number; that may have come before a resume."""
        loss = self._trainer.callback_metrics.get("val/loss")
        return bool(self._run.get("diverged", False)) if loss is None else not math.isfinite(loss)

    def _train(self, phase: Phase) -> None:
        self._data.set_augmentation(phase.augmentation)
        plan = self._cached_or_not(phase)
        self._task.start_phase(phase, solved=plan.solved)
        rows = self._task.phase_rows()
        lasting = "solved" if plan.solved else _epochs(phase.epochs)
        title = f"phase {self._position + 1}/{len(self._configuration.phases)}: {phase.name}, {lasting}"
        console.print(stage_table(phase, rows, title=title))
        if plan.reason:
            console.print(f"{'not solved' if plan.cut else 'not cached':<10} {plan.reason}", style="dim")
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            self._begin(phase, rows)
        record, length = self.records[-1], self._length(phase, solved=plan.solved)
        # A phase that had already run out of patience only takes up its state.
        ended = checkpoint is not None and self._stopped
        self._trainer.fit_loop.max_epochs = self._epochs if ended else record["first_epoch"] + length
        self._be_patient(phase)
        try:
            path = None if checkpoint is None else str(checkpoint)
            self._trainer.fit(self._task, datamodule=self._data, ckpt_path=path, weights_only=True)
        finally:
            record["epochs"] = self._trainer.current_epoch - record["first_epoch"]
        if record["epochs"] < self._length(phase, solved=self._task.solved):
            console.print(f"phase {phase.name} stopped early after {_epochs(record['epochs'])}")

    def _cached_or_not(self, phase: Phase) -> Plan:
        """Has the phase's data served: as it began if it is resumed, and in a cool-down as in its phase."""
        before = self.records[-1] if self._checkpoint is not None or self._cooling is not None else None
        if before is None:
            return self._cache.begin(phase)
        first, solved = before["first_epoch"], before.get("solved", False)
        length = self._length(phase, solved=solved)
        if self._checkpoint is not None and (self._stopped or self._epochs >= first + length):
            return self._cache.begin(phase, keep=False, solved=solved)  # it is over: nothing will be read
        return self._cache.begin(phase, keep=before.get("cached") is not None, solved=solved)

    def _length(self, phase: Phase, *, solved: bool) -> int:
        """Epochs of a phase; one look at what is solved is enough, where each epoch keeps the weights it validates."""
        assert phase.epochs is not None  # parse_phases filled it in
        best = self._configuration.config.checkpoint
        keeps = best.every_n_epochs in (None, 1) and best.every_n_train_steps is best.train_time_interval is None
        return 1 if solved and keeps and self._trainer.check_val_every_n_epoch == 1 else phase.epochs

    def _begin(self, phase: Phase, rows: Sequence[StageRow]) -> None:
        """Notes a phase that starts at its beginning."""
        earlier = self._configuration.phases[: self._position]
        first = self._cooling is None and not phase.keeps_backbone and all(before.keeps_backbone for before in earlier)
        if self._configuration.config.wise_ft is not False and first and self._configuration.folder is not None:
            keep_start(self._task, self._configuration.folder, head_is_trained=bool(earlier))
        self.records.append(
            {
                "name": phase.name,
                "first_epoch": self._trainer.current_epoch,
                "epochs": 0,
                "train": phase.train,
                "trainable_parameters": sum(row.trainable for row in rows),
                "total_parameters": sum(row.parameters for row in rows),
                **self._ways(),
            }
        )
        if self._stopping is not None:  # it ends a phase, not the run
            self._stopping.wait_count = 0
            self._stopping.best_score = torch.tensor(math.inf if self._stopping.mode == "min" else -math.inf)

    def _ways(self) -> dict[str, Any]:
        """The stage whose activations are read instead of images, and how the phase fits: solved, or by steps."""
        learning_rates = {
            row.name: row.learning_rate for row in self._task.phase_rows() if row.learning_rate is not None
        }
        return {"cached": self._cache.cached_after, "solved": self._task.solved, "learning_rates": learning_rates}

    def _be_patient(self, phase: Phase) -> None:
        if self._stopping is not None:
            self._stopping.patience = self.patience if phase.patience is None else phase.patience
            delta = self._min_delta if phase.min_delta is None else phase.min_delta
            self._stopping.min_delta = delta if self._stopping.mode == "max" else -delta

    def _end_phase(self) -> None:
        """Goes back to the best weights so far; notes how fast it was, and what has become of the pretrained ones.

        Raises:
            UserError: If there are no such weights, as training diverged from the start.
        """
        if self._throughput.measured:
            self.throughput.append({"phase": self.records[-1]["name"], **self._throughput.measured})
        checkpoint = self._trainer.checkpoint_callback
        path = getattr(checkpoint, "best_model_path", "")
        score = getattr(checkpoint, "best_model_score", None)
        if score is not None and not score.isfinite() and self._has_diverged():
            raise UserError(
                f"diverged: in no validation up to the end of phase {self.records[-1]['name']} was the loss a number; "
                f"lower model.lr ({self._task.hparams.lr:g}), or clip harder (trainer.gradient_clip_val)"
            )
        if path:
            self._task.load_state_dict(load_checkpoint(Path(path))["state_dict"])
        if (forgetting := self.forgetting.measure(self.records[-1]["name"])) is not None:
            self.records[-1]["forgetting"] = forgetting


def _in_todays_words(record: dict[str, Any]) -> dict[str, Any]:
    """A phase as an earlier version noted it, where ``cached`` was ``kept``."""
    return {("cached" if name == "kept" else name): value for name, value in record.items()}


def _epochs(count: int | None) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _cooling_down(phase: Phase, share: float) -> Phase:
    """The end of a phase that was stopped while its learning rates were still high: they fall from there to 0."""
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
