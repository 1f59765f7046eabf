"""What is scored elsewhere is all of it, and nothing that the run has seen, wherever it lies, whatever its name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, write_tiny

from tl_lightning.cli import main
from tl_lightning.data.contents import places
from tl_lightning.errors import UserError
from tl_lightning.experiment.evaluation import evaluate
from tl_lightning.experiment.trained_on import training_targets

OWN = {"train": 15, "val": 3, "test": 6}  # of 24
TEST = ["--run_dir", "run"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *TINY, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    return folder


@pytest.fixture
def here(whole, tmp_path, monkeypatch):
    """The run, its 24 images, and 10 others of the same classes: 7 cats and 3 dogs."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        write(Path("other", "cat" if number < 7 else "dog", f"{number}.png"), seed=number)
    return tmp_path


def write(path, *, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return path


def grow(more=6):
    for number in range(more):
        write(Path("images/cat", f"new{number}.png"), seed=100 + number)


def scored(*options, split="test"):
    """How many images were scored, and what ``--output`` says."""
    evaluate(split, [*TEST, *options, "--output", "out.json"])
    found = json.loads(Path("out.json").read_text())
    return sum(row["examples"] for row in found["per_class"]), found


def refused(*options, split="test"):
    with pytest.raises(UserError) as error:
        evaluate(split, [*TEST, *options])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_of_another_source_is_scored_beside_the_baseline_of_the_run_s_training(here, capsys):
    count, found = scored("--data.source", "other")
    assert count == 10
    assert found["baseline"] == {"majority_accuracy": pytest.approx(0.3)}  # dogs, as in training; there cats are most
    assert "other is not what the run began with: all 10 images are scored" in capsys.readouterr().out
    assert scored("--data.source", "other", split="validation")[1]["validation"] == found["test"]


def test_the_test_split_that_another_source_states_is_scored_also_where_it_states_no_other(here):
    names = [f"{path},{path.parent.name}" for path in sorted(Path("other").rglob("*.png"))]
    Path("all.csv").write_text("image,label,split\n" + "".join(f"{name},test\n" for name in names))
    assert scored("--data.source", "all.csv")[0] == 10
    assert refused("--data.source", "all.csv", split="validation") == "all.csv has no validation split to evaluate on"
    parts = zip(names, [*["train"] * 4, *["test"] * 6], strict=True)
    Path("some.csv").write_text("image,label,split\n" + "".join(f"{name},{part}\n" for name, part in parts))
    assert scored("--data.source", "some.csv")[0] == 6
    shutil.move("other", "elsewhere/test")
    assert scored("--data.source", "elsewhere")[0] == 10
    assert scored("--data.source", "elsewhere/test/", "--data.test_fraction", "0.5")[0] == 5  # as it is asked for


def test_the_run_s_own_split_is_scored_wherever_its_images_have_gone(here):
    assert scored("--data.source", f"{here}/other/../images/")[0] == OWN["test"]
    shutil.move("images", "moved")
    count, found = scored("--data.source", "moved")
    assert count == OWN["test"]
    assert found["test"] == pytest.approx(json.loads(Path("run/summary.json").read_text())["test"])
    assert "there is no such folder" in refused()


def test_images_of_a_source_that_has_grown_are_known_again(here, capsys):
    grow()
    for source in ([], ["--data.source", "./other/../images"]):
        line = refused(*source)
        assert "of the 30 images to score, the run trained on 15 and chose its weights by 3: " in line
        assert line.endswith("or leave them out with --on_seen skip")
    assert scored("--on_seen", "skip")[0] == OWN["test"] + 6
    assert scored("--on_seen", "warn")[0] == 30
    assert "the score says little about new images" in capsys.readouterr().out
    assert "the run trained on" in refused("--data.split_seed", "1")


def test_renamed_copies_are_known_again_and_so_is_what_was_changed_where_it_lies(here):
    checkpoint = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    record = checkpoint["run"]["trained_on"]
    assert {name: len(each) for name, each in record["contents"].items()} == OWN
    for number, path in enumerate(sorted(Path("images/dog").glob("*.png"))):
        shutil.copy(path, f"other/dog/copy{number}.png")
    seen = refused("--data.source", "other")
    assert "of the 22 images to score, the run trained on 8 and chose its weights by 1: other/dog/copy" in seen
    assert scored("--data.source", "other", "--on_seen", "skip")[0] == 13
    files = [write(Path(f"images/dog/{number}.png"), seed=200 + number) for number in range(12)]
    record["places"]["train"] = torch.from_numpy(places(files[:8]))  # the run was trained where the fixture lies
    torch.save(checkpoint, "run/checkpoints/best.ckpt")
    table = "".join(f"images/dog/{number}.png,dog\n" for number in range(12))
    Path("changed.csv").write_text(f"image,label\n{table}")
    assert "of the 12 images to score, the run trained on 8" in refused("--data.source", "changed.csv")


def test_names_that_have_changed_hands_do_not_hide_what_was_trained_on(here, capsys):
    files = sorted(Path("images/cat").glob("*.png"))
    held = [path.read_bytes() for path in files]
    for path, content in zip(files, [*held[1:], held[0]], strict=True):  # renumbered: the same names, other images
        path.write_bytes(content)
    assert "the run trained on" in refused()
    assert "images of images have changed since the run was trained" in capsys.readouterr().out


def test_a_checkpoint_knows_without_its_run_folder(here):
    best, config = shutil.move("run/checkpoints/best.ckpt", "best.ckpt"), shutil.move("run/config.yaml", "own.yaml")
    grow()
    with pytest.raises(UserError, match="of the 30 images to score, the run trained on 15"):
        evaluate("test", ["--config", config, "--ckpt_path", best])


def test_a_checkpoint_of_an_earlier_version_knows_its_split_by_name(here, capsys):
    content = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    del content["run"]
    torch.save(content, "run/checkpoints/best.ckpt")
    count, found = scored("--data.source", "other")
    assert (count, found["baseline"]) == (10, {})
    assert "make sure that none of these images was" in " ".join(capsys.readouterr().out.split())
    grow()
    for source in ([], ["--data.source", "./other/../images"]):
        assert "are not those that run was trained on: drawn anew" in refused(*source)


def test_nothing_trains_on_a_source_that_is_only_scored(here, capsys):
    assert main(["fit", *TINY, "--data.split", "evaluation", "--run_dir", "none"]) == 2
    assert "data.split evaluation leaves nothing to train on" in capsys.readouterr().err
    assert not Path("none").exists()


def test_the_training_targets_come_back_in_no_order():
    kept = {"values": torch.tensor([[0.5, 1.0], [2.0, 3.0]]), "counts": torch.tensor([2, 1])}
    given = training_targets({"run": {"trained_on": {"targets": {"target": kept}}}})
    assert given["target"].tolist() == [[0.5, 1.0], [0.5, 1.0], [2.0, 3.0]]
    assert training_targets({"run": {}}) is training_targets({}) is None
