"""The trials of a sweep in one Optuna journal, which any number of workers on any number of machines share."""

import json
import math
import os
import random
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from tl_lightning.errors import UserError
from tl_lightning.running.sweeping.lease import Lease, Watchman, read
from tl_lightning.running.sweeping.parameters import Choice, Parameter, Range, at, combination
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import State, Trial

FIRST_RANDOM = 5  # trials before Bayesian search learns from them
HOPELESS = 3  # where so many trials failed and no other came to its end, the rest would fail, too
GRACE = 30  # seconds after which a lock is released that its owner has left behind
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
        lease: The lock that this process holds.
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
        seed: Decides what is drawn; trial number n of random search is the same however many workers there are.
    """

    def __init__(self, sweep: SweepFile, journal: Path, *, planned: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._sweep, self._journal, self._planned, self._seed = sweep, journal, planned, seed
        self._watchman = Watchman()
        (journal.parent / "leases").mkdir(exist_ok=True)
        # Not Optuna's default, a link: while that points nowhere, a lock whose owner died is never released.
        self._lock = JournalFileOpenLock(str(journal.with_name(f"{journal.name}.taking")), GRACE)
        writing = JournalFileOpenLock(str(journal), GRACE)
        with _held(writing):
            _cut_off_torn_line(journal)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=writing))
        except ValueError as error:
            raise UserError(f"{journal} cannot be read as the journal of a sweep: {error}") from error
        with _held(self._lock):
            self._study = optuna.create_study(
                study_name=STUDY,
                storage=self._storage,
                direction=sweep.goal,
                pruner=_pruner(sweep),
                load_if_exists=True,
            )

    def take(self) -> Taken | Literal["wait", "done"]:
        """Takes a trial that nobody has, or else a new one.

        Returns:
            The trial; ``wait`` where all are taken but one may be given back; ``done`` where all have ended.
        """
        with _held(self._lock):
            trials = self._study.get_trials(deepcopy=False)
            others = False
            for trial in trials:
                if trial.state != TrialState.RUNNING:
                    continue
                if not self._watchman.is_dead(self._lease_of(trial.number)):
                    others = True
                    continue
                taken = self._taken(optuna.Trial(self._study, trial._trial_id))
                attempt = taken.lease.attempt
                if attempt <= MOST_ATTEMPTS:
                    return taken
                self.end(taken, "failed", error=f"its worker died {MOST_ATTEMPTS} times", seconds=0.0)
            if len(trials) < self._planned:
                return self._taken(self._study.ask())
            return "wait" if others else "done"

    def _taken(self, trial: optuna.Trial) -> Taken:
        known, path = trial.user_attrs, self._lease_of(trial.number)
        validations = len(known.get("history", ()))
        stuck = validations == known.get("validations_before", 0)  # a worker that got on is no reason to give up
        attempt = int(read(path).get("attempt", 0)) + 1 if stuck else 1
        lease = Lease.take(path, attempt=attempt)
        values = json.loads(known["values"]) if "values" in known else self._values(trial)
        trial.set_user_attr("values", json.dumps(values))
        trial.set_user_attr("validations_before", validations)
        trial.set_user_attr("worker", lease.owner)
        trial.set_user_attr("attempts", known.get("attempts", 0) + 1)
        trial.set_user_attr("began", time.time())
        return Taken(trial.number + 1, values, lease, trial)

    def _values(self, trial: optuna.Trial) -> dict[str, Any]:
        if self._sweep.method == "grid":
            return combination(self._sweep.parameters, trial.number)
        # Of both numbers, mixed: their sum would give the sweep of the next seed nearly the same trials.
        self._study.sampler = _sampler(self._sweep, seed=random.Random(f"{self._seed}/{trial.number}").getrandbits(32))
        fresh = optuna.Trial(self._study, trial._trial_id)  # asks the sampler once more, which is seeded only now
        return {name: _draw(fresh, name, parameter) for name, parameter in self._sweep.parameters.items()}

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
        early = self._sweep.early_termination
        if "weak" in taken.trial.user_attrs:  # its worker died before it could end it
            return False
        # What it would be judged by if it ended now: the best weights are kept, so one bad epoch costs nothing.
        if len(history) not in self._reported(taken):  # a trial that goes on repeats what came after its checkpoint
            taken.trial.report(best, step=len(history))
        if early is None or len(history) >= early.max_iter or not taken.trial.should_prune():
            return True
        taken.trial.set_user_attr("weak", True)
        return False

    def _reported(self, taken: Taken) -> Collection[int]:
        return self._storage.get_trial(taken.trial._trial_id).intermediate_values

    def end(self, taken: Taken, state: State, *, seconds: float, score: float | None = None, error: str = "") -> None:
        """Keeps how a trial ended.

        Args:
            taken: The trial.
            state: ``completed``, ``stopped`` or ``failed``.
            seconds: How long it took, this time.
            score: What the best weights reach; `None` for the best validation.
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

    def failed(self) -> int:
        """How many trials have failed."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))

    def is_hopeless(self, failed_before: int) -> bool:
        """Whether no trial has ever come to its end, and `HOPELESS` have failed since.

        Args:
            failed_before: What `failed` gave then: a user who starts a sweep again may have mended what was wrong.
        """
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        good = self._study.get_trials(deepcopy=False, states=ended)
        return not good and self.failed() >= failed_before + HOPELESS

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


@contextmanager
def _held(lock: JournalFileOpenLock) -> Iterator[None]:
    """One process at a time, on all machines."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _cut_off_torn_line(journal: Path) -> None:
    """Drops what was written in part, as before a loss of power; the next line would be joined to it."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


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
