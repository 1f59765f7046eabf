"""Configurations and options of ``tl fit`` as one tree, in their order, as the experiment's parser would merge them.

The parser itself fills in every default, which would bury what was asked for. What it does was read off its answers
(jsonargparse 4.53), and a test compares the two:

- a later configuration is merged into a former one group by group; lists, and mappings that are values, are replaced;
- but classes with arguments are merged, also those in lists that are as long as the former ones;
- ``key+`` appends to a list, also to what is no list yet;
- an option reaches into the last element of a list, and a class that is only named gets arguments;
- a class in another's place keeps those of its arguments that it takes.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from tl_lightning.errors import UserError
from tl_lightning.running.sweeping.fit_options import SPEC, Tree, configuration, options, value_of
from tl_lightning.running.sweeping.trials import nested

CLASSES = ("model", "data")  # groups whose keys are arguments of a class, whether or not it is named
VALUES = ("augmentation", "phases")  # whose mappings are values, even where they name a class
LEFT_OUT = ("run_dir", "print_config")  # of one run alone


def tree_of(args: Sequence[str], values: Mapping[str, Any]) -> Tree:
    """Merges what ``tl fit`` is given.

    Args:
        args: Its options: ``--config FILE``, ``--config=FILE``, ``--key value``, ``--key=value``, ``--key+=value``.
        values: A configuration that stands behind them all.

    Returns:
        A configuration; ``model`` and ``data`` have ``init_args`` only where they have a class.

    Raises:
        UserError: If a configuration cannot be read, or an option is none.
    """
    tree: Tree = {}
    for name, text in options(args):
        if name in ("config", "c"):
            _merge(tree, nested(configuration(text)))
        else:
            _set(tree, name.split("."), value_of(name, text))
    _merge(tree, dict(values))
    for name in LEFT_OUT:
        tree.pop(name, None)
    for name in CLASSES:
        if name in tree and "class_path" not in tree[name]:
            tree[name] = tree[name].get("init_args", {})
    return tree


def _canonical(name: str, value: Any) -> Any:  # noqa: ANN401 - anything that YAML holds
    """The value of ``model`` or ``data`` with all arguments under ``init_args``."""
    if isinstance(value, str):
        if not value.endswith((".yaml", ".yml", ".json")):
            return {"class_path": value}
        value = configuration(value)
    if not isinstance(value, dict):
        raise UserError(f"{name}: {value!r} is no configuration of it; give a mapping, or a class")
    loose = {key: inner for key, inner in value.items() if key not in SPEC}
    named = {key: inner for key, inner in value.items() if key in SPEC}
    return named | ({"init_args": {**named.get("init_args", {}), **loose}} if loose else {})


def _merge(tree: Tree, other: Tree) -> None:
    """Puts a configuration behind a tree."""
    for name, value in other.items():
        if name in CLASSES:
            _merge_spec(tree.setdefault(name, {}), _canonical(name, value), initial=name)
        elif isinstance(value, dict) and isinstance(tree.get(name, {}), dict):
            group = tree.setdefault(name, {})
            for key, inner in value.items():
                _put(group, key, inner)
        else:
            _put(tree, name, value)


def _merge_spec(spec: Tree, other: Tree, *, initial: str = "") -> None:
    """Puts a class with arguments, or some of its arguments, behind a class with arguments."""
    if "class_path" in other and other["class_path"] != spec.get("class_path", initial):
        accepted = _accepted(other["class_path"])
        if "init_args" in spec and accepted is not None:
            spec["init_args"] = {key: value for key, value in spec["init_args"].items() if key.rstrip("+") in accepted}
        spec["class_path"] = other["class_path"]
    for part in SPEC[1:]:
        if part in other:
            arguments = spec.setdefault(part, {})
            for key, value in other[part].items():
                _put(arguments, key, value)


def _put(group: Tree, key: str, value: Any) -> None:  # noqa: ANN401 - anything that YAML holds
    """Gives a group a value, in place of the former one, except that ``key+`` appends and classes are merged."""
    name = key.removesuffix("+")
    if key.endswith("+"):
        more = value if isinstance(value, list) else [value]
        place = name if name in group else key  # without a former value it is appended to the default
        before = group.get(place, [])
        before = [] if before is None or before is False else before if isinstance(before, list) else [before]
        group[place] = [*before, *more]
        return
    group.pop(f"{name}+", None)
    group[name] = json.loads(json.dumps(value)) if name in VALUES else _replaced(group.get(name), value)


def _replaced(former: Any, value: Any) -> Any:  # noqa: ANN401 - anything that YAML holds
    """What stands in a former value's place: the new one; of classes, a merger; of lists as long, that of each."""
    if isinstance(former, list) and isinstance(value, list) and len(former) == len(value):
        return [_replaced(one, other) for one, other in zip(former, value, strict=True)]
    if _is_class(former) and (isinstance(value, str) or _is_class(value)):
        _merge_spec(former, {"class_path": value} if isinstance(value, str) else value)
        return former
    return json.loads(json.dumps(value)) if isinstance(value, dict | list) else value


def _is_class(value: Any) -> bool:  # noqa: ANN401 - anything that YAML holds
    return isinstance(value, dict) and bool(value) and set(value) <= set(SPEC)


def _set(tree: Tree, path: Sequence[str], value: Any) -> None:  # noqa: ANN401 - anything that YAML holds
    """Follows the dots of an option and puts its value there."""
    first, rest = path[0], list(path[1:])
    if not rest:
        _merge(tree, {first: value})
        return
    if first in CLASSES:
        rest = rest if rest[0] in SPEC else ["init_args", *rest]
        if rest == ["class_path"]:
            _merge(tree, {first: {"class_path": value}})
            return
    node = tree.setdefault(first, {})
    for part in rest[:-1]:
        node = _inside(node, part)
    if rest[-1] != "class_path" and "class_path" in node and rest[-1] not in SPEC:
        node = node.setdefault("init_args", {})
    _put(node, rest[-1], value)


def _inside(node: Tree, part: str) -> Tree:
    """The mapping below a key, into which an option reaches."""
    if "class_path" in node and part not in SPEC:
        node = node.setdefault("init_args", {})
    key = part if part in node or f"{part}+" not in node else f"{part}+"
    value = node.get(key)
    last = value[-1] if isinstance(value, list) and value else value
    inner: Tree = last if isinstance(last, dict) else {"class_path": last} if isinstance(last, str) else {}
    node[key] = [*value[:-1], inner] if isinstance(value, list) and value else inner
    return inner


def _accepted(class_path: str) -> set[str] | None:
    """The arguments that a class takes; `None` where it cannot be found. Its module is imported, and maybe torch."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module or "tl_lightning.tasks"), name)
    except (ImportError, AttributeError):
        return None
    accepted: set[str] = set()
    for owner in inspect.getmro(found):
        if (made := vars(owner).get("__init__")) is None:
            continue
        parameters = inspect.signature(made).parameters.values()
        accepted |= {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return accepted
