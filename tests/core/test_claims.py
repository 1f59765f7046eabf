import fcntl
import multiprocessing
import os
import platform
import time

import pytest

from tl_lightning.core import claims
from tl_lightning.core.claims import CLAIM, claim, claimed
from tl_lightning.core.run_folder import RunFolder, open_folder
from tl_lightning.errors import UserError

fork = multiprocessing.get_context("fork")


def test_a_folder_has_one_owner_who_is_named_and_leaves_nothing(tmp_path):
    with claimed(tmp_path):
        with pytest.raises(UserError, match=rf"in use by another .*process {os.getpid()} on {platform.node()}"):
            claim(tmp_path)
    assert not list(tmp_path.iterdir())
    claim(tmp_path).release()


def _create(path, together, answers):
    together.wait()
    try:
        folder = RunFolder.create(path, name="x")
        answers.put("made")
        together.wait()
        folder.release()
    except UserError as error:
        answers.put(str(error))
        together.wait()


@pytest.mark.parametrize("there", [True, False])
def test_of_several_runs_that_ask_for_a_folder_at_once_one_gets_it(tmp_path, there):
    (tmp_path / "run").mkdir(exist_ok=True) if there else None
    together, answers = fork.Barrier(4), fork.Queue()
    processes = [fork.Process(target=_create, args=(str(tmp_path / "run"), together, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    said = sorted(answers.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert said.count("made") == 1
    assert all("is in use by another run" in each for each in said if each != "made")


def _open(folder, recipe, together, answers):
    together.wait()
    try:
        open_folder(folder, command="sweep", what="sweep", recipe=recipe, name="x", part="trial-")
        answers.put(recipe)
    except UserError as error:
        answers.put(str(error))


def test_of_several_recipes_that_ask_for_a_folder_at_once_one_gets_it(tmp_path):
    together, answers = fork.Barrier(6), fork.Queue()
    recipes = ["a", "a", "a", "b", "b", "b"]
    processes = [fork.Process(target=_open, args=(str(tmp_path / "s"), r, together, answers)) for r in recipes]
    for process in processes:
        process.start()
    said = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    kept = (tmp_path / "s" / "sweep.yaml").read_text()
    assert said.count(kept) == 3
    assert sum("holds a sweep with other options" in each for each in said) == 3
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["sweep.yaml"]


def test_what_a_forked_process_keeps_open_is_no_claim(tmp_path):
    """Such as a worker that prepares data and outlives its parent for seconds."""
    held = claim(tmp_path)
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    try:
        os.close(held._hold._descriptor)  # as when the process that claimed it is killed
        held._hold._descriptor = None
        for _ in range(100):  # until the child has begun to run
            try:
                claim(tmp_path).release()
                break
            except UserError:
                time.sleep(0.05)
        else:
            pytest.fail("the child has the lock")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_one_waits_for_a_machine_that_may_be_gone(tmp_path, monkeypatch):
    with claimed(tmp_path):
        (tmp_path / CLAIM).write_text("1 elsewhere\n")
        monkeypatch.setattr(claims, "PATIENCE", 0.5)
        begun = time.monotonic()
        with pytest.raises(UserError, match="process 1 on elsewhere"):
            claim(tmp_path)
        assert time.monotonic() - begun >= 0.5


def test_without_locks_work_goes_on(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    assert RunFolder.create(str(tmp_path / "run"), name="x").path.is_dir()


def test_a_file_that_has_another_number_each_time_is_asked_for_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with claimed(tmp_path):
        pass
