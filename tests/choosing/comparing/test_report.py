"""What a comparison prints and writes."""

from types import SimpleNamespace

import pytest
from pages import check_page

from tl_lightning.choosing.comparing import report
from tl_lightning.choosing.comparing.outcome import Outcome, Row
from tl_lightning.choosing.comparing.report import comparison_table, show, write
from tl_lightning.choosing.comparing.results import DIVERGED, Measure
from tl_lightning.choosing.comparing.strategies import Job, Strategy

ACCURACY, MACRO_F1 = (Measure(name, name, "max", None) for name in ("accuracy", "macro_f1"))
FAILED = tuple(Row(name, None, (), ("died",)) for name in ("scratch", "full"))


def outcome(*reasons):
    made = {Job(Strategy("full"), None, seed): reason for seed, reason in enumerate(reasons)}
    return Outcome(made, FAILED, "scratch", None, None, None)


@pytest.fixture
def printed(monkeypatch):
    """What is printed, a string each."""
    lines = []
    console = SimpleNamespace(print=lambda text, **_: lines.append(str(text)), rule=lambda text: None)
    monkeypatch.setattr(report, "console", console)
    return lines


def test_a_test_of_right_and_wrong_is_named_so_beside_another_metric():
    tables = [comparison_table(FAILED, measure, reference="scratch", baseline=None) for measure in (ACCURACY, MACRO_F1)]
    assert [table.columns[3].header for table in tables] == ["McNemar p", "McNemar p, accuracy"]


def test_only_what_did_not_complete_is_said_to_be_tried_again(printed):
    show(outcome(f"{DIVERGED}no numbers"), None, ACCURACY)
    assert printed[-1] == "verdict    none: the runs that it needs failed"
    show(outcome(f"{DIVERGED}no numbers", "out of memory"), None, ACCURACY)
    assert printed[-1].endswith("failed; the same command with --run_dir tries again what did not complete")


def test_nothing_is_drawn_where_all_failed(printed, tmp_path):
    write(outcome("died"), None, ACCURACY, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.csv", "comparison.html", "summary.json"]
    text = (tmp_path / "comparison.html").read_text()
    assert not check_page(text).charts and "<th>failed</th><td>full-seed0: died</td>" in text
