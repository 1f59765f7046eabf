"""YAML and JSON as people write them: one reader for all files and arguments, and the writer that fits it.

Only ``true`` and ``false`` are booleans, as in YAML 1.2: ``no``, ``off``, ``012``, ``1:30`` and dates are the text that
stands there, so that a class may be called ``no``. An option that wants a boolean takes ``no`` all the same.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tl_lightning.core.files import read_text
from tl_lightning.errors import UserError, shown

_READ = {  # how a word without quotes is read; every other is text
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "merge": (r"<<", "<"),
}


class _OldLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the fast one, where there is
    """Reads plain data as YAML 1.1 has it, and refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Called by PyYAML for each mapping."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, str | int | float | None):  # which booleans are, too
                if key in lines:
                    raise _Twice(key, lines[key], line)
                lines[key] = line
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


class _Loader(_OldLoader):
    """Reads words without quotes as `_READ` says."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - filled below


class _Dumper(yaml.SafeDumper):
    """Quotes what either this reader or one of YAML 1.1, such as W&B's, would not read as the text that it is."""


for _name, (_pattern, _letters) in _READ.items():
    for _class in (_Loader, _Dumper):
        _first = [letter if letter != "\0" else "" for letter in _letters]
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), _first)


class _Twice(Exception):
    def __init__(self, key: object, first: int, second: int) -> None:
        where = f"in lines {first} and {second}" if first != second else f"in line {first}"
        super().__init__(f"the key {key!r} is there twice, {where}; keep one of them")


def parse_yaml(text: str, *, old: bool = False) -> Any:  # noqa: ANN401 - whatever stands there
    """Reads YAML, or JSON.

    Args:
        text: What to read.
        old: Whether as YAML 1.1 has it, as W&B reads its files: ``no`` is a boolean, and ``1e-4`` is text.

    Raises:
        yaml.YAMLError: If it is no YAML.
        UserError: If a mapping in it has a key twice; the message begins with that key.
    """
    if text.lstrip()[:1] in ("{", "[") and not old:  # JSON may be indented by tabs, which YAML takes nowhere
        try:
            return json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError, _Twice):
            pass
    try:
        return yaml.load(text, Loader=_OldLoader if old else _Loader)
    except _Twice as error:
        raise UserError(str(error)) from None
    except (ValueError, RecursionError) as error:  # such as a number with thousands of digits
        raise yaml.YAMLError(str(error)) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Twice("", 0, 0)  # YAML knows the lines
    return made


def parse_mapping(text: str, where: object, *, old: bool = False) -> dict[str, Any]:
    """Reads YAML or JSON that has to be a mapping of text to values; an empty one is an empty mapping.

    Args:
        text: What to read.
        where: What it was read from, for messages.
        old: See `parse_yaml`.

    Raises:
        UserError: If it is something else.
    """
    try:
        content = parse_yaml(text, old=old)
    except UserError as error:
        raise UserError(f"{shown(where)}: {error}") from error.__cause__
    except yaml.YAMLError as error:
        raise UserError(f"{shown(where)} is no valid YAML: {said_of(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"{content!r:.60}"
        raise UserError(f"{shown(where)} holds {kind}; it must be a mapping, with lines such as key: value")
    for key in content:
        if not isinstance(key, str):
            raise UserError(f"{shown(where)}: the key {key!r} must be text")
    return content


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Reads a YAML or JSON file that has to hold a mapping; see `parse_mapping`.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or holds something else.
    """
    return parse_mapping(read_text(path), path)


def mapping_in(content: dict[str, Any], key: str, where: object) -> dict[str, Any]:
    """A part of a mapping that has to be a mapping itself; an empty one where there is none.

    Args:
        content: The mapping.
        key: The name of the part.
        where: What it was read from, for messages.

    Raises:
        UserError: If it is something else.
    """
    part = content.get(key)
    if part is not None and not isinstance(part, dict):
        raise UserError(f"{shown(where)}: {key} is {part!r:.60}; it must be a mapping, with lines such as key: value")
    return part or {}


def said_of(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is no YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    said = " ".join(f"{getattr(error, 'problem', None) or error}".split())
    begun = getattr(error, "context_mark", None)
    where = "" if begun is None or begun.line == mark.line else f" (of what begins in line {begun.line + 1})"
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}{where}"


def to_yaml(tree: Any, *, flow: bool = False) -> str:  # noqa: ANN401 - plain data
    """Writes plain data as YAML that `parse_yaml` and readers of YAML 1.1 read alike.

    Args:
        tree: Dictionaries, lists, text, numbers, booleans and `None`.
        flow: Whether all goes on one line.
    """
    width = 10**6 if flow else None
    text: str = yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=width
    )
    return text
