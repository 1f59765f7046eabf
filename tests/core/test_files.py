"""Files are there whole or not at all."""

import csv
import errno
import os
import tempfile
from pathlib import Path

import pytest

from tl_lightning.core.files import replacing, user_path, write_csv, write_text
from tl_lightning.core.options import writable
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    file = tmp_path / "a.csv"
    odd = os.fsdecode(b"\xff.png")
    write_csv(file, iter([("name", "value"), ('a "b", c', 0.1), (odd, None)]))
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        assert list(csv.reader(lines)) == [["name", "value"], ['a "b", c', "0.1"], [odd, ""]]
    assert b"\r" not in file.read_bytes()


def test_after_an_error_the_file_is_what_it_was(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(KeyError), replacing(file) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert file.read_text() == "before" and [*tmp_path.iterdir()] == [file]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    file, link, dangling = tmp_path / "there" / "a.txt", tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(os.path.join("there", "a.txt"))
    dangling.symlink_to(os.path.join("there", "b.txt"))
    for path in (link, dangling):
        write_text(path, "after")
        assert path.is_symlink() and path.read_text() == "after"
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in file.parent.iterdir()) == ["a.txt", "b.txt"]


def test_what_is_no_regular_file_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_csv(pipe, [["a", 1]])
    assert os.read(reader, 100) == b"a,1\n"
    os.close(reader)
    assert [*tmp_path.iterdir()] == [pipe] and pipe.is_fifo()
    write_text(Path(os.devnull), "nowhere")
    assert Path(os.devnull).is_char_device()
    with tempfile.TemporaryFile("w+") as file:  # one that is open already is written on, not begun anew
        file.write("before ")
        file.flush()
        write_text(Path(f"/dev/fd/{file.fileno()}"), "after")
        file.seek(0)
        assert file.read() == "before after"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_names_the_file():
    with pytest.raises(OSError) as error:
        write_text(Path("/dev/full"), "too much")
    assert (error.value.errno, str(error.value.filename)) == (errno.ENOSPC, "/dev/full")


def test_whether_one_can_write_is_tried_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    os.symlink("loop", "loop")
    os.symlink(os.path.join("nowhere", "x"), "lost")
    for path, said in (
        ("folder", "is a folder; name a file"),
        ("nowhere/a.csv", "there is no folder nowhere"),
        ("lost", "there is no folder .*nowhere"),
        ("loop", "cannot be written: Too many levels of symbolic links"),
        (f"{'a' * 300}.csv", "cannot be written: File name too long"),
        ("a\0.csv", "cannot be written: .*null"),
    ):
        with pytest.raises(UserError, match=f"--output .*{said}") as error:
            writable(path)
        assert "\n" not in str(error.value)
    assert writable("~/a.csv") == tmp_path / "a.csv"
    assert writable("a", suffix=".csv") == writable("a.csv", suffix=".csv") == Path("a.csv")
    assert writable(os.devnull, suffix=".csv") == Path(os.devnull)
    assert sorted(os.listdir()) == ["folder", "loop", "lost"]


def test_a_home_folder_is_found_and_nobody_elses_is_made_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x" and user_path(Path("~")) == tmp_path
    monkeypatch.chdir(tmp_path)
    for really in ("./~/x", "~nobody-of-that-name/x"):
        assert user_path(user_path(really)) == tmp_path / really
    assert RunFolder("~/x").path == tmp_path / "x"
