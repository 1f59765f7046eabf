"""What a sweep shows in the terminal."""

import io

import pytest
from rich.console import Console

from sweeps import a_trial, make_sweep
from tl_lightning.running.sweeping.parameters import Choice, Range
from tl_lightning.running.sweeping.showing import score_text, short_names, value_text
from tl_lightning.running.sweeping.table import counts, finished_line, render, time_left


def shown(*args, **options):
    """The lines, without what ends them."""
    text = io.StringIO()
    Console(file=text, width=80).print(render(*args, **{"planned": None, **options}))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_what_runs_stands_on_top_then_the_best_first():
    values = {"model.lr": 0.001, "model.label_smoothing": 0.25, "data.augmentation": "none", "phases": "lp_ft"}
    trials = [
        a_trial(1, 0.5, values=values),
        a_trial(2, 0.75, values=values),
        a_trial(3, 0.6, "stopped", values=values, history=(0.6, 0.55)),
        a_trial(4, None, "failed", values=values, error="broken"),
        a_trial(5, 0.8, "running", values=values, history=(0.8, 0.7), seconds=7.0),
    ]
    lines = shown(make_sweep(), trials, planned=10)
    assert lines[0] == "a: maximize val/accuracy, bayes"
    rows = [line.split() for line in lines[3:7]]
    assert rows[0] == ["▸5", "0.001", "0.25", "none", "lp_ft", "2", "0.7000", "7", "s"]  # the latest, not the best
    assert rows[1] == ["2", "0.001", "0.25", "none", "lp_ft", "1", "0.7500", "10", "s"]
    assert [row[0] for row in rows] == ["▸5", "2", "◦3", "1"]
    assert lines[7:] == [
        "▸ running; ◦ stopped early",
        "2 completed, 1 stopped early, 1 failed, 1 running, 5 to come",
        "best so far 0.7500 by trial 2",
        "about 53 s left",  # the rest of the one that runs, 3 s, and five of 10 s
    ]


def test_the_table_fits_the_terminal_and_names_what_has_no_room():
    parameters = {f"model.a_rather_long_name_{k}": Range(0.0, 1.0) for k in range(12)}
    parameters["model.backbone"] = Choice(("timm/" + "x" * 90, "timm/y"))
    values = {key: 0.123456789 for key in parameters} | {"model.backbone": "timm/" + "x" * 90}
    trials = [a_trial(number, 0.5, values=values) for number in range(1, 500)]
    lines = shown(make_sweep(parameters=parameters), trials)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("no room for a_rather_long_name_") for line in lines)
    assert len(lines) < 20


def test_a_sweep_without_trials_and_one_without_values_are_shown():
    assert shown(make_sweep(), [], planned=3)[1:] == ["the workers are starting", "0 completed, 3 to come"]
    failed = [a_trial(1, None, "failed", error="x"), a_trial(2, float("nan"))]
    assert shown(make_sweep(), failed)[-1] == "1 completed, 1 failed"


def test_the_time_left_is_shared_by_those_that_run():
    ended = [a_trial(1), a_trial(2, 0.1, "stopped", seconds=30.0), a_trial(3, None, "failed", seconds=900.0)]
    running = [a_trial(4, None, "running", seconds=15.0), a_trial(5, None, "running", seconds=0.0)]
    assert time_left([*ended, *running], planned=9) == pytest.approx((5 + 20 + 4 * 20) / 2)
    late = [a_trial(4, None, "running", seconds=99.0), a_trial(5, None, "running", seconds=20.0)]
    assert time_left([*ended, *late], planned=5) == 0
    assert time_left([*ended, *running], planned=None) is None
    assert time_left(ended, planned=9) is None
    assert time_left(running, planned=9) is None


def test_a_trial_that_ended_is_one_line():
    sweep, best = make_sweep(), a_trial(2, 0.75)
    values = {"model.lr": 1e-5, "phases": [{"epochs": 3, "train": "head"}, {"train": "all"}], "model.head": "linear"}
    assert finished_line(sweep, best, best) == "trial 2    val/accuracy 0.7500, the best, 10 s: lr=0.001"
    stopped = a_trial(13, 0.5, "stopped", values=values, history=(0.25, 0.5))
    assert finished_line(sweep, stopped, best) == (
        "trial 13   val/accuracy 0.5000 (best 0.7500), stopped early after 2 validations, 10 s: "
        "lr=1e-05, phases=(epochs: 3, train: head); train: all"
    )
    failed = a_trial(3, None, "failed", error="OutOfMemoryError: no room")
    assert finished_line(sweep, failed, None) == "trial 3    failed: OutOfMemoryError: no room (lr=0.001, 10 s)"
    assert finished_line(sweep, a_trial(4, float("nan")), None) == "trial 4    no val/accuracy, 10 s: lr=0.001"


def test_a_key_is_named_by_as_few_parts_as_tell_it_from_the_others():
    keys = ["model.lr", "data.size", "model.head.size", "trainer.x.name", "other.x.name", "lr_scale", "phases"]
    assert short_names(keys) == dict(
        zip(keys, ["lr", "data.size", "head.size", "trainer.x.name", "other.x.name", "lr_scale", "phases"], strict=True)
    )
    assert short_names(["model", "model.model"]) == {"model": "model", "model.model": "model.model"}


def test_values_scores_and_times_are_short():
    assert [value_text(value) for value in (None, True, 1e-5, 0.12345678, "a\nb", {}, [1, 2])] == (
        ["null", "true", "1e-05", "0.1235", "a b", "{}", "1; 2"]
    )
    assert [score_text(score) for score in (0.0, 0.98765, -12.5, 123456.7, 1e-7, float("inf"), None)] == (
        ["0.0000", "0.9877", "-12.5000", "1.23e+05", "1e-07", "inf", ""]
    )


def test_counts_say_nothing_of_states_that_no_trial_has():
    trials = [a_trial(1), a_trial(2, state="stopped"), a_trial(3), a_trial(4, None, "failed")]
    assert counts(trials, planned=None) == "2 completed, 1 stopped early, 1 failed"
    assert counts([a_trial()], planned=1) == "1 completed, 0 to come"
