import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from tl_lightning.core import cache_folder, cache_room
from tl_lightning.core.cache_folder import building, cache_dir, discard, entries, hold, remove, writing
from tl_lightning.core.cache_room import NoRoom, format_bytes, make_room, size_limit
from tl_lightning.core.locks import Hold
from tl_lightning.errors import UserError

Usage = namedtuple("Usage", "total used free")
KEYS = [digit * 16 for digit in "abcdef"]
BLOCK = 4096


@pytest.fixture(autouse=True)
def disk(monkeypatch):
    """A disk with as much space as a test says, and a limit that does not matter."""
    monkeypatch.setenv("TL_CACHE_SIZE", "1TB")
    monkeypatch.setattr(cache_room, "RESERVE", 0)
    free = {"bytes": 2**40}
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(0, 0, free["bytes"]))
    return free


def fill(key, *, kind="activations", blocks=1, used=0.0):
    """An entry of some blocks, last used so many seconds ago."""
    folder = cache_dir() / kind / key
    with writing_parents(folder), writing(folder) as unfinished:
        (unfinished / "data.bin").write_bytes(b"x" * BLOCK * blocks)
    hold(folder).release()
    then = time.time() - used
    os.utime(folder.with_name(f".{key}.use"), (then, then))
    return folder


def writing_parents(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    return building(folder)


def keys():
    return [entry.key for entry in entries()]


def start(code, *args):
    """Starts a process that says ``ready`` once it is where it should be."""
    ours = "from tl_lightning.core.cache_folder import *; from tl_lightning.core.cache_room import *"
    code = f"import os, sys, time; from pathlib import Path; {ours}\n{code}"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ready(process):
    assert process.stdout.readline() == "ready\n"
    return process


def end(process, *, kill=False):
    if kill:
        process.send_signal(signal.SIGKILL)
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=10)


HOLDER = "held = hold(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
BUILDER = """
with building(Path(sys.argv[1]), on_wait=lambda: print('ready', flush=True)):
    with writing(Path(sys.argv[1])) as unfinished:
        (unfinished / 'half').write_bytes(b'x' * 4096)
        print('ready', flush=True)
        sys.stdin.read()
"""
WAITER = """
with building(Path(sys.argv[1]), on_wait=lambda: print('ready', flush=True)):
    print(Path(sys.argv[1]).exists())
"""
FORKER = """
folder = Path(sys.argv[1])
held = hold(folder)
if (worker := os.fork()) == 0:
    held.release()
    os._exit(0)
os.waitpid(worker, 0)
print(remove(folder), flush=True)
if (worker := os.fork()) == 0:
    time.sleep(30)
    os._exit(0)
held.release()
print(remove(folder), flush=True)
os.kill(worker, 9)
"""


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("TL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tl_lightning"
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


def test_an_empty_cache_has_no_entries():
    assert entries() == []


def test_entries_are_described():
    fill(KEYS[0], kind="images", blocks=2, used=100)
    (folder,) = [fill(KEYS[1])]
    (folder / "about.json").write_text('{"cut": "blocks.3"}')
    images, activations = entries()
    assert (images.kind, images.key, images.bytes, images.about) == ("images", KEYS[0], 2 * BLOCK, {})
    assert time.time() - images.last_used == pytest.approx(100, abs=5)
    assert (activations.kind, activations.folder, activations.bytes) == ("activations", folder, 2 * BLOCK)
    assert activations.about == {"cut": "blocks.3"}
    assert activations.finished and not activations.in_use


def test_a_file_full_of_holes_counts_with_what_it_takes_and_what_it_may_take():
    folder = fill(KEYS[0])
    os.truncate(folder / "data.bin", 100 * BLOCK)
    (entry,) = entries()
    assert (entry.bytes, entry.reserved) == (BLOCK, 100 * BLOCK)


@pytest.mark.parametrize("about", ["{", "[1]", "\udc80"])
def test_an_unreadable_description_is_none(about):
    folder = fill(KEYS[0])
    (folder / "about.json").write_bytes(about.encode(errors="surrogateescape"))
    assert entries()[0].about == {}


def test_what_is_not_ours_is_neither_listed_nor_removed(monkeypatch):
    mine = cache_dir() / "images" / "holidays"
    mine.mkdir(parents=True)
    (cache_dir() / "images" / ".hidden").touch()
    monkeypatch.setenv("TL_CACHE_SIZE", "0B")
    assert entries() == []
    with pytest.raises(NoRoom):
        make_room(1)
    assert mine.exists()


def test_an_entry_that_vanishes_meanwhile_is_left_out(monkeypatch):
    fill(KEYS[0])
    folder = fill(KEYS[1])
    listed = os.listdir(folder.parent)
    remove(folder)
    monkeypatch.setattr("os.listdir", lambda _path: listed)
    assert [entry.key for entry in entries() if entry.kind == "activations"] == [KEYS[0]]


def test_the_least_recently_used_goes_first(monkeypatch):
    for key, used in zip(KEYS[:4], [30, 40, 10, 20], strict=True):
        fill(key, used=used)
    monkeypatch.setenv("TL_CACHE_SIZE", f"{4 * BLOCK}B")
    make_room(0)
    assert keys() == KEYS[:4]
    make_room(1)
    assert keys() == [KEYS[0], KEYS[2], KEYS[3]]
    make_room(3 * BLOCK)
    assert keys() == [KEYS[2]]


def test_holding_counts_as_use(monkeypatch):
    for key, used in zip(KEYS[:2], [40, 30], strict=True):
        fill(key, used=used)
    hold(cache_dir() / "activations" / KEYS[0]).release()
    monkeypatch.setenv("TL_CACHE_SIZE", f"{2 * BLOCK}B")
    make_room(BLOCK)
    assert keys() == [KEYS[0]]


def test_use_begins_with_the_hold_and_ends_with_it():
    folder = fill(KEYS[0], used=1000)
    held = hold(folder)
    assert time.time() - entries()[0].last_used == pytest.approx(0, abs=5)
    os.utime(folder.with_name(f".{KEYS[0]}.use"), (0, 0))
    held.release()
    assert time.time() - entries()[0].last_used == pytest.approx(0, abs=5)


def test_a_full_disk_makes_entries_go_below_the_limit(disk):
    for key, used in zip(KEYS[:2], [40, 30], strict=True):
        fill(key, used=used)
    disk["bytes"] = 3 * BLOCK
    make_room(4 * BLOCK)
    assert keys() == [KEYS[1]]


def test_what_cannot_fit_removes_nothing_and_says_why(monkeypatch, disk):
    fill(KEYS[0], used=50)
    held = hold(fill(KEYS[1]))
    monkeypatch.setenv("TL_CACHE_SIZE", f"{2 * BLOCK}B")
    disk["bytes"] = 8 * 2**20
    with pytest.raises(NoRoom) as error:
        make_room(BLOCK + 1)
    assert str(error.value) == (
        "4.0 KiB are needed; the cache may hold 8.0 KiB, of which 4.0 KiB are in use, and the disk has 8.0 MiB free"
    )
    assert keys() == KEYS[:2]
    held.release()
    make_room(BLOCK + 1)
    assert keys() == []


def test_what_a_held_entry_may_still_take_is_not_given_away(monkeypatch, disk):
    folder = fill(KEYS[0])
    os.truncate(folder / "data.bin", 10 * BLOCK)
    held = hold(folder)
    monkeypatch.setenv("TL_CACHE_SIZE", f"{12 * BLOCK}B")
    make_room(2 * BLOCK)
    with pytest.raises(NoRoom):
        make_room(3 * BLOCK)
    held.release()
    make_room(3 * BLOCK)
    monkeypatch.setenv("TL_CACHE_SIZE", "1TB")
    held = hold(folder)
    disk["bytes"] = 11 * BLOCK
    make_room(2 * BLOCK)
    with pytest.raises(NoRoom):
        make_room(3 * BLOCK)


@pytest.mark.parametrize("kill", [False, True])
def test_what_another_process_holds_stays_until_that_ends(monkeypatch, kill):
    folder = fill(KEYS[0], used=50)
    fill(KEYS[1], used=40)
    process = ready(start(HOLDER, folder))
    monkeypatch.setenv("TL_CACHE_SIZE", f"{2 * BLOCK}B")
    assert [entry.in_use for entry in entries()] == [True, False]
    assert not remove(folder)
    make_room(BLOCK)
    assert keys() == [KEYS[0]]
    end(process, kill=kill)
    assert not entries()[0].in_use
    make_room(2 * BLOCK)
    assert keys() == []


def test_one_process_builds_and_the_other_finds_it_done():
    folder = cache_dir() / "activations" / KEYS[0]
    held = hold(folder)
    first = ready(start(BUILDER, folder))
    second = ready(start(WAITER, folder))
    assert not folder.exists()
    end(first)
    assert second.stdout.read() == "True\n"
    end(second)
    held.release()


def test_a_builder_that_dies_leaves_a_leftover_that_the_next_one_removes():
    folder = cache_dir() / "activations" / KEYS[0]
    held = hold(folder)
    process = ready(start(BUILDER, folder))
    (entry,) = entries()
    assert (entry.in_use, entry.finished, entry.bytes) == (True, False, BLOCK)
    assert not remove(folder)
    end(process, kill=True)
    held.release()
    (entry,) = entries()
    assert (entry.in_use, entry.finished, entry.bytes) == (False, False, BLOCK)
    with building(folder):
        assert list(folder.parent.glob("*unfinished*")) == []
    assert entries() == []


def test_leftovers_go_before_entries(monkeypatch):
    folder = fill(KEYS[0], used=100)
    leftover = folder.with_name(f".{KEYS[1]}.unfinished-12345678")
    leftover.mkdir()
    (leftover / "data.bin").write_bytes(b"x" * BLOCK)
    monkeypatch.setenv("TL_CACHE_SIZE", f"{2 * BLOCK}B")
    make_room(BLOCK)
    assert keys() == [KEYS[0]] and not leftover.exists()


def test_a_removed_entry_leaves_no_file():
    folder = fill(KEYS[0])
    assert remove(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_half_removed_entry_is_never_found(monkeypatch):
    folder = fill(KEYS[0])

    def die(_path, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", die)
        discard(folder)
    assert not folder.exists()
    assert [entry.finished for entry in entries()] == [False]
    assert remove(folder) and list(folder.parent.iterdir()) == []


def test_who_waits_for_a_removal_holds_what_comes_after(monkeypatch):
    folder = fill(KEYS[0])
    real, process = cache_folder.discard, None

    def discard_slowly(folder):
        nonlocal process
        process = start(HOLDER, folder)
        time.sleep(0.5)  # it waits for the lock whose file is about to go
        real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(cache_folder, "discard", discard_slowly)
        assert remove(folder)
    ready(process)
    assert not remove(folder)
    end(process)
    assert remove(folder)


def test_a_hold_lasts_as_long_as_its_object():
    folder = fill(KEYS[0])
    held = hold(folder)
    again = hold(folder)
    held.release()
    held.release()
    assert not remove(folder)
    del again
    assert remove(folder)


def test_a_pickled_hold_holds_nothing():
    folder = fill(KEYS[0])
    held = hold(folder)
    copy = pickle.loads(pickle.dumps(held))
    assert isinstance(copy, Hold)
    held.release()
    assert remove(folder)
    copy.release()


def test_a_forked_worker_neither_ends_nor_keeps_a_hold():
    folder = fill(KEYS[0])
    process = start(FORKER, folder)
    assert process.stdout.read() == "False\nTrue\n"
    end(process)


def test_where_nothing_can_be_locked_reading_and_building_go_on_and_nothing_is_removed(monkeypatch):
    folder = fill(KEYS[0])

    def refuse(*_args):
        raise OSError(30, "read-only")

    monkeypatch.setattr("fcntl.flock", refuse)
    hold(folder).release()
    with building(folder):
        pass
    assert not remove(folder) and folder.exists()
    monkeypatch.setattr("os.open", refuse)
    hold(folder).release()
    with building(folder):
        pass
    assert not remove(folder) and folder.exists()


def test_without_locks_the_entry_of_a_faster_process_stays():
    folder = fill(KEYS[0])
    with writing(folder) as unfinished:
        (unfinished / "mine").touch()
    assert [path.name for path in folder.iterdir()] == ["data.bin"]
    assert list(folder.parent.glob("*unfinished*")) == []


def test_without_locks_a_builder_leaves_alone_what_another_is_writing(monkeypatch):
    folder = cache_dir() / "activations" / KEYS[0]
    folder.parent.mkdir(parents=True)
    monkeypatch.setattr(cache_folder.fcntl, "flock", cannot_lock)
    with building(folder), writing(folder) as unfinished:
        with building(folder):
            assert unfinished.is_dir()
        (unfinished / "data.bin").write_bytes(b"x")
    assert (folder / "data.bin").read_bytes() == b"x"


def cannot_lock(*args):
    raise OSError(errno.ENOSYS, "no locks here")


def test_what_cannot_be_removed_is_not_counted_as_removed(monkeypatch):
    folder = fill(KEYS[0])
    monkeypatch.setattr(cache_folder.shutil, "rmtree", lambda path, **options: None)
    assert not remove(folder)


def test_the_disk_is_never_filled_up(disk, monkeypatch):
    monkeypatch.setattr(cache_room, "RESERVE", 100)
    disk["bytes"] = 110
    make_room(10)
    with pytest.raises(NoRoom, match="11 B are needed"):
        make_room(11)


def test_what_has_to_come_makes_others_go_even_if_that_is_not_enough(monkeypatch):
    fill(KEYS[0], blocks=2)
    monkeypatch.setenv("TL_CACHE_SIZE", f"{3 * BLOCK}B")
    with pytest.raises(NoRoom):
        make_room(4 * BLOCK)
    assert keys() == [KEYS[0]]
    with pytest.raises(NoRoom):
        make_room(4 * BLOCK, all_or_nothing=False)
    assert keys() == []


def test_an_interrupted_writing_leaves_nothing():
    folder = cache_dir() / "activations" / KEYS[0]
    with pytest.raises(KeyboardInterrupt), writing(folder) as unfinished:
        (unfinished / "half").touch()
        raise KeyboardInterrupt
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20 * 10**9),
        ("500MB", 500 * 10**6),
        ("2TiB", 2 * 2**40),
        ("1.5 GiB", 3 * 2**29),
        ("10kb", 10**4),
        (" 7B ", 7),
        ("0GB", 0),
    ],
)
def test_the_limit_is_read_with_its_unit(monkeypatch, text, size):
    monkeypatch.setenv("TL_CACHE_SIZE", text)
    assert size_limit(10**6) == size


@pytest.mark.parametrize("text", ["20", "GB", "-1GB", "20GBs", "1e3MB", "20 giga"])
def test_a_limit_that_is_none_is_a_mistake_in_one_line(monkeypatch, text):
    monkeypatch.setenv("TL_CACHE_SIZE", text)
    with pytest.raises(UserError) as error:
        make_room(1)
    assert str(error.value) == f"TL_CACHE_SIZE is {text!r}; it must be a number with its unit, such as 20GB or 500MB"


def test_by_default_half_of_the_disk_is_for_the_cache(monkeypatch, disk):
    monkeypatch.delenv("TL_CACHE_SIZE")
    disk["bytes"] = 700
    assert size_limit(300) == 500


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (3000 * 2**40, "3000.0 TiB")],
)
def test_sizes_are_said_in_fitting_units(count, words):
    assert format_bytes(count) == words
