"""Any number of processes share one journal: each trial has one worker, and none is lost."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileOpenLock

from tl_lightning.errors import UserError
from tl_lightning.running.sweeping import lease as leases
from tl_lightning.running.sweeping.lease import Lease, Watchman
from tl_lightning.running.sweeping.parameters import Bell, Choice, Range
from tl_lightning.running.sweeping.search import MOST_ATTEMPTS, Search
from tl_lightning.running.sweeping.sweep_file import EarlyTermination, SweepFile

SPACE = {
    "model.lr": Range(1e-4, 1e-1, log=True),
    "model.width": Range(3, 9, integer=True),
    "phases": Choice(("full", [{"epochs": 1, "train": "head"}, {"train": "all"}], None, True, 1, 1.0)),
    "model.decay": Bell("log_normal", -3.0, 1.0),
    "seed_everything": Choice((7,)),
}


def sweep(method="random", goal="maximize", parameters=SPACE, early=None):
    return SweepFile(
        path=Path("sweep.yaml"),
        text="",
        name="sweep",
        method=method,
        metric="val/accuracy",
        goal=goal,
        parameters=parameters,
        fit_args=(),
        early_termination=early,
        run_cap=None,
    )


def search(folder, asked=None, planned=4, seed=0):
    return Search(asked or sweep(), folder / "journal.log", planned=planned, seed=seed)


def exact(values):
    return json.dumps(values)  # 1, 1.0 and true are equal in Python, and not here


def drawn(folder, asked, planned, seed=0):
    """The values of all trials, each of which ends before the next begins."""
    folder.mkdir(parents=True, exist_ok=True)
    found, all_values = search(folder, asked, planned, seed), []
    while (taken := found.take()) != "done":
        all_values.append(exact(taken.values))
        found.report(taken, [taken.values.get("model.lr", 0.5)])
        found.end(taken, "completed", seconds=1.0)
    return all_values


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_same_seed_draws_the_same_trials_and_another_seed_others(tmp_path, method):
    first = drawn(tmp_path / "a", sweep(method), 8)
    assert len(set(first)) == 8
    assert drawn(tmp_path / "b", sweep(method), 8) == first
    assert not set(first) & set(drawn(tmp_path / "c", sweep(method), 8, seed=1))


def test_an_interrupted_random_search_draws_what_an_uninterrupted_one_does(tmp_path):
    whole = drawn(tmp_path / "whole", sweep(), 6)
    drawn(tmp_path / "parts", sweep(), 2)
    assert drawn(tmp_path / "parts", sweep(), 6) == whole[2:]


def test_values_keep_their_types_and_their_bounds(tmp_path):
    all_values = [json.loads(values) for values in drawn(tmp_path / "s", sweep(), 40)]
    assert all(1e-4 <= values["model.lr"] <= 1e-1 for values in all_values)
    assert {values["model.width"] for values in all_values} == {3, 4, 5, 6, 7, 8, 9}
    assert {exact(values["phases"]) for values in all_values} == {exact(value) for value in SPACE["phases"].values}
    assert all(type(values["model.decay"]) is float and values["seed_everything"] == 7 for values in all_values)


def test_a_grid_is_gone_through_once_in_the_order_of_the_file(tmp_path):
    parameters = {"a.b": Choice((1, 2.0)), "c": Choice(("x", None, {"d": [1]}))}
    expected = [exact({"a.b": b, "c": c}) for b in (1, 2.0) for c in ("x", None, {"d": [1]})]
    assert drawn(tmp_path / "s", sweep("grid", parameters=parameters), 6) == expected


def test_bayesian_search_goes_where_trials_were_good(tmp_path):
    space = {"model.lr": Range(0.0, 1.0)}
    values = [json.loads(values)["model.lr"] for values in drawn(tmp_path / "s", sweep("bayes", parameters=space), 30)]
    assert sum(value > 0.8 for value in values[15:]) >= 9  # by chance in one case of 1,000


def test_processes_that_take_at_once_never_take_the_same_trial(tmp_path):
    search(tmp_path, planned=24)
    children = []
    for number in range(6):
        child = os.fork()
        if not child:
            found, numbers = search(tmp_path, planned=24), []
            while (taken := found.take()) not in ("wait", "done"):
                numbers.append(taken.number)
            (tmp_path / f"taken-{number}").write_text(json.dumps(numbers))
            while not (tmp_path / "end").exists():  # a process that is gone would have its trials taken again
                time.sleep(0.01)
            os._exit(0)
        children.append(child)
    while len(list(tmp_path.glob("taken-*"))) < 6:
        time.sleep(0.01)
    (tmp_path / "end").touch()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    taken = [number for path in tmp_path.glob("taken-*") for number in json.loads(path.read_text())]
    assert sorted(taken) == list(range(1, 25))


def taken_by_a_process_that_is_killed(folder, **options):
    """The number of the trial that it had."""
    child = os.fork()
    if not child:
        taken = search(folder, **options).take()
        (folder / "number").write_text(str(taken.number))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return int((folder / "number").read_text())


def test_the_trial_of_a_dead_worker_is_taken_again_with_the_same_values(tmp_path):
    assert taken_by_a_process_that_is_killed(tmp_path) == 1
    found = search(tmp_path)
    (before,) = found.trials()
    taken = found.take()
    assert (taken.number, taken.values, taken.lease.attempt) == (1, before.values, 2)
    found.report(taken, [0.5, 0.75])
    found.end(taken, "completed", seconds=1.0)
    (trial,) = found.trials()
    assert (trial.state, trial.score, trial.history, trial.attempts) == ("completed", 0.75, (0.5, 0.75), 2)


def test_a_trial_that_kills_every_worker_fails_in_the_end(tmp_path):
    for _ in range(MOST_ATTEMPTS):
        assert taken_by_a_process_that_is_killed(tmp_path, planned=1) == 1
    found = search(tmp_path, planned=1)
    assert found.take() == "done"
    (trial,) = found.trials()
    assert (trial.state, trial.error) == ("failed", "its worker died 3 times")


def test_a_trial_that_was_given_back_waits_and_its_attempt_does_not_count(tmp_path):
    found = search(tmp_path, planned=1)
    for _ in range(MOST_ATTEMPTS + 1):
        taken = found.take()
        assert (taken.number, taken.lease.attempt) == (1, 1)
        found.give_back(taken, seconds=1.0)
        assert found.trials()[0].state == "waiting"
    assert found.trials()[0].seconds == MOST_ATTEMPTS + 1


@pytest.mark.parametrize("name", ["journal.log.taking", "journal.log"])
def test_a_lock_whose_owner_was_killed_is_released(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tl_lightning.running.sweeping.search.GRACE", 3)
    found = search(Path("."))
    child = os.fork()
    if not child:
        JournalFileOpenLock(name).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert found.take().number == 1


def test_a_line_that_was_written_in_part_is_dropped(tmp_path):
    found = search(tmp_path)
    found.end(found.take(), "failed", seconds=1.0, error="it broke")
    with (tmp_path / "journal.log").open("a") as journal:
        journal.write('{"op_code":8,"worker_id":"x')
    assert [trial.error for trial in search(tmp_path).trials()] == ["it broke"]
    assert search(tmp_path).take().number == 2
    (tmp_path / "journal.log").write_text("no journal\nat all\n")
    with pytest.raises(UserError, match=r"journal\.log cannot be read as the journal of a sweep"):
        search(tmp_path)


def test_a_trial_whose_worker_died_before_it_had_values_gets_those_that_it_would_have_had(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole").take().values
    monkeypatch.setattr("tl_lightning.running.sweeping.search.GRACE", 3)
    child = os.fork()
    if not child:
        monkeypatch.setattr(Search, "_values", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        search(tmp_path).take()
    os.waitpid(child, 0)
    assert exact(search(tmp_path).take().values) == exact(whole)


def test_a_worker_that_got_on_before_it_died_is_no_reason_to_give_up(tmp_path):
    for validations in (0, 0, 1, 1, 1):
        child = os.fork()
        if not child:
            found = search(tmp_path, planned=1)
            found.report(found.take(), [0.5] * validations)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    assert search(tmp_path, planned=1).take().lease.attempt == 3


def test_while_others_have_the_last_trials_one_waits_for_them(tmp_path):
    one, other = search(tmp_path, planned=1), search(tmp_path, planned=1)
    taken = one.take()
    assert other.take() == "wait"
    one.end(taken, "failed", seconds=1.0, error="it broke")
    assert other.take() == "done"


def test_one_of_two_at_the_first_look_ends_early(tmp_path):
    found = search(tmp_path, sweep(early=EarlyTermination(min_iter=2, eta=2)))
    goes_on = {}
    for value in (0.9, 0.2, 0.8, 0.95):
        taken = found.take()
        assert found.report(taken, [0.0])  # before the first look
        goes_on[value] = found.report(taken, [0.0, value])
        found.end(taken, "completed" if goes_on[value] else "stopped", seconds=1.0)
    assert goes_on == {0.9: True, 0.2: False, 0.8: False, 0.95: True}
    assert [trial.state for trial in found.trials()] == ["completed", "stopped", "stopped", "completed"]


def test_a_weak_trial_whose_worker_died_is_still_weak(tmp_path):
    found = search(tmp_path, sweep(early=EarlyTermination(min_iter=1, eta=2)))
    found.report(found.take(), [0.9])
    weak = found.take()
    assert not found.report(weak, [0.1])
    found.give_back(weak, seconds=1.0)
    again = found.take()
    assert again.number == weak.number
    assert not found.report(again, [0.1])


def test_there_is_no_look_at_the_end_of_a_trial(tmp_path):
    found = search(tmp_path, sweep(early=EarlyTermination(min_iter=1, eta=2, max_iter=2)))
    found.report(found.take(), [0.9, 0.9])
    assert found.report(found.take(), [0.1, 0.1])


def test_a_sweep_is_hopeless_where_three_failed_since_it_was_started_and_none_was_good(tmp_path):
    found = search(tmp_path, planned=9)
    for _ in range(3):
        assert not found.is_hopeless(0)
        found.end(found.take(), "failed", seconds=1.0)
    assert found.is_hopeless(0)
    assert not found.is_hopeless(found.failed())
    found.report(good := found.take(), [0.5])
    found.end(good, "completed", seconds=1.0)
    assert not found.is_hopeless(0)


def test_a_low_metric_can_be_the_goal_and_a_bad_last_validation_costs_nothing(tmp_path):
    found = search(tmp_path, sweep(goal="minimize", early=EarlyTermination(min_iter=1, eta=2)))
    for history in ([0.3], [0.2, 0.9], [0.25]):
        taken = found.take()
        found.end(taken, "completed" if found.report(taken, history) else "stopped", seconds=1.0)
    assert [(trial.state, trial.score) for trial in found.trials()] == [
        ("completed", 0.3),
        ("completed", 0.2),
        ("stopped", 0.25),
    ]


def test_a_trial_whose_metric_was_never_a_number_failed(tmp_path):
    found = search(tmp_path)
    taken = found.take()
    found.report(taken, [float("nan")])
    found.end(taken, "completed", seconds=1.0)
    (trial,) = found.trials()
    assert (trial.state, trial.error) == ("failed", "val/accuracy was never a number")


def test_the_score_is_what_the_kept_weights_reach_where_that_is_known(tmp_path):
    found = search(tmp_path)
    taken = found.take()
    found.report(taken, [0.5, 0.9])
    found.end(taken, "completed", seconds=1.0, score=0.8)
    assert found.trials()[0].score == 0.8


def test_a_worker_of_another_machine_is_dead_after_a_minute_of_our_own_clock_without_a_sign(tmp_path, monkeypatch):
    path, now = tmp_path / "lease.json", [0.0]
    watchman = Watchman(lambda: now[0])
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "this_machine", lambda: "another")
        lease = Lease.take(path, attempt=1)
    assert not watchman.is_dead(path)
    now[0] = 59.0
    assert not watchman.is_dead(path)
    with monkeypatch.context() as elsewhere:  # a sign of life
        elsewhere.setattr(leases, "this_machine", lambda: "another")
        elsewhere.setattr(leases, "BEAT", 0.0)
        assert lease.renew()
    now[0] = 100.0
    assert not watchman.is_dead(path)
    now[0] = 161.0
    assert watchman.is_dead(path)


def test_a_worker_learns_that_another_has_taken_its_trial(tmp_path, monkeypatch):
    path = tmp_path / "lease.json"
    lease = Lease.take(path, attempt=1)
    monkeypatch.setattr(leases, "BEAT", 0.0)
    assert lease.renew()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "this_machine", lambda: "another")
        Lease.take(path, attempt=2)
    assert not lease.renew()
