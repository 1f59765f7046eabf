"""Checkpoints are written whole or not at all, and a run goes on from the last one that can be read."""

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tl_lightning.core.checkpoint_files import is_for_want_of_room, latest_checkpoint, load_checkpoint, write_checkpoint
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.training.checkpoints import WholeCheckpoints


def content(value):
    """What a checkpoint of ours holds at least, told apart by a value."""
    return {"state_dict": {"w": torch.full((20_000,), float(value))}, "hyper_parameters": {"preprocess": {"size": 32}}}


def value_of(path):
    return float(load_checkpoint(path)["state_dict"]["w"][0])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def line_of(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints: 1, then 2."""
    folder = RunFolder(tmp_path / "run")
    for value in (1, 2):
        WholeCheckpoints().save_checkpoint(content(value), folder.last_checkpoint)
    return folder


def test_the_checkpoint_before_the_last_is_kept(run):
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (1, 2)
    WholeCheckpoints().save_checkpoint(content(3), str(run.last_checkpoint))
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (2, 3)
    WholeCheckpoints().save_checkpoint(content(4), run.checkpoints / "best.ckpt")
    WholeCheckpoints().save_checkpoint(content(5), run.checkpoints / "best.ckpt")
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (2, 3)
    assert value_of(run.best_checkpoint) == 5
    assert names(run.checkpoints) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_lightning_reads_with_the_safe_loader_whatever_it_asks_for(run):
    path = run.checkpoints / "code.ckpt"
    torch.save({**content(1), "code": Path("a pickle of a class")}, path)
    assert "is refused, since reading it would run code" in line_of(
        lambda: WholeCheckpoints().load_checkpoint(path, weights_only=False)
    )
    loaded = WholeCheckpoints().load_checkpoint(str(run.last_checkpoint), weights_only=False)
    assert torch.equal(loaded["state_dict"]["w"], content(2)["state_dict"]["w"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_up_halfway_leaves_what_was_there(run, monkeypatch, number):
    def half(checkpoint, file):
        file.write(b"half of it")
        raise OSError(number, "the disk is full")

    monkeypatch.setattr(torch, "save", half)
    line = line_of(WholeCheckpoints().save_checkpoint, content(3), run.last_checkpoint)
    assert line == (f"{run.last_checkpoint} cannot be written: the disk is full; make room, then go on with tl resume")
    assert names(run.checkpoints) == ["last.ckpt", "previous.ckpt"]
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (1, 2)


@pytest.fixture
def largest_file():
    """Lets the system itself refuse to write on, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    limit(soft)


def test_what_torch_makes_of_a_full_disk_is_one_line_too(run, largest_file):
    # Torch's writer fails again while it closes, and hides the system's own words behind a RuntimeError.
    largest_file(50_000)
    line = line_of(WholeCheckpoints().save_checkpoint, content(3), run.last_checkpoint)
    assert "last.ckpt cannot be written: File too large; make room" in line
    assert names(run.checkpoints) == ["last.ckpt", "previous.ckpt"]
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (1, 2)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), RuntimeError("a bug"), KeyboardInterrupt()])
def test_other_errors_pass_and_leave_what_was_there(run, monkeypatch, error):
    def fail(checkpoint, file):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(type(error)):
        write_checkpoint(content(3), run.last_checkpoint, keep=run.previous_checkpoint)
    assert names(run.checkpoints) == ["last.ckpt", "previous.ckpt"]
    assert (value_of(run.previous_checkpoint), value_of(run.last_checkpoint)) == (1, 2)


def test_a_run_goes_on_from_its_last_checkpoint(run, capsys):
    assert latest_checkpoint(run) == run.last_checkpoint
    assert capsys.readouterr().out == ""


CUTS: list[Callable[[int], int]] = [
    lambda size: 0,
    lambda size: 1,
    lambda size: 4,
    lambda size: 100,
    lambda size: size // 2,
    lambda size: size - 30,
    lambda size: size - 1,
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_last_checkpoint_that_was_cut_off_is_passed_over(run, capsys, cut):
    with run.last_checkpoint.open("r+b") as file:
        file.truncate(cut(run.last_checkpoint.stat().st_size))
    assert latest_checkpoint(run) == run.previous_checkpoint
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{run.last_checkpoint} ")
    assert line.endswith("; going on from previous.ckpt")


def test_a_last_checkpoint_that_is_missing_is_passed_over(run):
    run.last_checkpoint.unlink()
    assert latest_checkpoint(run) == run.previous_checkpoint


def test_a_run_whose_checkpoints_all_cannot_be_read_says_so(run):
    for path in (run.last_checkpoint, run.previous_checkpoint):
        path.write_bytes(path.read_bytes()[:1000])
    line = line_of(latest_checkpoint, run)
    assert "last.ckpt cannot be read" in line
    assert "previous.ckpt cannot be read" in line
    assert line.endswith(f"begin again: tl fit --config {run.config}")


def test_a_run_without_checkpoints_has_nothing_to_go_on_from(tmp_path):
    assert latest_checkpoint(RunFolder(tmp_path)) is None


@pytest.mark.parametrize("value", [{"weights": torch.ones(2)}, {"state_dict": {}}, [1, 2], torch.ones(2)])
def test_what_is_no_checkpoint_of_a_run_is_told_apart(tmp_path, value):
    torch.save(value, tmp_path / "other.ckpt")
    assert "other.ckpt is not a checkpoint of a run" in line_of(load_checkpoint, tmp_path / "other.ckpt")


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path):
    assert line_of(load_checkpoint, tmp_path / "none.ckpt") == f"there is no checkpoint {tmp_path / 'none.ckpt'}"


def test_a_full_disk_is_seen_behind_other_errors_also_where_they_go_in_a_circle():
    mistake, wrapper, full = UserError("wrong"), ValueError("wrapped"), OSError(errno.ENOSPC, "full")
    mistake.__cause__, wrapper.__cause__ = wrapper, mistake
    assert not is_for_want_of_room(mistake)
    wrapper.__context__ = full
    assert is_for_want_of_room(mistake)
