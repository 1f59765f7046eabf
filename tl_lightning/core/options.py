"""Options of the commands that need no experiment parser, with mistakes said in one line."""

import argparse
import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from tl_lightning.core.files import is_written_into, open_file_of, replacing, user_path
from tl_lightning.core.screen import show_on_stderr
from tl_lightning.errors import UserError, nearest, shown

# The options of tl fit without a dot, which some commands take beside their own; a test holds them to the real ones.
OF_FIT = frozenset(
    "--config --print_config --seed_everything --trainer --model --data --early_stopping --checkpoint --forgetting "
    "--run_dir --phases --cache --engine --global_batch --lr_scaling --lr_scaling_batch "
    "--compile --ema --soup --wise_ft --save_every --test --silence".split()
)


def writable(path: str, *, suffix: str = "") -> Path:
    """Checks, before anything is computed, that a file can be written where the user wants it.

    What the command shows goes to standard error from then on, where the file is standard output.

    Args:
        path: A file, a link to one, or what can be written into, such as ``/dev/stdout`` or a pipe.
        suffix: Added to the name of a file, and to nothing else.

    Raises:
        UserError: If it cannot be written, its folder does not exist, or it is a folder or a disk itself.
    """
    try:
        into = is_written_into(user_path(path))
        file = user_path(path if into else f"{path.removesuffix(suffix)}{suffix}")
        if not into:
            _check_file(file, path)
        elif file.is_block_device():  # all that is on it would be lost
            raise UserError(f"--output {shown(path)} is a disk; name a file")
        elif not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:  # a null byte in the name
        said = getattr(error, "strerror", None) or error
        raise UserError(f"--output {shown(path)} cannot be written: {said}") from error
    if into and open_file_of(file) == 1:
        show_on_stderr()
    return file


def _check_file(file: Path, given: str) -> None:
    target = Path(os.path.realpath(file))
    if target.is_dir():
        raise UserError(f"--output {shown(given)} is a folder; name a file")
    if not target.parent.is_dir():
        folder = file.parent if target == file.absolute() else target.parent
        raise UserError(f"--output {shown(given)}: there is no folder {shown(folder)}; make it, or name another")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is protected")
    with suppress(_Tried), replacing(target) as temporary:
        temporary.touch()
        raise _Tried


class _Tried(Exception):
    """Ends a trial that leaves everything as it was."""


class OptionParser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `UserError`; options are never abbreviated."""

    def __init__(self, command: str, description: str | None = None, *, add_help: bool = True) -> None:
        """Starts without options.

        Args:
            command: The command's name.
            description: Shown by ``--help``.
            add_help: Whether ``--help`` is answered here.
        """
        super().__init__(prog=f"tl {command}", description=description, add_help=add_help, allow_abbrev=False)

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401 - the signature is argparse's
    ) -> tuple[argparse.Namespace, list[str]]:
        """Leaves options for others, but none that is nearly one of its own: others would name theirs as the nearest.

        Args:
            args: What to parse.
            namespace: What argparse fills; `None` for a new one.

        Raises:
            UserError: If an option is misspelt.
        """
        known, rest = super().parse_known_args(args, namespace)
        words = {word.partition("=")[0] for word in rest if re.match("--[a-z_]+(=|$)", word)}
        for option in sorted(words - OF_FIT):
            if get_close_matches(option, self._option_string_actions, n=1, cutoff=0.8):
                self.error(f"unrecognized arguments: {option}")
        return known, rest

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        hint = nearest(unknown[1], self._option_string_actions) if unknown else ""
        raise UserError(message + hint)
