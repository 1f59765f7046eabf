"""Every sweep file that ships: each command that it can expand to is one that ``tl fit`` takes."""

import json
from pathlib import Path

import pytest
import yaml

from tl_lightning.core.quiet import quiet
from tl_lightning.data.images.configured import plain
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.finetuning.phases import parse_phases
from tl_lightning.running.sweeping.parameters import Choice, Range, at, grid
from tl_lightning.running.sweeping.sweep_file import read_sweep
from tl_lightning.running.sweeping.trials import nested
from tl_lightning.tasks.objectives import Multiclass

ROOT = Path(__file__).parents[3]
SWEEPS = sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    quiet()


def shown(parameter):
    """Each value of a choice, both ends of a range, and what lies far out in a bell."""
    if isinstance(parameter, Choice):
        return parameter.values
    if isinstance(parameter, Range):
        return (at(parameter, 0.0), at(parameter, 1 - 2**-53))
    return (at(parameter, 0.01), at(parameter, 0.99))


def corners(sweep):
    """As few trials as show every value of every parameter once."""
    values = {key: shown(parameter) for key, parameter in sweep.parameters.items()}
    for k in range(max(map(len, values.values()))):
        yield {key: several[k % len(several)] for key, several in values.items()}


def everything(sweep):
    """All trials of a grid; of what is searched, where there is no end of them, the corners."""
    if sweep.method != "grid":
        yield from corners(sweep)
        return
    yield from grid(sweep.parameters)


def arguments(sweep, values):
    """As W&B's agent hands them over, by a JSON file with dotted keys."""
    return [*sweep.fit_args, "--config", json.dumps(values)]


class Unbuilt(Configuration):
    """What is configured, without a model: reading alone takes a tenth of the time."""

    def instantiate_classes(self):
        pass


@pytest.fixture(scope="module")
def parser():
    quiet()
    return Unbuilt(["--config", str(ROOT / "configs/elpv.yaml")], folder=None).parser


def found(config, key):
    """What a configuration holds under a dotted key of a sweep."""
    first, _, rest = key.partition(".")
    inside = config[first]
    if first in ("model", "data"):
        inside = inside.init_args
    for part in rest.split(".") if rest else ():
        inside = inside[part]
    return plain(inside)


@pytest.mark.parametrize("name", SWEEPS)
def test_each_value_of_a_shipped_sweep_reaches_the_run_exactly(parser, name):
    sweep = read_sweep(f"sweeps/{name}")
    for values in corners(sweep):
        config = parser.parse_args(arguments(sweep, values))
        parse_phases(plain(config.phases), max_epochs=config.trainer.max_epochs)
        for key, value in values.items():
            there = found(config, key)
            if key == "model":  # a part of it
                there = {part: there[part] for part in value}
            assert (there, type(there)) == (value, type(value)), key
        # Here the values come as a tree.
        again = parser.parse_args([*sweep.fit_args, "--config", json.dumps(nested(values))])
        assert {key: plain(config[key]) for key in ("model", "data", "phases", "trainer")} == {
            key: plain(again[key]) for key in ("model", "data", "phases", "trainer")
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_each_command_of_a_shipped_sweep_builds_its_model_and_trainer(name):
    sweep = read_sweep(f"sweeps/{name}")
    for values in everything(sweep):
        Configuration(arguments(sweep, values), folder=None)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_shipped_sweep_searches_by_what_its_runs_pick_their_weights_by(name):
    sweep = read_sweep(f"sweeps/{name}")
    assert sweep.metric == f"val/{Multiclass.monitor}"
    assert (sweep.goal[:3], sweep.name) == (Multiclass.metrics[Multiclass.monitor], Path(name).stem)
    if sweep.method != "grid":
        assert sweep.run_cap is not None  # else W&B would go on for ever


@pytest.mark.parametrize("name", SWEEPS)
def test_wandb_takes_a_shipped_sweep_as_it_is(name):
    # All that `wandb sweep` checks before it asks the server; its agent fills in macros that are whole words.
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution

    content = yaml.safe_load(Path(f"sweeps/{name}").read_text())
    filled = _validate_config_and_fill_distribution(content)
    assert [word for word in filled["command"] if "$" in word] == ["${env}", "${interpreter}", "${args_json_file}"]
    assert json.loads(json.dumps(content)) == content  # which is how it goes there
