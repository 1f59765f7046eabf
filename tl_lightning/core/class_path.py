"""From an import path such as ``torch.optim.SGD`` to what stands there."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tl_lightning.errors import UserError, nearest


def resolve(path: object, where: str, *, example: str = "my_package.MyClass") -> Any:  # noqa: ANN401 - it is the user's
    """Imports a class or function that a configuration names.

    Args:
        path: The import path of the module, a dot and the name.
        where: What an error calls the setting, such as ``model.class_path``.
        example: A path that would do, for the error message.

    Raises:
        UserError: If it is no import path, its module cannot be imported, or the module has no such name.
    """
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module_name:
        raise UserError(f"{where} is {path!r}; give an import path such as {example}")
    try:
        module = import_module(module_name)
    except Exception as error:  # the module may be the user's: whatever it raises is for its author to read
        raise UserError(
            f"{where} is {path!r}, which cannot be imported ({one_line(error)}); correct it, or install its package"
        ) from error
    if not hasattr(module, name):
        hint = nearest(name, dir(module)) or "; correct the name"
        raise UserError(f"{where} is {path!r}, but {module_name} has no {name!r}{hint}")
    return getattr(module, name)


def check_switches(found: Any, arguments: Mapping[str, object], where: str) -> None:  # noqa: ANN401
    """Refuses ``no`` and ``off`` for an argument that is true or false: they are text, which Python counts as true.

    Args:
        found: A class or function.
        arguments: What a configuration gives it.
        where: What an error calls the arguments.

    Raises:
        UserError: If one is such.
    """
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):  # one written in C says nothing
        return
    for name, value in arguments.items():
        switch = name in parameters and isinstance(parameters[name].default, bool)
        if switch and isinstance(value, str) and value.lower() in ("no", "off", "yes", "on", "n", "y"):
            raise UserError(f"{where}.{name} is {value!r}; write true or false")


def one_line(error: Exception) -> str:
    """An error's type and message as they can stand within a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
