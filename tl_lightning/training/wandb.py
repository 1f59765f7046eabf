"""A run's counterpart on Weights & Biases: its id, its configuration, its phases, and at the end tables and weights.

Nothing here imports wandb before a logger of W&B's is configured. It works offline too.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from tl_lightning.core.class_path import resolve
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser
from tl_lightning.core.run_folder import RunFolder, run_name
from tl_lightning.core.yaml_files import parse_yaml
from tl_lightning.errors import UserError
from tl_lightning.metrics.words import TABLES

SPLITS = {"validation": "val", "test": "test"}  # as a summary names them, and what their curves begin with


class ResolvedWandbLogger(WandbLogger):
    """Lightning's, which leaves the configuration to `WandbRun`.

    The model's hyperparameters would stand in it once more by other names, and clash with a sweep's of the same name.
    """

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Does nothing."""


def _is_wandb(logger: Any) -> bool:  # noqa: ANN401
    return issubclass(resolve(logger.class_path, "trainer.logger"), WandbLogger)


def with_wandb(configured: Any) -> Any:  # noqa: ANN401 - true, false, one logger, or a list of them
    """Adds W&B's logger where its agent has started this process and none is configured: it waits for the metric.

    Args:
        configured: The loggers of the configuration.
    """
    loggers = [logger for logger in (configured if isinstance(configured, list) else [configured]) if logger]
    if not _is_trial() or any(_is_wandb(logger) for logger in loggers if hasattr(logger, "class_path")):
        return configured
    options = Namespace(save_dir=".", id=None, version=None)  # type: ignore[no-untyped-call]
    path = f"{WandbLogger.__module__}.{WandbLogger.__qualname__}"
    wandb = Namespace(class_path=path, init_args=options)  # type: ignore[no-untyped-call]
    return [*(logger for logger in loggers if logger is not True), wandb]


def check_wandb(loggers: Sequence[Any]) -> None:
    """Makes sure that wandb is installed where it is asked for.

    Args:
        loggers: As configured: ``class_path`` and ``init_args``.

    Raises:
        UserError: If it is not.
    """
    if any(map(_is_wandb, loggers)) and find_spec("wandb") is None:
        raise UserError("trainer.logger is WandbLogger, and wandb is not installed: pip install 'tl_lightning[wandb]'")


def identify(loggers: Sequence[Any], folder: RunFolder) -> None:
    """Gives W&B's run its id, and keeps it in the folder: also a run that is killed goes on as the same one.

    Args:
        loggers: As configured; they are changed.
        folder: The run's.
    """
    for logger in filter(_is_wandb, loggers):
        options, environment = logger.init_args, os.environ.get("WANDB_RUN_ID")
        agent = _is_trial()
        known = folder.wandb_run_id.read_text(encoding="utf-8").strip() if folder.wandb_run_id.is_file() else None
        asked = known or options.get("version") or options.get("id") or environment
        run_id = str(environment if agent else asked or secrets.token_hex(8))
        if run_id != known:
            write_text(folder.wandb_run_id, f"{run_id}\n")
        options.version, options.id = None, None if agent else run_id  # W&B takes an agent's from the environment
        if resolve(logger.class_path, "trainer.logger") is WandbLogger:  # and none of the user's
            logger.class_path = f"{ResolvedWandbLogger.__module__}.{ResolvedWandbLogger.__name__}"


def _is_trial() -> bool:
    return bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))


def trial_folder(args: Sequence[str]) -> RunFolder | None:
    """The folder of a trial that W&B's agent has started: a trial that it gives out again finds what it has done.

    Args:
        args: Command-line arguments of ``tl fit``.

    Returns:
        ``runs/<config>-<id>``; `None` where there is no agent, or the user names the folder.
    """
    parser = OptionParser("fit", add_help=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    parser.add_argument("--run_dir")
    known, _ = parser.parse_known_args(args)
    if not _is_trial() or known.run_dir is not None:
        return None
    return RunFolder(Path("runs") / f"{run_name(known.config)}-{os.environ['WANDB_RUN_ID']}")


class WandbRun:
    """What is told W&B of a run, beside what Lightning logs.

    Args:
        trainer: With its loggers.
        folder: The run's; on the first process, which alone has loggers.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder | None) -> None:
        self._trainer = trainer
        self._folder = folder
        self._logger = next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)

    def begin(self, resolved: str, phase: Callable[[], int]) -> None:
        """Opens W&B's run, or goes on with it, and logs the configuration by the names of the command line.

        Args:
            resolved: The whole configuration as YAML.
            phase: The number of the phase under way, from 1.

        Raises:
            UserError: If W&B cannot be reached, or does not know the user.
        """
        if self._logger is None:
            return
        import wandb

        try:
            run = self._logger.experiment
        except wandb.Error as error:
            raise UserError(
                f"trainer.logger: W&B said {' '.join(str(error).split())!r}; log in by wandb login, or keep everything "
                "on this machine by WANDB_MODE=offline"
            ) from error
        # What is there already is a sweep's, which locks it, or of the run that goes on.
        there = {name for name, _ in _flat(dict(run.config))}
        run.config.update({name: value for name, value in _flat(parse_yaml(resolved)) if name not in there})
        self._trainer.callbacks.append(PhaseCurve(self._logger, phase))  # type: ignore[attr-defined]

    def end(self, code: int) -> None:
        """Logs what the summary says, and closes W&B's run.

        It is not marked as pre-empted after SIGTERM: an agent ends the weak trials of a sweep by SIGTERM as well, and
        W&B would give those out again.

        Args:
            code: The exit code: W&B shows a run as finished at 0, otherwise as failed.
        """
        folder = self._folder
        if folder is None or self._logger is None:
            return
        run = self._logger.experiment
        if (folder.path / "summary.json").is_file():
            summary = folder.summary
            shown = {name: summary[name] for name in ("status", "error", "phases") if name in summary}
            if code == 0:
                run.log(_tables(summary) | {"trainer/global_step": self._trainer.global_step})
                for split, prefix in SPLITS.items():
                    shown |= {f"{prefix}/{name}": value for name, value in (summary[split] or {}).items()}
                _log_weights(run, folder, summary)
            run.summary.update(shown)
        run.finish(exit_code=code)


class PhaseCurve(Callback):
    """Logs each epoch's phase, by its number and its name, beside the curves of the learning rates.

    Args:
        logger: Where to.
        phase: The number of the phase under way, from 1.
    """

    def __init__(self, logger: WandbLogger, phase: Callable[[], int]) -> None:
        self._logger = logger
        self._phase = phase

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs it."""
        place = {"phase": self._phase(), "phase_name": pl_module.phase.name}  # type: ignore[union-attr]
        self._logger.experiment.log({**place, "trainer/global_step": trainer.global_step})


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names as they are written on the command line, where ``init_args`` can be left out."""
    for name, value in values.items():
        dotted = f"{before}{name}".replace(".init_args", "")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{dotted}.")
        else:
            yield dotted, value


def _tables(summary: Mapping[str, Any]) -> dict[str, Any]:
    """How each class, label or number fared, and what was taken for what, of the split that the summary tells of."""
    import wandb

    prefix = SPLITS["validation" if summary["test"] is None else "test"]
    tables: dict[str, Any] = {}
    for table in (table for table in TABLES if summary.get(table)):
        rows = summary[table]
        tables[f"{prefix}/{table}"] = wandb.Table(columns=[*rows[0]], data=[[*row.values()] for row in rows])
    if "confusion" in summary:
        classes, columns = summary["data"]["classes"], ["Actual", "Predicted", "nPredictions"]
        cells = zip(classes, summary["confusion"], strict=True)
        counts = [[right, given, n] for right, row in cells for given, n in zip(classes, row, strict=True)]
        tables[f"{prefix}/confusion"] = wandb.plot_table(  # W&B's own confusion matrix, which would count once more
            "wandb/confusion_matrix/v1",
            wandb.Table(columns=[*columns], data=counts),
            {column: column for column in columns},
            {"title": f"{prefix}: confusion"},
        )
    return tables


def _log_weights(run: Any, folder: RunFolder, summary: Mapping[str, Any]) -> None:  # noqa: ANN401 - wandb's own
    """Hands W&B the best checkpoint, which says what it is."""
    import wandb

    metadata = {name: summary[name] for name in ("monitor", "validation", "backbone", "phases", "versions")}
    metadata |= {"classes": summary["data"]["classes"], "problem_type": summary["data"]["problem_type"]}
    weights = wandb.Artifact(f"model-{run.id}", type="model", metadata=metadata)
    for file in (folder.best_checkpoint, folder.config):  # uploaded from where they are, not copied
        weights.add_file(str(file.resolve()), name=file.name, policy="immutable")
    run.log_artifact(weights, aliases=["best"])
