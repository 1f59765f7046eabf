"""The configurations and sweeps that come with the package, each found by its name, such as ``scenarios/vgg16``."""

import os
from pathlib import Path
from typing import Literal

from tl_lightning.core.files import read_text, user_path
from tl_lightning.errors import UserError, nearest

Kind = Literal["configs", "sweeps"]
OPTIONS = ("--config", "-c")
PACKAGE = Path(__file__).parents[1]


def packaged(kind: Kind) -> dict[str, Path]:
    """Lists what comes with the package.

    Args:
        kind: The folder: in a wheel it lies inside the package, in a checkout beside it.

    Returns:
        The files by name, without suffix; those of sub-folders last.
    """
    folder = next((parent / kind for parent in (PACKAGE, PACKAGE.parent) if (parent / kind).is_dir()), PACKAGE / kind)
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    return {name: names[name] for name in sorted(names, key=lambda name: (name.count("/"), name))}


def summary_of(path: Path) -> str:
    """What a packaged file is for: its first line, which is a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def find(kind: Kind, name: str) -> str | None:
    """Finds a file by its path or, where there is none, a packaged one by its name.

    Args:
        kind: Which packaged files to look through.
        name: What was typed.

    Returns:
        The path of a file that exists, relative where it lies below the working folder; `None` where there is none.
    """
    if user_path(name).is_file():
        return str(user_path(name)) if name.startswith("~") else name
    path = packaged(kind).get(name)
    if path is None:
        return None
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def hint(kind: Kind, name: str) -> str:
    """Names the files and packaged names closest to one that was not found, as the tail of an error message."""
    known = packaged(kind)
    stem = name.removeprefix(f"{kind}/").removesuffix(".yaml").removesuffix(".yml")
    if stem in known:
        return f"; did you mean the packaged {stem}?"
    parent = user_path(name).parent
    files = nearest(name, map(str, parent.glob("*.yaml"))) if parent.is_dir() else ""
    last = {known_name.rpartition("/")[2]: known_name for known_name in reversed(known)}
    close = [last[word] for word in last if word == stem.rpartition("/")[2]]
    return files or nearest(stem, known) or (f"; did you mean {close[0]}?" if close else "")


def find_configs(args: list[str]) -> list[str]:
    """Replaces the packaged names behind ``--config`` by the files' paths, before any import that takes seconds.

    Args:
        args: Command-line arguments; a mapping in JSON is a configuration too, and stays.

    Raises:
        UserError: If a configuration does not exist, or cannot be read.
    """
    found: list[str] = []
    for word in args:
        option, joined, value = word.partition("=")
        if joined and option in OPTIONS:
            found.append(f"{option}={_config(option, value)}")
        elif found and found[-1] in OPTIONS:
            found.append(_config(found[-1], word))
        else:
            found.append(word)
    return found


def _config(option: str, value: str) -> str:
    if value.startswith("{"):
        return value
    path = find("configs", value)
    if path is None:
        listed = "" if value.endswith((".yaml", ".yml")) else " and no packaged configuration (tl configs lists them)"
        raise UserError(f"{option} {value}: there is no such file{listed}{hint('configs', value)}")
    read_text(path)  # or what cannot be read is said by a traceback
    return path
