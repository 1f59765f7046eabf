"""What a user did wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that its maker can mend: the message says what, where, the value, and what to do.

    The command line prints it as one line and exits with code 2; nothing else is raised for people.
    """


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
