"""What is shown can end nothing: a terminal may lack a letter, a reader such as ``head`` be gone, a disk be full."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Screen:
    """A stream for what is shown: that this cannot be written ends nothing.

    What the terminal's encoding lacks comes as its escape. Where nobody reads any more, or the disk is full, a text is
    lost.

    Attributes:
        lost: Why a text was lost; `None` as long as none was.

    Args:
        stream: Where to write; by default the standard output, or error, of the moment.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.on_stderr = False
        self.lost: Exception | None = None

    @property
    def stream(self) -> TextIO | None:
        """Where it writes now; `None` where a process was started without."""
        stream = self._stream or (sys.stderr if self.on_stderr else sys.stdout)
        return getattr(stream, "rich_proxied_file", stream)  # which would write to us

    def write(self, text: str) -> int:
        """Writes what can be written."""
        stream = self.stream
        if stream is not None:
            try:
                try:
                    stream.write(text)
                except UnicodeEncodeError as error:
                    stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self.lost = error
        return len(text)

    def flush(self) -> None:
        """Writes what is left."""
        try:
            if self.stream is not None:
                self.stream.flush()
        except (OSError, ValueError) as error:
            self.lost = error

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a stream has
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.stream, name)


SCREEN = Screen()  # what the console writes to


def show_on_stderr() -> None:
    """Shows everything on standard error from now on, as standard output takes a command's result."""
    SCREEN.on_stderr = True


@contextmanager
def showing() -> Iterator[Screen]:
    """Has whatever is printed within, also by others, end nothing.

    Yields:
        What says whether a text was lost.
    """
    before = sys.stdout
    sys.stdout = screen = Screen(io.StringIO() if before is None else before)  # a process may have none
    try:
        yield screen
        screen.flush()
    finally:
        sys.stdout, SCREEN.on_stderr = before, False


def open_streams() -> None:
    """Has standard input, output and error lead nowhere where a process was started without, as by ``tl fit >&-``.

    Otherwise the next file that is opened would take their place, and what is printed would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free number, which is this
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def close_streams() -> None:
    """Writes what is left; what cannot be written is given up, or it would change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
