"""The page of a sweep, and its summary."""

import json
import math
import re
import shlex
from html import unescape
from html.parser import HTMLParser

import pytest

from sweeps import PARAMETERS, a_trial, drawn, make_sweep
from tl_lightning.running.sweeping.axes import Axis, goodness, parameter_axis, score_axis
from tl_lightning.running.sweeping.best import best_trial, command_of
from tl_lightning.running.sweeping.noise import standard_error, within_noise
from tl_lightning.running.sweeping.parameters import Bell, Choice, Range
from tl_lightning.running.sweeping.report import write_report
from tl_lightning.running.sweeping.summary import write_summary

OPEN = {"meta", "rect", "line", "circle", "path"}  # that need no end, or have it in themselves


class Checker(HTMLParser):
    """Counts elements and holds that each that opens is closed."""

    def __init__(self):
        super().__init__()
        self.stack, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def read(file):
    page = Checker()
    page.feed(file.read_text())
    assert page.stack == []
    return page


def complete(trial, **summary):
    """Writes what the trial's run says of itself."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "status": "completed",
        "test": {"accuracy": 0.8125},
        "standard_errors": {"accuracy": 0.01},
        "data": {"validation": 100, "test": 400},
        **summary,
    }
    (trial.folder / "summary.json").write_text(json.dumps(content))
    return trial


def test_every_trial_is_in_every_image_and_in_the_table(tmp_path):
    trials = drawn(20, folder=tmp_path)
    page = read(write_report(make_sweep(), trials, tmp_path, importance={"model.lr": 0.9, "phases": 0.1}))
    scored = [trial for trial in trials if trial.score is not None]
    numbers = [value for tag, name, value in page.attributes if name == "data-trial"]
    for trial in trials:
        # history, all values, curve (with its end where it was stopped), four slices, table; or cross, table, reason
        expected = 8 + (trial.state == "stopped") if trial in scored else 3
        assert numbers.count(str(trial.number)) == expected, trial
    assert page.seen.count("svg") - len({trial.state for trial in trials}) == 3 + 4  # those of the key are small


def test_the_page_needs_nothing_else_and_what_others_wrote_is_escaped(tmp_path):
    text = write_report(make_sweep(), drawn(20, folder=tmp_path), tmp_path, importance={}).read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert "<b>&<" not in text and "&lt;b&gt;&amp;" in text
    assert not re.search(r"https?://|@import|<link|src=", text)


def test_the_headline_is_the_best_trial_with_its_command(tmp_path):
    trials, sweep = drawn(20, folder=tmp_path), make_sweep(fit_args=["--config", "a b.yaml"])
    best = complete(best_trial(sweep, trials))
    (tmp_path / "best.yaml").write_text("")
    text = write_report(sweep, trials, tmp_path, importance={}).read_text()
    command = unescape(re.search("<pre>(.*?)</pre>", text, re.DOTALL)[1])
    assert shlex.split(command.replace("\\\n", "")) == command_of(sweep, best)
    assert f"{best.score:.4f} is the best of 16 validation scores" in text
    assert "this trial has accuracy 0.8125" in text
    assert "0.02;" in text  # the standard error on a quarter of the images
    assert 'href="best.yaml"' in text


def test_the_test_score_of_a_run_that_was_not_completed_is_not_told(tmp_path):
    trials, sweep = drawn(20, folder=tmp_path), make_sweep()
    complete(best_trial(sweep, trials), status="interrupted")
    assert "On the test images" not in write_report(sweep, trials, tmp_path, importance={}).read_text()


@pytest.mark.parametrize("state", ["completed", "failed", "running", "stopped"])
def test_one_trial_and_none_make_a_page(tmp_path, state):
    for score in (0.5, None, math.nan):
        history = () if score is None else (score,)
        trial = a_trial(1, score, state, history=history, folder=tmp_path)
        read(write_report(make_sweep(), [trial], tmp_path, importance={}))
    page = write_report(make_sweep(), [], tmp_path, importance={})
    read(page)
    assert "No trial was completed" in page.read_text()


def test_the_noise_is_that_of_the_validation_images(tmp_path):
    best, sweep = a_trial(1, 0.9, folder=tmp_path), make_sweep()
    assert standard_error(sweep, best) is None
    assert standard_error(sweep, complete(best)) == pytest.approx(0.01 * math.sqrt(400 / 100))
    assert standard_error(sweep, complete(best, test=None)) == 0.01  # then it was measured there
    assert standard_error(sweep, complete(best, standard_errors={})) == pytest.approx(math.sqrt(0.9 * 0.1 / 100))
    assert standard_error(make_sweep(metric="val/loss"), best) is None
    others = [
        a_trial(2, 0.89),
        a_trial(3, 0.85),
        a_trial(4, 0.9, "stopped"),
        a_trial(5, 0.9, "failed"),
        a_trial(6, 0.8),
    ]
    assert within_noise(sweep, [best, *others], best, error=0.03) == 2


def test_axes_place_values_and_write_round_numbers():
    log = parameter_axis(PARAMETERS["model.lr"], [0.01])
    assert [log.place(value) for value in (1e-5, 1e-3, 1e-1, 1.0, -1.0, "x", None)] == (
        pytest.approx([0, 0.5, 1, 1, None, None, None])
    )
    assert [word for _, word in log.ticks()] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert [word for _, word in Axis(0, 0.2).ticks()] == ["0", "0.05", "0.1", "0.15", "0.2"]
    assert [word for _, word in Axis(1, 2, whole=True).ticks()] == ["1", "2"]
    assert Axis(3, 3).ticks() == [(0.5, "3")]
    choices = parameter_axis(Choice((16, 8, 1024)), [8])
    assert choices.words == ("8", "16", "1024")
    assert choices.place(16) == 0.5 and choices.place(9) is None
    assert parameter_axis(Choice((1, True, "1")), []).place(True) == 0.5
    bell = parameter_axis(Bell("log_normal", 0.0, 1.0), [0.1, 10.0])
    assert (bell.low, bell.high, bell.log) == (0.1, 10.0, True)
    assert parameter_axis(Range(1, 9, integer=True), [2]).whole


def test_a_diverged_trial_does_not_flatten_the_others():
    scores = [0.1, 0.2, 0.15, 0.12, 0.18, 1e9]
    small, large = make_sweep(goal="minimize"), make_sweep()
    assert score_axis(small, scores).high < 0.5
    assert score_axis(large, [-score for score in scores]).low > -0.5
    assert score_axis(large, scores).high > 1e9  # there it is the best
    axis = score_axis(small, scores)
    assert goodness(small, axis, a_trial(1, 1e9)) == 0
    assert goodness(small, axis, a_trial(1, 0.1)) > goodness(small, axis, a_trial(1, 0.2)) > 0.4
    assert goodness(small, axis, a_trial(1, None)) is None


def test_the_summary_holds_every_trial_and_the_best(tmp_path):
    values = {"model.lr": 1e-05, "phases": [{"train": "head"}], "data.fold": None}
    trials = [a_trial(2, math.inf, folder=tmp_path), a_trial(1, 0.5, values=values, folder=tmp_path, worker="n:1")]
    write_summary(make_sweep(), trials, tmp_path, planned=5, importance={"model.lr": 1.0})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["number"] for entry in summary["trials"]] == [1, 2]
    assert summary["best"] == summary["trials"][0]
    assert summary["best"]["values"] == values and summary["best"]["folder"] == "trial-1"
    assert summary["trials"][1]["score"] is None
    assert {key: summary[key] for key in ("sweep", "method", "metric", "goal", "importance")} == {
        "sweep": "a",
        "method": "bayes",
        "metric": "val/accuracy",
        "goal": "maximize",
        "importance": {"model.lr": 1.0},
    }
