"""``tl compare`` from the command line to its folder: runs, going on, failures, mistakes."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pages import check_page
from tiny import TINY, write_tiny

from tl_lightning.choosing.comparing import runs
from tl_lightning.choosing.comparing.strategies import Job, Strategy
from tl_lightning.cli import main
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.core.quiet import quiet
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration

SLOW = pytest.mark.slow
TWO = ["--strategies", "scratch,feature_extraction", "--seeds", "2"]


def compare(*more):
    return main(["compare", *TINY, "--trainer.max_epochs", "1", *TWO, "--run_dir", "cmp", *more])


def summary(folder="cmp"):
    return json.loads(Path(folder, "summary.json").read_text())


def without_seconds(values):
    return {**values, "strategies": [{**row, "seconds": None} for row in values["strategies"]]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A comparison of two strategies with two seeds, made once."""
    folder = write_tiny(tmp_path_factory.mktemp("comparison"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TL_CACHE_DIR", str(folder / "cache"))
        assert compare() == 0
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """The images and weights of the finished comparison, without its runs."""
    for name in ("images", "start.pth"):
        (tmp_path / name).symlink_to(finished / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TL_CACHE_DIR", str(finished / "cache"))
    return tmp_path


@pytest.fixture
def there(finished, here):
    """The finished comparison, to be changed."""
    shutil.copytree(finished / "cmp", here / "cmp")
    return here


def test_a_comparison_leaves_runs_a_summary_and_a_table(finished):
    result = summary(finished / "cmp")
    assert [run["run"] for run in result["runs"]] == [
        f"{strategy}-seed{seed}" for seed in (0, 1) for strategy in ("scratch", "feature_extraction")
    ]
    assert (result["reference"], result["transfer"]) == ("scratch", "feature_extraction")
    assert result["verdict"]["kind"] in ("helped", "no_evidence", "negative")
    right = {}
    for run in result["runs"]:
        folder = finished / "cmp" / run["run"]
        answers = load_predictions(folder / "test_predictions.npz")
        right.setdefault(run["strategy"], []).append((answers.predictions.argmax(1) == answers.labels).double().mean())
        assert json.loads((folder / "summary.json").read_text())["seed"] == run["seed"]
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["best.ckpt"]
    rows = {row["strategy"]: row for row in result["strategies"]}
    for name, values in right.items():
        assert rows[name]["value"] == pytest.approx(float(np.mean(values)))
    gain = rows["feature_extraction"]["value"] - rows["scratch"]["value"]
    assert rows["feature_extraction"]["difference"]["value"] == pytest.approx(gain)
    assert (rows["feature_extraction"]["trainable"], rows["scratch"]["labelled"]) == (514, 18)
    with (finished / "cmp/comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["strategy"] for line in lines] == ["scratch", "feature_extraction"]
    assert float(lines[1]["difference"]) == pytest.approx(gain)
    text = (finished / "cmp/comparison.html").read_text()
    page = check_page(text)
    assert page.headings[0] == "strategies compared" and page.headings[2] == "and what they took"
    assert f"<th>verdict</th><td>{result['verdict']['text']}</td>" in text.replace("&#39;", "'").replace("&gt;", ">")
    assert f'<td>scratch</td><td class="right">{rows["scratch"]["value"]:.3f} ±' in text
    (chart,) = page.charts
    assert f">scratch: {rows['scratch']['value']:.3f}</text>" in chart and "(best on validation)" in chart


def test_an_interrupted_comparison_goes_on_to_the_same_summary(finished, here, monkeypatch, capsys):
    whole, make = summary(finished / "cmp"), runs.make_run
    made = []

    def make_or_stop(path, *args, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        return make(path, *args, **options)

    monkeypatch.setattr(runs, "make_run", make_or_stop)
    assert compare() == 130
    assert "the same tl compare with --run_dir cmp goes on" in capsys.readouterr().out
    assert not Path("cmp/summary.json").exists()
    times = {name: Path("cmp", name, "summary.json").stat().st_mtime_ns for name in made}
    # As a run that was killed leaves it: begun, but not at its end.
    shutil.copytree(finished / "cmp/scratch-seed1", "cmp/scratch-seed1")
    for name in ("summary.json", "test_predictions.npz"):
        Path("cmp/scratch-seed1", name).unlink()

    monkeypatch.setattr(runs, "make_run", make)
    assert compare() == 0
    assert {name: Path("cmp", name, "summary.json").stat().st_mtime_ns for name in made} == times
    assert without_seconds(summary()) == without_seconds(whole)


def test_strategies_and_shares_are_added_to_a_finished_comparison(there, capsys):
    files = sorted(Path("cmp").glob("*-seed*/summary.json"))
    times = [path.stat().st_mtime_ns for path in files]
    assert compare("--seeds", "1", "--strategies", "scratch,config", "--fractions", "0.5,1", "--more", "30") == 0
    assert [path.stat().st_mtime_ns for path in files] == times
    result = summary()
    made = {run["run"]: run["status"] for run in result["runs"]}
    assert made == dict.fromkeys(
        ["scratch-0.5-seed0", "config-0.5-seed0", "scratch-seed0", "config-seed0"], "completed"
    )
    assert [row["labelled"] for row in result["strategies"] if row["strategy"] == "scratch"] == [10, 18]
    curves = result["curves"]
    assert (curves["now"], curves["more"]) == (18, 30)
    assert [line["labelled"] for line in curves["strategies"]] == [[10, 18]] * 2
    assert len(check_page(Path("cmp/comparison.html").read_text()).charts) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "labels what 30 more labels would bring config cannot be said: that needs 3 different sizes" in said


def test_a_run_that_fails_is_a_result_and_not_the_end(there, monkeypatch, capsys):
    make = runs.make_run

    def make_or_fail(path, *args, **options):
        if path.name == "feature_extraction-seed1":
            raise RuntimeError("out of memory\nand more")
        return make(path, *args, **options)

    monkeypatch.setattr(runs, "make_run", make_or_fail)
    diverged = Path("cmp/scratch-seed0/summary.json")
    values = json.loads(diverged.read_text())
    values["validation"]["loss"] = None
    diverged.write_text(json.dumps(values))
    assert compare() == 1
    assert "failed     feature_extraction-seed1: RuntimeError: out of memory" in capsys.readouterr().out
    result = summary()
    assert result["runs"][3]["error"] == "RuntimeError: out of memory"
    assert "it is not tried again: remove cmp/scratch-seed0, or compare anew" in result["runs"][0]["error"]
    assert [row["seeds"] for row in result["strategies"]] == [[1], [0]]
    assert result["verdict"] is not None


def test_a_full_disk_ends_the_comparison(tmp_path, monkeypatch):
    def fill(*args, **options):
        raise UserError("the disk is full") from OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "make_run", fill)
    plan = SimpleNamespace(jobs=[Job(Strategy("scratch"), None, 0)], base=None)
    with pytest.raises(UserError, match="the disk is full"):
        runs.make_runs(plan, [], tmp_path, None)


def test_negative_transfer_is_an_exit_code_where_that_is_asked(there):
    for strategy, right in (("scratch", True), ("feature_extraction", False)):
        for path in Path("cmp").glob(f"{strategy}*/test_predictions.npz"):
            content = dict(np.load(path))
            first = content["labels"] == (0 if right else 1)
            predictions = np.stack([first, ~first], axis=1).astype(np.float32)
            np.savez(path, **{**content, "predictions": predictions})
    assert compare("--fail_on_negative_transfer") == 3
    assert summary()["verdict"]["kind"] == "negative"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--strategies", "scratch,partail"], "'partail' is no strategy; did you mean partial"),
        (["--phases", "full"], "--phases has no effect here: the strategies say what trains"),
        (["--data.fold", "1"], "--data.fold has no effect here"),
        (["--data.test_fraction", "0"], "has no test split to compare on"),
        (["--fractions", "0.01,1"], "--fractions 0.01: "),
        (["--fractions", "0.5", "--data.labelled_fraction", "0.5"], "has no effect beside --fractions"),
        (["--fractions", "0.5", "--data.on_leak", "move"], "data.on_leak move could test each of --fractions on"),
        pytest.param(
            ["--strategies", "scratch,gradual"], "strategy gradual: phases[0]: gradual has 1 epoch", marks=SLOW
        ),
        pytest.param(["--model.weights", "none"], "model.weights is none in every strategy", marks=SLOW),
        pytest.param(["--trainer.devices", "2"], "tl compare trains in one process, and 2 are asked for", marks=SLOW),
        (["--seeds", "0"], "--seeds is 0"),
        (["--more", "0"], "--more is 0"),
        pytest.param(
            ["--wise_ft", "true"], "strategy scratch: wise_ft goes back towards the pretrained weights", marks=SLOW
        ),
        pytest.param(
            ["--strategies", "scratch,f=other.yaml"],
            "strategy f is tested on other images or targets than scratch",
            marks=SLOW,
        ),
        pytest.param(
            ["--strategies", "rest.yaml,feature_extraction", "--reference", "feature_extraction"],
            "strategies rest and feature_extraction learn from other training or validation images: a file must not",
            marks=SLOW,
        ),
        pytest.param(
            ["--strategies", "scratch,feature_extraction", "--reference", "feature_extraction"],
            "only feature_extraction, the reference, has pretrained weights",
            marks=SLOW,
        ),
        (["--model.lrr", "1"], "unknown key 'model.lrr'"),
    ],
)
def test_a_mistake_is_said_before_anything_trains(here, capsys, args, message):
    Path("other.yaml").write_text("data: {split_seed: 5}\n")
    Path("rest.yaml").write_text("data: {labelled_fraction: 0.5}\n")
    assert compare(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("cmp").exists() or not any(Path("cmp").iterdir())


def test_runs_with_other_options_are_not_taken(there, capsys):
    assert compare("--model.lr", "0.5") == 2
    assert "cmp/scratch-seed0 was run with other options (model.lr 0.01 there, 0.5 now)" in capsys.readouterr().err
    Path("f.yaml").write_text("model: {lr: 0.02}\n")
    Path("cmp/feature_extraction-seed0").rename("cmp/f-seed0")
    assert compare("--strategies", "scratch,f.yaml") == 2
    assert "cmp/f-seed0 was run with other options (model.lr 0.01 there, 0.02 now)" in capsys.readouterr().err


def test_runs_on_data_that_changed_in_between_are_not_compared(there, monkeypatch, capsys):
    def change(folder, key, digest):
        path = Path("cmp", folder, "summary.json")
        values = json.loads(path.read_text())
        values["data"][key] = digest
        path.write_text(json.dumps(values))

    change("scratch-seed1", "targets_digest", "before")
    change("feature_extraction-seed1", "targets_digest", "after")
    Path("cmp/scratch-seed0/summary.json").rename("summary.json")  # a run is missing, and must not be made

    def make(path, *args, **options):
        raise AssertionError(path)

    monkeypatch.setattr(runs, "make_run", make)
    assert compare() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "between cmp/scratch-seed1 and cmp/feature_extraction-seed1: their images have other targets" in line

    for folder in ("scratch-seed1", "feature_extraction-seed1"):
        change(folder, "targets_digest", "same")
        change(folder, "contents_digest", folder)
    assert compare() == 2
    assert "feature_extraction-seed1: their images show something else" in capsys.readouterr().err

    for folder in ("scratch-seed1", "feature_extraction-seed1"):
        change(folder, "contents_digest", "same")
    change("feature_extraction-seed0", "split_digest", "before")
    made = []

    def make_with_new_data(path, *args, **options):
        made.append(path.name)
        shutil.copy("summary.json", path)
        change(path.name, "split_digest", "after")

    monkeypatch.setattr(runs, "make_run", make_with_new_data)
    assert compare() == 2
    said = capsys.readouterr().err
    assert "between cmp/scratch-seed0 and cmp/feature_extraction-seed0: their images are in another split" in said
    assert made == ["scratch-seed0"]


def test_time_left_goes_by_runs_of_the_same_kind():
    scratch, full = Strategy("scratch"), Strategy("full")
    done = {Job(scratch, 0.5, 0): 100.0, Job(full, 0.5, 0): 20.0, Job(full, 0.5, 1): 40.0}
    assert runs.time_left([Job(full, 0.5, 2)], {}) == ""
    assert runs.time_left([Job(full, 0.5, 2)], done) == ", about 30 s left"
    # 160 s for one and a half times the labels
    assert runs.time_left([Job(full, 0.5, 2), Job(scratch, 1.0, 0)], done) == ", about 2 min left"


def test_scratch_beside_weights_of_a_run_resumes_with_the_images_that_it_began_with(there):
    # The preset sets the weights aside, and the size that came with them must not go with them.
    quiet()
    size = TINY.index("--data.image_size")
    args = [*TINY[:size], *TINY[size + 2 :], "--model.weights", "cmp/feature_extraction-seed0", "--phases", "scratch"]
    begun = Configuration(args, folder=None)
    Path("again.yaml").write_text(begun.resolved)
    resumed = Configuration(["--config", "again.yaml"], folder=None)
    assert begun.datamodule.prepared == resumed.datamodule.prepared
    assert begun.datamodule.prepared["size"] == 32
