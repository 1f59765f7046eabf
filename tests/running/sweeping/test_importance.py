"""Which parameter mattered."""

import random
import subprocess
import sys

import pytest

from sweeps import PHASES, a_trial, drawn, make_sweep
from tl_lightning.running.sweeping.importance import importance
from tl_lightning.running.sweeping.parameters import Bell, Choice, Range


def test_the_parameter_that_alone_matters_comes_first_and_shares_add_up_to_one():
    shares = importance(make_sweep(), drawn(60))
    assert next(iter(shares)) == "model.lr"
    assert shares["model.lr"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {"model.lr", "model.label_smoothing", "data.augmentation", "phases"}


def test_lists_and_mappings_may_be_what_matters_and_small_scores_the_good_ones():
    numbers = random.Random(0)
    parameters = {"phases": Choice(("full", PHASES)), "model": Choice(({"a": 1}, {"a": 2})), "x": Bell("normal", 0, 1)}
    trials = []
    for number in range(1, 41):
        values = {"phases": numbers.choice(("full", PHASES)), "model": numbers.choice(({"a": 1}, {"a": 2}))}
        values["x"] = numbers.gauss(0, 1)
        trials.append(a_trial(number, (values["phases"] == "full") + 0.1 * numbers.random(), values=values))
    shares = importance(make_sweep(parameters=parameters, goal="minimize"), trials)
    assert next(iter(shares)) == "phases"
    assert shares["phases"] > 0.6


def test_of_too_little_nothing_is_said():
    sweep = make_sweep(parameters={"model.lr": Range(0.0, 1.0)})
    values = [{"model.lr": number / 10} for number in range(8)]
    scores = [0.1, 0.2, 0.3, 0.4]
    assert importance(sweep, [a_trial(n, s, values=values[n]) for n, s in enumerate(scores)]) == {"model.lr": 1.0}
    assert importance(sweep, [a_trial(n, s, values=values[n]) for n, s in enumerate(scores[:3])]) == {}
    assert importance(sweep, [a_trial(n, s, "stopped", values=values[n]) for n, s in enumerate(scores)]) == {}
    assert importance(sweep, [a_trial(n, 0.5, values=values[n]) for n in range(4)]) == {}
    assert importance(sweep, [a_trial(n, s, values=values[0]) for n, s in enumerate(scores)]) == {}
    assert importance(sweep, []) == {}


def test_neither_torch_nor_optuna_is_loaded_before_it_is_needed():
    parts = ("table", "report", "importance", "best", "summary", "crew", "sweep")
    modules = ", ".join(f"tl_lightning.running.sweeping.{part}" for part in parts)
    code = (
        f"import sys, {modules}; print([name for name in ('torch', 'optuna', 'jsonargparse') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
