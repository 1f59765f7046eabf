"""What the manual takes from the code itself: commands with their options, settings, packaged files."""

import argparse
import contextlib
import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

from tl_lightning.cli import COMMANDS
from tl_lightning.core.options import OptionParser
from tl_lightning.core.packaged import packaged, summary_of


class Parsed(Exception):
    """A command has read its own options.

    Attributes:
        parser: What read them.
        rest: What it left for the parser of ``tl fit``.
    """

    def __init__(self, parser: OptionParser, rest: list[str]) -> None:
        """Keeps both."""
        super().__init__(parser.prog)
        self.parser, self.rest = parser, rest


@contextlib.contextmanager
def only_parsing() -> Iterator[None]:
    """Within it a command ends with `Parsed` where it would begin to work."""
    known, everything = OptionParser.parse_known_args, OptionParser.parse_args

    def parse_known_args(self: OptionParser, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        raise Parsed(self, known(self, args, namespace)[1])

    def parse_args(self: OptionParser, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        _, rest = known(self, args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed(self, [])

    OptionParser.parse_known_args, OptionParser.parse_args = parse_known_args, parse_args  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        OptionParser.parse_known_args, OptionParser.parse_args = known, everything  # type: ignore[method-assign]


def parse(name: str, args: list[str]) -> Parsed:
    """Has a command read its own options, with its own parser, and nothing more.

    Args:
        name: The command.
        args: What stands behind it.

    Raises:
        UserError: If they are wrong.
    """
    command = COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    try:
        with only_parsing():
            function(args)
    except Parsed as parsed:
        return parsed
    raise RuntimeError(f"tl {name} has no parser of its own")


# The least that each parser takes, so that it can be looked at.
LEAST = {
    "init": ["NAME", "--source", "DIR"],
    "sweep": ["FILE"],
    "submit": ["slurm", "--", "fit"],
    "resume": ["--run_dir", "RUN"],
    "check_preprocessing": ["--run_dir", "RUN"],
}
FIT_ONLY = {"fit"}  # everything it takes is a setting


def own_options(name: str) -> list[argparse.Action]:
    """The options that a command has beside the settings of ``tl fit``."""
    if name in FIT_ONLY:
        return []
    parser = parse(name, LEAST.get(name, [])).parser
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def commands() -> str:
    """Each command with its options."""
    parts = []
    for name, command in COMMANDS.items():
        parts += [f"## tl {name}", "", f"{command.help[0].upper()}{command.help[1:]}.", ""]
        rows = [_option(action) for action in own_options(name)]
        if rows:
            parts += ["| option | |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _option(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or (action.metavar or action.dest)
    value = "" if not action.option_strings or action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    if action.choices:
        value = f" {'|'.join(map(str, action.choices))}"
    filled = (action.help or "") % {**vars(action), "prog": "tl"} if action.help else ""
    return f"| `{_cell(f'{name}{value}')}` | {_cell(filled)} |"


LIGHTNING = ("trainer", "early_stopping", "checkpoint")  # documented there
LINKED = {"num_classes", "classes", "preprocess", "seed", "problem_type"}  # of a class: decided by other settings


def settings() -> str:
    """Every setting of ``tl fit`` but Lightning's own, with its default."""
    from jsonargparse import ArgumentParser

    from tl_lightning.core.quiet import quiet
    from tl_lightning.data.images.module import ImageDataModule
    from tl_lightning.experiment.configuration import Configuration
    from tl_lightning.tasks import TASKS, ClassificationTask

    class Unbuilt(Configuration):
        def instantiate_classes(self) -> None: ...

    def arguments(cls: type, prefix: str) -> dict[str, str]:
        parser = ArgumentParser()
        parser.add_class_arguments(cls, prefix)
        return dict(_rows(parser))

    quiet()
    run = dict(_rows(Unbuilt(["--config", str(packaged("configs")["elpv"])], folder=None).parser))
    usual = arguments(ClassificationTask, "model")
    groups = {
        "The run": {key: row for key, row in run.items() if "." not in key and key not in ("model", "data", "config")},
        "forgetting": {key: row for key, row in run.items() if key.startswith("forgetting.")},
        "model": usual,
        "data": arguments(ImageDataModule, "data"),
    }
    for task in TASKS:
        if task is not ClassificationTask:
            own = arguments(task, "model").items()
            groups[f"model, of {task.__name__}"] = {key: row for key, row in own if usual.get(key) != row}
    lines = []
    for group, rows in groups.items():
        lines += [f"## {group}", "", "| setting | |", "|---|---|", *rows.values(), ""]
    return "\n".join(lines)


def _rows(parser: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - jsonargparse's
    for action in parser._actions:
        key, text = action.dest, action.help
        private = not isinstance(text, str) or key.partition(".")[0] in LIGHTNING or key.rpartition(".")[2] in LINKED
        if private or key in ("help", "print_config") or text == argparse.SUPPRESS or key.endswith(".help"):
            continue
        if type(action).__name__ == "_ActionConfigLoad":  # a whole group as one option
            continue
        default = (
            "" if action.default in (None, argparse.SUPPRESS) else f" Default `{_cell(_written(action.default))}`."
        )
        yield key, f"| `{key}` | {_cell(text)}{default} |"


def _written(value: object) -> str:
    """A default as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cell(text: str) -> str:
    plain = re.sub(r"\s+", " ", text).replace("``", "`").replace("|", "\\|").strip()
    return re.sub(r"<(\w+)>", r"\\<\1>", plain)


def files(kind: Any) -> str:  # noqa: ANN401 - one of the two kinds
    """The packaged files with what each is for."""
    rows = [f"| `{name}` | {_cell(summary_of(path))} |" for name, path in packaged(kind).items()]
    return "\n".join(["| name | |", "|---|---|", *rows])


PARTS = {
    "commands": commands,
    "settings": settings,
    "configs": lambda: files("configs"),
    "sweeps": lambda: files("sweeps"),
}


def fill_in(text: str) -> str:
    """Replaces each ``<!-- NAME -->`` of a page by what `PARTS` has under that name."""
    return re.sub(r"<!-- (\w+) -->", lambda found: PARTS[found[1]](), text)
