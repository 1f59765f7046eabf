"""What a user did wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that its maker can mend: the message says what, where, the value, and what to do.

    The command line prints it as one line and exits with code 2; nothing else is raised for people.
    """


def shown(path: object) -> str:
    """A file's name as it can stand in one line: what cannot be printed, as a line's end, comes as its escape."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(path))


def nearest(word: str, known: Iterable[str], *, count: int = 3) -> str:
    """Names the known words closest to a wrong one, as the tail of an error message.

    Args:
        word: What was given.
        known: The valid words.
        count: The largest number of words to name.

    Returns:
        ``"; did you mean a, b?"``, or an empty string where nothing comes close.
    """
    close = get_close_matches(word, list(known), n=count, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""
