"""The best trial of a sweep: as a command, and as a configuration that trains it again."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tl_lightning.core.files import write_text
from tl_lightning.running.sweeping.fit_options import to_repeat
from tl_lightning.running.sweeping.merging import tree_of
from tl_lightning.running.sweeping.showing import ranked, score_text, short_names, value_text, varied
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial, nested

WIDTH = 110


def best_trial(sweep: SweepFile, trials: Sequence[Trial]) -> Trial | None:
    """The completed trial with the best score, of equal ones the earlier; `None` where none has a score.

    Args:
        sweep: Says which end is the good one.
        trials: In any order and state; one that was stopped early has no final weights, and is never the best.
    """
    return next((trial for trial in ranked(sweep, trials) if trial.state == "completed"), None)


def command_of(sweep: SweepFile, trial: Trial) -> list[str]:
    """The words to type to train with a trial's values, in the folder where the sweep was started.

    Args:
        sweep: Gives the options that all trials share.
        trial: Gives the values.
    """
    words = ["tl", "fit", *to_repeat(sweep.fit_args)]
    for key, value in trial.values.items():
        if isinstance(value, dict):  # as an option it would take the place of a group, and not be merged into it
            words.append(f"--config={json.dumps(nested({key: value}))}")
        else:
            words.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def write_best(sweep: SweepFile, trial: Trial, folder: Path) -> Path:
    """Writes ``best.yaml``, for ``tl fit --config best.yaml`` in the folder where the sweep was started.

    Args:
        sweep: Gives the options that all trials share; its configuration files are read once more.
        trial: Gives the values.
        folder: Where the file goes.

    Returns:
        The file.

    Raises:
        UserError: If a configuration of the command cannot be read.
    """
    names = short_names(varied(sweep))
    values = ", ".join(f"{name} {value_text(trial.values[key])}" for key, name in names.items() if key in trial.values)
    comments = [
        f"The best of sweep {sweep.name}: trial {trial.number}, with {sweep.metric} {score_text(trial.score)}.",
        f"Written {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M} from {sweep.path}.",
        f"What varied: {values or 'nothing'}.",
        f"Run it where the sweep was started: tl fit --config {folder / 'best.yaml'}",
    ]
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    file = folder / "best.yaml"
    write_text(file, head + as_yaml(tree_of(to_repeat(sweep.fit_args), nested(trial.values))))
    return file


class _Inline(dict[str, Any]):
    """A mapping within a list, on one line."""


class _Dumper(yaml.SafeDumper):
    """Writes texts so that the experiment's parser, whose numbers are wider than YAML's, reads texts."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    from jsonargparse import get_loader

    plain = dumper.represent_str(value)
    try:
        quoted = not isinstance(get_loader("yaml")(value), str)
    except yaml.YAMLError:
        quoted = True
    if quoted and "\n" not in value:
        plain.style = "'"
    return plain


def _list(dumper: _Dumper, value: list[Any]) -> yaml.SequenceNode:
    within = any(isinstance(inner, dict) for inner in value)
    items = [_Inline(inner) if isinstance(inner, dict) else inner for inner in value]
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not within)


def _inline(dumper: _Dumper, value: _Inline) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(_Inline, _inline)


def as_yaml(tree: dict[str, Any]) -> str:
    """A configuration as YAML for people: groups as blocks, lists and what is in them on one line.

    Args:
        tree: Of mappings, lists, texts, numbers, true, false and null.
    """
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=WIDTH, default_flow_style=False, allow_unicode=True)
