"""The command of a W&B sweep file: what it gives to ``tl fit`` beside the parameters."""

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from tl_lightning.core.options import OF_FIT
from tl_lightning.core.packaged import find_configs
from tl_lightning.errors import UserError, nearest
from tl_lightning.running.sweeping.fit_options import options

PARAMETERS = "${args_json_file}"
EXAMPLE = f'["${{env}}", "${{interpreter}}", "-m", tl_lightning, fit, --config=FILE, --config, "{PARAMETERS}"]'


def read_command(command: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 - whatever the file says
    """Checks a command and gives what stands behind ``fit``, without the pair that hands over the parameters.

    Args:
        command: What the file says; a list of words.
        where: The file and the key, for messages.

    Raises:
        UserError: If it is none of ours, hands over the parameters without their types or not at all, or names a
            configuration that does not exist.
    """
    if command is None:
        raise UserError(f"{where} is missing; write {EXAMPLE}")
    if not isinstance(command, list):
        raise UserError(f"{where} is {command!r}; W&B wants a list of words, such as {EXAMPLE}")
    words = [_word(word, f"{where}[{k}]") for k, word in enumerate(command)]
    args = _behind_fit(words, where)
    for word in args:
        if PARAMETERS in word and word != PARAMETERS:
            raise UserError(f'{where}: W&B leaves {word!r} as it is; write two words, --config, "{PARAMETERS}"')
        if re.fullmatch(r"\$\{\w+\}", word) and word != PARAMETERS:
            raise UserError(f'{where}: {word} loses the values\' types; write --config, "{PARAMETERS}" instead')
    if tuple(args[-2:]) not in (("--config", PARAMETERS), ("-c", PARAMETERS)) or PARAMETERS in args[:-2]:
        raise UserError(
            f'{where} must end with --config, "{PARAMETERS}": so the parameters reach the run, and nothing behind '
            "undoes them"
        )
    given = [_filled(word, where) for word in args[:-2]]
    _check_given(given, where)
    try:
        return tuple(find_configs(given))
    except UserError as error:
        raise UserError(f"{where}: {error} (looked for from {Path.cwd()})") from error


def _word(word: Any, where: str) -> str:  # noqa: ANN401 - whatever the file says
    if isinstance(word, str):
        return word
    if type(word) in (bool, int, float):
        return json.dumps(word)
    raise UserError(f"{where} is {word!r}; it must be a word: put it in quotes")


def _behind_fit(words: list[str], where: str) -> list[str]:
    for position, word in enumerate(words):
        before = words[:position]
        if word == "fit" and (before[-2:] == ["-m", "tl_lightning"] or (before and Path(before[-1]).name == "tl")):
            return words[position + 1 :]
    raise UserError(f"{where} runs no tl fit: {' '.join(words)!r}; write {EXAMPLE}")


def _filled(word: str, where: str) -> str:
    """With the environment variables that W&B's agent would fill in."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(f"{where}: {word} needs the environment variable {found[1]}, which is not set")
        return os.environ[found[1]]

    return re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", value, word)


def _check_given(args: list[str], where: str) -> None:
    try:
        names = [name for name, _ in options(args)]
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    for name in names:
        first = re.split(r"[.+]", name)[0]
        if first in ("help", "h", "print_config") or (first != "c" and f"--{first}" not in OF_FIT):
            near = nearest(first, (option.removeprefix("--") for option in OF_FIT))
            raise UserError(f"{where}: --{name} is nothing that a trial can take{near}")
    for word, following in pairwise([*args, ""]):
        option, joined, value = word.partition("=")
        value = value if joined else following
        if option == "--run_dir":
            raise UserError(f"{where}: --run_dir {value} would be every trial's folder; leave it out")
