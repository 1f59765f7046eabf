"""Which settings a user has made, in files and as flags, apart from the defaults that fill up a configuration."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tl_lightning.core.yaml_files import parse_mapping, parse_yaml, read_mapping
from tl_lightning.experiment.configuration import Configuration

CLASSES = ("model", "data")  # whose settings may stand under init_args
NOT_SETTINGS = ("config", "run_dir", "print_config", "help")


def own_settings(args: Sequence[str], configuration: Configuration) -> dict[str, Any]:
    """What the user has set, with the values in force.

    Args:
        args: Command-line arguments of ``tl fit``, ``--config`` among them.
        configuration: Made of them.

    Returns:
        Values by dotted key of one or two parts, such as ``phases`` or ``data.source``, without ``init_args``. The
        class of a model or data module is under ``model.class_path`` and ``data.class_path``.
    """
    resolved: dict[str, Any] = parse_yaml(configuration.resolved)
    for name in CLASSES:
        part = resolved[name]
        resolved[name] = {"class_path": part["class_path"], **(part.get("init_args") or {})}
    own = {}
    for key in dict.fromkeys(given_keys(args)):
        first, _, second = key.partition(".")
        holder = resolved.get(first) if second else resolved
        name = second or first
        if isinstance(holder, Mapping) and name in holder and first not in NOT_SETTINGS:
            own[key] = holder[name]
    return own


def given_keys(args: Sequence[str]) -> Iterator[str]:
    """The dotted keys, of one or two parts, that arguments set, in order.

    Args:
        args: Flags as ``--key value`` or ``--key=value``; of ``--config`` what is in the file or the mapping in JSON.

    Yields:
        Keys, perhaps several times.
    """
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-"):
            continue
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        key = flag.lstrip("-").rstrip("+")
        if key in ("config", "c"):
            yield from _keys_in(parse_mapping(value, flag) if value.startswith("{") else read_mapping(value))
        elif key in CLASSES and value.startswith("{"):
            yield from _keys_in({key: parse_yaml(value)})
        elif key in CLASSES:
            yield f"{key}.class_path"
        else:
            yield _short([part for part in key.split(".") if part != "init_args"])


def _keys_in(content: Any) -> Iterator[str]:  # noqa: ANN401 - whatever a file holds
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        name = str(name).rstrip("+")
        if not isinstance(value, Mapping) or name in ("phases", "compile", "silence"):
            yield _short(name.split("."))  # also a file may write data.source: elpv
            continue
        inner = {**value, **(value.get("init_args") or {})} if name in CLASSES else value
        yield from (_short([name, str(key).rstrip("+")]) for key in inner if key != "init_args")


def _short(parts: Sequence[str]) -> str:
    return ".".join(parts[:2])
