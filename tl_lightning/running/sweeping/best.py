"""The best trial of a sweep: as a command, and as a configuration that trains it again."""

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path

from tl_lightning.core.files import write_text
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.running.sweeping.fit_options import to_repeat
from tl_lightning.running.sweeping.showing import ranked, score_text, short_names, value_text, varied
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial, nested


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
    """Writes ``best.yaml``: the trial's own resolved configuration, without what leaves its test out.

    Args:
        sweep: Says what varied.
        trial: The best, whose run folder holds ``config.yaml``.
        folder: Where the file goes.

    Returns:
        The file, for ``tl fit --config best.yaml`` in the folder where the sweep was started.
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
    config = RunFolder(trial.folder).config.read_text(encoding="utf-8")
    file = folder / "best.yaml"
    write_text(file, head + re.sub(r"^test: false\n", "", config, flags=re.MULTILINE))
    return file
