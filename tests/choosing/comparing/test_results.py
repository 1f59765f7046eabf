"""What is compared, and what a run that failed is called."""

from types import SimpleNamespace

import pytest

from tl_lightning.choosing.comparing.results import choose_measure, why_failed
from tl_lightning.errors import UserError


def test_a_failure_is_one_short_line():
    assert why_failed(UserError("model.lr is -1")) == "model.lr is -1"
    assert why_failed(ValueError("first\nsecond")) == "ValueError: first"
    assert why_failed(RuntimeError()) == "RuntimeError: "
    assert len(why_failed(RuntimeError("x" * 1000))) == 160


def plan(problem_type, monitor="macro_f1", mode="max", metrics=("accuracy", "macro_f1", "mean_absolute_error")):
    base = SimpleNamespace(model=SimpleNamespace(metrics=dict.fromkeys(metrics, "max")))
    return SimpleNamespace(tested=SimpleNamespace(problem_type=problem_type), monitor=monitor, mode=mode, base=base)


def test_what_is_compared_fits_the_answers():
    measures = {
        kind: choose_measure(plan(kind), None) for kind in ("multiclass", "ordinal", "multilabel", "regression")
    }
    assert {kind: measure.name for kind, measure in measures.items()} == {
        "multiclass": "accuracy",
        "ordinal": "accuracy",
        "multilabel": "right_labels",
        "regression": "mean_absolute_error",
    }
    assert [(measure.validation, measure.mode) for measure in measures.values()] == [
        ("accuracy", "max"),
        ("accuracy", "max"),
        ("macro_f1", "max"),
        ("mean_absolute_error", "min"),
    ]
    assert measures["regression"].is_error
    chosen = choose_measure(plan("multiclass"), "macro_f1")
    assert (chosen.name, chosen.validation, chosen.baseline) == ("macro_f1", "macro_f1", None)
    with pytest.raises(UserError, match="--metric macro_f1 is for classes, and the problem here is regression"):
        choose_measure(plan("regression"), "macro_f1")


def test_a_metric_that_the_task_does_not_log_is_refused():
    message = "by validation accuracy, and SimpleNamespace logs no such metric .it has auroc, loss."
    with pytest.raises(UserError, match=message):
        choose_measure(plan("multiclass", metrics=("auroc", "loss")), None)
