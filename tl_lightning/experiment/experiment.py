"""One experiment from its configuration to its run folder: what the command line and notebooks both call."""

import json
import os
import platform
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from tl_lightning.backbones import preprocess_of
from tl_lightning.core.checkpoint_files import NO_SPACE, latest_checkpoint
from tl_lightning.core.console import console
from tl_lightning.core.files import write_text
from tl_lightning.core.interruption import GRACE, INTERRUPTED, asked_to_end, exit_code, finish_undisturbed, interruption
from tl_lightning.core.options import OptionParser
from tl_lightning.core.packaged import find_configs
from tl_lightning.core.predictions_file import save_predictions
from tl_lightning.core.private import SubprocessLauncher
from tl_lightning.core.processes import ProcessLost, is_started_by_lightning, process_rank
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.cautions import Caution, cautions
from tl_lightning.experiment.configuration import Configuration, quiet
from tl_lightning.experiment.earlier import configuration_of
from tl_lightning.experiment.evaluation import baseline, score, show_result
from tl_lightning.experiment.phase_loop import Training
from tl_lightning.experiment.tables import data_line, leak_table, split_table
from tl_lightning.preprocess import Preprocess
from tl_lightning.tasks.objectives import OBJECTIVES
from tl_lightning.training.final_weights import FinalWeights
from tl_lightning.training.global_batch import WORDS
from tl_lightning.training.metrics_csv import MetricsCsv, Watch
from tl_lightning.training.micro_batches import divide_batches
from tl_lightning.training.preemption import is_of_a_lost_process
from tl_lightning.training.wandb import WandbRun, trial_folder

MOST_COUNTED = 20  # classes whose images are counted on the screen; summary.json has all


def fit_command(args: list[str]) -> None:
    """``tl fit``: trains, then evaluates the best weights on the test split.

    A trial that W&B's agent gives out again goes on where it was.
    """
    folder = trial_folder(args)
    if folder is None:
        run(args)
    elif folder.is_complete:
        console.print(f"{folder.path} is complete already")
    elif folder.config.is_file():  # for the second of several processes, it is the first that has made it
        resume(folder.path)
    else:
        run([*args, "--run_dir", str(folder.path)])


def fit(config: str | Path | Mapping[str, Any], /, **overrides: Any) -> RunFolder:  # noqa: ANN401 - values of any key
    """Trains as ``tl fit --config`` does.

    Args:
        config: A YAML file, the name of a packaged one such as ``elpv``, or the content as a mapping.
        **overrides: Values for dotted keys, such as ``**{"model.lr": 1e-3}``.

    Returns:
        The run's folder.

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
    return run(find_configs(args))


def run(args: list[str], *, watch: Watch | None = None) -> RunFolder:
    """Runs one experiment: phases, best weights, test, summary.

    Args:
        args: Command-line arguments such as ``["--config", "configs/elpv.yaml", "--model.lr", "1e-3"]``.
        watch: Called with each row that training logs, as ``metrics.csv`` has it; it may raise `KeyboardInterrupt`.

    Returns:
        The finished run's folder.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong; nothing is left behind then.
    """
    return _run(args, folder="new", checkpoint=None, watch=watch)


def resume_command(args: list[str]) -> None:
    """``tl resume``: goes on where a run stopped, to the weights that it would have ended with."""
    parser = OptionParser("resume", resume_command.__doc__)
    parser.add_argument("--run_dir", required=True, help="the folder of the run that stopped")
    known, rest = parser.parse_known_args(args)
    for option in rest:
        if re.match("--?[a-zA-Z]", option) and not option.startswith("--trainer."):
            parser.error(f"{option.partition('=')[0]}: only --trainer.* options may change, such as --trainer.devices")
    resume(known.run_dir, rest)


def resume(run_dir: str | Path, args: Sequence[str] = (), *, watch: Watch | None = None) -> RunFolder:
    """Goes on with a run that was interrupted, killed or failed, to the same final weights as if it had not been.

    Args:
        run_dir: Its folder.
        args: ``--trainer.*`` options to change; a run resumed on other hardware ends near its weights, not at them.
            With another number of processes a step keeps its images, which those share out anew.
        watch: As of `run`.

    Returns:
        The finished run's folder.

    Raises:
        UserError: If the run is complete, its checkpoints cannot be read, or its data have changed.
    """
    folder = RunFolder.open(run_dir)
    if any(option.partition("=")[0] == "--trainer.max_epochs" for option in args):
        raise UserError("--trainer.max_epochs: the phases' lengths follow from it, so it cannot change in a run")
    if any(option.partition("=")[0] == "--trainer.accumulate_grad_batches" for option in args):
        raise UserError("--trainer.accumulate_grad_batches: a step's images follow from it, so it cannot change")
    if folder.is_complete:
        raise UserError(f"{folder.path} is complete; there is nothing to resume (tl test --run_dir scores it again)")
    for leftover in folder.checkpoints.glob(".*.tmp"):  # of a write that was cut off
        leftover.unlink()
    best = folder.checkpoints / "best.ckpt"
    if folder.trained_checkpoint.is_file() and not best.is_file():  # stopped while an average took its place
        folder.trained_checkpoint.replace(best)
    checkpoint = latest_checkpoint(folder)
    if checkpoint == folder.previous_checkpoint:
        folder.last_checkpoint.unlink(missing_ok=True)  # it cannot be read; at the next save it would replace this one
    # The images of a step, and in how many parts each process takes its share, are those of the checkpoint.
    own = [] if checkpoint is None else ["--global_batch", "null"]
    return _run([*configuration_of(folder), *args, *own], folder=folder, checkpoint=checkpoint, watch=watch)


def _run(
    args: list[str], *, folder: RunFolder | Literal["new"], checkpoint: Path | None, watch: Watch | None
) -> RunFolder:
    started = time.perf_counter()
    console.quiet = console.quiet or process_rank() != 0
    quiet()
    with console.status("building the model"):
        configuration = Configuration(args, folder=folder, watch=watch)
    experiment = Experiment(configuration, started, checkpoint)
    try:
        experiment.prepare()
    except BaseException:
        if configuration.folder is not None and configuration.created:
            configuration.folder.discard()
        raise
    code = 1
    try:
        experiment.training.run()
        experiment.evaluate()
        experiment.write_summary("completed")
        code = 0
    except BaseException as error:
        # What was asked to end may meet something else first, such as a worker that has ended already.
        interrupted = exit_code(error) or (None if isinstance(error, UserError) else asked_to_end() or None)
        if interrupted is not None or isinstance(error, SystemExit):
            finish_undisturbed()
            code = interrupted or INTERRUPTED
            experiment.end_processes()
            # Lightning turns Ctrl-C into an exit of its own, and would leave a notebook's process deaf to the next.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            experiment.write_summary("interrupted")
            path = experiment.folder.path
            console.print(f"interrupted; tl resume --run_dir {path} goes on with what is there")
            raise interruption(code) from error
        lost = is_of_a_lost_process(error)
        if lost or isinstance(error, UserError):  # a mistake that all of them meet
            experiment.end_processes()
        with suppress(OSError):  # that the disk is full is said below
            experiment.write_summary("failed", error=f"{type(error).__name__}: {error}")
        if lost:
            said = " ".join(str(error).split())[:200]
            raise ProcessLost(
                f"another process of the run was lost ({said}); what was written is whole: "
                f"tl resume --run_dir {experiment.folder.path} goes on from it"
            ) from error
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            where = error.filename or experiment.folder.path
            raise UserError(f"{where}: {error.strerror}; make room, then go on with tl resume") from error
        if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
            raise UserError(" ".join(str(error).split())) from error
        raise
    finally:
        experiment.wandb.end(code)
    console.print(f"run folder {experiment.folder.path}   ({time.perf_counter() - started:.0f} s in all)")
    return experiment.folder


class Experiment:
    """A training run under way: what it has done so far is what its summary says.

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
        self.training = Training(configuration)
        self.wandb = WandbRun(self.trainer, configuration.folder)
        self.averages: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, Any] = {}
        self.timing = {"cache_s": 0.0, "test_s": 0.0}

    @property
    def folder(self) -> RunFolder:
        """Where the run writes; the first process knows it from the start, the others once they have trained."""
        if self.configuration.folder is not None:
            return self.configuration.folder
        return RunFolder(Path(self.trainer.checkpoint_callback.dirpath or "").parent)  # type: ignore[union-attr]

    def check(self) -> None:
        """Reads the data and checks everything that can be checked before anything is trained or written."""
        begun = time.perf_counter()
        self.data.prepare_data()
        self.data.setup("fit")
        self.timing["cache_s"] = time.perf_counter() - begun
        self.task.set_training_targets(self.data.answers("train").labels)
        for phase in self.configuration.phases:
            self.training.check(phase)
        self.training.forgetting.prepare()
        if self.configuration.config.wise_ft is not False:
            self._check_wise_ft()
        self._check_interval()

    def prepare(self) -> None:
        """Checks everything, begins the run folder, and shows what is about to be trained on what."""
        if self.checkpoint is not None:
            self.training.read(self.checkpoint)
            self.configuration.share_out(None)  # the rates follow the batch of the run, whatever shares it now
        self.check()
        config, hyper_parameters = self.configuration.config, self.task.hparams
        if self.configuration.created:
            write_text(self.folder.config, self.configuration.resolved)
        data = self.data.summary()
        console.print(data_line(data))
        if OBJECTIVES[data["problem_type"]].counts and len(data["classes"]) <= MOST_COUNTED:
            console.print(split_table(data))
        leaks = self.data.leaks
        if leaks is not None and (leaks.leaking or leaks.relabelled):
            console.print(leak_table(leaks, title="images that are there more than once"))
        if leaks is not None and leaks.contradictions:
            console.print(f"caution    the same image under two labels: {leaks.contradiction()}", style="yellow")
        for note in self.data.notes():
            console.print(f"note       {note}", style="yellow")
        console.print(f"backbone   {hyper_parameters.backbone}, weights {hyper_parameters.weights}")
        if self.configuration.implied:
            implied = ", ".join(f"model.{name} {value}" for name, value in self.configuration.implied.items())
            console.print(f"phases     {config.phases}, which means {implied}")
        processes = f", {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        console.print(f"machine    {self.trainer.accelerator.name()}{processes}, precision {self.trainer.precision}")
        batch = self.configuration.batch
        if batch.processes > 1 or batch.accumulate > 1:
            console.print(f"batch      {batch}")
        if config.lr_scaling != "none":
            word = WORDS[config.lr_scaling]
            console.print(
                f"rates      x {self.configuration.lr_factor:.3g}: {word}{batch.images} images a step over the "
                f"{config.lr_scaling_batch} that model.lr is for"
            )
        if self.configuration.folder is not None:
            console.print(f"run folder {self.folder.path}")
        for caution in self._cautions():
            console.print(f"caution    {caution.text}", style="yellow")
        self.training.take_up()
        divide_batches(self.task, self.data, self.trainer, self.configuration.phases)
        self.wandb.begin(self.configuration.resolved, lambda: self.training.number)

    def _check_wise_ft(self) -> None:
        if self.task.hparams.weights == "none":
            raise UserError("wise_ft goes back towards the pretrained weights, but model.weights is none")
        if all(phase.keeps_backbone for phase in self.configuration.phases):
            raise UserError("wise_ft goes back towards the pretrained weights, but no phase trains the backbone")

    def _check_interval(self) -> None:
        interval = self.trainer.val_check_interval
        batches = max(self.data.summary()["train"] // (self.data.batch_size * self.trainer.world_size), 1)
        if type(interval) is int and self.trainer.check_val_every_n_epoch is not None and interval > batches:
            raise UserError(
                f"trainer.val_check_interval is {interval}, but an epoch has {batches} batches; give fewer, or a share "
                "of the epoch such as 0.5"
            )

    def _cautions(self) -> list[Caution]:
        hyper_parameters = self.task.hparams
        found = cautions(
            name=self.configuration.run_name,
            phases=self.configuration.phases,
            pretrained=hyper_parameters.weights != "none",
            top_rate=max(rate for name, rate in self.task.learning_rates.items() if not name.startswith("head")),
            preprocess=Preprocess.from_dict(self.task.preprocess),
            own_preprocess=preprocess_of(hyper_parameters.backbone, hyper_parameters.weights),
            training_images=self.data.summary()["train"],
            patience=self.training.patience,
            sampler=self.data.sampler,
            class_weights=hyper_parameters.get("class_weights", "none"),
            class_counts=self.data.summary()["class_counts"]["train"],
        )
        return [caution for caution in found if caution.key not in self.configuration.config.silence]

    def evaluate(self) -> None:
        """Scores the final weights on the validation split and, where there is one, on the test split."""
        config = self.configuration.config
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.watch = None  # what comes now is no step of the training
        if config.soup or config.wise_ft is not False:
            final = FinalWeights(self.task, self.data, self.trainer)
            self.averages = final.choose(soup=bool(config.soup), wise=config.wise_ft)
            if (forgotten := self.training.forgetting.measure("averaging")) is not None:
                self.averages["forgetting"] = forgotten
        with self.training.validating():
            self.results["validation"] = score(self.configuration, "validation")
        begun = time.perf_counter()
        split = "validation"
        if self.data.summary()["test"] and config.test:
            self.results["test"] = score(self.configuration, "test")
            predicted = self.task.predicted("test")  # by all processes
            for head, found in predicted.items() if self.configuration.folder is not None else ():
                path = self.folder.test_predictions
                path = path.with_stem(f"{path.stem}-{head}") if len(predicted) > 1 else path
                save_predictions(path, found.predictions, found.labels, found.indices)
            self.timing["test_s"] = time.perf_counter() - begun
            split = "test"
        self.scores = show_result(self.task, self.data, self.results[split], split)

    def end_processes(self) -> None:
        """Ends the processes that Lightning has started: they wait for this one, which will not come.

        One of those waits to be ended: Lightning kills the first as soon as another has ended by itself.
        """
        if is_started_by_lightning():
            time.sleep(GRACE)
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, SubprocessLauncher):
            launcher.kill(signal.SIGKILL)
            for process in launcher.procs:
                process.wait()
            launcher.procs.clear()  # or Lightning's observer of them would kill this one within five seconds

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
        tested = data["test"] if self.configuration.config.test else 0
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
            "baseline": baseline(self.task, self.data, "test" if tested else "val"),
            "batch": {**asdict(self.configuration.batch), "lr_factor": self.configuration.lr_factor},
            "phases": self.training.records,
            "throughput": self.training.throughput,
            "timing": {
                "total_s": self.training.seconds_before + time.perf_counter() - self.started,
                "fit_s": self.training.seconds - self.training.cache_seconds,
                "cache_s": self.timing["cache_s"] + self.training.cache_seconds,
                "test_s": self.timing["test_s"],
            },
            "data": data,
            "ledger": {
                "trained": data["train"],
                "selected": data["validation"],
                "calibrated": 0,
                "tested": tested,
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
