"""The trials of a sweep in one Optuna journal, which any number of workers on any number of machines share."""

import json
import math
import random
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from tl_lightning.running.sweeping.lease import Lease, Watchman, read
from tl_lightning.running.sweeping.parameters import Choice, Parameter, Range, at, grid
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import State, Trial

FIRST_RANDOM = 5  # trials before Bayesian search learns from them
MOST_ATTEMPTS = 3  # a trial whose worker dies so often is what kills it
STUDY = "sweep"

STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


@dataclass
class Taken:
    """A trial that this process has to run.

    Attributes:
        number: From 1.
        values: By dotted key, exact.
        lease: Of this process.
    """

    number: int
    values: dict[str, Any]
    lease: Lease
    trial: optuna.Trial


class Search:
    """Chooses values, keeps what came out, and sees to it that each trial has one worker.

    Args:
        sweep: What to search.
        journal: The file; its folder holds the sweep.
        planned: How many trials there are to be.
        seed: Of what is drawn; trial number n of random search is the same however many workers there are.
    """

    def __init__(self, sweep: SweepFile, journal: Path, *, planned: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._sweep, self._journal, self._planned, self._seed = sweep, journal, planned, seed
        self._grid = grid(sweep.parameters) if sweep.method == "grid" else []
        self._watchman = Watchman()
        (journal.parent / "leases").mkdir(exist_ok=True)
        self._lock = JournalFileSymlinkLock(str(journal.with_name(f"{journal.name}.taking")))
        self._storage = JournalStorage(JournalFileBackend(str(journal)))
        with self._taking():
            self._study = optuna.create_study(
                study_name=STUDY,
                storage=self._storage,
                direction=sweep.goal,
                pruner=_pruner(sweep),
                load_if_exists=True,
            )

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """One process at a time, on all machines; a lock that its owner left behind is released after 30 s."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def take(self) -> Taken | Literal["wait", "done"]:
        """Takes a trial that nobody has, or else a new one.

        Returns:
            The trial; ``wait`` where all are taken but one may be given back; ``done`` where all have ended.
        """
        with self._taking():
            trials = self._study.get_trials(deepcopy=False)
            others = False
            for trial in trials:
                if trial.state != TrialState.RUNNING:
                    continue
                if not self._watchman.is_dead(self._lease_of(trial.number)):
                    others = True
                    continue
                attempt = int(read(self._lease_of(trial.number)).get("attempt", 0)) + 1
                taken = self._taken(optuna.Trial(self._study, trial._trial_id), attempt)
                if attempt <= MOST_ATTEMPTS:
                    return taken
                self.end(taken, "failed", error=f"its worker died {MOST_ATTEMPTS} times", seconds=0.0)
            if len(trials) < self._planned:
                return self._taken(self._ask(len(trials)), attempt=1)
            return "wait" if others else "done"

    def _ask(self, number: int) -> optuna.Trial:
        # Of both numbers, mixed: their sum would give the sweep of the next seed nearly the same trials.
        self._study.sampler = _sampler(self._sweep, seed=random.Random(f"{self._seed}/{number}").getrandbits(32))
        trial = self._study.ask()
        values = self._grid[number] if self._grid else _suggest(trial, self._sweep.parameters)
        trial.set_user_attr("values", json.dumps(values))
        return trial

    def _taken(self, trial: optuna.Trial, attempt: int) -> Taken:
        lease = Lease.take(self._lease_of(trial.number), attempt=attempt)
        if "values" not in trial.user_attrs:  # its worker died between two lines of the journal
            values = self._grid[trial.number] if self._grid else _suggest(trial, self._sweep.parameters)
            trial.set_user_attr("values", json.dumps(values))
        trial.set_user_attr("worker", lease.owner)
        trial.set_user_attr("attempts", attempt)
        trial.set_user_attr("began", time.time())
        return Taken(trial.number + 1, json.loads(trial.user_attrs["values"]), lease, trial)

    def _lease_of(self, number: int) -> Path:
        return self._journal.parent / "leases" / f"{number + 1:03}.json"

    def report(self, taken: Taken, history: list[float]) -> bool:
        """Keeps what a trial has reached.

        Args:
            taken: The trial.
            history: The metric at each validation so far.

        Returns:
            Whether the trial may go on; `False` where the sweep ends weak ones early, and it is one.
        """
        best = self._best(history)
        taken.trial.set_user_attr("history", history)
        if best is None:
            return True
        # What it would be judged by if it ended now: the best weights are kept, so one bad epoch costs nothing.
        if len(history) not in self._reported(taken):  # a trial that goes on repeats what came after its checkpoint
            taken.trial.report(best, step=len(history))
        return not (self._sweep.early_termination is not None and taken.trial.should_prune())

    def _reported(self, taken: Taken) -> Collection[int]:
        return self._storage.get_trial(taken.trial._trial_id).intermediate_values

    def end(self, taken: Taken, state: State, *, seconds: float, score: float | None = None, error: str = "") -> None:
        """Keeps how a trial ended.

        Args:
            taken: The trial.
            state: ``completed``, ``stopped`` or ``failed``.
            seconds: How long it took, this time.
            score: What the kept weights reach; `None` for the best validation.
            error: Why it failed.
        """
        trial = taken.trial
        score = self._best([score] if score is not None else trial.user_attrs.get("history", []))
        if state == "completed" and score is None:
            state, error = "failed", f"{self._sweep.metric} was never a number"
        trial.set_user_attr("seconds", trial.user_attrs.get("seconds", 0.0) + seconds)
        trial.set_user_attr("error", error)
        trial.set_user_attr("score", score)
        kind = next(kind for kind, name in STATES.items() if name == state)
        self._study.tell(trial, score if state == "completed" else None, state=kind)

    def give_back(self, taken: Taken, *, seconds: float) -> None:
        """Lets another worker go on with a trial."""
        taken.trial.set_user_attr("seconds", taken.trial.user_attrs.get("seconds", 0.0) + seconds)
        taken.lease.give_back()

    def trials(self) -> list[Trial]:
        """All trials so far, in order."""
        return [self._plain(trial) for trial in self._study.get_trials(deepcopy=False) if "values" in trial.user_attrs]

    def folder_of(self, number: int) -> Path:
        """The run folder of a trial, counted from 1."""
        return self._journal.parent / "trials" / f"{number:03}"

    def _plain(self, trial: FrozenTrial) -> Trial:
        known = trial.user_attrs
        history = known.get("history", [])
        state = STATES[trial.state]
        if state == "running" and "owner" not in read(self._lease_of(trial.number)):
            state = "waiting"
        seconds = known.get("seconds", 0.0) + (
            time.time() - known.get("began", time.time()) if state == "running" else 0.0
        )
        return Trial(
            number=trial.number + 1,
            values=json.loads(known["values"]),
            state=state,
            score=known.get("score", self._best(history)),
            history=tuple(history),
            seconds=seconds,
            folder=self.folder_of(trial.number + 1),
            error=known.get("error", ""),
            worker=known.get("worker", ""),
            attempts=known.get("attempts", 1),
        )

    def _best(self, history: list[float]) -> float | None:
        numbers = [value for value in history if math.isfinite(value)]
        pick = max if self._sweep.goal == "maximize" else min
        return pick(numbers) if numbers else None


def _pruner(sweep: SweepFile) -> BasePruner:
    """What W&B calls hyperband is successive halving: each trial is compared at ``min_iter * eta**k`` validations."""
    early = sweep.early_termination
    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.min_iter, reduction_factor=early.eta)


def _sampler(sweep: SweepFile, *, seed: int) -> BaseSampler:
    if sweep.method != "bayes":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=FIRST_RANDOM, constant_liar=True)


def _suggest(trial: optuna.Trial, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    return {name: _draw(trial, name, parameter) for name, parameter in parameters.items()}


def _draw(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:  # noqa: ANN401 - anything that YAML holds
    if isinstance(parameter, Choice) and len(parameter.values) == 1:
        return parameter.values[0]
    if isinstance(parameter, Choice) and parameter.probabilities is None:
        encoded = [json.dumps(value) for value in parameter.values]  # Optuna takes plain values only
        return parameter.values[encoded.index(trial.suggest_categorical(name, encoded))]
    if isinstance(parameter, Range) and parameter.step is None:
        if parameter.integer:
            return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    return at(parameter, min(max(trial.suggest_float(name, 0.0, 1.0), 1e-9), 1 - 1e-9))
