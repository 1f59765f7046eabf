"""The real ``wandb sweep`` and ``wandb agent`` with our command, against a server of the tests' own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import TINY, write_tiny
from wandb_stub import KEY, Stub

from tl_lightning.running.sweeping.parameters import grid
from tl_lightning.running.sweeping.sweep_file import read_sweep

ROOT = Path(__file__).parents[3]
EPOCHS = 2000  # minutes: many times what the agent takes to ask whether to go on
SHORT = 20
SWEEP = f"""
method: grid
metric: {{name: val/loss, goal: minimize}}
early_terminate: {{type: hyperband, min_iter: 8, eta: 1000}} # one look: at a later one the short trial would be missing
parameters:
  phases:
    values:
      - [{{train: all, warmup: 0.0, patience: {SHORT}, min_delta: 1000.0, name: learns}}] # no gain is that large
      - [{{train: all, warmup: 0.0, lr_scale: 1.0e-9, name: learns nothing}}]
  model.lr: {{value: 2.0e-3}}
  model.backbone_lr_scale: {{value: 1.0}}         # learns it all in three epochs
  model.weight_decay: {{value: 1}}               # whole, where a float is expected
  model.gradient_checkpointing: {{value: false}}
  model.head: {{value: mlp}}
  trainer: {{parameters: {{max_epochs: {{value: {EPOCHS}}}, enable_progress_bar: {{value: false}}}}}} # nested
  data.augmentation:
    value: {{class_path: torchvision.transforms.v2.RandomHorizontalFlip, init_args: {{p: 0.25}}}}
  silence: {{value: [no_early_stopping]}}
  cache: {{value: "off"}}                         # text, which YAML would read as false
  ema: {{value: null}}
  early_stopping.patience: {{value: 1000}}
command: ["${{env}}", "${{interpreter}}", "-m", tl_lightning, fit, --config=run.yaml, --config, "${{args_json_file}}"]
"""


def nested(options):
    """Options such as ``--data.batch_size 4`` as a configuration."""
    tree = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        first, _, rest = option.removeprefix("--").partition(".")
        tree.setdefault(first, {})[rest] = yaml.safe_load(value)
    return tree


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.close()


@pytest.mark.slow
def test_the_agents_trials_get_exactly_typed_values_and_hyperband_stops_a_weak_one(tmp_path, monkeypatch, stub):
    monkeypatch.chdir(write_tiny(tmp_path))
    Path("run.yaml").write_text(yaml.safe_dump(nested(TINY)))
    Path("sweep.yaml").write_text(SWEEP)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    beside_python = Path(sys.executable).parent  # not resolved: a virtual environment's is a link
    for name, value in {
        "WANDB_BASE_URL": stub.url,
        "WANDB_API_KEY": KEY,
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",  # seconds; metrics would come every 15
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{beside_python}{os.pathsep}{os.environ['PATH']}",  # the agent's ${interpreter} is the first python
    }.items():
        monkeypatch.setenv(name, value)
    for asked in (["sweep", "sweep.yaml"], ["agent", "entity/project/sweep"]):
        done = subprocess.run([beside_python / "wandb", *asked], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert stub.sweep["parameters"] == yaml.safe_load(SWEEP)["parameters"]

    sweep = read_sweep("sweep.yaml")
    folders = {yaml.safe_load(path.read_text())["phases"][0]["name"]: path.parent for path in runs()}
    assert sorted(folders) == ["learns", "learns nothing"], done.stdout + done.stderr
    for values in grid(sweep.parameters):
        config = yaml.safe_load((folders[values["phases"][0]["name"]] / "config.yaml").read_text())
        for key, value in values.items():
            assert found(config, key) == value, key
            # A float stays one where W&B hands out a whole number; all else is of the type that the file says.
            assert type(found(config, key)) is (float if key == "model.weight_decay" else type(value)), key
    status = {name: json.loads((folder / "summary.json").read_text())["status"] for name, folder in folders.items()}
    assert status == {"learns": "completed", "learns nothing": "interrupted"}
    assert stub.stopped == ["trial1"]
    assert len(stub.rows["trial0"]) == SHORT + 2  # the first one is a gain on nothing; the last scores the best weights
    assert 8 <= len(stub.rows["trial1"]) < EPOCHS


def runs():
    return sorted(Path("runs").glob("*/config.yaml"))


def found(config, key):
    first, _, rest = key.partition(".")
    inside = config[first]["init_args"] if first in ("model", "data") else config[first]
    return inside[rest] if rest else inside
