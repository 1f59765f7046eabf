"""Options of the commands that need no experiment parser, with mistakes said in one line."""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from tl_lightning.errors import UserError, nearest

# The options of tl fit without a dot, which some commands take beside their own; a test holds them to the real ones.
OF_FIT = frozenset(
    "--config --print_config --seed_everything --trainer --model --data --early_stopping --checkpoint --forgetting "
    "--run_dir --phases --cache --engine --global_batch --lr_scaling --lr_scaling_batch "
    "--compile --ema --soup --wise_ft --save_every --test --silence".split()
)


def writable(path: str) -> Path:
    """Checks, before anything is computed, that a file can be written where the user wants it.

    Raises:
        UserError: If its folder does not exist, or it is a folder itself.
    """
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {file.parent}; make it, or name another")
    if file.is_dir():
        raise UserError(f"--output {path} is a folder; name a file")
    return file


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
