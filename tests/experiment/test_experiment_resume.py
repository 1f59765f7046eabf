"""``tl resume``: a run that stopped goes on to what it would have ended with, to the last bit."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny import write_images

from tl_lightning.cli import main
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.feature_cache import activation_store as activations

PHASES = "[{train: head, epochs: 2}, {train: 'last:2', lr_scale: 0.5, bn: train}]"
OPTIONS = [
    *("--model.backbone", "timm/test_efficientnet", "--model.weights", "none", "--model.head_dropout", "0.2"),
    *("--data.image_size", "32", "--data.batch_size", "4", "--phases", PHASES),
    *("--trainer.max_epochs", "5", "--trainer.log_every_n_steps", "1", "--trainer.precision", "32-true"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]


class Interrupt(Callback):
    """Presses Ctrl-C once, at a place that a test names."""

    place: tuple[str, int] | None = None

    def _pass(self, hook, trainer):
        if Interrupt.place == (hook, trainer.current_epoch):
            Interrupt.place = None
            raise KeyboardInterrupt

    def on_fit_start(self, trainer, pl_module):
        self._pass("fit_start", trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            self._pass("train_batch_end", trainer)

    def on_validation_end(self, trainer, pl_module):
        self._pass("validation_end", trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self._pass("train_epoch_end", trainer)

    def on_test_start(self, trainer, pl_module):
        self._pass("test_start", trainer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with images, and in it the run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_CACHE_DIR", str(folder / "cache"))
        patch.chdir(folder)
        write_images(folder / "images", count=12, size=(48, 40))
        assert main(["fit", "--data.source", str(folder / "images"), *OPTIONS, "--run_dir", "run"]) == 0
    return folder


@pytest.fixture
def interrupted(whole, tmp_path, monkeypatch, capsys):
    """Runs until Ctrl-C at a place; gives the run's folder."""
    monkeypatch.chdir(tmp_path)

    def run(hook, epoch, source=whole / "images"):
        monkeypatch.setattr(Interrupt, "place", (hook, epoch))
        callback = f"--trainer.callbacks+={__name__}.Interrupt"
        assert main(["fit", "--data.source", str(source), *OPTIONS, callback, "--run_dir", "run"]) == 130
        assert Interrupt.place is None
        assert summary("run")["status"] == "interrupted"
        assert "tl resume --run_dir run goes on" in capsys.readouterr().out
        return Path("run")

    return run


def summary(run):
    return json.loads(Path(run, "summary.json").read_text())


def contents(run):
    return {path.relative_to(run): path.read_bytes() for path in Path(run).rglob("*") if path.is_file()}


def refused(capsys, *args):
    """The one line with which ``tl resume`` refuses."""
    capsys.readouterr()
    assert main(["resume", *map(str, args)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def assert_the_same(run, reference):
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(f / "checkpoints" / name, weights_only=True) for f in (run, reference))
        assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"])
        assert one["state_dict"].keys() == other["state_dict"].keys()
        assert all(torch.equal(tensor, other["state_dict"][key]) for key, tensor in one["state_dict"].items())
    assert (run / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()
    one, other = summary(run), summary(reference)
    for key in ("status", "monitor", "validation", "test", "phases", "confusion"):
        assert one[key] == other[key], key
    assert one["status"] == "completed"


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        ("train_batch_end", 1),  # the first phase
        ("fit_start", 2),  # between the phases
        ("train_batch_end", 2),  # the second phase's first epoch
        ("train_batch_end", 3),
        ("validation_end", 4),  # the last epoch
        ("test_start", 5),  # all trained
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(whole, interrupted, hook, epoch):
    run = interrupted(hook, epoch)
    before = summary(run)["timing"]["fit_s"]
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")
    if hook == "test_start":
        assert summary(run)["timing"]["fit_s"] > 0.5 * before  # nearly all of the training came before


def test_a_run_goes_on_where_its_folder_was_moved_to(whole, interrupted, tmp_path):
    moved = tmp_path / "archive" / "moved"
    moved.parent.mkdir()
    shutil.move(interrupted("train_batch_end", 3), moved)
    assert main(["resume", "--run_dir", str(moved)]) == 0
    assert_the_same(moved, whole / "run")
    assert not Path("run").exists()


def test_a_run_whose_last_checkpoint_was_cut_off_goes_on_from_the_one_before(whole, interrupted, capsys):
    run = interrupted("train_batch_end", 4)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    (run / "checkpoints" / ".last.ckpt.123.tmp").write_bytes(b"of a write that was cut off")
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert "going on from previous.ckpt" in capsys.readouterr().out
    assert_the_same(run, whole / "run")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_a_last_checkpoint_that_is_cut_off_twice_never_takes_the_place_of_the_one_before(
    whole, interrupted, monkeypatch
):
    run = interrupted("train_batch_end", 3)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    monkeypatch.setattr(Interrupt, "place", ("train_batch_end", 3))  # after one save: the epoch that was lost
    assert main(["resume", "--run_dir", str(run)]) == 130
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_from_the_beginning(whole, interrupted):
    run = interrupted("fit_start", 0)
    assert not (run / "checkpoints").exists()
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")


def test_a_run_whose_checkpoints_were_lost_starts_from_the_beginning(whole, interrupted):
    run = interrupted("train_batch_end", 3)
    shutil.rmtree(run / "checkpoints")
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")


def test_a_run_of_an_earlier_version_goes_on_in_a_cached_phase(whole, interrupted):
    run = interrupted("train_batch_end", 1)  # within the head's phase
    for path in (run / "checkpoints").glob("last*.ckpt"):
        content = torch.load(path, weights_only=True)
        phases = [
            {("kept" if name == "cached" else name): value for name, value in phase.items()}
            for phase in content["run"]["phases"]
        ]
        torch.save({**content, "run": {**content["run"], "phases": phases}}, path)
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")
    assert summary(run)["phases"][0]["cached"] is not None


def test_a_run_goes_on_twice(whole, interrupted, monkeypatch):
    run = interrupted("train_batch_end", 1)
    monkeypatch.setattr(Interrupt, "place", ("train_batch_end", 3))
    assert main(["resume", "--run_dir", str(run)]) == 130
    assert summary(run)["status"] == "interrupted"
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert_the_same(run, whole / "run")


def test_changed_images_are_refused_and_the_run_is_left_as_it_is(whole, interrupted, tmp_path, capsys):
    shutil.copytree(whole / "images", tmp_path / "images")
    run = interrupted("train_batch_end", 3, source=tmp_path / "images")
    shutil.copy(tmp_path / "images/cat/0.png", tmp_path / "images/cat/new.png")
    before = contents(run)
    line = refused(capsys, "--run_dir", run)
    assert line == f"tl resume: the images of {tmp_path / 'images'} are not those that the run began with"
    assert contents(run) == before

    (tmp_path / "images/cat/new.png").unlink()
    assert main(["resume", "--run_dir", str(run)]) == 0
    assert summary(run)["test"] == summary(whole / "run")["test"]


def test_a_run_whose_data_have_moved_goes_on_where_they_are_now_if_they_are_the_same(
    whole, interrupted, tmp_path, capsys
):
    shutil.copytree(whole / "images", tmp_path / "images")
    run = interrupted("train_batch_end", 3, source=tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "moved")
    assert refused(capsys, "--run_dir", run).endswith("tl resume --run_dir run --data.source PLACE")

    other = tmp_path / "moved/cat/0.png"
    content = other.read_bytes()
    other.write_bytes((tmp_path / "moved/dog/1.png").read_bytes())  # of the same name
    before = contents(run)
    line = refused(capsys, "--run_dir", run, "--data.source", tmp_path / "moved")
    assert f"tl resume: 1 of the 24 images of {tmp_path / 'moved'} changed since the run began: " in line
    assert line.endswith("/cat/0.png")
    assert contents(run) == before

    other.write_bytes(content)
    assert main(["resume", "--run_dir", str(run), "--data.source", str(tmp_path / "moved")]) == 0
    assert summary(run)["test"] == summary(whole / "run")["test"]
    assert summary(run)["data"]["source"] == str(tmp_path / "moved")


def test_changed_answers_are_refused(interrupted, monkeypatch, capsys):
    run = interrupted("train_batch_end", 3)
    monkeypatch.setattr(ImageDataModule, "targets_digest", property(lambda _: "others"))
    assert "the targets of " in (line := refused(capsys, "--run_dir", run))
    assert line.endswith(" are not those that the run began with")


def test_checkpoints_of_which_none_can_be_read_are_refused_and_left_as_they_are(interrupted, capsys):
    run = interrupted("train_batch_end", 3)
    for name in ("last.ckpt", "previous.ckpt"):
        (run / "checkpoints" / name).write_bytes(b"")
    before = contents(run)
    assert "nothing is left to go on from" in refused(capsys, "--run_dir", run)
    assert contents(run) == before


def test_a_complete_run_is_refused_and_left_as_it_is(whole, capsys):
    before = contents(whole / "run")
    line = refused(capsys, "--run_dir", whole / "run")
    assert line.startswith(f"tl resume: {whole / 'run'} is complete; there is nothing to resume")
    assert contents(whole / "run") == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model.lr", "0.1"], "--model.lr"),
        (["--model.lr=0.1"], "--model.lr"),
        (["--trainer.devices=1", "--model.lr=0.1"], "--model.lr"),
        (["--trainer.callbacks+=a.B", "--phases", "full"], "--phases"),
        (["--trainer.devices", "1", "--data.seed=3"], "--data.seed"),
        (["--config", "other.yaml"], "--config"),
        (["--trainer.devices=1", "-c", "other.yaml"], "-c"),
        (["--trainer", "other.yaml"], "--trainer"),
    ],
)
def test_options_that_would_make_it_another_run_are_refused(whole, capsys, tmp_path, monkeypatch, options, named):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("{}")
    shutil.copytree(whole / "run", "run")
    Path("run/summary.json").unlink()
    before = contents("run")
    line = refused(capsys, "--run_dir", "run", *options)
    assert line.startswith(f"tl resume: {named}: only --trainer.* options may change, such as --trainer.devices")
    assert contents("run") == before


def test_options_of_the_trainer_may_change(whole, interrupted):
    run = interrupted("train_batch_end", 3)
    options = ["--trainer.num_sanity_val_steps=0", "--trainer.log_every_n_steps", "100"]
    assert main(["resume", "--run_dir", str(run), *options]) == 0
    assert summary(run)["test"] == summary(whole / "run")["test"]
    with (run / "metrics.csv").open() as file:
        logged = [int(row["step"]) for row in csv.DictReader(file) if row["lr/head"]]
    assert logged == list(range(9))  # those of the three epochs before


def test_the_length_of_a_run_cannot_change(whole, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole / "run", "run")
    Path("run/summary.json").unlink()
    before = contents("run")
    line = refused(capsys, "--run_dir", "run", "--trainer.max_epochs=8")
    assert line == "tl resume: --trainer.max_epochs: the phases' lengths follow from it, so it cannot change in a run"
    line = refused(capsys, "--run_dir", "run", "--trainer.accumulate_grad_batches=2")
    assert line == "tl resume: --trainer.accumulate_grad_batches: a step's images follow from it, so it cannot change"
    assert contents("run") == before


def test_a_validation_within_an_epoch_is_not_lost(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interrupt, "place", None)
    options = ["--trainer.val_check_interval", "2", "--save_every", "1", f"--trainer.callbacks+={__name__}.Interrupt"]
    fit = ["fit", "--data.source", str(whole / "images"), *OPTIONS, *options]
    assert main([*fit, "--run_dir", "whole"]) == 0
    monkeypatch.setattr(Interrupt, "place", ("validation_end", 3))  # after the second of three batches
    assert main([*fit, "--run_dir", "run"]) == 130
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3 * 3 + 1  # saved after the epoch's first batch
    assert main(["resume", "--run_dir", "run"]) == 0
    assert_the_same(Path("run"), Path("whole"))


def test_a_plateau_sees_a_validation_that_came_before_the_interruption(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interrupt, "place", None)
    plateau = "[{train: all, schedule: {class_path: ReduceLROnPlateau, init_args: {patience: 0, threshold: 9}}}]"
    options = ["--phases", plateau, "--trainer.max_epochs", "3", "--trainer.val_check_interval", "4"]
    options += ["--data.batch_size", "2", "--save_every", "1", f"--trainer.callbacks+={__name__}.Interrupt"]
    fit = ["fit", "--data.source", str(whole / "images"), *OPTIONS, *options]
    assert main([*fit, "--run_dir", "whole"]) == 0
    monkeypatch.setattr(Interrupt, "place", ("train_epoch_end", 0))  # after 7 batches, the last saved is the sixth
    assert main([*fit, "--run_dir", "run"]) == 130
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert main(["resume", "--run_dir", "run"]) == 0
    assert_the_same(Path("run"), Path("whole"))


KEPT = {
    "images": "[{train: head, epochs: 2}, {train: all, lr_scale: 0.5, bn: train}]",
    "activations": "[{train: head, epochs: 2}, {train: 'last:2', lr_scale: 0.5, bn: train, augmentation: flips}]",
}


@pytest.fixture(scope="module", params=KEPT)
def solved(request, whole):
    """A run with a solved head, and then images or kept activations; with the options that made it."""
    phases = ["--model.head_dropout", "0", "--phases", KEPT[request.param]]
    fit = ["fit", "--data.source", str(whole / "images"), *OPTIONS, *phases]
    run = whole / f"solved, then {request.param}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_CACHE_DIR", str(whole / "cache"))
        assert main([*fit, "--run_dir", str(run)]) == 0
    return run, fit


def without_times(run):
    """Drops from a summary how long the head took to solve."""
    content = summary(run)
    for phase in content["phases"]:
        phase.get("head", {}).pop("seconds", None)
    Path(run, "summary.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("hook", "epoch", "options"),
    [
        ("train_batch_end", 0, []),  # in the solved phase, before its checkpoint
        ("train_batch_end", 0, ["--save_every", "1"]),  # in the solved phase, after a checkpoint of its first step
        ("train_epoch_end", 0, []),
        ("fit_start", 1, []),  # between the phases
        ("train_batch_end", 2, []),  # the second phase
        ("test_start", 4, []),
    ],
)
def test_a_run_with_a_solved_head_ends_as_if_it_had_not_been_interrupted(
    solved, tmp_path, monkeypatch, hook, epoch, options
):
    reference, fit = solved
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interrupt, "place", (hook, epoch))
    assert main([*fit, *options, f"--trainer.callbacks+={__name__}.Interrupt", "--run_dir", "run"]) == 130
    assert main(["resume", "--run_dir", "run"]) == 0
    without_times("run")
    without_times(reference)
    assert_the_same(Path("run"), reference)


@pytest.mark.parametrize("solved", ["images"], indirect=True)  # whose second phase keeps nothing either
def test_a_solved_phase_that_was_over_needs_nothing_that_was_kept(solved, tmp_path, monkeypatch, capsys):
    def full(needed):
        raise NoRoom("the cache is full")

    reference, fit = solved
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interrupt, "place", ("fit_start", 1))
    assert main([*fit, f"--trainer.callbacks+={__name__}.Interrupt", "--run_dir", "run"]) == 130
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(activations, "make_room", full)
    capsys.readouterr()
    assert main(["resume", "--run_dir", "run"]) == 0
    assert "cached " not in capsys.readouterr().out
    without_times("run")
    without_times(reference)
    assert_the_same(Path("run"), reference)


def test_a_phase_that_found_no_room_goes_on_as_it_began(whole, tmp_path, monkeypatch, capsys):
    def full(needed):
        raise NoRoom("the cache is full")

    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--data.source", str(whole / "images"), *OPTIONS, "--model.head_dropout", "0"]
    fit += ["--phases", "[{train: head}]", "--trainer.max_epochs", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(activations, "make_room", full)
        assert main([*fit, "--run_dir", "whole"]) == 0
        patch.setattr(Interrupt, "place", ("train_batch_end", 1))
        assert main([*fit, f"--trainer.callbacks+={__name__}.Interrupt", "--run_dir", "run"]) == 130
        shutil.copytree("run", "roomy")
        assert main(["resume", "--run_dir", "run"]) == 0
    assert_the_same(Path("run"), Path("whole"))
    capsys.readouterr()
    assert main(["resume", "--run_dir", "roomy"]) == 0  # there is room now, but the head goes on being trained
    assert "solved" not in capsys.readouterr().out
    one, other = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("roomy", "whole"))
    assert one["global_step"] == other["global_step"]
    torch.testing.assert_close(one["state_dict"]["heads.target.1.weight"], other["state_dict"]["heads.target.1.weight"])


def test_a_run_that_stopped_while_an_average_took_the_place_of_the_best_goes_on(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole / "run", "run")
    Path("run/summary.json").unlink()
    Path("run/checkpoints/best.ckpt").rename("run/checkpoints/trained.ckpt")
    assert main(["resume", "--run_dir", "run"]) == 0
    assert_the_same(Path("run"), whole / "run")
    assert not Path("run/checkpoints/trained.ckpt").exists()


@pytest.mark.parametrize(
    ("folder", "said"), [("none", "there is no run folder none"), (".", "it holds no config.yaml")]
)
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys, folder, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "--run_dir", folder)
