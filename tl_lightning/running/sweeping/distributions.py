"""A parameter of a W&B sweep file, with all distributions that W&B knows, as one of our three kinds."""

import math
import re
from collections.abc import Mapping
from typing import Any

from tl_lightning.errors import UserError, nearest
from tl_lightning.running.sweeping.parameters import Bell, Choice, Parameter, Range, rounded

BOUNDS = ("min", "max")
# What each takes, as in the schema of W&B's own `sweeps` 0.3.0.
DISTRIBUTIONS = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": BOUNDS,
    "uniform": BOUNDS,
    "q_uniform": (*BOUNDS, "q"),
    "log_uniform": BOUNDS,
    "q_log_uniform": (*BOUNDS, "q"),
    "inv_log_uniform": BOUNDS,
    "log_uniform_values": BOUNDS,
    "q_log_uniform_values": (*BOUNDS, "q"),
    "inv_log_uniform_values": BOUNDS,
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
    "beta": ("a", "b"),
    "q_beta": ("a", "b", "q"),
}
DEFAULTS = {"q": 1.0, "mu": 0.0, "sigma": 1.0, "a": 1.0, "b": 1.0}
LARGEST_EXPONENT = 20  # e to that is half a billion


def read_parameter(content: Mapping[str, Any], where: str) -> Parameter:
    """Reads and checks one parameter.

    Args:
        content: What stands under its name; no nested ``parameters``.
        where: The file and the key, for messages.

    Raises:
        UserError: If something is missing, unknown, of another kind, or out of its range.
    """
    name = content.get("distribution", None)
    name = _inferred(content, where) if name is None else name
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        near = nearest(str(name), DISTRIBUTIONS)
        raise UserError(f"{where}.distribution is {name!r}{near} (valid: {', '.join(DISTRIBUTIONS)})")
    keys = DISTRIBUTIONS[name]
    check_keys(content, (*keys, "distribution"), where)
    for key in keys:
        if key not in content and key not in DEFAULTS:
            raise UserError(f"{where}.{key} is missing, which {name} needs")
    if name == "constant":
        return Choice((exact(content["value"], f"{where}.value"),))
    if "values" in keys:
        return _choice(content, where)
    numbers = {key: number(content.get(key, DEFAULTS.get(key)), f"{where}.{key}") for key in keys}
    if "q" in numbers and numbers["q"] <= 0:
        raise UserError(f"{where}.q is {numbers['q']}; it must be above 0")
    if "min" in numbers:
        return _range(name, numbers, where)
    return _bell(name.removeprefix("q_"), numbers, where)


def _inferred(content: Mapping[str, Any], where: str) -> str:
    if "value" in content:
        return "constant"
    if "values" in content:
        return "categorical_w_probabilities" if "probabilities" in content else "categorical"
    if any(key in content for key in BOUNDS):
        for key in BOUNDS:
            if key not in content:
                raise UserError(f"{where}.{key} is missing beside {'max' if key == 'min' else 'min'}; give both")
        low, high = (number(content[key], f"{where}.{key}") for key in BOUNDS)
        if type(low) is not type(high):
            whole, key = (low, "min") if isinstance(low, int) else (high, "max")
            raise UserError(
                f"{where}: min {low} and max {high} are a whole number and one with a point, which W&B refuses; "
                f"write {key}: {float(whole)}"
            )
        return "int_uniform" if isinstance(low, int) else "uniform"
    known = ("value", "values", "min", "max", "distribution", "parameters")
    near = next((near for key in content if (near := nearest(str(key), known))), "")
    given = f"has {', '.join(map(str, content))}" if content else "is empty"
    raise UserError(f"{where} {given}{near or '; give it value, values, min and max, or a distribution'}")


def _choice(content: Mapping[str, Any], where: str) -> Choice:
    values, probabilities = content["values"], content.get("probabilities")
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}.values is {values!r}; it must be a list of one or more, such as [1, 2]")
    exactly = tuple(exact(value, f"{where}.values[{k}]") for k, value in enumerate(values))
    if probabilities is None and "probabilities" not in content:
        return Choice(exactly)
    if not isinstance(probabilities, list) or len(probabilities) != len(values):
        raise UserError(f"{where}.probabilities is {probabilities!r}; it must be one number for each of the values")
    shares = tuple(number(share, f"{where}.probabilities[{k}]") for k, share in enumerate(probabilities))
    if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-5):
        raise UserError(f"{where}.probabilities is {probabilities}; they must be 0 or more and add up to 1")
    return Choice(exactly, shares)


def _range(name: str, numbers: Mapping[str, float], where: str) -> Range:
    low, high = numbers["min"], numbers["max"]
    if low >= high:
        raise UserError(f"{where}: min {low} is not below max {high}")
    if name == "int_uniform":
        if not (isinstance(low, int) and isinstance(high, int)):
            raise UserError(f"{where}: int_uniform from {low} to {high}; both must be whole numbers")
        return Range(low, high, integer=True)
    if name.endswith("_values"):
        if low <= 0:
            raise UserError(f"{where}.min is {low}; {name} needs it above 0")
    elif "log" in name:
        if (low > 0 and high <= 1) or max(abs(low), abs(high)) > LARGEST_EXPONENT:
            raise UserError(
                f"{where}: {name} from {low} to {high} takes exponents, of e; for values in that range write "
                f"distribution: {name}_values"
            )
        low, high = (-high, -low) if name.startswith("inv") else (low, high)
        low, high = math.exp(low), math.exp(high)
    log = "log" in name
    step = numbers.get("q")
    if step is None:
        return Range(float(low), float(high), log=log)
    # Multiples of the step alone can be drawn, so the range ends at the outermost of them.
    first, last = math.ceil(round(low / step, 9)), math.floor(round(high / step, 9))
    if log:
        first = max(first, 1)
    if first > last:
        raise UserError(f"{where}.q is {step}, of which no multiple lies between {low:g} and {high:g}")
    return Range(
        rounded(first * step, step), rounded(last * step, step), log=log, step=step, integer=isinstance(step, int)
    )


def _bell(shape: str, numbers: Mapping[str, float], where: str) -> Bell:
    first, second = (numbers[key] for key in (("a", "b") if shape == "beta" else ("mu", "sigma")))
    if shape == "beta" and min(first, second) <= 0:
        raise UserError(f"{where}: a is {first} and b is {second}; both must be above 0")
    if second < 0:
        raise UserError(f"{where}.sigma is {second}; it must be 0 or more")
    return Bell(shape, first, second, step=numbers.get("q"))


def check_keys(content: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    """Refuses what would be ignored.

    Args:
        content: A part of the file.
        known: The keys that it may have.
        where: The file and the key, for the message.

    Raises:
        UserError: If there is another, with the nearest right one.
    """
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(str(key), known)} (keys: {', '.join(known)})")


def number(value: Any, where: str) -> float:  # noqa: ANN401 - whatever the file says
    """Checks that a value is a finite number.

    Args:
        value: What the file says.
        where: The file and the key, for the message.

    Raises:
        UserError: If it is something else; of ``1e-4``, which YAML 1.1 reads as text, it says what to write.
    """
    exact(value, where)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UserError(f"{where} is {value!r}; it must be a number")
    return value  # type: ignore[no-any-return]


def exact(value: Any, where: str) -> Any:  # noqa: ANN401 - whatever the file says
    """Checks that a value is what JSON can hand over, and no number that YAML 1.1 reads as text; also within it.

    Args:
        value: What the file says.
        where: The file and the key, for the message.

    Raises:
        UserError: If it is not.
    """
    if value is not None and not isinstance(value, str | int | float | list | Mapping):
        raise UserError(f"{where} is {value}, which YAML reads as a {type(value).__name__}; put it in quotes")
    if isinstance(value, str) and (found := re.fullmatch(r"([-+]?)(\d+)(\.\d*)?[eE]([-+]?)(\d+)", value)):
        sign, whole, fraction, direction, exponent = found.groups()
        written = f"{sign}{whole}{'.0' if fraction in (None, '.') else fraction}e{direction or '+'}{exponent}"
        raise UserError(f"{where} is {value!r}, which YAML reads as text; write {written}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            exact(inner, f"{where}.{key}")
    if isinstance(value, list):
        for position, inner in enumerate(value):
            exact(inner, f"{where}[{position}]")
    return value
