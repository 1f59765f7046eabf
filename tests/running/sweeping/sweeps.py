"""Sweeps and trials that were never run."""

import math
import random
from pathlib import Path

from tl_lightning.running.sweeping.parameters import Choice, Range
from tl_lightning.running.sweeping.sweep_file import EarlyTermination, SweepFile
from tl_lightning.running.sweeping.trials import Trial

PHASES = [{"epochs": 3, "train": "head"}, {"train": "last:2", "lr_scale": 0.3}]
PARAMETERS = {
    "model.lr": Range(1e-5, 1e-1, log=True),
    "model.label_smoothing": Range(0.0, 0.2),
    "data.augmentation": Choice(("none", "<b>&")),
    "phases": Choice(("full", "lp_ft", PHASES)),
    "model.head": Choice(("linear",)),
}


def make_sweep(*, parameters=PARAMETERS, goal="maximize", metric="val/accuracy", fit_args=("--config=x.yaml",)):
    stop = EarlyTermination(2, 3)
    return SweepFile(
        Path("sweeps/a.yaml"), "", "a", "bayes", metric, goal, parameters, tuple(fit_args), stop, run_cap=None
    )


def a_trial(number=1, score=0.5, state="completed", *, values=None, history=None, folder=Path("sweep"), **other):
    values = {"model.lr": 0.001} if values is None else values
    history = (() if score is None else (score,)) if history is None else history
    seconds = None if state == "running" else 10.0
    rest = {"seconds": seconds, **other}
    return Trial(number, values, state, score, history, folder=Path(folder) / f"trial-{number}", **rest)


def drawn(count, *, folder=Path("sweep"), seed=0):
    """Trials whose learning rate alone matters: best at 1e-3; every fifth failed, weak ones were stopped."""
    random_numbers = random.Random(seed)
    trials = []
    for number in range(1, count + 1):
        rate = 10 ** random_numbers.uniform(-5, -1)
        values = {
            "model.lr": rate,
            "model.label_smoothing": random_numbers.uniform(0, 0.2),
            "data.augmentation": random_numbers.choice(("none", "<b>&")),
            "phases": random_numbers.choice(("full", "lp_ft", PHASES)),
            "model.head": "linear",
        }
        score = 0.9 - 0.05 * (math.log10(rate) + 3) ** 2
        if number % 5 == 0:
            error = "OutOfMemoryError: <script>alert(1)</script>"
            trials.append(a_trial(number, None, "failed", values=values, folder=folder, error=error))
        else:
            state = "stopped" if score < 0.75 else "completed"
            history = (score - 0.1, score - 0.05, score)[: 2 if state == "stopped" else 3]
            trials.append(a_trial(number, history[-1], state, values=values, history=history, folder=folder))
    return trials
