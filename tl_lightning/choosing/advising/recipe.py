"""The advice as a file: a configuration that ``tl fit`` runs as it is, with the reason above every setting."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_lightning.choosing.advising.reasons import OWN, Reason
from tl_lightning.core.files import is_written_into
from tl_lightning.core.options import writable
from tl_lightning.core.yaml_files import to_yaml
from tl_lightning.errors import UserError

MARK = "# Written by tl advise"
WIDTH = 118
FIRST = ("", "model", "data", "trainer", "early_stopping")  # the order of the groups; others follow


def check_output(name: str | None, *, default: str) -> Path:
    """Makes sure that the file can be written, and is not somebody's work.

    Args:
        name: What the user named; `None` for the default.
        default: A name.

    Raises:
        UserError: If the folder does not exist, or there is a file that is not to be overwritten: one that was not
            written here, or, under the default name, any.
    """
    file = writable(default if name is None else name)
    if is_written_into(file) or not file.exists():
        return file
    try:
        ours = file.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError as error:
        raise UserError(f"--output {file}: {error.strerror}; name another file") from error
    if not ours:
        raise UserError(f"--output {file} is there already, and tl advise has not written it; name another file")
    if name is None:
        raise UserError(f"{file} is there already; --output {file} writes it anew, another name keeps it")
    return file


def recipe(
    reasons: Sequence[Reason],
    own: Mapping[str, Any],
    *,
    about: Sequence[str],
    classes: Mapping[str, str],
    mark: str = MARK,
) -> str:
    """Writes the configuration.

    Args:
        reasons: A setting each.
        own: The user's settings, by dotted key; they go in whether or not a reason names them, and win.
        about: Lines for the head of the file.
        classes: The class paths of ``model`` and ``data``, where they are not the package's defaults.
        mark: The beginning of the first line, which says who wrote it.

    Returns:
        YAML with comments.
    """
    rows: dict[str, dict[str, tuple[Any, str]]] = {}
    for reason in reasons:
        _place(rows, reason.setting, own.get(reason.setting, reason.value), comment(reason))
    for key, value in own.items():
        if not key.endswith(".class_path") and not any(reason.setting == key for reason in reasons):
            _place(rows, key, value, OWN)
    lines = [f"{mark}; tl fit --config runs it as it is.", *(f"# {line}" for line in about)]
    for group in [*FIRST, *sorted(rows.keys() - set(FIRST))]:
        settings = rows.get(group, {})
        if not settings:
            continue
        indent = ""
        if group:
            lines.append(f"{group}:")
            indent = "  "
        if group in classes:
            lines += [f"  class_path: {classes[group]}", "  init_args:"]
            indent = "    "
        for name, (value, remark) in settings.items():
            lines += textwrap.wrap(remark, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            lines += [f"{indent}{line}" for line in _dumped(name, value)]
    return "\n".join(lines) + "\n"


def comment(reason: Reason) -> str:
    """A reason in one line: why, the number it rests on, and the rule."""
    if reason.source == OWN:
        return OWN
    number = f" ({reason.number})" if reason.number else ""
    source = f" [{reason.source}]" if reason.source else ""
    return f"{reason.why}{number}{source}"


def _place(rows: dict[str, dict[str, tuple[Any, str]]], key: str, value: Any, remark: str) -> None:  # noqa: ANN401
    group, _, name = key.rpartition(".")
    rows.setdefault(group, {})[name] = (value, remark)


def _dumped(name: str, value: Any) -> list[str]:  # noqa: ANN401 - any value of a configuration
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        return [f"{name}:", *(f"  - {_in_flow(entry)}" for entry in value)]
    return [f"{name}: {_in_flow(value)}"]


def _in_flow(value: Any) -> str:  # noqa: ANN401
    text = to_yaml(value, flow=True)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")
