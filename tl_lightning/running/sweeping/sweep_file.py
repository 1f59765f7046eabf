"""A W&B sweep file, read for this machine."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tl_lightning.core.files import read_text, user_path
from tl_lightning.core.options import OF_FIT
from tl_lightning.core.packaged import find, hint
from tl_lightning.core.yaml_files import parse_mapping
from tl_lightning.errors import UserError, nearest
from tl_lightning.running.sweeping.command import read_command
from tl_lightning.running.sweeping.distributions import check_keys, exact, number, read_parameter
from tl_lightning.running.sweeping.fit_options import options
from tl_lightning.running.sweeping.parameters import Parameter, can_be_listed


@dataclass(frozen=True)
class EarlyTermination:
    """When a weak trial ends early.

    Attributes:
        min_iter: Validations before the first look.
        eta: One in so many trials goes on at a look; a look is ``eta`` times as late as the one before.
        max_iter: Validations of a whole trial: there is no look at its end.
    """

    min_iter: int
    eta: int
    max_iter: float = math.inf


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file asks for.

    Attributes:
        path: Where it is.
        text: As written.
        name: What the sweep is called; without a name, as its file.
        method: How values are chosen.
        metric: The logged metric that is searched by, such as ``val/accuracy``.
        goal: Whether that is to be large or small.
        parameters: By dotted key, such as ``model.lr``.
        fit_args: What the command gives to ``tl fit`` beside the parameters.
        early_termination: `None` where every trial runs to its end.
        run_cap: How many trials there may be; `None` for no limit.
    """

    path: Path
    text: str
    name: str
    method: Literal["grid", "random", "bayes"]
    metric: str
    goal: Literal["maximize", "minimize"]
    parameters: Mapping[str, Parameter]
    fit_args: tuple[str, ...]
    early_termination: EarlyTermination | None
    run_cap: int | None

    @property
    def configurations(self) -> list[Path]:
        """The files that the command names."""
        given = [text for name, text in options(self.fit_args) if name in ("config", "c")]
        return [user_path(text) for text in given if not text.startswith("{")]


Name = TypeVar("Name", bound=str)
METHODS: tuple[Literal["grid", "random", "bayes"], ...] = ("grid", "random", "bayes")
GOALS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")
USED = ("name", "method", "metric", "parameters", "command", "early_terminate", "run_cap")
FOR_WANDB = ("apiVersion", "kind", "controller", "description", "program", "entity", "project")  # of no concern here
ELSEWHERE = {  # valid with W&B, but it would mean something else here
    "metrics": "one metric is searched by; write metric",
    "scheduler": "the search is W&B's own or that of tl sweep; leave it out",
    "job": "it belongs to W&B Launch; write a command",
    "image_uri": "it belongs to W&B Launch; write a command",
}
GROUPS = sorted(option[2:] for option in OF_FIT - {"--config", "--print_config"})
OF_METRIC = ("name", "goal", "impute", "impute_while_running")  # imputing is how W&B's own search takes failed runs
OF_HYPERBAND = ("type", "min_iter", "max_iter", "s", "eta", "strict")


def read_sweep(path: str | Path) -> SweepFile:
    """Reads and checks a W&B sweep file.

    Args:
        path: A YAML file, as ``wandb sweep`` takes it, or the name of a packaged one. Configurations that its command
            names are looked for from the current folder, as W&B's agent does, and among the packaged ones.

    Raises:
        UserError: If there is no such file, W&B would refuse it, or it asks for what a sweep here cannot do.
    """
    path = Path(find("sweeps", str(path)) or user_path(path))
    text = _text(path)
    content = parse_mapping(text, path, old=True)
    if not content:
        raise UserError(f"{path} holds no sweep; it needs method, metric, parameters and command")
    if elsewhere := next((key for key in content if key in ELSEWHERE), None):
        raise UserError(f"{path}: {elsewhere} is not supported: {ELSEWHERE[elsewhere]}")
    check_keys(content, (*USED, *FOR_WANDB), str(path))
    method = _one_of(content.get("method"), METHODS, f"{path}: method")
    metric, goal = _metric(content.get("metric"), f"{path}: metric")
    return SweepFile(
        path=path,
        text=text,
        name=str(content.get("name") or path.stem),
        method=method,
        metric=metric,
        goal=goal,
        parameters=_parameters(content.get("parameters"), f"{path}: parameters", method),
        fit_args=read_command(content.get("command"), f"{path}: command"),
        early_termination=_early_termination(content.get("early_terminate"), f"{path}: early_terminate"),
        run_cap=_whole(content["run_cap"], f"{path}: run_cap") if "run_cap" in content else None,
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: there is no such sweep file{hint('sweeps', str(path))}")
    return read_text(path)


def _one_of(value: Any, known: tuple[Name, ...], where: str) -> Name:  # noqa: ANN401 - whatever the file says
    for name in known:
        if value == name:
            return name
    said = "is missing" if value is None else f"is {value!r}"
    raise UserError(f"{where} {said}{nearest(str(value), known)} (valid: {', '.join(known)})")


def _whole(value: Any, where: str) -> int:  # noqa: ANN401 - whatever the file says
    if type(value) is not int or value < 1:
        raise UserError(f"{where} is {value!r}; it must be a whole number, 1 or more")
    return value


def _metric(content: Any, where: str) -> tuple[str, Literal["maximize", "minimize"]]:  # noqa: ANN401
    example = "metric: {name: val/macro_f1, goal: maximize}"
    if content is None:
        raise UserError(f"{where} is missing, and which trial is best hangs on it; write {example}")
    if not isinstance(content, dict):
        raise UserError(f"{where} is {content!r}; write {example}")
    for key in content:
        if key not in OF_METRIC:
            raise UserError(
                f"{where}: unknown key {key!r}{nearest(str(key), OF_METRIC)} (keys: {', '.join(OF_METRIC)})"
            )
    name = content.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}.name is {'missing' if name is None else repr(name)}; write {example}")
    if name.startswith("test/"):
        raise UserError(f"{where}.name is {name}, but test images decide nothing; write val/{name[5:]}")
    if "/" not in name:
        raise UserError(f"{where}.name is {name}, which is not logged under that name; write val/{name}")
    if content.get("goal") is None:
        raise UserError(f"{where}.goal is missing, and W&B would minimize {name}; write goal: maximize or minimize")
    return name, _one_of(content["goal"], GOALS, f"{where}.goal")


def _parameters(content: Any, where: str, method: str) -> dict[str, Parameter]:  # noqa: ANN401
    read: dict[str, Parameter] = {}
    for key, spec in _flat(content, where, ""):
        at = f"{where}.{key}"
        if key in read:
            raise UserError(f"{at} is there twice, dotted and nested; keep one")
        part = key.partition(".")[0]
        if part not in GROUPS:
            raise UserError(f"{at}: tl fit has no {part}{nearest(part, GROUPS)}")
        if part == "run_dir":
            raise UserError(f"{at}: every trial has a folder of its own; leave it out")
        read[key] = read_parameter(spec, at)
        if method == "grid" and not can_be_listed(read[key]):
            raise UserError(f"{at}: a grid cannot go through {_said(spec)}; list the values, or use method: random")
    return read


def _flat(content: Any, where: str, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    """Parameters by dotted key, also those within nested ``parameters``."""
    if not isinstance(content, dict) or not content:
        said = "is missing" if content is None else f"is {content!r}"
        raise UserError(f"{where} {said}; write one or more, such as model.lr: {{min: 0.001, max: 0.01}}")
    for name, spec in content.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            raise UserError(f"{where}: {name!r} is no key of a configuration; write one such as model.lr")
        at = f"{where}.{name}"
        if not isinstance(spec, dict):
            exact(spec, at)
            raise UserError(f"{at} is {spec!r}; write value: {spec!r}, values: [...], or min and max")
        if "parameters" not in spec:
            yield prefix + name, spec
            continue
        if others := [str(key) for key in spec if key != "parameters"]:
            raise UserError(f"{at} has {', '.join(others)} beside parameters; W&B takes only one of them")
        yield from _flat(spec["parameters"], f"{at}.parameters", f"{prefix}{name}.")


def _said(spec: Mapping[str, Any]) -> str:
    return "values with probabilities" if "probabilities" in spec else "a range of any numbers"


def _early_termination(content: Any, where: str) -> EarlyTermination | None:  # noqa: ANN401
    if content is None:
        return None
    if not isinstance(content, dict):
        raise UserError(f"{where} is {content!r}; write {{type: hyperband, min_iter: 3}}")
    _one_of(content.get("type"), ("hyperband",), f"{where}.type")
    check_keys(content, OF_HYPERBAND, where)
    if content.get("strict", False) is not False:
        raise UserError(f"{where}.strict is {content['strict']}; a trial is judged by its best so far: leave it out")
    eta = number(content.get("eta", 3), f"{where}.eta")
    if eta < 2 or eta != int(eta):
        raise UserError(f"{where}.eta is {eta}; it must be a whole number, 2 or more")
    eta = int(eta)
    if "max_iter" not in content and "s" not in content:
        if "min_iter" not in content:
            raise UserError(f"{where}.min_iter is missing: after how many validations is the first look?")
        return EarlyTermination(_whole(content["min_iter"], f"{where}.min_iter"), eta)
    if "min_iter" in content:
        raise UserError(f"{where} has min_iter beside max_iter or s; write min_iter alone, or max_iter and s")
    most, looks = (_whole(content.get(key), f"{where}.{key}") for key in ("max_iter", "s"))
    looks = min(looks, int(math.log(most, eta) + 1e-9))  # W&B leaves out looks before the first validation
    if looks < 1:
        raise UserError(f"{where}.max_iter is {most}, below eta {eta}: there would be no look; write min_iter")
    return EarlyTermination(most // eta**looks, eta, most)
