"""Everything about a comparison that can be known, and found wrong, before its first run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tl_lightning.choosing.comparing.strategies import Job, Strategy, list_jobs
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.core.yaml_files import parse_yaml, read_mapping
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import assemble, refuse
from tl_lightning.experiment.session import Experiment

DECIDED = {
    "--phases": "the strategies say what trains; the strategy config is the configuration's own phases",
    "--data.fold": "all strategies are tested on the test split",
}


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What every run of a comparison is tested on.

    Attributes:
        problem_type: multiclass, ordinal, multilabel or regression.
        classes: Their names.
        indices: Where the test images stand in the source, ascending.
        labels: The targets, a row for each image.
        groups: What they have in common; `None` where there are no groups.
    """

    problem_type: str
    classes: tuple[str, ...]
    indices: NDArray[np.int64]
    labels: NDArray[Any]
    groups: NDArray[np.str_] | None

    def same_as(self, other: "Yardstick") -> bool:
        """Whether two runs can be compared image by image."""
        return (
            (self.problem_type, self.classes) == (other.problem_type, other.classes)
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.labels, other.labels)
        )

    def check_several(self, source: str) -> None:
        """Makes sure that there is more than one of what the draws of an interval draw.

        Args:
            source: Where the images are from, for the message.

        Raises:
            UserError: If all test images are one, or of one group.
        """
        what, units = ("image", self.indices) if self.groups is None else ("group", self.groups)
        if len(np.unique(units)) == 1:
            raise UserError(
                f"{source} has one test {what}, which cannot say how it would be elsewhere: give a larger "
                f"data.test_fraction, or a source with more test {what}s"
            )


@dataclass(frozen=True, eq=False)
class Plan:
    """What a comparison will do.

    Attributes:
        base: The configuration that all runs share.
        jobs: The runs, in order.
        settings: The whole configuration of the first run of each strategy, as YAML, by its name.
        tested: What all are tested on.
        transferring: The names of the strategies with pretrained weights.
        monitor: The metric that picks the best weights of a run, by its plain name.
        mode: Whether its best value is the largest (max) or the smallest (min).
    """

    base: Configuration
    jobs: tuple[Job, ...]
    settings: Mapping[str, str]
    tested: Yardstick
    transferring: frozenset[str]
    monitor: str
    mode: str

    @property
    def recipe(self) -> str:
        """What all runs share, as YAML: with more strategies, shares or seeds it stays the same comparison."""
        shared: dict[str, Any] = parse_yaml(self.base.resolved)
        for key in ("seed_everything", "phases"):
            del shared[key]
        for key in ("seed", "labelled_fraction"):
            shared["data"]["init_args"].pop(key, None)
        return yaml.safe_dump(shared, sort_keys=False)

    def check_made(self, folder: Path | None) -> None:
        """Makes sure that what a folder holds of the runs was made as it would be now.

        Args:
            folder: Whether it exists or not; `None` for a new one.

        Raises:
            UserError: If a run had other options, or several processes are asked for and runs are missing.
        """
        missing = list(self.jobs)
        for job in self.jobs:
            if folder is None:
                break
            path = RunFolder(folder / job.name)
            if path.config.is_file():
                made, wanted = read_mapping(path.config), self._settings_of(job)
                if made != wanted:
                    raise UserError(
                        f"{path.path} was run with other options ({_first_difference(made, wanted)}): remove it, or "
                        "name another --run_dir"
                    )
            if path.is_complete:
                missing.remove(job)
        if self.base.trainer.world_size > 1 and missing:
            raise UserError(
                f"tl compare trains in one process, and {self.base.trainer.world_size} are asked for: train each of "
                f"the {len(missing)} missing runs by tl fit, the first with {' '.join(missing[0].options)} --run_dir "
                f"R/{missing[0].name}; then tl compare --run_dir R takes what is there"
            )

    def _settings_of(self, job: Job) -> dict[str, Any]:
        settings: dict[str, Any] = parse_yaml(self.settings[job.strategy.name])
        data = settings["data"]["init_args"]
        settings["seed_everything"] = job.seed
        if "seed" in data:
            data["seed"] = job.seed
        if job.fraction is not None:
            data["labelled_fraction"] = job.fraction
        return settings


def make_plan(
    args: Sequence[str],
    strategies: Sequence[Strategy],
    fractions: Sequence[float | None],
    *,
    seeds: int,
    reference: str,
) -> Plan:
    """Builds every strategy once and reads its data, so that all mistakes are said before anything is trained.

    Args:
        args: Command-line arguments of ``tl fit``.
        strategies: To compare.
        fractions: Shares of the labels, ascending.
        seeds: How many runs differ by chance alone.
        reference: The strategy that the others are compared with.

    Raises:
        UserError: If something of it could not be run, or its runs could not be compared.
    """
    base = assemble(args, command="compare", alone=False)
    data = base.datamodule
    if fractions != [None] and data.on_leak == "move":
        raise UserError(
            "data.on_leak move could test each of --fractions on other images, as it moves copies of what is "
            "labelled; use warn or ignore"
        )
    for fraction in fractions:
        check_share(base, fraction)
    jobs = list_jobs(strategies, fractions, seeds=seeds, first_seed=int(base.config.seed_everything))
    built = {strategy.name: _check_strategy(args, Job(strategy, fractions[0], jobs[0].seed)) for strategy in strategies}
    settings = {name: configuration.resolved for name, configuration in built.items()}
    names = [name for name, configuration in built.items() if configuration.model.hparams.weights != "none"]
    _check_weights(names, reference)
    tested = _check_images(built)
    monitored = base.config.checkpoint
    monitor, mode = monitored.monitor.partition("/")[2], monitored.mode
    return Plan(base, tuple(jobs), settings, tested, frozenset(names), monitor, mode)


def check_arguments(args: Sequence[str], fractions: Sequence[float | None], *, more: int) -> None:
    """Finds the mistakes that can be found before anything is built.

    Args:
        args: Command-line arguments of ``tl fit``, which have to leave to the comparison what it decides.
        fractions: Shares of the labels.
        more: Labels to forecast the gain of.

    Raises:
        UserError: If there is one.
    """
    if more < 1:
        raise UserError(f"--more is {more}; it must be 1 or more labels")
    refuse(args, DECIDED)
    for argument in args:
        option = argument.partition("=")[0]
        if option == "--data.labelled_fraction" and fractions != [None]:
            raise UserError(f"{option} has no effect beside --fractions; leave one of them out")


def check_share(base: Configuration, fraction: float | None) -> None:
    """Makes sure that there are images to train, validate and test on with a share of the labels.

    Args:
        base: The configuration.
        fraction: The share; `None` for the configuration's own.

    Raises:
        UserError: If there are not.
    """
    try:
        splits = base.datamodule.split_for(base.datamodule.fold, labelled_fraction=fraction)
    except UserError as error:
        raise UserError(f"--fractions {fraction:g}: {error}" if fraction is not None else str(error)) from error
    if not len(splits["test"]):
        raise UserError(f"{base.datamodule.source} has no test split to compare on; give data.test_fraction, 0.25 say")


def _check_strategy(args: Sequence[str], job: Job) -> Configuration:
    try:
        status = f"checking strategy {job.strategy.name}"
        configuration = assemble([*args, *job.options], command="compare", status=status, alone=False)
        Experiment(configuration, time.perf_counter(), None).check()
    except UserError as error:
        raise UserError(f"strategy {job.strategy.name}: {error}") from error
    return configuration


def _check_weights(transferring: Sequence[str], reference: str) -> None:
    if not transferring:
        raise UserError("model.weights is none in every strategy: there is nothing to transfer; name weights")
    if list(transferring) == [reference]:
        raise UserError(
            f"only {reference}, the reference, has pretrained weights: no other strategy could stand for transfer; add "
            "one with weights, such as full, or name another --reference"
        )


def _check_images(built: Mapping[str, Configuration]) -> Yardstick:
    """Makes sure that all strategies learn from the same images, and are tested on the same, which it returns."""
    (name, configuration), *others = built.items()
    tested, splits = _tested(configuration), configuration.datamodule.splits
    for other_name, other in others:
        if not tested.same_as(_tested(other)):
            raise UserError(
                f"strategy {other_name} is tested on other images or targets than {name}: its file must not change "
                "what is in data.source or how it is split"
            )
        if not all(np.array_equal(splits[part], other.datamodule.splits[part]) for part in ("train", "val")):
            raise UserError(
                f"strategies {name} and {other_name} learn from other training or validation images: a file must not "
                "change data.val_fraction or data.labelled_fraction; give them to all alike"
            )
    tested.check_several(configuration.datamodule.source)
    return tested


def _tested(configuration: Configuration) -> Yardstick:
    data = configuration.datamodule
    rows = data.splits["test"]
    return Yardstick(
        data.samples.problem_type, tuple(data.classes), rows, data.samples.labels[rows], data.groups("test")
    )


def _first_difference(one: Any, other: Any, key: str = "") -> str:  # noqa: ANN401 - any part of a configuration
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            if one.get(name) != other.get(name):
                return _first_difference(one.get(name), other.get(name), f"{key}.{name}".removeprefix("."))
    return f"{key.replace('.init_args', '')} {one} there, {other} now"
