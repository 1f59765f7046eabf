"""What a run predicts for an image is what it was scored with, in the run's own arithmetic."""

import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning import load
from tl_lightning.cli import main
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.experiment.evaluation import evaluate
from tl_lightning.results.predict import predict
from tl_lightning.results.settings import Settings


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_tiny(tmp_path))
    return tmp_path


def fit(*options):
    assert main(["fit", *TINY, "--trainer.max_epochs", "1", "--run_dir", "run", *options]) == 0
    return load("run")


def scored(run):
    """The files of the run's test split, in its order, and what the run predicted for each."""
    saved = load_predictions(run.folder.test_predictions)
    init = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]
    names = {"test_fraction", "val_fraction", "split", "split_seed", "image_size"}
    data = ImageDataModule("images", load("run").task.preprocess, **{name: init[name] for name in names})
    return [data.samples.paths[index] for index in saved.indices], saved.predictions


def probabilities(predictions):
    return torch.tensor([list(each.probabilities.values()) for each in predictions])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_predictions_are_those_of_the_test_to_the_last_bit(here, precision):
    run = fit("--trainer.precision", precision)
    paths, expected = scored(run)
    assert len(paths) == 6  # a whole batch of 4, and the rest
    assert torch.equal(probabilities(run.predict(paths)), expected)
    assert torch.equal(probabilities(run.predict(paths[::-1])), expected.flip(0))

    other = Settings({"32-true": "bf16-mixed", "bf16-mixed": "32-true"}[precision], 4)
    assert not torch.equal(probabilities(predict(load("run").task, paths, settings=other, on_error="stop")), expected)


def test_python_takes_paths_and_nothing_that_would_be_a_guess(here):
    run, path = fit(), "images/cat/0.png"
    (expected,) = run.predict([path])
    assert run.predict(path) == run.predict(Path(path)) == run.predict(iter([path])) == [expected]
    assert run.predict([]) == []
    with Image.open(path) as image:
        for given, name in ((image, "PngImageFile"), (np.asarray(image), "ndarray"), ([np.asarray(image)], "ndarray")):
            with pytest.raises(UserError, match=f"^predict takes paths of files, but was given {name}; save it"):
                run.predict(given)


def test_prediction_draws_nothing_from_the_callers_generators(here):
    fit()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    load("run").predict(["images/cat/0.png"])
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()
    assert random.random() == expected[2]


def test_an_engine_predicts_what_it_was_tested_with_to_the_last_bit(here, capsys):
    run = fit("--trainer.precision", "bf16-mixed", "--engine", "openvino")
    paths, expected = scored(run)
    capsys.readouterr()
    assert torch.equal(probabilities(run.predict(paths)), expected)
    assert capsys.readouterr().out.count("engine     openvino in bfloat16") == 1
    options = ["--input", "images", "--output", "eager.csv", "--engine", "eager"]
    assert main(["predict", "--run_dir", "run", *options]) == 0
    assert "engine     " not in capsys.readouterr().out


def test_the_command_predicts_alike_from_a_run_and_from_its_checkpoint(here):
    run = fit("--trainer.precision", "bf16-mixed")
    paths, expected = scored(run)
    for source in (["--run_dir", "run"], ["--ckpt_path", "run/checkpoints/best.ckpt"]):
        assert main(["predict", *source, "--input", "images", "--output", "out.csv"]) == 0
        with Path("out.csv").open() as file:
            rows = {row["path"]: row for row in csv.DictReader(file)}
        assert len(rows) == 24
        for path, row in zip(paths, expected.tolist(), strict=True):
            assert rows[str(path)]["class"] == run.task.classes[row.index(max(row))]
            assert [rows[str(path)][f"probability_{name}"] for name in run.task.classes] == [f"{p:.7g}" for p in row]


def test_the_arithmetic_is_the_run_s_and_the_machine_s_where_there_is_none(here, monkeypatch, capsys):
    monkeypatch.setattr("tl_lightning.results.settings.fast_precision", lambda: "bf16-mixed")
    folder = RunFolder(here / "run")
    assert Settings.of(folder) == Settings("bf16-mixed", 32)
    folder.path.mkdir()
    config = {"trainer": {"precision": "32-true"}, "data": {"init_args": {"batch_size": 8, "micro_batch_size": 4}}}
    folder.config.write_text(yaml.safe_dump(config))
    assert Settings.of(folder) == Settings("32-true", 4)  # images that go through the model at once
    assert Settings.of(folder, batch_size=3) == Settings("32-true", 3)
    config["data"]["init_args"]["micro_batch_size"] = "auto"
    folder.config.write_text(yaml.safe_dump(config))
    assert Settings.of(folder) == Settings("32-true", 8)
    with pytest.raises(UserError, match="--batch_size is 0; it must be 1 or more"):
        Settings.of(folder, batch_size=0)

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder.config.write_text(yaml.safe_dump({"trainer": {"precision": "16-mixed"}}))
    assert Settings.of(folder) == Settings("32-true", 32)
    assert "precision 16-mixed needs a GPU, and this is a CPU; computing in 32-true" in capsys.readouterr().out


def test_the_arithmetic_goes_with_the_checkpoint_wherever_that_lies(here, monkeypatch, capsys):
    """A machine may do another one fast, and a run may have been gone on with in another than it began with."""
    monkeypatch.setattr("tl_lightning.results.settings.fast_precision", lambda: "bf16-mixed")
    monkeypatch.setattr("tl_lightning.experiment.configuration.fast_precision", lambda: "bf16-mixed")
    run = fit("--trainer.precision", "32-true")
    paths, expected = scored(run)
    loss = run.summary["test"]["loss"]
    taken = Path(shutil.copy("run/checkpoints/best.ckpt", "taken.ckpt"))
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("precision: 32-true", "precision: bf16-mixed"))
    assert torch.equal(probabilities(load("run").predict(paths)), expected)
    assert main(["predict", "--ckpt_path", str(taken), "--input", str(paths[0]), "--output", "out.csv"]) == 0
    with Path("out.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[f"probability_{name}"] for name in run.task.classes] == [f"{p:.7g}" for p in expected[0].tolist()]
    assert evaluate("test", ["--run_dir", "run"])["loss"] == loss
    own = ["--config", "run/config.yaml", "--ckpt_path", str(taken)]
    assert evaluate("test", own)["loss"] == loss
    assert evaluate("test", [*own, "--trainer.precision", "bf16-mixed"])["loss"] != loss

    # What the machine cannot do is said, by tl test as by tl predict.
    content = torch.load(taken, weights_only=True)
    torch.save({**content, "precision": "16-mixed"}, taken)
    capsys.readouterr()
    assert evaluate("test", own)["loss"] == loss
    assert "precision 16-mixed needs a GPU, and this is a CPU; computing in 32-true" in capsys.readouterr().out


def test_what_cannot_be_read_is_named_or_left_out_wherever_it_stands(here, capsys):
    run = fit()
    paths, expected = scored(run)
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"no image")
    among = [Path("a.png"), *paths[:3], Path("b.png"), *paths[3:]]
    predicted = run.predict(among, on_error="skip")
    assert [each.path for each in predicted] == [str(path) for path in paths]
    assert torch.equal(probabilities(predicted), expected)
    assert "2 images that cannot be read were left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"2 of 8 images cannot be read: a\.png .*, b\.png"):
        run.predict(among)
    assert run.predict([Path("a.png")], on_error="skip") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_trains_and_predicts_as_its_folder_does(kind, here):
    packed = Path(shutil.make_archive("pets", kind, "images")).name
    run = fit()
    assert main(["fit", *TINY, "--trainer.max_epochs", "1", "--run_dir", "packed", "--data.source", packed]) == 0
    (one, other) = (load_predictions(load(name).folder.test_predictions) for name in ("run", "packed"))
    assert one.indices.tolist() == other.indices.tolist() and torch.equal(one.predictions, other.predictions)
    for source in ("images", packed):
        assert main(["predict", "--run_dir", "packed", "--input", source, "--output", f"{source}.csv"]) == 0
    rows = [list(csv.reader(Path(f"{source}.csv").read_text().splitlines())) for source in ("images", packed)]
    assert [row[1:] for row in rows[0]] == [row[1:] for row in rows[1]] and len(rows[0]) == 25
    assert [row[0].replace("images", packed, 1) for row in rows[0]] == [row[0] for row in rows[1]]
    assert torch.equal(probabilities(run.predict([Path(packed, "cat", "0.png")])),
                       probabilities(run.predict([Path("images", "cat", "0.png")])))  # fmt: skip
