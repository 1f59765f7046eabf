import importlib.util
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import SMALL, write_images

from tl_lightning.cli import main
from tl_lightning.core.quiet import quiet
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.finetuning.batch_norm import estimate_statistics
from tl_lightning.inspecting.learning_rates.range_test import Curve, range_test, suggestion
from tl_lightning.inspecting.learning_rates.shown import draw
from tl_lightning.inspecting.learning_rates.steps import LrStep, batches

TINY = ["--model.backbone", "timm/test_efficientnet", "--model.weights", "none", "--trainer.accelerator", "cpu"]
OPTIONS = ["--data.source", "images", *TINY, *SMALL]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    return tmp_path


def recorded(losses, *, lowest=1e-4, highest=1e2):
    """The curve of a test whose steps have these losses."""
    remaining = iter(losses)
    return range_test(lambda factor: next(remaining), steps=len(losses), lowest=lowest, highest=highest)


def without_noise(smoothed):
    """A curve of as many steps as are given, over six decades."""
    factors = tuple(1e-4 * 10 ** (6 * step / (len(smoothed) - 1)) for step in range(len(smoothed)))
    return Curve(factors, tuple(smoothed), tuple(smoothed), len(smoothed) // 10, "complete")


def between(points):
    """Straight lines through (step, value) points."""
    steps = range(points[-1][0] + 1)
    (left, *others), values = points, []
    for right in others:
        share = [(step - left[0]) / (right[0] - left[0]) for step in steps if left[0] <= step < right[0]]
        values += [left[1] + part * (right[1] - left[1]) for part in share]
        left = right
    return [*values, left[1]]


def test_the_factor_rises_geometrically_from_the_lowest_to_the_highest():
    factors = []
    range_test(lambda factor: factors.append(factor) or 1.0, steps=25, lowest=1e-3, highest=1e3)
    assert factors == pytest.approx([10 ** (-3 + step / 4) for step in range(25)])


def test_the_mean_is_corrected_for_its_beginning_and_looks_back_over_a_tenth_of_the_test():
    curve = recorded([4.0, 2.0, 1.0] + [1.0] * 17)
    assert curve.window == 2  # the mean keeps half of itself
    assert curve.smoothed[:3] == pytest.approx((4, 8 / 3, 12 / 7))
    assert recorded([1.0] * 100).window == 10


def test_the_test_stops_at_the_step_whose_smoothed_loss_exceeds_four_times_the_best():
    curve = recorded([1.0] * 60 + [32.0] * 40)  # the mean is 0.9 * 1 + 0.1 * 32 = 4.1 at once
    assert curve.end == "diverged"
    assert len(curve.losses) == 61
    assert len(recorded([1.0] * 60 + [30.0] * 40).losses) == 62  # 3.9 at first
    assert recorded([1.0] * 60 + [10.0] * 2 + [1.0] * 38).end == "complete"  # 2.7 times, at most
    assert recorded([1e-3] + [1.0] * 99).smoothed[1] > 0.5  # one lucky batch at first is no best to measure by
    assert len(recorded([1e-3] + [1.0] * 99).losses) > 10


def test_the_test_stops_at_a_loss_that_is_no_finite_number_and_keeps_what_came_before():
    falling = between([(0, 1.0), (40, 1.0), (70, 0.2), (80, 0.2)])
    curve = recorded([*falling, math.nan] + [1.0] * 18)
    assert curve.end == "not_finite"
    assert curve.losses == tuple(falling)
    assert suggestion(curve) is not None
    empty = recorded([math.inf] * 100)
    assert (empty.losses, empty.end, suggestion(empty)) == ((), "not_finite", None)


def between_fall_and_minimum(curve, start):
    return pytest.approx((curve.factors[start] * curve.factors[curve.best]) ** 0.5)


def test_the_suggestion_is_half_way_from_where_the_steepest_window_begins_to_the_minimum():
    gentle = between([(0, 1.0), (30, 1.0), (45, 0.9), (55, 0.5), (90, 0.4), (99, 1.0)])
    curve = without_noise(gentle)
    assert curve.best == 90
    assert suggestion(curve) == between_fall_and_minimum(curve, 45)


def test_an_unlucky_first_batch_is_no_fall():
    curve = recorded([3.0, *between([(1, 1.0), (50, 1.0), (70, 0.2), (99, 0.2)])])
    assert suggestion(curve) == between_fall_and_minimum(curve, 61)  # as the mean trails, in the middle of the fall


@pytest.mark.parametrize(
    "losses",
    [
        [1.0] * 100,
        between([(0, 1.0), (99, 2.0)]),
        [1.0 + 0.1 * (-1) ** step for step in range(100)],
        [1.0 - 0.0005 * step + 0.1 * (-1) ** step for step in range(100)],  # falls by half of what the batches differ
    ],
    ids=["flat", "rising", "noise", "a fall below the noise"],
)
def test_a_curve_that_never_falls_clearly_gives_no_suggestion(losses):
    assert suggestion(recorded(losses)) is None


def test_a_clear_fall_under_noise_gives_one():
    assert suggestion(recorded([1.0 - 0.005 * step + 0.1 * (-1) ** step for step in range(100)])) is not None


@pytest.mark.parametrize("curvature", [0.3, 1.0, 7.0])
def test_the_suggestion_for_a_quadratic_is_below_its_stability_limit_and_near_its_best_rate(curvature):
    # Gradient descent on c x^2 / 2 multiplies x by 1 - rate * c: best at 1 / c, and divergent from 2 / c on.
    x = 1.0

    def step(rate):
        nonlocal x
        loss = curvature * x**2 / 2
        x -= rate * curvature * x
        return loss

    curve = range_test(step, steps=50, lowest=1e-4, highest=1e2)
    assert curve.end == "diverged"
    assert 0.5 / curvature < suggestion(curve) < 1.5 / curvature


def test_the_chart_is_of_the_size_of_all_and_replaces_the_last_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"the last one")
    curve = without_noise(between([(0, 1.0), (50, 0.5), (99, 3.0)]))
    draw(curve, path, phase_lr=1e-3, suggested=0.1, title="a title")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (900, 540))
    first = path.read_bytes()

    def breaks(figure, target, **_options):
        Path(target).write_bytes(b"half a pic")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", breaks)
    with pytest.raises(OSError, match="disk full"):
        draw(curve, path, phase_lr=1e-3, suggested=None, title="a title")
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def built(*options, position=0):
    """A configuration and the step that trains one of its phases."""
    quiet()
    configuration = Configuration([*OPTIONS, *options], folder=None)
    task, data = configuration.model, configuration.datamodule
    data.prepare_data()
    data.setup("fit")
    return configuration, LrStep(task, data, configuration.trainer, phase=configuration.phases[position])


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def differ(module, before):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_step_multiplies_every_groups_rate_of_the_phase_by_the_factor(here):
    phases = "[{train: head, epochs: 1}, {train: all, lr_scale: 0.25}]"
    configuration, step = built("--phases", phases, "--trainer.max_epochs", "2", "--model.lr", "0.01", position=1)
    step(0.5)
    rates = {group["name"]: group["lr"] for group in step.optimizer.param_groups}
    expected = {name: rate * 0.25 * 0.5 for name, rate in configuration.model.learning_rates.items()}
    assert {name: rate for name, rate in rates.items() if "/" not in name} == pytest.approx(expected)
    assert rates["head"] == pytest.approx(0.01 * 0.125)
    assert all(parameter.grad is None for parameter in configuration.model.parameters())  # none is left for the next


@pytest.mark.parametrize("phases", ["feature_extraction", "gradual"])  # gradual begins with the head alone
def test_what_the_phase_freezes_stays_and_no_metric_is_touched(here, phases):
    configuration, step = built("--phases", phases)
    task = configuration.model
    before = state(task)
    for _ in range(6):  # more than an epoch
        step(1.0)
    assert differ(task, before) == {"heads.target.1.weight", "heads.target.1.bias"}
    assert not task.evaluations["val"].kept["target"].update_called


def test_the_loss_of_a_step_is_that_of_the_first_batches_before_it(here):
    configuration, _ = built("--trainer.accumulate_grad_batches", "2")
    source = batches(configuration.datamodule, configuration.trainer)
    with torch.no_grad(), configuration.trainer.precision_plugin.forward_context():
        losses = [configuration.model.training_step(next(source), number).item() for number in range(2)]
    _, step = built("--trainer.accumulate_grad_batches", "2")
    assert step(1.0) == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert step.number == 2


def test_gradients_are_clipped_as_configured(here):
    moved = {}
    for clip in ("1.0", "1e-11"):  # far below AdamW's epsilon of 1e-8 nothing moves
        configuration, step = built("--trainer.gradient_clip_val", clip, "--model.weight_decay", "0")
        weight = configuration.model.head[-1].weight
        before = weight.detach().clone()
        step(1.0)
        moved[clip] = (weight - before).abs().max().item()
    assert moved["1.0"] == pytest.approx(configuration.model.learning_rates["head"], rel=1e-2)
    assert moved["1e-11"] < moved["1.0"] / 100


def test_batch_norm_that_adapts_does_so_before_the_first_step_and_then_stays(here):
    adapted, step = built("--phases", "[{train: all, bn: adapt}]")
    frozen, _ = built("--phases", "[{train: all, bn: frozen}]")
    assert "backbone.bn1.running_mean" in differ(adapted.model, state(frozen.model))
    before = adapted.model.backbone.bn1.running_mean.clone()
    step(1.0)
    assert torch.equal(adapted.model.backbone.bn1.running_mean, before)


def test_batch_norm_adapts_to_images_in_the_order_in_which_a_run_does(here):
    adapted, _ = built("--phases", "[{train: all, bn: adapt}]")
    frozen, _ = built("--phases", "[{train: all, bn: frozen}]")
    data, backbone = frozen.datamodule, frozen.model.backbone
    with frozen.trainer.precision_plugin.forward_context():
        loader = data.plain_loader("train", shuffle=True)
        estimate_statistics(backbone, ([data.normalized(batch)["image"]] for batch in loader))
    assert torch.equal(adapted.model.backbone.bn1.running_var, backbone.bn1.running_var)


def test_a_step_is_of_a_whole_batch_also_where_it_is_computed_in_parts(here, monkeypatch):
    steps = []

    class Noted(LrStep):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            steps.append(self)

    monkeypatch.setattr("tl_lightning.inspecting.learning_rates.command.LrStep", Noted)
    options = ["--data.micro_batch_size", "2", "--steps", "20", "--output", "none"]
    assert main(["lr_find", *OPTIONS, *options]) == 0
    assert steps[0].number == 20 * 4  # batches of 8


def test_batches_go_on_after_an_epoch_in_another_order(here):
    configuration, step = built()
    length = len(configuration.datamodule.train_dataloader())
    epochs = [torch.cat([next(step.batches)["index"] for _ in range(length)]) for _ in range(2)]
    assert length > 1
    assert not torch.equal(*epochs)


def test_batches_are_mixed_as_configured_each_in_a_way_of_its_own(here):
    configuration, _ = built("--data.mixup", "1.0")
    source = batches(configuration.datamodule, configuration.trainer)
    first, second = next(source)["target"], next(source)["target"]
    assert first.sum(1) == pytest.approx(torch.ones(8))
    assert not torch.equal(first.max(1).values.min(), second.max(1).values.min())


def test_the_command_shows_the_rates_and_writes_nothing_but_the_image(here, capsys):
    options = [*OPTIONS, "--phases", "scratch", "--model.lr", "0.01", "--steps", "40"]
    before = set(here.iterdir())
    assert main(["lr_find", *options]) == 0
    shown = capsys.readouterr().out
    assert set(here.iterdir()) - before == {here / "lr_find.png"}
    stages = ["conv_stem", *(f"blocks.{number}" for number in range(5)), "head"]
    table = {cells[1].strip(): cells[2:4] for line in shown.splitlines() if len(cells := line.split("│")) > 3}
    assert list(table) == stages
    assert {configured.strip() for configured, _ in table.values()} == {"1.00e-02"}
    value = float(shown.split("--model.lr ")[1].split()[0])
    assert float(table["head"][1]) == pytest.approx(value, rel=0.05)  # the line is rounded to two digits
    assert 1e-6 < value < 1

    image = Path("lr_find.png").read_bytes()
    assert main(["lr_find", *options, "--output", "again.png"]) == 0
    assert capsys.readouterr().out.replace("again.png", "lr_find.png") == shown
    assert Path("again.png").read_bytes() == image
    assert main(["lr_find", *options, "--seed_everything", "1", "--output", "other.png"]) == 0
    assert Path("other.png").read_bytes() != image


def test_a_loss_that_never_falls_is_said_and_nothing_is_suggested(here, capsys):
    options = ["--steps", "20", "--lowest", "1e-9", "--highest", "1e-8", "--output", "none"]
    assert main(["lr_find", *OPTIONS, *options]) == 0
    shown = capsys.readouterr().out
    assert "no suggestion: the loss never fell clearly" in shown
    assert "--model.lr" not in shown
    assert {path.name for path in here.iterdir()} == {"images"}


def fails(capsys, *args):
    """Runs the command on what a user got wrong; gives its one line."""
    assert main(["lr_find", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--steps", "1"], "--steps is 1; it must be 20 or more"),
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--lowest", "0"], "--lowest 0 --highest 100: give factors above 0 that rise"),
        (["--highest", "1e-4"], "--lowest 0.0001 --highest 0.0001: give factors above 0 that rise"),
        (["--output", "nowhere/x.png"], "--output nowhere/x.png: there is no folder nowhere"),
        (["--run_dir", "runs/x"], "--run_dir has no effect here"),
        (["--trainer.devices", "2"], "tl lr_find runs in one process, and trainer.devices asks for 2"),
        (["--phase", "9"], "--phase is 9, but the phases are 1 (all); name one of them by its number"),
        (["--phase", "0"], "--phase is 0, but the phases are 1 (all)"),
        (["--model.lrr", "1"], "unknown key 'model.lrr'; did you mean model.lr"),
        (["--step", "30"], "unrecognized arguments: --step; did you mean --steps"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_no_trace(here, capsys, args, words):
    assert words in fails(capsys, *OPTIONS, *args)
    assert {path.name for path in here.iterdir()} == {"images"}


def test_without_matplotlib_one_line_says_so_before_anything_is_built(here, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    monkeypatch.setattr("tl_lightning.inspecting.learning_rates.command.assemble", None)
    error = fails(capsys, *OPTIONS)
    assert "pip install 'tl_lightning[plots]', or --output none" in error


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["lr_find", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: tl lr_find" in shown
    for option in ("--phase", "--steps", "--lowest", "--highest", "--output"):
        assert option in shown
