"""The parser of an experiment's arguments: the help of everything at once, and mistakes said in one line."""

import re
from argparse import SUPPRESS, HelpFormatter
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from jsonargparse import set_dumper, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from tl_lightning.core.yaml_files import mapping_in, parse_mapping, parse_yaml, to_yaml
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError, nearest
from tl_lightning.tasks import TASKS, ClassificationTask

GROUPS = ("model", "data", "trainer", "early_stopping", "checkpoint", "forgetting")


def _load(text: str, path: object = None) -> Any:  # noqa: ANN401 - whatever stands there
    """Reads a file, whose path jsonargparse names where it is a configuration, or an argument."""
    if not path:
        content = parse_yaml(text)
        # A text with a colon at its end, such as layers:-20:, is no mapping.
        is_text = isinstance(content, dict) and content == {text.strip().removesuffix(":"): None}
        return text if is_text else content
    content = parse_mapping(text, path)
    for group in (name for name in GROUPS if not isinstance(content.get(name, {}), str)):  # the name of a class
        if not mapping_in(content, group, path):
            content.pop(group, None)  # nothing below it, as where all its lines are comments
    return content


set_loader("yaml", _load, exceptions=(yaml.YAMLError,))
set_dumper("yaml", to_yaml)


class ExperimentParser(LightningArgumentParser):
    """Raises `UserError` with one line that names the key, the value and the nearest right key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by jsonargparse with what is wrong."""
        if not self.exit_on_error:  # the parser of a class below; the outermost one, which knows the whole key, speaks
            super().error(message, ex)
        raise user_error(ex) or UserError(one_line(message, sorted(set(self._keys())))) from ex

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Shows the options of the default model and data too, which a parser that takes any class leaves out."""
        text = super().format_help(formatter)
        if not self.exit_on_error:
            return text
        options = LightningArgumentParser(add_help=False, usage=SUPPRESS, description="")
        options.add_class_arguments(ClassificationTask, "model", skip={"classes", "preprocess"})
        for task in TASKS[1:]:  # what they have beside that
            options.add_class_arguments(task, f"model ({task.__name__})", skip={*arguments_of(ClassificationTask)})
        options.add_class_arguments(ImageDataModule, "data", skip={"preprocess", "seed", "problem_type"})
        return f"{text}\n{options.format_help()}"

    def _keys(self) -> Iterator[str]:
        for action in self._actions:
            if action.dest.rpartition(".")[2] not in ("help", "print_config", "model", "data"):
                yield action.dest
        for task in TASKS:
            yield from (f"model.{name}" for name in arguments_of(task))
        yield from (f"data.{name}" for name in arguments_of(ImageDataModule))


def user_error(error: BaseException | None) -> UserError | None:
    """The mistake, said by us, that jsonargparse wrapped into errors of its own on the way."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def arguments_of(owner: type) -> list[str]:
    """The names of a class's arguments on the command line, those that it hands on to its base among them."""
    added = LightningArgumentParser(add_help=False).add_class_arguments(owner, "owner", fail_untyped=False)
    return [name.removeprefix("owner.") for name in added]


def one_line(message: str, keys: list[str]) -> str:
    """Makes one line for people out of a parser's message.

    Args:
        message: What jsonargparse says, over several lines.
        keys: Every valid key, dotted.
    """
    groups = re.findall(r'Parser key "([^"]+)"', message)
    group = next((name for name in groups if name != "config"), "")
    if found := re.search(r"File does not exist: '?([^'\n]+)'?", message):
        return f"--config {found[1]}: there is no such file"
    if found := re.search(r"(?:Option '([^']+)' is not accepted|does not accept option '([^']+)')", message):
        inside = re.search(r"Group '([^']+)' does not accept", message)
        prefix = inside[1] if inside else group
        option = found[1] or found[2]
        key = option if not prefix or option.startswith(f"{prefix}.") else f"{prefix}.{option}"
        return f"unknown key {key!r}{nearest(key, keys)}"
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        key = found[1].lstrip("-").partition("=")[0]
        return f"unknown option --{key}{nearest(key, keys)}"
    if found := re.search(r"the following arguments are required: (\S+)", message):
        return f"{group}.{found[1]} is missing; give it in the configuration, or as --{group}.{found[1]} VALUE"
    value = re.search(r"Got value: (.*?)(?:\n|$)", message) or re.search(r"Given value: (.*?)(?:\n|$)", message)
    if value and groups:
        key = ".".join(dict.fromkeys(part for name in groups for part in name.split(".")))
        if reason := re.search(r"No module named '[^']+'", message):
            return f"{key}: {value[1]!r} cannot be imported ({reason[0]})"
        if "Expected a <class 'str'>" in message and (plain := re.fullmatch(r"[\w.+-]+", value[1])):
            word = plain[0].lower() if plain[0] in ("True", "False") else "null" if plain[0] == "None" else plain[0]
            return f"{key}: {word} is no text to YAML; put it in quotes, as '{word}'"
        return f"{key}: {value[1]!r} does not fit{_expected(message, nested=len(groups) > 1)}"
    return " ".join(message.split())


def _expected(message: str, *, nested: bool) -> str:
    """The tail of a message that says what would fit."""
    choices = re.findall(r"Expected an? typing\.Literal\[([^\]]+)\]", message)
    words = {"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false", "NoneType": "null"}
    types = dict.fromkeys(re.findall(r"Expected an? <class '(\w+)'>", message))
    if nested:
        types.pop("NoneType", None)  # that the model or the data might be null helps nobody
    fitting = [f"one of {', '.join(choices)}"] if choices else []
    fitting += [words.get(name, f"a {name}") for name in types]
    return f"; expected {' or '.join(fitting)}" if fitting else ""
