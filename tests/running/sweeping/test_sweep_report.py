"""The page of a sweep, and its summary."""

import json
import math
import re
import shlex
import sys
from html import unescape

import pytest
from pages import check_page

from sweeps import PARAMETERS, a_trial, drawn, make_sweep
from tl_lightning.running.sweeping.best import best_trial, command_of
from tl_lightning.running.sweeping.charts import Axis, SweepCharts, score_axis
from tl_lightning.running.sweeping.noise import standard_error, within_noise
from tl_lightning.running.sweeping.parameters import Bell, Choice, Range
from tl_lightning.running.sweeping.report import write_report
from tl_lightning.running.sweeping.summary import write_summary


def read(file):
    return check_page(file.read_text())


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


def test_every_trial_is_in_every_chart_and_has_a_row(tmp_path):
    trials = drawn(20, folder=tmp_path)
    page = read(write_report(make_sweep(), trials, tmp_path, importance={"model.lr": 0.9, "phases": 0.1}))
    assert [page.headings.count(name) for name in ("Scores", "All values", "One parameter at a time")] == [1, 1, 1]
    assert page.elements.count("svg") == len(page.captions) == 3 + 4
    for trial in trials:
        # history, curve (with its end where it was stopped), all values, four parameters; a cross in the history
        expected = 7 + (trial.state == "stopped") if trial.score is not None else 1
        assert page.values("a", "href").count(f"#trial-{trial.number}") == expected, trial
        assert page.values("tr", "id").count(f"trial-{trial.number}") == 1
        assert f"trial-{trial.number}" in page.values("a", "href")  # its folder
    best = best_trial(make_sweep(), trials)
    tip = f'<a href="#trial-{best.number}"><title>trial {best.number}, completed: val/accuracy {best.score:.4f}</title>'
    assert (tmp_path / "report.html").read_text().count(tip) == 7


def test_what_others_wrote_is_escaped(tmp_path):
    text = write_report(make_sweep(), drawn(20, folder=tmp_path), tmp_path, importance={}).read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert "<b>&<" not in text and "&lt;b&gt;&amp;" in text


def test_without_matplotlib_the_page_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("tl_lightning.running.sweeping.report.can_draw", lambda: False)
    page = read(write_report(make_sweep(), drawn(5, folder=tmp_path), tmp_path, importance={"model.lr": 1.0}))
    assert "svg" not in page.elements and page.headings == ["sweep a", "What mattered", "All trials", "Failed"]
    assert "pip install &#39;tl_lightning[plots]&#39;" in (tmp_path / "report.html").read_text()


def test_of_many_parameters_the_chart_of_all_values_has_those_that_mattered_most(tmp_path):
    keys = [f"model.p{number}" for number in range(12)]
    sweep = make_sweep(parameters=dict.fromkeys(keys, Range(0.0, 1.0)))
    trials = [a_trial(number, number / 9, values=dict.fromkeys(keys, 0.5), folder=tmp_path) for number in range(1, 5)]
    page = read(write_report(sweep, trials, tmp_path, importance={"model.p11": 0.6, "model.p10": 0.4}))
    assert "All values: the 10 parameters of 12 that mattered most" in page.headings
    (all_values,) = (svg for svg in page.charts if "val/accuracy" in svg and "p10" in svg and "p11" in svg)
    assert not any(re.search(rf">{name}<", all_values) for name in ("p8", "p9"))


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
    assert f"tl fit --config {tmp_path / 'best.yaml'}" in text


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


def test_axes_place_values_and_say_what_lies_where():
    log = Axis.of(PARAMETERS["model.lr"], [0.01])
    assert [log.share(value) for value in (1e-5, 1e-3, 1e-1, 1.0, -1.0)] == pytest.approx([0, 0.5, 1, 1, 0])
    assert all(math.isnan(log.share(value)) for value in ("x", None, True))
    assert [word for _, word in log.ticks()] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert [word for _, word in Axis(0, 0.2).ticks()] == ["0", "0.05", "0.1", "0.15", "0.2"]
    assert Axis(3, 3).ticks() == [(0.5, "3")]
    choices = Axis.of(Choice((16, 8, 1024)), [8])
    assert [word for _, word in choices.ticks()] == ["8", "16", "1024"]
    assert [place for place, _ in choices.ticks()] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert choices.share(16) == 0.5 and math.isnan(choices.share(9))
    assert Axis.of(Choice((1, True, "1")), []).at(True) == 1
    assert Axis.of(Bell("log_normal", 0.0, 1.0), [0.1, 10.0]) == Axis(0.1, 10.0, log=True)


def test_a_diverged_trial_does_not_flatten_the_others():
    scores = [0.1, 0.2, 0.15, 0.12, 0.18, 1e9]
    small, large = make_sweep(goal="minimize"), make_sweep()
    assert score_axis(small, scores).high < 0.5
    assert score_axis(large, [-score for score in scores]).low > -0.5
    assert score_axis(large, scores).high > 1e9  # there it is the best
    trials = [a_trial(number, score) for number, score in enumerate(scores)]
    charts = SweepCharts(small, trials, None)
    assert charts.goodness(trials[-1]) == 0
    assert charts.goodness(trials[0]) > charts.goodness(trials[1]) > 0.4
    assert charts.goodness(a_trial(1, None)) == 0


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
