"""Files are there whole or not at all."""

import csv
import os

import pytest

from tl_lightning.core.files import replacing, write_csv


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
