"""The options of ``tl fit`` as they stand in a sweep's command, and what their texts stand for."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tl_lightning.core.yaml_files import parse_mapping, read_mapping
from tl_lightning.errors import UserError


def options(args: Sequence[str]) -> list[tuple[str, str]]:
    """Options with what they are given; of one that stands alone that is ``true``.

    Args:
        args: As on a command line.

    Raises:
        UserError: If something stands there that is no option.
    """
    found, taken = [], False
    for word, following in pairwise([*args, "--"]):
        if taken:
            taken = False
        elif word == "-c" or (word.startswith("--") and "=" not in word):
            taken = not following.startswith("--")
            found.append((word.lstrip("-"), following if taken else "true"))
        elif word.startswith("--"):
            name, _, text = word[2:].partition("=")
            found.append((name, text))
        else:
            raise UserError(f"{word!r} belongs to no option; write --key=value")
    return found


def to_repeat(args: Sequence[str]) -> list[str]:
    """The same options, without the one that leaves the test out: it is for trials, not for the one that is chosen.

    Args:
        args: As on a command line.
    """
    return [f"--{'config' if name == 'c' else name}={text}" for name, text in options(args) if name != "test"]


def configuration(text: str) -> dict[str, Any]:
    """What a configuration file holds, or a mapping in its place.

    Args:
        text: A file's name, or YAML that begins with a brace.

    Raises:
        UserError: If the file cannot be read, or holds something else.
    """
    return parse_mapping(text, "--config") if text.startswith("{") else read_mapping(text)
