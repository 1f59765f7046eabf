"""What is shown on the terminal."""

import pytest

from tl_lightning.core.console import duration, new_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (40, "40 s"), (120, "2 min"), (600, "10 min"), (7200, "2.0 h"), (9_000, "2.5 h")],
)
def test_a_length_of_time_in_words(seconds, text):
    assert duration(seconds) == text


def test_numbers_stand_at_the_right_behind_the_words():
    table = new_table("found", "name", "split", numbers=("value", "error"))
    assert table.title == "found"
    assert [(column.header, column.justify) for column in table.columns] == [
        *(("name", "left"), ("split", "left")),
        *(("value", "right"), ("error", "right")),
    ]
